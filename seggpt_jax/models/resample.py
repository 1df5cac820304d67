"""Resampling of position tables, as matrices: a table of any size fits any grid.

The released weights were trained with torch's cubic kernel, a = -0.75, without
antialiasing. `jax.image.resize` has a = -0.5, so torch's kernel is written out here.
"""

import functools

import numpy as np

CUBIC_A = -0.75


@functools.cache
def cubic_matrix(size_in: int, size_out: int) -> np.ndarray:
    """float32 `[size_out, size_in]`: torch bicubic on one axis, corners not aligned."""

    def weight(d):
        near = ((CUBIC_A + 2) * d - (CUBIC_A + 3)) * d * d + 1
        far = CUBIC_A * (((d - 5) * d + 8) * d - 4)
        return np.where(d <= 1, near, far)

    return _matrix(size_in, size_out, (-1, 0, 1, 2), weight)


@functools.cache
def linear_matrix(size_in: int, size_out: int) -> np.ndarray:
    """float32 `[size_out, size_in]`: torch linear on one axis, corners not aligned."""
    return _matrix(size_in, size_out, (0, 1), lambda d: 1 - d)


def _matrix(size_in: int, size_out: int, offsets, weight) -> np.ndarray:
    """Each output place reads the inputs at `offsets` from the one below it, by a
    `weight` of their distance; places beyond the ends read the last input."""
    x = (np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5
    floor = np.floor(x).astype(int)
    matrix = np.zeros((size_out, size_in))
    for offset in offsets:
        place = np.clip(floor + offset, 0, size_in - 1)
        near = weight(np.abs(x - (floor + offset)))
        np.add.at(matrix, (np.arange(size_out), place), near)
    return matrix.astype(np.float32)
