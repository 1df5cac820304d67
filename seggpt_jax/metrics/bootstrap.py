"""Intervals of scores by the bootstrap: cases are drawn again, with replacement."""

import numpy as np


def resample(cases: int, replicates: int = 1000, seed: int = 0) -> np.ndarray:
    """How often each case is drawn in each replicate, `[replicates, cases]`.

    The same for the same arguments, so that two scores of the same cases can be
    compared replicate by replicate.
    """
    rng = np.random.default_rng(seed)
    shares = np.full(cases, 1 / cases)
    return rng.multinomial(cases, shares, size=replicates).astype(np.float64)


def interval(replicates: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of a score's replicates `[b]`; nan without any that is
    finite."""
    values = replicates[np.isfinite(replicates)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
