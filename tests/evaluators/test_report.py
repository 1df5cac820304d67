"""The end of an evaluation: intervals, differences, cases to show, a digest."""

import json
import types

import numpy as np
import pytest

from seggpt_jax import evaluate
from seggpt_jax.evaluators import report
from seggpt_jax.runs.writer import Writer
from tests import tiny
from tests.test_evaluate import Fixed


class Means(Fixed):
    """Scores that are means of given values of cases; it counts the cases it did."""

    def __init__(self, path="", **given):
        super().__init__(**given)
        self.path, self.done = path, 0
        self.count = len(next(iter(given.values())))

    @property
    def files(self):
        return {"prompt": self.path} if self.path else {}

    def collect(self, params, numbers, cases):
        super().collect(params, numbers, cases)
        self.done += len(numbers)

    def scores(self, weights):
        total = weights.sum(1)
        return {name: weights @ values / total for name, values in self.given.items()}


def score(folder, about=None, settings=None, **evaluators):
    """`evaluate.score_group` of a group "g"."""
    config = tiny.config()
    config.evals.g = {"about": "words", "images": 3} | (settings or {})
    about = {"step": 5, "weights_sha256": "a"} | (about or {})
    with Writer(folder) as writer:
        return evaluate.score_group(
            evaluate.Group("g", evaluators), None, writer, folder, config, about
        )


def test_intervals_are_of_paired_resamples(tmp_path):
    """One draw of cases serves all scores of a source; every source has its own draws,
    and the group's mean is made draw by draw."""
    rng = np.random.default_rng(0)
    values = {"x": rng.random((2, 6)), "y": rng.random((2, 9))}
    _, intervals = score(tmp_path, **{
        key: Means(**{f"g/{key}/miou": right, f"g/{key}/wrong/miou": wrong})
        for key, (right, wrong) in values.items()
    })  # fmt: skip
    replicates = {}
    for seed, (key, both) in enumerate(values.items()):
        count = both.shape[1]
        drawn = np.random.default_rng(seed).multinomial(
            count, [1 / count] * count, 1000
        )
        replicates[key] = both @ drawn.T / count
    values["mean"] = np.stack([both.mean(1) for both in values.values()]).mean(0)
    replicates["mean"] = (replicates["x"] + replicates["y"]) / 2
    result = json.loads((tmp_path / "results/g.json").read_text())
    for key, (right, wrong) in replicates.items():
        gap = np.subtract(*values[key]).mean()
        for part, name, value, own in [
            ("scores", f"g/{key}/miou", np.mean(values[key][0]), right),
            ("scores", f"g/{key}/wrong/miou", np.mean(values[key][1]), wrong),
            ("differences", f"g/{key}/miou - wrong", gap, right - wrong),
        ]:
            low, high = np.quantile(own, [0.025, 0.975])
            entry = {"value": value, "low": low, "high": high}
            assert result[part][name] == pytest.approx(entry)
            if part == "scores":
                assert intervals[name] == pytest.approx((low, high))
    assert len(result["scores"]) == 6 and len(result["differences"]) == 3
    assert result["about"] == "words" and result["settings"] == {"images": 3}


def test_only_cases_of_the_same_are_taken_for_done(tmp_path):
    """Other weights, settings, prompts or data: everything is done again."""
    prompt = tmp_path / "tuned.safetensors"
    prompt.write_text("first")

    def done(data="as it was", **given):
        one = Means(str(prompt), miou=[0.25, 0.5])
        one.source = types.SimpleNamespace(digest=data)
        score(tmp_path, one=one, **given)
        return one.done

    assert done() == 2 and done() == 0
    assert done(about={"weights_sha256": "b"}) == 2
    assert done(about={"weights_sha256": "b"}, settings={"images": 4}) == 2
    prompt.write_text("second")
    assert done(about={"weights_sha256": "b"}, settings={"images": 4}) == 2
    assert done(about={"weights_sha256": "b"}, settings={"images": 4}) == 0
    same = {"about": {"weights_sha256": "b"}, "settings": {"images": 4}}
    assert done("corrected", **same) == 2 and done("corrected", **same) == 0


def test_cases_to_show_are_the_best_the_median_and_the_worst():
    ranked = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    best, median = [("best", n) for n in (9, 8, 7, 6)], [("median", n) for n in (5, 4)]
    worst = [("worst", 1), ("worst", 0)]
    assert report.extremes(ranked, 8) == best + median + worst
    assert report.extremes([3, 1], 8) == [("best", 3), ("best", 1)]  # each once
    assert report.extremes([], 8) == []
