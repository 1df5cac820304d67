"""MOSE: several objects per video, in crowds and behind each other."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from seggpt_jax.data.layout import Listing, folders_in, need
from seggpt_jax.data.sample import INSTANCE
from seggpt_jax.data.sources.videos import OBJECT, Videos, frames


@dataclasses.dataclass(frozen=True)
class Mose(Videos):
    """`{train,valid}/{JPEGImages,Annotations}/VIDEO/NNNNN.{jpg,png}`; in valid only
    the first frame has a mask."""

    splits = ("train", "valid")
    starts_only = ("valid",)
    kind = INSTANCE

    def records(self, root: Path, split: str) -> Listing:
        images, masks = self.watched(root, split)
        names = {*folders_in(images), *folders_in(masks)}
        videos: dict[str, dict[str, bool]] = {name: {} for name in sorted(names)}
        annotated = split not in self.starts_only
        found = frames(images, masks, videos, root, annotated=annotated)
        return Listing(OBJECT, found)

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        for name in ("JPEGImages", "Annotations"):
            yield need(root / split / name, "a folder for each video")
