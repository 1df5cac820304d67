"""Scores against hand-worked values, a brute-force reference, and merging."""

import functools
import math
import pathlib
import random
import re

import numpy as np
import pytest

from seggpt_jax.metrics import (
    Confusion,
    Dice,
    EpisodeIoU,
    FewShotIoU,
    MaskAP,
    PanopticQuality,
    VideoScores,
    episode_iou,
    resample,
)

CATEGORIES = [{"id": k, "isthing": k % 2} for k in (1, 2, 3)]


def brute_force(updates, classes):
    """HSNet's rule pixel by pixel, in Python integers."""
    counts = {c: [[0, 0], [0, 0]] for c in range(classes)}  # [intersection, union]
    for pred, truth, c, ignore in updates:
        for y in range(truth.shape[0]):
            for x in range(truth.shape[1]):
                if ignore is not None and ignore[y, x]:
                    continue
                for side in (0, 1):  # background, foreground
                    p, t = pred[y, x] == side, truth[y, x] == side
                    counts[c][side][0] += p and t
                    counts[c][side][1] += p or t
    seen = [i / u for (_, (i, u)) in counts.values() if u]
    sides = []
    for side in (0, 1):
        i, u = (sum(counts[c][side][n] for c in counts) for n in (0, 1))
        sides += [i / u] if u else []
    mean = lambda values: sum(values) / len(values) if values else math.nan  # noqa: E731
    return {"miou": mean(seen), "fbiou": mean(sides)}


def masks(rng, fill):
    if fill == "random":
        return rng.random((5, 7)) < rng.random()
    return np.full((5, 7), fill == "full")


def random_updates(rng, count, classes):
    fills = ["random", "random", "empty", "full"]
    draw = lambda: masks(rng, rng.choice(fills))  # noqa: E731
    return [
        (draw(), draw(), int(rng.integers(classes)), draw() if i % 2 else None)
        for i in range(count)
    ]


def fewshot(updates, classes):
    metric = FewShotIoU(classes)
    for update in updates:
        metric.update(*update)
    return metric


def test_few_shot_iou_by_hand():
    # Class 0: 1/2 in a small episode, 1/8 in a large one: (1 + 1) / (2 + 8) = 0.2,
    # where a mean of episodes would say 0.3125. Class 1: 2/4. Class 2 never occurs.
    metric = FewShotIoU(3)
    row = lambda *on: np.isin(np.arange(10), on)[None]  # noqa: E731
    metric.update(row(0), row(0, 1), 0)
    metric.update(row(0, 1, 2, 3, 4, 5, 6, 7), row(7), 0)
    metric.update(row(0, 1, 2), row(1, 2, 3), 1)
    scores = metric.compute()
    assert scores["miou"] == pytest.approx((0.2 + 0.5) / 2)
    # Background: intersections 8 + 2 + 6, unions 9 + 9 + 8. Foreground: 4 of 14.
    assert scores["fbiou"] == pytest.approx((16 / 26 + 4 / 14) / 2)


@pytest.mark.parametrize("seed", range(8))
def test_few_shot_iou_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    updates = random_updates(rng, 12, 6)
    expected = brute_force(updates, 6)
    got = fewshot(updates, 6).compute()
    # Sums are exact integers; only the last divisions and the mean round.
    assert got == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_empty_cases():
    full, empty = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    nothing = FewShotIoU(2)
    assert all(math.isnan(v) for v in nothing.compute().values())
    nothing.update(full, full, 0, ignore=full)  # all ignored: no evidence
    assert all(math.isnan(v) for v in nothing.compute().values())
    only_background = FewShotIoU(2)
    only_background.update(empty, empty, 0)
    assert math.isnan(only_background.compute()["miou"])
    assert only_background.compute()["fbiou"] == 1
    only_foreground = FewShotIoU(2)
    only_foreground.update(full, full, 1)
    assert only_foreground.compute() == {"miou": 1, "fbiou": 1}
    missed = FewShotIoU(1)
    missed.update(empty, full, 0)
    assert missed.compute() == {"miou": 0, "fbiou": 0}


def test_sums_stay_exact_where_float32_would_not():
    metric = FewShotIoU(1)
    metric.counts[0, 0] = 2**53 + 1
    pixel = np.ones((1, 1), bool)
    metric.update(pixel, pixel, 0)
    assert metric.counts[0, 0, 0] == 2**53 + 2 and metric.compute()["miou"] == 1


def test_few_shot_iou_refuses_wrong_input():
    metric, mask = FewShotIoU(2), np.ones((2, 2), bool)
    with pytest.raises(ValueError, match=r"class_id is 2, must be in 0\.\.1"):
        metric.update(mask, mask, 2)
    with pytest.raises(ValueError, match="pred is int64"):
        metric.update(mask.astype(np.int64), mask, 0)
    with pytest.raises(ValueError, match=r"ignore is bool \[1, 2\]"):
        metric.update(mask, mask, 0, ignore=mask[:1])
    with pytest.raises(ValueError, match="num_classes is 0"):
        FewShotIoU(0)


