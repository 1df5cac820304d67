"""Scores of a config's evaluators, of checkpoints and of releases."""

import functools
import importlib
import json
import operator
import re
import types

import jax
import numpy as np
import pytest

from seggpt_jax import evaluate
from seggpt_jax.config import plain
from seggpt_jax.evaluators import report
from seggpt_jax.evaluators.common import Evaluator, stack
from seggpt_jax.evaluators.episodes import Episodes
from seggpt_jax.pictures.sheets import Row
from seggpt_jax.predict import Engine
from seggpt_jax.runs import log, sharding
from seggpt_jax.runs.workdir import check_workdir
from seggpt_jax.runs.writer import Writer
from seggpt_jax.train import Loop, Whole, train
from seggpt_jax.training.settings import read_settings
from seggpt_jax.weights import build, checkpoint, pretrained, release
from tests import tiny
from tests.support import blocks
from tests.support.models import random_params
from tests.training.test_settings import leaves


class Fixed(Evaluator):
    """An evaluator whose scores are given."""

    headings = ("query",)

    def __init__(self, **given):
        self.given, self.count = given, 2

    def collect(self, params, numbers, cases):
        for number in numbers:
            cases.add(number, {})

    def scores(self, weights):
        return {name: np.array([value]) for name, value in self.given.items()}

    def ranked(self):
        return [0, 1]

    def rows(self, params, numbers):
        return [Row((np.zeros((4, 4, 3), np.uint8),), "") for _ in numbers]


def group(name, **sources):
    return evaluate.Group(
        name,
        {
            source: Fixed(**{f"{name}/{source}/{k}": v for k, v in scores.items()})
            for source, scores in sources.items()
        },
    )


def test_means_are_over_a_groups_sources(tmp_path, monkeypatch, capsys):
    groups = [
        group("a", x={"miou": 0.2, "biou": np.nan}, y={"miou": 0.4, "biou": 0.5}),
        group("b", z={"miou": 1.0}),
    ]
    monkeypatch.setattr(log, "bars", lambda: True)
    with Writer(tmp_path) as writer:
        scores = evaluate.run_groups(groups, None, 7, writer)
    shown = capsys.readouterr().err
    assert all(f"{name}:" in shown for name in ("a-x", "a-y", "b-z"))
    means = {name: value for name, value in scores.items() if "/mean/" in name}
    assert means == pytest.approx({"a/mean/miou": 0.3, "a/mean/biou": 0.5})
    assert (tmp_path / "pictures/0000007/a-x.png").exists()
    assert evaluate.stored_scores(tmp_path, 7, groups) == pytest.approx(
        scores, nan_ok=True
    )
    assert evaluate.stored_scores(tmp_path, 6, groups) is None
    more = [*groups, group("c", z={"miou": 1.0})]
    assert evaluate.stored_scores(tmp_path, 7, more) is None


def test_summary_holds_prompted_against_the_other_arms():
    scores = {"h/s/1shot/miou": 0.5, "h/s/1shot/fbiou": 0.9}
    for arm, value in {"wrong": 0.1, "copy": 0.25, "color": 0.125}.items():
        scores |= {f"h/s/1shot/{arm}/{key}": value for key in ("miou", "fbiou")}
    lines = report.summary(scores | {"pairs/episode_miou": 0.75}).splitlines()
    assert lines[0].split() == ["mIoU", "prompted", "wrong", "copy", "color"]
    assert lines[1].split() == ["h/s/1shot", "50.0", "10.0", "25.0", "12.5"]
    assert lines[2:] == ["pairs/episode_miou  0.7500"]
    assert report.summary({}) == ""
    # Scores of instances have no mIoU, and an arm may have no score.
    other = {"i/x/ap": 0.5, "i/x/copy/ap": 0.25, "i/x/color/ap": float("nan")}
    assert [line.split() for line in report.summary(other).splitlines()] == [
        ["percent", "prompted", "wrong", "copy", "color"],
        ["i/x/ap", "50.0", "-", "25.0", "-"],
    ]


@pytest.mark.parametrize(
    "how",
    [*(pytest.param(how, marks=pytest.mark.slow) for how in ("none", "similarity")),
     "score"],
)  # fmt: skip
def test_no_score_depends_on_batches_and_devices(tmp_path, how):
    """10 episodes in batches of 4, and of 8 on 8 devices; searched for, 4 episodes."""
    config = tiny.config("evals,batch=8")
    if how != "none":
        more = {"search": how, "pool": 3, "episodes": 4}
        config.evals.heldout = config.evals.heldout.to_dict() | more
    model = build.build_model(config.model)
    params = random_params(model)
    scores = []
    for count in (1, 8):
        mesh = jax.make_mesh(
            (count, 1, 1), sharding.AXES, devices=jax.devices()[:count],
            axis_types=(jax.sharding.AxisType.Auto,) * 3,
        )  # fmt: skip
        groups = evaluate.build_groups(config.evals, "", Engine(model, mesh))
        placed = jax.device_put(params, sharding.place(params, mesh))
        with Writer(tmp_path) as writer, jax.transfer_guard("disallow"):
            scores.append(evaluate.run_groups(groups, placed, 1, writer))
    assert scores[0] == scores[1] and len(scores[0]) == 24


