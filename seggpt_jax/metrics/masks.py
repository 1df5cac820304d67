"""What the metrics ask of masks, and how they divide."""

import math
from collections.abc import Sequence

import numpy as np

Numbers = np.ndarray | np.generic


def check_masks(pred: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None) -> None:
    """Refuses masks that are not bool `[h, w]` of one shape."""
    named = {"pred": pred, "truth": truth, "ignore": ignore}
    for name, mask in named.items():
        if mask is not None and (mask.dtype != bool or mask.shape != truth.shape):
            raise ValueError(
                f"{name} is {mask.dtype} {list(mask.shape)}, must be bool and of the "
                f"shape of truth, {list(truth.shape)}"
            )


def ratios(parts: Numbers, wholes: Numbers) -> np.ndarray:
    """Ratios of the same shape; nan where the whole is empty."""
    found = np.full(np.broadcast_shapes(parts.shape, wholes.shape), np.nan)
    return np.divide(parts, wholes, out=found, where=np.greater(wholes, 0))


def mean_known(values: Numbers) -> np.ndarray:
    """Mean along the last axis of what is not nan; nan of nothing."""
    known = ~np.isnan(values)
    return ratios(np.where(known, values, 0).sum(-1), known.sum(-1))


def mean(values: Sequence[float] | np.ndarray) -> float:
    """Rounded once, whatever the order; nan of none."""
    return math.fsum(values) / len(values) if len(values) else math.nan
