"""Mergeable scores on NumPy masks.

A metric keeps sums: `update` adds one prediction, `merge` joins two parts of an
evaluation, `compute` divides at the end. Merging is exact in any order.
"""

from seggpt_jax.metrics.fewshot import EpisodeIoU, FewShotIoU, episode_iou
from seggpt_jax.metrics.instances import MaskAP
from seggpt_jax.metrics.panoptic import PanopticQuality
from seggpt_jax.metrics.semantic import Confusion, Dice
from seggpt_jax.metrics.video import (
    VideoScores,
    contour_accuracy,
    region_similarity,
)

__all__ = [
    "Confusion",
    "Dice",
    "EpisodeIoU",
    "FewShotIoU",
    "MaskAP",
    "PanopticQuality",
    "VideoScores",
    "contour_accuracy",
    "episode_iou",
    "region_similarity",
]