def test_episode_iou_by_hand():
    truth = np.array([[0, 1, 1, 2, 2, 2]])
    pred = np.array([[1, 1, 0, 2, 3, 2]])
    # Label 1: 1/3. Label 2: 2/3. Label 3 was not asked for: no term of its own.
    assert episode_iou(pred, truth) == pytest.approx((1 / 3 + 2 / 3) / 2)
    ignore = np.array([[True, False, True, False, False, False]])
    assert episode_iou(pred, truth, ignore) == pytest.approx((1 + 2 / 3) / 2)
    assert math.isnan(episode_iou(pred, np.zeros_like(truth)))
    assert math.isnan(episode_iou(pred, truth, np.ones_like(ignore)))


def test_episode_iou_is_a_mean_over_episodes_that_show_something():
    one, none = np.ones((2, 2), int), np.zeros((2, 2), int)
    metric = EpisodeIoU()
    assert math.isnan(metric.compute()["episode_miou"])
    metric.update(one, one)
    metric.update(none, one)
    metric.update(one, none)  # nothing asked for is there: not counted
    assert metric.compute() == {"episode_miou": 0.5}


# Merging, and what a reader of the documents is shown.


def segments(ids):
    return [{"id": int(i), "category_id": int(i)} for i in np.unique(ids)]


def instances(ids, rng):
    return [
        {"mask": ids == i, "category_id": int(i), "score": rng.random()}
        for i in np.unique(ids)
    ]


EVERY = {
    "fewshot": (lambda: FewShotIoU(4), lambda metric, pred, truth, rng: metric.update(
        pred > 1, truth > 1, int(rng.integers(4)), pred == 3)),
    "episode": (EpisodeIoU, lambda metric, pred, truth, rng: metric.update(
        pred, truth)),
    "confusion": (lambda: Confusion(4), lambda metric, pred, truth, rng: metric.update(
        pred, truth, pred == 3)),
    "dice": (Dice, lambda metric, pred, truth, rng: metric.update(
        pred > 1, truth > 1, pred == 3)),
    "panoptic": (lambda: PanopticQuality(CATEGORIES),
                 lambda metric, pred, truth, rng: metric.update(
        pred, segments(pred), truth, segments(truth))),
    "video": (VideoScores, lambda metric, pred, truth, rng: metric.update(
        *(str(x) for x in rng.integers(3, size=2)), *rng.random(2),
        ["", "seen", "unseen"][rng.integers(3)])),
    "ap": (lambda: MaskAP(CATEGORIES), lambda metric, pred, truth, rng: metric.update(
        int(rng.integers(2**30)), pred.shape, instances(pred, rng),
        instances(truth, rng))),
}  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_merging_is_exact_in_any_order(name):
    make, update = EVERY[name]
    rng = np.random.default_rng(0)
    whole, parts = make(), [make() for _ in range(5)]
    for case in range(30):
        pred, truth = rng.integers(1, 4, (2, 8, 9))
        pred = np.where(rng.random(truth.shape) < 0.9, truth, pred)
        for metric in (whole, parts[case % 5]):
            update(metric, pred, truth, np.random.default_rng(case))
    expected, before = whole.compute(), [part.compute() for part in parts]
    assert all(math.isnan(value) for value in make().compute().values())
    assert any(0 < value < 1 for value in expected.values())
    merge = lambda a, b: a.merge(b)  # noqa: E731
    for seed in range(3):
        mixed = random.Random(seed).sample(parts, 5)
        halves = functools.reduce(merge, mixed[:2]), functools.reduce(merge, mixed[2:])
        np.testing.assert_equal(halves[1].merge(halves[0]).compute(), expected)
    np.testing.assert_equal([part.compute() for part in parts], before)  # as they were


def test_scores_of_other_classes_are_not_merged():
    for one, other, message in (
        (FewShotIoU(2), FewShotIoU(3), "of 2 classes and of 3 classes"),
        (Confusion(2), Confusion(3), "of 2 classes and of 3 classes"),
        (PanopticQuality(CATEGORIES), PanopticQuality(CATEGORIES[:1]),
         r"of categories \[1, 2, 3\] and of categories \[1\]"),
        (MaskAP(CATEGORIES[:1]), MaskAP(CATEGORIES), r"of categories \[1\] and of"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"cannot merge scores {message}"):
            one.merge(other)


def test_the_documented_example(capsys):
    """The Python of docs/evaluation.md does what its comments say."""
    text = (pathlib.Path(__file__).parents[2] / "docs/evaluation.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(example, {})
    shown = re.findall(r"print\(.*\)  # (.*)", example)
    assert shown and capsys.readouterr().out.splitlines() == shown


def test_each_replicate_draws_as_many_cases_as_there_are():
    """Fewer would make intervals too wide."""
    draws = resample(7, replicates=400)
    assert draws.shape == (400, 7) and (draws.sum(1) == 7).all()
    # A count has a variance of 6 / 7: four standard deviations of the mean.
    np.testing.assert_allclose(draws.mean(0), 1, atol=0.19)
