"""Resampling of position tables, as matrices: a table of any size fits any grid.

torch's cubic kernel has a = -0.75 where `jax.image.resize` has -0.5, and neither
antialiases here: the released weights were trained with torch's, so it is spelled out.
"""

import functools

import numpy as np

CUBIC_A = -0.75


def _centers(size_in: int, size_out: int) -> np.ndarray:
    return (np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5


@functools.cache
def cubic_matrix(size_in: int, size_out: int) -> np.ndarray:
    """float32 `[size_out, size_in]`: torch bicubic on one axis, corners not aligned."""
    x = _centers(size_in, size_out)
    floor = np.floor(x).astype(int)
    matrix = np.zeros((size_out, size_in))
    for offset in (-1, 0, 1, 2):
        d = np.abs(x - (floor + offset))
        near = ((CUBIC_A + 2) * d - (CUBIC_A + 3)) * d * d + 1
        far = CUBIC_A * (((d - 5) * d + 8) * d - 4)
        taps = np.clip(floor + offset, 0, size_in - 1)
        np.add.at(matrix, (np.arange(size_out), taps), np.where(d <= 1, near, far))
    return matrix.astype(np.float32)


@functools.cache
def linear_matrix(size_in: int, size_out: int) -> np.ndarray:
    """float32 `[size_out, size_in]`: torch linear on one axis, corners not aligned."""
    x = np.clip(_centers(size_in, size_out), 0, None)  # torch clamps below only
    low = np.minimum(np.floor(x).astype(int), size_in - 1)
    high = np.minimum(low + 1, size_in - 1)
    matrix = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    np.add.at(matrix, (rows, low), 1 - (x - low))
    np.add.at(matrix, (rows, high), x - low)
    return matrix.astype(np.float32)