def test_the_ensemble_of_the_settings_paints():
    """Four prompts, as the engine's function for this ensemble paints them."""
    model = build.build_model(tiny.config().model)
    params = random_params(model)  # initial ones would paint much the same
    engine = Engine(model, sharding.make_mesh(devices=jax.devices()[:1]))
    heldout = tiny.config("evals").evals.heldout.to_dict()
    paintings = {}
    for ensemble in ("feature", "spatial"):
        settings = heldout | {"shots": (4,), "episodes": 2, "ensemble": ensemble}
        (group,) = evaluate.build_groups({"some": settings}, "", engine)
        (evaluator,) = group.evaluators.values()
        paintings[ensemble] = evaluator.rows(params, [0])[0].cells[4]
        episodes = Episodes(evaluator.source, engine.size, shots=4)
        shown = engine.put(stack([episodes.draw(0)[0]], 4, 4))
        plain = engine.fetch(engine.predict_fn(ensemble)(params, *shown))
        np.testing.assert_allclose(paintings[ensemble], plain[0], atol=1e-3)
    assert np.abs(paintings["feature"] - paintings["spatial"]).max() > 1
    # Compiled once for all that ask for the same.
    assert engine.predict_fn("spatial") is engine.predict_fn("spatial")
    assert engine.prompt_fns("both") is engine.prompt_fns("both")
    assert engine.track_fns(3) is engine.track_fns(3)
    with pytest.raises(ValueError, match="settings of evals.some: .*'mean' is not one"):
        evaluate.build_groups({"some": heldout | {"ensemble": "mean"}}, "", engine)


def test_wrong_prompts_are_of_sources_with_another_class():
    """By the names: another source may have the very same classes."""
    shown = {"a": "dog", "b": "dog", "c": "dog cat", "d": "cat"}
    sources = {
        name: types.SimpleNamespace(class_names=dict(enumerate(names.split())))
        for name, names in shown.items()
    }
    assert evaluate._others(sources, "a") == [sources["c"], sources["d"]]
    assert evaluate._others(sources, "c") == []


@pytest.mark.parametrize("kind", ["closed", "examples", "fewshot", "panoptic"])
def test_every_evaluator_of_prompts_asks_for_its_ensemble(kind):
    cls = importlib.import_module(evaluate.EVALUATORS[kind]).Evaluator
    asked: list = []
    engine = blocks.engine()
    engine.predict_fn = engine.prompt_fns = lambda e: asked.append(e) or (None, None)
    source = blocks.Blocks()
    given = dict(name="x", source=source, batch_size=1, ensemble="both", engine=engine)
    if "prompts" in cls.needs:
        given["prompts"] = lambda: source
    if kind == "fewshot":
        given["episodes"] = 1
    if kind in ("closed", "panoptic"):  # which end at the missing example
        with pytest.raises(ValueError):
            cls(**given)
    else:
        cls(**given)
    assert asked == ["both"]


