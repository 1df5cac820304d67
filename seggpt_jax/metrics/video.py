"""J and F of video object segmentation, by the rules of the official DAVIS code
(github.com/davisvideochallenge/davis2017-evaluation)."""

import dataclasses
import math
from collections.abc import Hashable

import numpy as np
from scipy.ndimage import distance_transform_edt

from seggpt_jax.metrics.masks import check_masks, mean

TOLERANCE = 0.008  # of the image's diagonal


def region_similarity(
    pred: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
) -> float:
    """J of one frame: IoU of bool masks `[h, w]`, 1 where both are empty. ignore: bool
    `[h, w]`, pixels that belong to neither."""
    pred, truth = _without(pred, truth, ignore)
    union = np.sum(pred | truth)
    return float(np.sum(pred & truth) / union) if union else 1.0


def contour_accuracy(
    pred: np.ndarray,
    truth: np.ndarray,
    ignore: np.ndarray | None = None,
    tolerance: float | int = TOLERANCE,
) -> float:
    """F of one frame: the harmonic mean of the shares of each contour that lie within
    `tolerance` (of the diagonal, rounded up to pixels; 1 or more: pixels) of the other.

    pred, truth, ignore: as of `region_similarity`. 1 where neither has a contour, 0
    where one has none.
    """
    pred, truth = _without(pred, truth, ignore)
    ours, theirs = contour(pred), contour(truth)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    radius = tolerance
    if tolerance < 1:
        radius = math.ceil(tolerance * math.hypot(*truth.shape))
    precision = float(_near(theirs, radius)[ours].mean())
    recall = float(_near(ours, radius)[theirs].mean())
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def contour(mask: np.ndarray) -> np.ndarray:
    """Pixels bool `[h, w]` that differ from their right, lower or lower right
    neighbour; beyond the last row and column there is nothing to differ from."""
    grown = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, lower, corner = grown[:-1, 1:], grown[1:, :-1], grown[1:, 1:]
    return (mask != right) | (mask != lower) | (mask != corner)


def _near(contour: np.ndarray, radius: float | int) -> np.ndarray:
    """Pixels within a disc's radius of a contour."""
    return distance_transform_edt(~contour) <= radius


def _without(pred, truth, ignore):
    check_masks(pred, truth, ignore)
    if ignore is None:
        return pred, truth
    return pred & ~ignore, truth & ~ignore


@dataclasses.dataclass
class VideoScores:
    """Means over the objects of all videos of the means over each object's frames.

    Which frames count is the caller's: DAVIS leaves out the first and the last. groups:
    YouTube-VOS has objects of seen and of unseen classes, and its G is the mean of the
    means of the groups.
    """

    # (group, video, object) -> J and F of its frames, in order.
    frames: dict[tuple[str, str, Hashable], list[tuple[float, float]]] = (
        dataclasses.field(default_factory=dict)
    )

    def update(
        self, video: str, number: Hashable, j: float, f: float, group: str = ""
    ) -> None:
        """Adds one object of one frame."""
        self.frames.setdefault((group, video, number), []).append((j, f))

    def merge(self, other: "VideoScores") -> "VideoScores":
        """The score of both parts together; leaves the two as they are."""
        merged = VideoScores({key: list(v) for key, v in self.frames.items()})
        for key, values in other.frames.items():
            merged.frames.setdefault(key, []).extend(values)
        return merged

    def compute(self) -> dict[str, float]:
        """`{"j", "f", "jf"}` over all objects; with groups also `"j_GROUP"` and
        `"f_GROUP"` of each, and `"g"`, their mean. In 0..1 or nan."""
        groups = sorted({group for group, _, _ in self.frames if group})
        scores = dict(zip("jf", self._means(None), strict=True))
        scores["jf"] = (scores["j"] + scores["f"]) / 2
        parts: list[float] = []
        for group in groups:
            values = self._means(group)
            scores |= {f"{n}_{group}": v for n, v in zip("jf", values, strict=True)}
            parts += values
        return scores | ({"g": mean(parts)} if parts else {})

    def _means(self, group: str | None) -> tuple[float, float]:
        objects = [
            [mean([frame[k] for frame in frames]) for k in (0, 1)]
            for (own, _, _), frames in self.frames.items()
            if group in (None, own)
        ]
        j, f = (mean([values[k] for values in objects]) for k in (0, 1))
        return j, f
