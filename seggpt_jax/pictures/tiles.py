"""Large images in overlapping tiles, whose results blend without seams."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from seggpt_jax.colors import Memberships


class Box(NamedTuple):
    """Rows top..bottom and columns left..right of an image, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def place(self) -> tuple[slice, slice]:
        """The index of the tile in an image."""
        return np.s_[self.top : self.bottom, self.left : self.right]


def cut(size: tuple[int, int], side: int, overlap: float) -> list[Box]:
    """Tiles of `side` x `side` pixels, evenly spaced over an image of size (h, w).

    Neighbours share at least `overlap` of their side. A direction in which the image is
    no larger than a tile is not cut; side 0 does not cut at all.
    """
    sides = [min(side or length, length) for length in size]
    tops, lefts = (_starts(n, s, overlap) for n, s in zip(size, sides, strict=True))
    return [Box(y, x, y + sides[0], x + sides[1]) for y in tops for x in lefts]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if length <= side:
        return [0]
    count = 1 + math.ceil((length - side) / max(1, int(side * (1 - overlap))))
    return np.linspace(0, length - side, count).round().astype(int).tolist()


def blend(
    maps: Sequence[Memberships], boxes: Sequence[Box], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of labels per tile -> per pixel of the image of size (h, w): the number of
    the label of the largest share, int32 `[h, w]`, and that share, float32 `[h, w]`.

    Overlapping tiles are averaged. A label that has the largest share in no pixel of
    any tile is left out.
    """
    leading = np.unique(np.concatenate([each.leading for each in maps]))
    average = averaging(boxes, size)
    best, labels = np.zeros(size, np.float32), np.zeros(size, np.int32)
    for label in leading.tolist():
        share = average([each[label] for each in maps])
        labels = np.where(share > best, np.int32(label), labels)
        best = np.maximum(best, share)
    return labels, best


def averaging(
    boxes: Sequence[Box], size: tuple[int, int]
) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """A function: one map `[h, w]` per tile -> the mean of the maps in every pixel of
    an image of size (h, w), float32. Maps are resized to their tile (bilinear). Their
    weight falls towards the tile's edges, so that no seam shows."""
    weights, total = [_hat(box) for box in boxes], np.zeros(size, np.float32)
    for box, weight in zip(boxes, weights, strict=True):
        total[box.place] += weight

    def average(maps: Sequence[np.ndarray]) -> np.ndarray:
        mean = np.zeros(size, np.float32)
        for each, box, weight in zip(maps, boxes, weights, strict=True):
            mean[box.place] += weight * resize(each, *weight.shape)
        return mean / total

    return average


def resize(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """float32 `[h, w]` -> `[height, width]`, bilinear."""
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _hat(box: Box) -> np.ndarray:
    """Weights of a tile's pixels: 1 in the middle, falling to the edges, never 0."""
    rows, cols = (
        1 - np.abs(2 * (np.arange(n, dtype=np.float32) + 0.5) / n - 1)
        for n in (box.bottom - box.top, box.right - box.left)
    )
    return rows[:, None] * cols[None, :]
