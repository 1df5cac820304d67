"""Masks with holes, several parts and corners that touch, and results made of them."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from seggpt_jax import colors
from seggpt_jax.inference import Result

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)).filter(
    lambda mask: mask.any()
)
LABELS = arrays(
    np.int32,
    array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.integers(0, 3),
)


def result(segments, confidence=None):
    """The result whose segmentation is `segments`."""
    segments = np.asarray(segments, np.int32)
    labels = [0, *range(1, max(3, int(segments.max())) + 1)]
    palette = colors.with_black(colors.spread_palette(len(labels) - 1))
    if confidence is None:
        confidence = np.ones(segments.shape, np.float32)
    return Result(
        segments=segments,
        colors=palette[segments],
        confidence=np.asarray(confidence, np.float32),
        scores={},
        shares={label: np.float32(segments == label) for label in labels},
        painting=palette[segments].astype(np.float32),
        palette={label: tuple(palette[label].tolist()) for label in labels},
    )


def filled(points, size):
    """A polygon `[n, 2]` of (x, y) filled by the even-odd rule: the pixels of size (h,
    w) from whose centre a ray to the left crosses the line an odd number of times."""
    inside = np.zeros(size, bool)
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    for (xa, ya), (xb, yb) in zip(points, np.roll(points, -1, 0), strict=True):
        spans = (ya <= y) != (yb <= y)
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = xa + (y - ya) / (yb - ya) * (xb - xa)
        inside ^= spans & (crossing < x)
    return inside
