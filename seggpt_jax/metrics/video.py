"""J and F of video object segmentation, by the rules of the official DAVIS code
(github.com/davisvideochallenge/davis2017-evaluation)."""

import collections
import math
from collections.abc import Hashable, Sequence

import numpy as np

from seggpt_jax.metrics.masks import check_masks, mean, mean_known, ratios
from seggpt_jax.metrics.mergeable import Mergeable, floats

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
    from scipy.ndimage import distance_transform_edt  # late: a third of a second

    return distance_transform_edt(~contour) <= radius


def _without(pred, truth, ignore):
    check_masks(pred, truth, ignore)
    if ignore is None:
        return pred, truth
    return pred & ~ignore, truth & ~ignore


class VideoScores(Mergeable):
    """Means over the objects of all videos of the means over each object's frames.

    Which frames count is the caller's: DAVIS leaves out the first and the last. groups:
    YouTube-VOS has objects of seen and of unseen classes, and its G is the mean of the
    means of the groups.
    """

    def update(
        self, video: str, number: Hashable, j: float, f: float, group: str = ""
    ) -> None:
        """Adds one object of one frame."""
        self.counts.append(((group, video, number), (j, f)))

    def compute(self) -> dict[str, float]:
        """`{"j", "f", "jf"}` over all objects; with groups also `"j_GROUP"` and
        `"f_GROUP"` of each, and `"g"`, their mean. In 0..1 or nan."""
        frames = collections.defaultdict(list)  # of each object
        for key, values in self.counts:
            frames[key].append(values)
        keys = sorted(frames, key=str)  # a score does not depend on their order
        rows = [[mean(v) for v in zip(*frames[key], strict=True)] for key in keys]
        values = np.array(rows).reshape(-1, 2)
        groups = [group for group, *_ in keys]
        return floats(video_scores(values, groups, np.ones(len(rows))))


def video_scores(
    values: np.ndarray, groups: Sequence[str], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """`VideoScores`' scores of objects: values `[n, 2]`, each one's mean J and F, the
    group of each, "" for none, and how often each counts, `[..., n]`."""

    def means(counted):
        weight = weights * counted
        return [ratios(weight @ values[:, k], weight.sum(-1)) for k in (0, 1)]

    every = np.ones(len(groups))
    scores = dict(zip("jf", means(every), strict=True))
    scores["jf"] = (scores["j"] + scores["f"]) / 2
    parts: list[np.ndarray] = []
    for group in sorted(set(filter(None, groups))):
        found = means(np.array([own == group for own in groups], float))
        scores |= {f"{n}_{group}": v for n, v in zip("jf", found, strict=True)}
        parts += found
    return scores | ({"g": mean_known(np.stack(parts, -1))} if parts else {})
