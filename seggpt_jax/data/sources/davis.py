"""DAVIS 2016 (one object) and 2017 (several), semi-supervised."""

import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np

from seggpt_jax.data.layout import (
    Decoded,
    Listing,
    first_folder,
    folder_name,
    need,
    read_lines,
    top,
)
from seggpt_jax.data.masks import read_grey
from seggpt_jax.data.sample import INSTANCE
from seggpt_jax.data.sources.videos import OBJECT, Videos, frames


@dataclasses.dataclass(frozen=True)
class Davis2017(Videos):
    """`[DAVIS/]{JPEGImages,Annotations}/480p/VIDEO/NNNNN.{jpg,png}` and
    `ImageSets/2017/{train,val,test-dev,test-challenge}.txt`, a video per line. The test
    splits have the masks of first frames only.

    resolution: "480p" or "Full-Resolution".
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test-dev", "test-challenge")
    starts_only = ("test-dev", "test-challenge")
    year = 2017
    kind = INSTANCE
    resolution: str = "480p"

    def records(self, root: Path, split: str) -> Listing:
        images, masks, path = self.watched(root, split)
        lines = read_lines(path, "it lists the videos")
        videos: dict[str, dict[str, bool]] = {}
        for line in lines:
            # Of DAVIS 2016 itself: `/JPEGImages/480p/bear/00000.jpg /Annotations/...`.
            frame, *more = map(Path, line.split())
            video = folder_name(path, frame.parent.name or line)
            listed = videos.setdefault(video, {})
            if frame.parent.name:
                masks_of = [(m.parent.name, m.stem) for m in more[:1]]
                if masks_of != [(video, frame.stem)]:
                    raise ValueError(f"{path}: {line!r} is no frame with its mask")
                listed[frame.stem] = True
        whole = split not in self.starts_only
        return Listing(OBJECT, frames(images, masks, videos, root, complete=whole))

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        davis = top(root, "DAVIS")
        for name in ("JPEGImages", "Annotations"):
            yield need(davis / name / self.resolution, "frames of DAVIS")
        lists = first_folder(davis / "ImageSets", str(self.year), self.resolution)
        yield lists / f"{split}.txt"


@dataclasses.dataclass(frozen=True)
class Davis2016(Davis2017):
    """The same with `ImageSets/2016/{train,val}.txt` or `ImageSets/480p/*.txt` (two
    paths a line). Every pixel that is not black is the object, so the masks of 2017
    serve too. resolution: "480p" or "1080p"."""

    splits = ("train", "val")
    year = 2016

    def decode(self, mask: bytes, annotation: str) -> Decoded | None:
        if not mask:
            return None
        return Decoded((read_grey(io.BytesIO(mask)) > 0).astype(np.int32))
