"""The objects in a result: what is counted, boxed, outlined and scored."""

import dataclasses
import functools
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from seggpt_jax.inference import Result
from seggpt_jax.results import outlines


@dataclasses.dataclass(frozen=True)
class Object:
    """A label of a result, or a connected part of it.

    part: 1, 2, ... among the parts of the label; 0 stands for all of the label. left,
    top: the first column and row of its box, in pixels of the image. mask: bool
    `[h, w]`, the content of the box. score: mean share of the label over its pixels,
    0..1.
    """

    label: int
    part: int
    left: int
    top: int
    mask: np.ndarray
    score: float

    @functools.cached_property
    def area(self) -> int:
        """In pixels."""
        return int(self.mask.sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """left, top, width and height, in pixels."""
        height, width = self.mask.shape
        return self.left, self.top, width, height

    @functools.cached_property
    def polygons(self) -> list[np.ndarray]:
        """One for each connected part, in pixels of the image (`outlines.polygons`)."""
        found = outlines.polygons(self.mask)
        return [polygon + (self.left, self.top) for polygon in found]

    def whole(self, size: tuple[int, ...]) -> np.ndarray:
        """The mask bool `[h, w]` of an image of size (h, w)."""
        mask, (height, width) = np.zeros(size, bool), self.mask.shape
        mask[self.top : self.top + height, self.left : self.left + width] = self.mask
        return mask

    def rle(self, size: tuple[int, int]) -> dict[str, Any]:
        """COCO's compressed run lengths, for an image of size (h, w)."""
        height, width = size
        columns, rows = np.nonzero(self.mask.T)  # COCO counts down the columns
        pixels = (columns + self.left) * height + rows + self.top
        ends = np.flatnonzero(np.diff(pixels) > 1)
        starts = pixels[np.concatenate([[0], ends + 1])]
        stops = pixels[np.concatenate([ends, [-1]])] + 1
        marks = np.stack([starts, stops], -1).ravel()
        last = [] if marks[-1] == height * width else [height * width]
        counts = np.diff(np.concatenate([[0], marks, last])).tolist()
        coded = coco_mask.frPyObjects({"size": [height, width], "counts": counts},
                                      height, width)  # fmt: skip
        return {"size": [height, width], "counts": coded["counts"].decode()}


def find(result: Result, split: bool = False) -> list[Object]:
    """The objects of a result, by label: one for each label; with `split`, one for each
    connected part of a label (pixels that touch at a corner are connected), from the
    top."""
    from scipy import ndimage  # late: a third of a second, and results may need none

    found = []
    for label, place in enumerate(ndimage.find_objects(result.segments), 1):
        if place is None:
            continue
        here = result.segments[place] == label
        parts, count = np.asarray(here, np.int32), 1
        if split:
            parts, count = ndimage.label(here, outlines.TOUCHING)
        places = ndimage.find_objects(parts)
        for part in range(1, count + 1):
            rows, columns = places[part - 1]
            mask = parts[rows, columns] == part
            shares = result.confidence[place][rows, columns][mask]
            found.append(Object(
                label=label,
                part=part if split else 0,
                left=place[1].start + columns.start,
                top=place[0].start + rows.start,
                mask=mask,
                score=float(shares.mean(dtype=np.float64)),
            ))  # fmt: skip
    return found
