"""Scores against hand-worked values, a brute-force reference, and merging."""

import functools
import math
import random

import numpy as np
import pytest

from seggpt_jax.metrics import EpisodeIoU, FewShotIoU, episode_iou


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


def test_merging_parts_in_any_order_is_one_pass():
    rng = np.random.default_rng(0)
    updates = random_updates(rng, 30, 4)
    whole = fewshot(updates, 4).compute()
    parts = [fewshot(updates[i : i + 7], 4) for i in range(0, 30, 7)]
    before = [p.compute() for p in parts]
    assert functools.reduce(FewShotIoU.merge, parts).compute() == whole
    assert functools.reduce(lambda a, b: b.merge(a), parts).compute() == whole
    nested = parts[0].merge(parts[1].merge(parts[2])).merge(parts[3].merge(parts[4]))
    assert nested.compute() == whole
    assert [p.compute() for p in parts] == before  # merging changes neither part


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
    with pytest.raises(ValueError, match="of 2 and 3 classes"):
        metric.merge(FewShotIoU(3))
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


def test_merged_episode_iou_does_not_depend_on_order():
    values = np.random.default_rng(0).random(1000).tolist()
    shuffled = random.Random(0).sample(values, len(values))
    parts = EpisodeIoU(shuffled[:300]).merge(EpisodeIoU(shuffled[300:]))
    assert parts.compute() == EpisodeIoU(values).compute()
