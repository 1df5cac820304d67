"""Panoptic quality: by hand, and against torchmetrics where both know the case."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.detection import PanopticQuality as Reference

from seggpt_jax.metrics import PanopticQuality, panoptic_counts, panoptic_scores

CATEGORIES = [
    {"id": 1, "name": "person", "isthing": 1},
    {"id": 18, "name": "dog", "isthing": 1},
    {"id": 184, "name": "tree-merged", "isthing": 0},
]


def segments(*pairs, **more):
    return [{"id": i, "category_id": c, **more} for i, c in pairs]


def score(pred, pred_segments, truth, truth_segments, categories=CATEGORIES):
    metric = PanopticQuality(categories)
    metric.update(np.array(pred), pred_segments, np.array(truth), truth_segments)
    return metric.compute()


def test_by_hand():
    """A person found with IoU 3/4, a dog missed and another dog dreamt; the tree is
    right. PQ: 0.75, 0 / (0.5 + 0.5) and 1."""
    truth = [[5, 5, 5, 5, 9, 9, 0, 0, 3, 3]]
    pred = [[7, 7, 7, 0, 0, 0, 2, 2, 4, 4]]
    # Where the truth is void a false dog is excused; one on the missed dog is not.
    scores = score(
        pred, segments((7, 1), (2, 18), (4, 184)),
        truth, segments((5, 1), (9, 18), (3, 184)),
    )  # fmt: skip
    assert scores["pq"] == pytest.approx((0.75 + 0 + 1) / 3)
    assert scores["pq_things"] == pytest.approx(0.375)
    assert scores["sq_things"] == pytest.approx(0.375) and scores["pq_stuff"] == 1
    assert scores["rq"] == pytest.approx(2 / 3)


def test_void_counts_in_no_union():
    """A segment that spills into void pixels keeps its IoU."""
    scores = score([[7, 7, 7, 7]], segments((7, 1)), [[5, 5, 0, 0]], segments((5, 1)))
    assert scores["pq"] == 1


def test_half_in_the_void_does_not_excuse():
    """panopticapi leaves out a segment of which more than half is void."""
    dogs = segments((5, 18))
    halves, most = [[7, 7, 2, 2]], [[7, 7, 7, 2]]
    scores = score(halves, segments((7, 1), (2, 18)), [[0, 5, 5, 5]], dogs)
    assert scores["rq"] == pytest.approx((0 + 1 / 1.0) / 2)  # a person dreamt
    scores = score(most, segments((7, 1), (2, 18)), [[0, 0, 5, 5]], dogs)
    assert scores["rq"] == 0  # the dog alone, with IoU 1/2


def test_crowds_are_neither_found_nor_missed_and_excuse():
    crowd = segments((5, 1), iscrowd=1)
    scores = score([[7, 7, 7, 2]], segments((7, 1), (2, 18)), [[5, 5, 5, 5]], crowd)
    # The person lies in the crowd; the dog does not belong to it: a false positive.
    assert scores["pq_things"] == 0 and scores["rq_things"] == 0
    scores = score([[7, 7, 7, 0]], segments((7, 1)), [[5, 5, 5, 5]], crowd)
    assert math.isnan(scores["pq"])


def test_half_is_not_enough():
    """IoU of exactly one half is no match: a false positive and a missed object."""
    scores = score([[7, 7, 7, 0]], segments((7, 1)), [[0, 5, 5, 5]], segments((5, 1)))
    assert scores["pq"] == pytest.approx(2 / 3)  # void before: IoU 2 / (3 + 3 - 2 - 1)
    scores = score(
        [[7, 7, 7, 8]], segments((7, 1), (8, 184)),
        [[6, 5, 5, 5]], segments((5, 1), (6, 184)),
    )  # fmt: skip
    assert scores["pq_things"] == 0


def test_the_category_must_be_right():
    scores = score([[7, 7]], segments((7, 18)), [[5, 5]], segments((5, 1)))
    assert scores["pq"] == 0 and math.isnan(scores["pq_stuff"])


def test_huge_ids_and_single_pixels():
    """Ids up to 256^3 - 1, as R + 256 G + 65536 B gives them, in any integer type."""
    huge = 256**3 - 1
    for kind in (np.int32, np.uint32, np.int64):
        pred = np.full((2, 2), huge, kind)
        truth = np.full((2, 2), huge - 1, kind)
        truth[0, 0] = 1
        scores = score(
            pred, segments((huge, 1)), truth, segments((huge - 1, 1), (1, 18))
        )  # fmt: skip
        assert scores["pq"] == pytest.approx((0.75 + 0) / 2)


@pytest.mark.parametrize("seed", range(8))
def test_is_torchmetrics_without_void_and_crowds(seed):
    """Every pixel belongs to a segment of one category; stuff is one segment each."""
    rng = np.random.default_rng(seed)
    metric = PanopticQuality(CATEGORIES)
    reference = Reference(things={1, 18}, stuffs={184}, return_sq_and_rq=True)
    for _ in range(4):
        maps = []
        for _ in range(2):
            ids = np.kron(rng.integers(1, 6, (3, 4)), np.ones((3, 3), int))
            categories = {i: [1, 18, 1, 18, 184][i - 1] for i in range(1, 6)}
            maps.append((ids, categories))
        (truth, truth_of), (pred, pred_of) = maps
        same = rng.random(truth.shape) < 0.7
        pred = np.where(same, truth, pred)
        listed = [
            segments(*((int(i), of[int(i)]) for i in np.unique(ids)))
            for ids, of in ((pred, pred_of), (truth, truth_of))
        ]
        metric.update(pred, listed[0], truth, listed[1])
        both = [
            np.stack([np.vectorize(of.get)(ids), np.where(ids == 5, 0, ids)], -1)[None]
            for ids, of in ((pred, pred_of), (truth, truth_of))
        ]
        reference.update(*(torch.as_tensor(array) for array in both))
    expected = reference.compute().tolist()
    scores = metric.compute()
    found = [scores[name] for name in ("pq", "sq", "rq")]
    assert found == pytest.approx(expected, abs=1e-6)  # float32 there


def test_counts_per_image_give_the_same_scores():
    """With void and crowds; an image that counts twice is an image added twice; what
    nothing shows is nan."""
    rng = np.random.default_rng(1)
    known = [category["id"] for category in CATEGORIES]
    metric, counts = PanopticQuality(CATEGORIES), np.zeros((6, 3, 4))
    weights = np.array([[1, 1, 1, 1, 1, 1], [2, 0, 1, 3, 0, 0], [0, 0, 0, 0, 0, 0]])
    twice = PanopticQuality(CATEGORIES)
    for row in range(6):
        truth = np.kron(rng.integers(0, 6, (4, 5)), np.ones((2, 3), int))
        pred = np.where(rng.random(truth.shape) < 0.8, truth, rng.integers(0, 6))
        shown, found = (
            segments(*((int(i), known[i % 3]) for i in np.unique(ids) if i))
            for ids in (truth, pred)
        )
        shown = [s | {"iscrowd": int(s["id"] == 3)} for s in shown]
        for number, values in panoptic_counts(pred, found, truth, shown, known).items():
            counts[row, known.index(number)] = values
        metric.update(pred, found, truth, shown)
        for _ in range(weights[1, row]):
            twice.update(pred, found, truth, shown)
    summed = np.einsum("ni,ick->nck", weights, counts)
    scores = panoptic_scores(summed, np.array([True, True, False]))
    empty = PanopticQuality(CATEGORIES).compute()
    for row, expected in enumerate((metric.compute(), twice.compute(), empty)):
        assert {k: v[row] for k, v in scores.items()} == pytest.approx(
            expected, nan_ok=True
        )  # fmt: skip
        assert scores.keys() == expected.keys()


def test_what_is_out_of_form():
    good = segments((5, 1))
    for pred, listed, message in [
        ([[7, 7]], segments((8, 1)), r"pred: only one of .* has segments \[7, 8\]"),
        ([[7, 7]], [], "pred: only one of the map and the list has segments"),
        ([[7, 7]], segments((7, 2)), "segment 7 has the unknown category 2"),
        ([[7]], segments((7, 1)), r"pred_ids is \(1, 1\), truth_ids \(1, 2\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            score(pred, listed, [[5, 5]], good)
    with pytest.raises(ValueError, match="categories must have ids of their own"):
        PanopticQuality(CATEGORIES + CATEGORIES[:1])
