"""Scores of semantic segmentation with a closed set of classes."""

import dataclasses

import numpy as np

from seggpt_jax.metrics.masks import check_masks, mean, mean_known, ratios


@dataclasses.dataclass
class Confusion:
    """mIoU, mAcc and pAcc of a confusion matrix over all images, by the rule of
    detectron2's evaluator, with which Painter is scored: classes that the truth never
    shows are left out of both means, predicted or not."""

    num_classes: int

    def __post_init__(self):
        if self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes}, must be at least 1")
        self.counts = np.zeros((self.num_classes, self.num_classes), np.int64)

    def update(
        self, pred: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
    ) -> None:
        """Adds an image. pred, truth: classes 0..num_classes - 1, integer `[h, w]`.
        ignore: bool `[h, w]`, pixels left out, whose values do not matter."""
        if pred.shape != truth.shape:
            raise ValueError(f"pred is {pred.shape}, truth {truth.shape}")
        if ignore is not None:
            pred, truth = pred[~ignore], truth[~ignore]
        for name, labels in (("pred", pred), ("truth", truth)):
            if labels.size and not 0 <= labels.min() <= labels.max() < self.num_classes:
                raise ValueError(
                    f"{name} has labels {labels.min()} to {labels.max()}, must be in "
                    f"0..{self.num_classes - 1}"
                )
        pairs = truth.ravel().astype(np.int64) * self.num_classes + pred.ravel()
        counts = np.bincount(pairs, minlength=self.num_classes**2)
        self.counts += counts.reshape(self.counts.shape)

    def merge(self, other: "Confusion") -> "Confusion":
        """The score of both parts together; leaves the two as they are."""
        if other.num_classes != self.num_classes:
            raise ValueError(
                f"cannot merge {self.num_classes} and {other.num_classes} classes"
            )
        merged = Confusion(self.num_classes)
        merged.counts = self.counts + other.counts
        return merged

    def per_class(self) -> np.ndarray:
        """IoU of every class `[num_classes]`; nan of those the truth never shows."""
        return _class_iou(self._areas())

    def compute(self) -> dict[str, float]:
        """`{"miou", "macc", "pacc"}`, each in 0..1 or nan."""
        return {n: float(v) for n, v in confusion_scores(self._areas()).items()}

    def _areas(self) -> np.ndarray:
        counts = self.counts
        return np.stack([np.diag(counts), counts.sum(1), counts.sum(0)], -1)


def class_areas(
    pred: np.ndarray, truth: np.ndarray, classes: int, ignore: np.ndarray | None = None
) -> dict[int, list[int]]:
    """What an image adds to `confusion_scores`: class -> pixels that are right, shown
    and predicted, of the classes that there are. Arguments as of `Confusion.update`."""
    confusion = Confusion(classes)
    confusion.update(pred, truth, ignore)
    counts = confusion.counts
    found = np.flatnonzero(counts.sum(0) + counts.sum(1)).tolist()
    shown, predicted = counts.sum(1), counts.sum(0)
    return {c: [int(counts[c, c]), int(shown[c]), int(predicted[c])] for c in found}


def confusion_scores(areas: np.ndarray) -> dict[str, np.ndarray]:
    """`Confusion`'s scores of pixels `[..., c, 3]` that are right, shown and predicted,
    summed over images."""
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


@dataclasses.dataclass
class Dice:
    """Dice of binary masks: the mean over images, as of polyps, and of all pixels
    together, as of vessels. An image where nothing is true and nothing predicted has
    Dice 1."""

    # Kept one by one, because sums of floats would depend on the order of merging.
    values: list[float] = dataclasses.field(default_factory=list)
    both: int = 0
    sizes: int = 0

    def update(
        self, pred: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
    ) -> None:
        """Adds an image: bool `[h, w]` each."""
        check_masks(pred, truth, ignore)
        if ignore is not None:
            pred, truth = pred[~ignore], truth[~ignore]
        both, sizes = int(np.sum(pred & truth)), int(pred.sum() + truth.sum())
        self.values.append(2 * both / sizes if sizes else 1.0)
        self.both += both
        self.sizes += sizes

    def merge(self, other: "Dice") -> "Dice":
        """The score of both parts together; leaves the two as they are."""
        return Dice(
            self.values + other.values, self.both + other.both, self.sizes + other.sizes
        )

    def compute(self) -> dict[str, float]:
        """`{"dice", "pooled_dice"}`, in 0..1 or nan."""
        pooled = [2 * self.both / self.sizes] if self.sizes else []
        return {"dice": mean(self.values), "pooled_dice": mean(pooled)}