@pytest.mark.parametrize("kind", ["closed", "examples", "fewshot"])
def test_cases_are_of_the_data_of_all_sources(kind):
    """Those of prompts too: other prompts give other scores."""
    cls = importlib.import_module(evaluate.EVALUATORS[kind]).Evaluator
    source, other = blocks.Blocks(), blocks.Blocks()
    source.digest, other.digest = "scored", "shown"
    given = dict(name="x", source=source, batch_size=1, engine=blocks.engine())
    need = "wrong_sources" if kind == "fewshot" else "prompts"
    given[need] = lambda: [other] if kind == "fewshot" else other
    given |= {"closed": {"example": "noise/3"}, "fewshot": {"episodes": 1}}.get(
        kind, {}
    )
    assert cls(**given).data == ["scored", "shown"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"type": "fewshots"}, "evals.heldout.type = 'fewshots' is unknown; did you"),
        ({"episode": 3}, "setting evals.heldout.episode is unknown; did you mean 'ep"),
        ({"episodes": -1}, "settings of evals.heldout: .*episodes"),
        ({"sources": {}}, "evals.heldout.sources = {}: must be one source or more"),
    ],
)
def test_groups_name_what_is_wrong(change, message):
    config = tiny.config("evals")
    evals = {"heldout": config.evals.heldout.to_dict() | change}
    engine = Engine(build.build_model(config.model), sharding.make_mesh())
    with pytest.raises(ValueError, match=message):
        evaluate.build_groups(evals, "", engine)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"width": 16}, "setting model.size = None: must be given"),
        ({"size": "ti15"}, "model size 'ti15' is unknown; did you mean 'ti16'"),
        ({"size": "ti16", "widht": 16}, "model.widht is unknown; did you mean 'width'"),
    ],
)
def test_model_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        build.build_model(settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run's workdir and the scores that it ended with."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        tiny.one_device(patch)
        config = tiny.config("evals")  # as other files train it: compiled once
        yield folder / "run", train(config, str(folder / "run"))


def test_checkpoints_and_releases_score_as_in_the_loop(trained, tmp_path):
    run, scores = trained
    saved = run / "checkpoints"
    params, _ = checkpoint.restore_params(saved, which="ema")
    release.export_params(tmp_path / "release", params, tiny.config().model.to_dict())
    for source, step in [(saved, 6), (tmp_path / "release", 0)]:
        config = tiny.config("evals", mode="evaluate", checkpoint=str(source))
        workdir = tmp_path / f"scores_{step}"
        assert evaluate.evaluate(config, str(workdir)) == scores
        (line,) = (workdir / "metrics.jsonl").read_text().splitlines()
        assert json.loads(line)["step"] == step
        # Once more, in a workdir whose config left a section at its defaults.
        stored = json.loads((workdir / "config.json").read_text())
        del stored["recolor"]
        (workdir / "config.json").write_text(json.dumps(stored))
        assert evaluate.evaluate(config, str(workdir)) == scores


def test_a_run_without_average_is_scored_by_its_parameters(trained, tmp_path):
    model = build.build_model(tiny.config().model)
    config, saved = read_settings(tiny.config("ema=0.0")), tmp_path / "checkpoints"
    (tmp_path / "config.json").write_text(json.dumps(plain(config)))
    loop = Loop(config, tmp_path, Whole(config))
    with checkpoint.Checkpoints(saved) as checkpoints:
        loop.prepare(checkpoints)
        assert loop.state.ema is None
        checkpoints.save(6, loop.state, {"step": 6})
    weights = pretrained.load(saved)
    params = build.place_params(weights, model, sharding.make_mesh())
    expected, _ = checkpoint.restore_params(saved)
    assert weights.step == 6
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_parameters_of_another_model_are_listed(trained):
    model = build.build_model(tiny.config(model__decoder_width=8).model)
    saved = trained[0] / "checkpoints"
    with pytest.raises(ValueError, match="does not fit the model") as raised:
        build.place_params(pretrained.load(saved), model, sharding.make_mesh())
    lines = [line.strip() for line in str(raised.value).splitlines()[1:]]
    assert "shape: decoder/head/kernel is (4, 3), the model's is (8, 3)" in lines
    assert len(lines) == 7 and all(line.startswith("shape: decoder/") for line in lines)


def test_a_training_run_is_not_evaluated_into_its_own_workdir(trained):
    """It would start metrics.jsonl anew."""
    run = trained[0]
    before = (run / "metrics.jsonl").read_text()
    config = tiny.config("evals", mode="evaluate", checkpoint=str(run / "checkpoints"))
    with pytest.raises(ValueError, match='mode: "train" -> "evaluate"'):
        evaluate.evaluate(config, str(run))
    assert (run / "metrics.jsonl").read_text() == before


def test_only_words_and_places_may_change_between_evaluations(tmp_path):
    config = tiny.config("evals", mode="evaluate")
    config.evals.heldout.about = "words"
    before = plain(read_settings(config))
    (tmp_path / "config.json").write_text(json.dumps(before))
    for name, _ in leaves(before):
        after = json.loads(json.dumps(before))
        *parents, last = name.split(".")
        functools.reduce(operator.getitem, parents, after)[last] = "another"
        args = tmp_path, json.dumps(after), evaluate.MAY_CHANGE
        if name.startswith("mesh.") or name in ("data_dir", "cpu_devices",
                                                "evals.heldout.about"):  # fmt: skip
            check_workdir(*args)
            continue
        with pytest.raises(ValueError, match=f"  {re.escape(name)}"):
            check_workdir(*args)


def test_what_mode_evaluate_needs(tmp_path):
    for settings, message in [
        ({}, "setting checkpoint = '': must be a training run's"),
        ({"checkpoint": str(tmp_path)}, "holds no model"),
        ({"checkpoint": "x", "evals": {}}, "setting evals = {}: must be one group"),
    ]:
        config = tiny.config("evals", mode="evaluate", **settings)
        with pytest.raises((ValueError, OSError), match=message):
            evaluate.evaluate(config, str(tmp_path / "scores"))
    assert not list(tmp_path.glob("scores/*"))
