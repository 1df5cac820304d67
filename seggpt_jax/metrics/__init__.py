"""Scores on NumPy masks, each in two forms with one formula.

Functions give the counts of a case, and the scores of sums of counts: evaluators use
them. Classes keep the counts themselves (`mergeable.Mergeable`): for other code.
"""

from seggpt_jax.metrics.bootstrap import interval, resample
from seggpt_jax.metrics.fewshot import (
    EpisodeIoU,
    FewShotIoU,
    episode_iou,
    fewshot_scores,
    intersection_and_union,
)
from seggpt_jax.metrics.instances import MaskAP
from seggpt_jax.metrics.masks import mean_known, ratios
from seggpt_jax.metrics.panoptic import (
    PanopticQuality,
    panoptic_counts,
    panoptic_scores,
)
from seggpt_jax.metrics.semantic import (
    Confusion,
    Dice,
    class_areas,
    confusion_scores,
)
from seggpt_jax.metrics.video import (
    VideoScores,
    contour_accuracy,
    region_similarity,
    video_scores,
)

__all__ = [
    "Confusion",
    "Dice",
    "EpisodeIoU",
    "FewShotIoU",
    "MaskAP",
    "PanopticQuality",
    "VideoScores",
    "class_areas",
    "confusion_scores",
    "contour_accuracy",
    "episode_iou",
    "fewshot_scores",
    "intersection_and_union",
    "interval",
    "mean_known",
    "panoptic_counts",
    "panoptic_scores",
    "ratios",
    "region_similarity",
    "resample",
    "video_scores",
]
