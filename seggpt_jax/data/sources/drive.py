"""DRIVE: 40 retinal images of 565 x 584 with traced vessels."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from seggpt_jax.data.layout import Listing, need, pictures, top
from seggpt_jax.data.sources.vessels import Vessels

FOLDERS = {"train": "training", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Drive(Vessels):
    """`[DRIVE/]{training,test}/{images/NN_*.tif,1st_manual/NN_manual1.gif}`.

    Masks are 0 and 255. Outside the field of view (`mask/`) nothing is vessel.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    def records(self, root: Path, split: str) -> Listing:
        images, masks = (
            {path.name.split("_")[0]: path for path in pictures(folder)}
            for folder in self.watched(root, split)
        )
        return self.listing(images, masks, root)

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        folder = top(root, "DRIVE") / FOLDERS[split]
        for name in ("images", "1st_manual"):
            yield need(folder / name, "DRIVE's images and manual masks")
