"""Confusion, Dice and mask AP against scikit-learn, pycocotools and values worked out
by hand."""

import contextlib
import io
import math

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn import metrics as sklearn

from seggpt_jax.metrics import Confusion, Dice, MaskAP


def confusion(images, classes):
    metric = Confusion(classes)
    for image in images:
        metric.update(*image)
    return metric


def test_confusion_by_hand():
    """Class 0: 2 of 3 right, once predicted wrongly; class 1: 1 of 2; class 2 is only
    predicted, class 3 never comes up: both are left out."""
    truth = np.array([[0, 0, 0, 1, 1]])
    pred = np.array([[0, 0, 2, 1, 0]])
    metric = confusion([(pred, truth)], 4)
    np.testing.assert_allclose(metric.per_class(), [2 / 4, 1 / 2, np.nan, np.nan])
    scores = metric.compute()
    assert scores == {
        "miou": 0.5,
        "macc": pytest.approx((2 / 3 + 1 / 2) / 2),
        "pacc": 0.6,
    }


@pytest.mark.parametrize("seed", range(5))
def test_confusion_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 300))
    shape = (4, 31, 17)
    truth, pred = rng.integers(0, classes, (2, *shape))
    wrong = rng.random(shape) < rng.random()
    pred = np.where(wrong, pred, truth)
    ignore = rng.random(shape) < 0.2
    truth = np.where(ignore, 99999, truth)  # whatever is ignored may hold anything
    metric = confusion(zip(pred, truth, ignore, strict=True), classes)
    seen, given = truth[~ignore], pred[~ignore]
    shown = np.unique(seen)
    matrix = sklearn.confusion_matrix(seen, given, labels=range(classes))
    np.testing.assert_array_equal(metric.counts, matrix)
    iou = sklearn.jaccard_score(seen, given, labels=shown, average="macro")
    acc = sklearn.recall_score(seen, given, labels=shown, average="macro")
    expected = {"miou": iou, "macc": acc, "pacc": sklearn.accuracy_score(seen, given)}
    assert metric.compute() == pytest.approx(expected, abs=1e-12)  # sums of 300 ratios


def test_nothing_to_score():
    everywhere = np.ones((2, 2), bool)
    metric = confusion([(np.zeros((2, 2), int), np.full((2, 2), 255), everywhere)], 2)
    assert all(math.isnan(v) for v in metric.compute().values())
    assert all(math.isnan(v) for v in Dice().compute().values())


def test_bad_labels_are_refused():
    with pytest.raises(ValueError, match="truth has labels 0 to 3, must be in 0..2"):
        Confusion(3).update(np.zeros(4, int), np.arange(4))
    with pytest.raises(ValueError, match="pred has labels -1 to 0"):
        Confusion(3).update(np.array([-1, 0]), np.zeros(2, int))
    with pytest.raises(ValueError, match="pred is"):
        Confusion(3).update(np.zeros((1, 2), int), np.zeros((2, 2), int))
    with pytest.raises(ValueError, match="num_classes is 0"):
        Confusion(0)


@pytest.mark.parametrize("seed", range(3))
def test_dice_is_scikit_learns_f1(seed):
    rng = np.random.default_rng(seed)
    metric, values, seen, given = Dice(), [], [], []
    for _ in range(6):
        pred, truth = rng.random((2, 9, 7)) < rng.random((2, 1, 1))
        ignore = rng.random((9, 7)) < 0.3
        metric.update(pred, truth, ignore)
        values.append(sklearn.f1_score(truth[~ignore], pred[~ignore], zero_division=1))
        seen.append(truth[~ignore])
        given.append(pred[~ignore])
    pooled = sklearn.f1_score(np.concatenate(seen), np.concatenate(given))
    expected = {"dice": np.mean(values), "pooled_dice": pooled}
    assert metric.compute() == pytest.approx(expected, abs=1e-12)


def test_dice_of_empty_and_full_masks():
    full, empty = np.ones((3, 3), bool), np.zeros((3, 3), bool)
    for pred, truth, value in (
        (full, full, 1), (empty, empty, 1), (full, empty, 0), (empty, full, 0)
    ):  # fmt: skip
        metric = Dice()
        metric.update(pred, truth)
        assert metric.compute()["dice"] == value


# Mask AP.

CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}]


def box(x0, x1, size=(40, 60)):
    mask = np.zeros(size, bool)
    mask[5:35, x0:x1] = True
    return mask


def test_mask_ap_by_hand():
    """Two cats, one found (IoU 1), one missed, and a false one of lower score: the
    precision is 1 up to recall 0.5, which 51 of COCO's 101 recall points reach."""
    metric = MaskAP(CATEGORIES)
    truths = [
        {"mask": box(0, 10), "category_id": 1},
        {"mask": box(20, 30), "category_id": 1},
    ]
    preds = [
        {"mask": box(0, 10), "category_id": 1, "score": 0.9},
        {"mask": box(40, 50), "category_id": 1, "score": 0.5},
    ]
    metric.update(3, (40, 60), preds, truths)
    scores = metric.compute()
    assert scores["ap"] == scores["ap50"] == pytest.approx(51 / 101)
    assert scores["ar1"] == scores["ar100"] == 0.5 and math.isnan(scores["ap_large"])


