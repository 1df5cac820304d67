"""What the metrics ask of masks, and how they divide."""

import math
from collections.abc import Sequence

import numpy as np


def check_masks(pred: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None) -> None:
    """Refuses masks that are not bool `[h, w]` of one shape."""
    named = {"pred": pred, "truth": truth, "ignore": ignore}
    for name, mask in named.items():
        if mask is not None and (mask.dtype != bool or mask.shape != truth.shape):
            raise ValueError(
                f"{name} is {mask.dtype} {list(mask.shape)}, must be bool and of the "
                f"shape of truth, {list(truth.shape)}"
            )


def ratios(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """The ratios of those whose whole is not empty."""
    return parts[wholes > 0] / wholes[wholes > 0]


def mean(values: Sequence[float] | np.ndarray) -> float:
    """Rounded once, whatever the order; nan of none."""
    return math.fsum(values) / len(values) if len(values) else math.nan
