"""DAVIS 2016 (one object) and 2017 (several), semi-supervised."""

import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np

from seggpt_jax.data.decode import read_mask
from seggpt_jax.data.layout import (
    Decoded,
    Listing,
    check_split,
    need,
    read_lines,
    top,
)
from seggpt_jax.data.sample import INSTANCE
from seggpt_jax.data.sources.videos import OBJECT, Videos, frames


@dataclasses.dataclass(frozen=True)
class Davis2017(Videos):
    """`[DAVIS/]{JPEGImages,Annotations}/480p/VIDEO/NNNNN.{jpg,png}` and
    `ImageSets/2017/{train,val,test-dev}.txt`, a video per line.

    resolution: "480p" or "Full-Resolution".
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test-dev")
    year: ClassVar[int] = 2017
    kind: int | str = dataclasses.field(default=INSTANCE, init=False)
    resolution: str = "480p"

    def records(self, root: Path, split: str) -> Listing:
        check_split(split, self.splits)
        images, masks, videos = self.watched(root, split)
        names = read_lines(videos, "it lists the videos")
        return Listing(OBJECT, frames(images, masks, names, root))

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        davis = top(root, "DAVIS")
        for name in ("JPEGImages", "Annotations"):
            yield need(davis / name / self.resolution, "frames of DAVIS")
        yield davis / "ImageSets" / str(self.year) / f"{split}.txt"


@dataclasses.dataclass(frozen=True)
class Davis2016(Davis2017):
    """The same with `ImageSets/2016/{train,val}.txt`; every pixel that is not black is
    the object, so that the masks of 2017 serve as well."""

    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    year: ClassVar[int] = 2016

    def decode(self, mask: bytes, annotation: str) -> Decoded | None:
        if not mask:
            return None
        return Decoded((read_mask(io.BytesIO(mask)) > 0).astype(np.int32))
