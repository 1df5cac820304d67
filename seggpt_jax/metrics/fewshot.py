"""Scores of few-shot segmentation (docs/evaluation.md)."""

import math

import numpy as np

from seggpt_jax.metrics.masks import check_masks, mean, mean_known, ratios
from seggpt_jax.metrics.mergeable import Mergeable, floats, zeros

_FOREGROUND = 0  # and 1, the background


def intersection_and_union(
    pred: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
) -> np.ndarray:
    """Pixels int64 `[2, 2]`: of foreground and background, intersection and union.

    pred, truth: bool `[h, w]`. ignore: bool `[h, w]`, pixels that count as neither.
    """
    check_masks(pred, truth, ignore)
    if ignore is not None:
        pred, truth = pred[~ignore], truth[~ignore]
    both, either = np.sum(pred & truth), np.sum(pred | truth)
    return np.array([[both, either], [pred.size - either, pred.size - both]], np.int64)


def fewshot_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """`FewShotIoU`'s scores of counts `[..., c, 2, 2]`, as `intersection_and_union`
    gives them, summed over the episodes of each class."""
    per_class = ratios(counts[..., _FOREGROUND, 0], counts[..., _FOREGROUND, 1])
    pooled = counts.sum(-3)
    return {
        "miou": mean_known(per_class),
        "fbiou": mean_known(ratios(pooled[..., 0], pooled[..., 1])),
    }


class FewShotIoU(Mergeable):
    """mIoU and FB-IoU of few-shot segmentation by HSNet's rule (docs/evaluation.md).

    Intersection and union are summed over all episodes of a class: `miou` is the mean
    over classes of the ratio of these sums, not a mean over episodes. `fbiou` is the
    mean of two ratios, foreground and background, each summed over all classes.

    A class without an update, or whose union is empty (nothing true, nothing
    predicted, or all ignored), is left out of the mean, and so is an empty one of the
    two ratios; with nothing left the score is nan.
    """

    def __init__(self, num_classes: int):
        self.counts = zeros(num_classes, 2, 2)
        self.classes = f"{num_classes} classes"

    def update(
        self,
        pred: np.ndarray,
        truth: np.ndarray,
        class_id: int,
        ignore: np.ndarray | None = None,
    ) -> None:
        """Adds the mask of one class in one episode.

        class_id: index in 0..num_classes - 1. pred, truth, ignore: as of
        `intersection_and_union`.
        """
        if not 0 <= class_id < len(self.counts):
            raise ValueError(
                f"class_id is {class_id}, must be in 0..{len(self.counts) - 1}"
            )
        self.counts[class_id] += intersection_and_union(pred, truth, ignore)

    def compute(self) -> dict[str, float]:
        """`{"miou", "fbiou"}`, each in 0..1 or nan."""
        return floats(fewshot_scores(self.counts))


class EpisodeIoU(Mergeable):
    """Mean over episodes of the IoU of each episode (see `episode_iou`).

    Weighs every episode alike, so it reads higher than HSNet's mIoU on objects of mixed
    size; never compare the two. An episode that shows nothing asked for does not count;
    without any episode the score is nan.
    """

    def update(
        self, pred: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
    ) -> None:
        """Adds an episode: integer `[h, w]` maps with 0 for background."""
        value = episode_iou(pred, truth, ignore)
        self.counts += [] if math.isnan(value) else [value]

    def compute(self) -> dict[str, float]:
        """`{"episode_miou"}`, in 0..1 or nan."""
        return {"episode_miou": mean(self.counts)}


def episode_iou(
    pred: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
) -> float:
    """Mean IoU over the labels other than 0 that `truth` shows, nan when it has none.

    pred, truth: integer `[h, w]`. ignore: bool `[h, w]`, pixels left out.
    """
    if ignore is not None:
        pred, truth = pred[~ignore], truth[~ignore]
    ious = [
        np.sum((pred == label) & (truth == label))
        / np.sum((pred == label) | (truth == label))
        for label in np.unique(truth[truth > 0])
    ]
    return mean(ious)
