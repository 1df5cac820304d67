"""Scores of semantic segmentation with a closed set of classes."""

import numpy as np

from seggpt_jax.metrics.masks import check_masks, mean, mean_known, ratios
from seggpt_jax.metrics.mergeable import Mergeable, floats, zeros


class Confusion(Mergeable):
    """mIoU, mAcc and pAcc of a confusion matrix over all images, by the rule of
    detectron2's evaluator, with which Painter is scored: classes that the truth never
    shows are left out of both means, predicted or not."""

    def __init__(self, num_classes: int):
        self.counts = zeros(num_classes, num_classes)
        self.classes = f"{num_classes} classes"

    def update(
        self, pred: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
    ) -> None:
        """Adds an image; pred, truth, ignore: as of `confusion_matrix`."""
        self.counts += confusion_matrix(pred, truth, len(self.counts), ignore)

    def per_class(self) -> np.ndarray:
        """IoU of every class `[num_classes]`; nan of those the truth never shows."""
        return _class_iou(_areas(self.counts))

    def compute(self) -> dict[str, float]:
        """`{"miou", "macc", "pacc"}`, each in 0..1 or nan."""
        return floats(confusion_scores(_areas(self.counts)))


def confusion_matrix(
    pred: np.ndarray, truth: np.ndarray, classes: int, ignore: np.ndarray | None = None
) -> np.ndarray:
    """Pixels int64 `[classes, classes]` by their true class and by the predicted one.

    pred, truth: classes 0..classes - 1, integer `[h, w]`. ignore: bool `[h, w]`, pixels
    left out, whose values do not matter. Raises ValueError for any other class.
    """
    if pred.shape != truth.shape:
        raise ValueError(f"pred is {pred.shape}, truth {truth.shape}")
    if ignore is not None:
        pred, truth = pred[~ignore], truth[~ignore]
    for name, labels in (("pred", pred), ("truth", truth)):
        if labels.size and not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(
                f"{name} has labels {labels.min()} to {labels.max()}, must be in "
                f"0..{classes - 1}"
            )
    pairs = truth.ravel().astype(np.int64) * classes + pred.ravel()
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_areas(
    pred: np.ndarray, truth: np.ndarray, classes: int, ignore: np.ndarray | None = None
) -> dict[int, list[int]]:
    """What an image adds to `confusion_scores`: class -> correct, true and predicted
    pixels. Classes that do not occur are left out. The arguments are those of
    `confusion_matrix`."""
    areas = _areas(confusion_matrix(pred, truth, classes, ignore))
    return {int(c): areas[c].tolist() for c in np.flatnonzero(areas.any(-1))}


def _areas(matrix: np.ndarray) -> np.ndarray:
    """Pixels of each class `[c, 3]` that are right, shown and predicted."""
    return np.stack([np.diag(matrix), matrix.sum(1), matrix.sum(0)], -1)


def confusion_scores(areas: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of `Confusion` from three counts per class, `[..., c, 3]`: correct,
    true and predicted pixels, summed over images."""
    right, shown, _ = np.moveaxis(areas, -1, 0)
    return {
        "miou": mean_known(_class_iou(areas)),
        "macc": mean_known(ratios(right, shown)),
        "pacc": ratios(right.sum(-1), shown.sum(-1)),
    }


def _class_iou(areas: np.ndarray) -> np.ndarray:
    right, shown, predicted = np.moveaxis(areas, -1, 0)
    iou = ratios(right, shown + predicted - right)
    return np.where(shown > 0, iou, np.nan)


class Dice(Mergeable):
    """Dice of binary masks: the mean over images, as of polyps, and of all pixels
    together, as of vessels. An image where nothing is true and nothing predicted has
    Dice 1."""

    def update(
        self, pred: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
    ) -> None:
        """Adds an image: bool `[h, w]` each; pixels of `ignore` are left out."""
        check_masks(pred, truth, ignore)
        if ignore is not None:
            pred, truth = pred[~ignore], truth[~ignore]
        self.counts.append((2 * np.sum(pred & truth), pred.sum() + truth.sum()))

    def compute(self) -> dict[str, float]:
        """`{"dice", "pooled_dice"}`, in 0..1 or nan."""
        twice, sizes = np.array(self.counts, np.int64).reshape(-1, 2).T
        each = np.nan_to_num(ratios(twice, sizes), nan=1.0)
        pooled = ratios(twice.sum(), sizes.sum())
        return floats({"dice": mean(each), "pooled_dice": pooled})