def test_mask_ap_over_thresholds_categories_crowds_and_parts():
    """IoU 0.8 counts at 7 of the 10 thresholds; a crowd excuses a false positive; each
    category counts alike; the parts may be merged either way."""
    crowd = {"mask": box(30, 60), "category_id": 1, "iscrowd": 1}
    one, two = MaskAP(CATEGORIES), MaskAP(CATEGORIES)
    one.update(
        1, (40, 60),
        [
            {"mask": box(0, 16), "category_id": 1, "score": 0.5},
            {"mask": box(40, 50), "category_id": 1, "score": 0.9},
        ],
        [{"mask": box(0, 20), "category_id": 1}, crowd],
    )  # fmt: skip
    two.update(2, (40, 60), [], [{"mask": box(0, 9), "category_id": 7}])
    scores = one.merge(two).compute()
    assert scores == pytest.approx(two.merge(one).compute(), nan_ok=True)
    assert scores["ap50"] == pytest.approx(0.5) and scores["ap"] == pytest.approx(0.35)


def official(categories, rows):
    """COCOeval on files as COCO has them: polygons' areas beside masks, ids of any
    order; `rows` as of `MaskAP.update`."""
    truth = {"images": [], "categories": categories, "annotations": []}
    found = []
    for image_id, size, preds, truths in rows:
        truth["images"].append({"id": image_id, "height": size[0], "width": size[1]})
        for one in truths:
            coded = rle.encode(np.asfortranarray(one["mask"], np.uint8))
            truth["annotations"].append({
                "id": len(truth["annotations"]) + 1, "image_id": image_id,
                "category_id": one["category_id"], "area": one["area"],
                "iscrowd": one.get("iscrowd", 0), "segmentation": coded,
                "bbox": rle.toBbox(coded).tolist(),
            })  # fmt: skip
        found += [
            {
                "image_id": image_id, "category_id": one["category_id"],
                "score": one["score"],
                "segmentation": rle.encode(np.asfortranarray(one["mask"], np.uint8)),
            }
            for one in preds
        ]  # fmt: skip
    coco = COCO()
    coco.dataset = truth
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(found), "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [math.nan if value < 0 else value for value in run.stats]


def test_mask_ap_takes_sizes_from_the_annotations():
    """COCO's `area` is 1030, medium; the 31 x 33 pixels of the mask would be small."""
    mask = np.zeros((40, 60), bool)
    mask[:31, :33] = True
    pred = {"mask": mask, "category_id": 1, "score": 0.5}
    rows = [(1, (40, 60), [pred], [{"mask": mask, "category_id": 1, "area": 1030.0}])]
    metric = MaskAP(CATEGORIES)
    metric.update(*rows[0])
    scores = metric.compute()
    assert math.isnan(scores["ap_small"])
    assert scores["ap_medium"] == pytest.approx(1)
    assert [*scores.values()] == pytest.approx(official(CATEGORIES, rows), nan_ok=True)
    metric = MaskAP(CATEGORIES)  # without the annotation's area, the mask's
    metric.update(1, (40, 60), [pred], [{"mask": mask, "category_id": 1}])
    assert metric.compute()["ap_small"] == pytest.approx(1)
    for area in (-1.0, math.nan, math.inf, "1030"):
        truth = {"mask": mask, "category_id": 1, "area": area}
        with pytest.raises(
            ValueError, match=f"image 1: area {area!r} must be a number"
        ):
            metric.update(1, (40, 60), [], [truth])


@pytest.mark.parametrize("seed", range(3))
def test_mask_ap_is_cocoeval(seed):
    """Areas on either side of COCO's bounds (32 x 32 and 96 x 96), crowds, ties."""
    rng = np.random.default_rng(seed)
    metric, rows = MaskAP(CATEGORIES), []
    for image_id in rng.permutation(6).tolist():
        size, notes = (120, 130), ([], [])
        for _ in range(rng.integers(1, 6)):
            side, (top, left) = (
                int(rng.choice([8, 31, 33, 90, 97])),
                rng.integers(20, size=2),
            )
            mask = np.zeros(size, bool)
            mask[top : top + side, left : left + side] = True
            category = int(rng.choice([1, 7]))
            area = float(mask.sum() * rng.uniform(0.8, 1.2))
            crowd = int(rng.random() < 0.2)
            truth = {"mask": mask, "category_id": category, "area": area}
            notes[1].append(truth | {"iscrowd": crowd})
            score = float(rng.choice([0.2, 0.5, 0.9]))
            moved = np.roll(mask, int(rng.integers(3)), 1)
            notes[0].append({"mask": moved, "category_id": category, "score": score})
        rows.append((image_id, size, *notes))
        metric.update(*rows[-1])
    scores = [*metric.compute().values()]
    # The order of images settles ties: `MaskAP` goes by their ids.
    expected = official(CATEGORIES, sorted(rows, key=lambda row: row[0]))
    assert scores == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert 0 < scores[0] < 1 and not np.isnan(scores).any()


def test_mask_ap_of_nothing_and_of_wrong_masks():
    metric = MaskAP(CATEGORIES)
    metric.update(1, (40, 60), [], [])
    assert all(math.isnan(value) for value in metric.compute().values())
    with pytest.raises(ValueError, match=r"a mask is bool \[40, 60\], must be bool"):
        metric.update(1, (4, 6), [], [{"mask": box(0, 1), "category_id": 1}])
