"""CHASE_DB1: 28 retinal images of 999 x 960 with traced vessels."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from seggpt_jax.data.layout import Listing, need, top
from seggpt_jax.data.sources.folders import by_name
from seggpt_jax.data.sources.vessels import Vessels

TRAINING = 20  # the customary division; the owners give none


@dataclasses.dataclass(frozen=True)
class ChaseDb1(Vessels):
    """`[CHASEDB1/]Image_NN{L,R}.jpg` and `Image_NN{L,R}_1stHO.png` (1 bit).

    train is the first 20 images, test the last 8, as is customary.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    def records(self, root: Path, split: str) -> Listing:
        (folder,) = self.watched(root, split)
        images, masks = by_name(folder, ".jpg"), by_name(folder, "_1stHO.png")
        ordered = sorted(images)
        half = ordered[:TRAINING] if split == "train" else ordered[TRAINING:]
        images, masks = ({k: d[k] for k in half if k in d} for d in (images, masks))
        return self.listing(images, masks, root)

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        return (need(top(root, "CHASEDB1"), "CHASE_DB1's images"),)
