"""CHASE_DB1: 28 retinal images of 999 x 960 with traced vessels."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from seggpt_jax.data.layout import Listing, need, top
from seggpt_jax.data.sources.folders import by_name
from seggpt_jax.data.sources.vessels import Vessels

TRAINING = 10  # persons, of two images each: customary; the owners give no division


@dataclasses.dataclass(frozen=True)
class ChaseDb1(Vessels):
    """`[CHASEDB1/]Image_NN{L,R}.jpg` and `Image_NN{L,R}_1stHO.png` (1 bit).

    train is the first 20 images, test the last 8, as is customary.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    def records(self, root: Path, split: str) -> Listing:
        (folder,) = self.watched(root, split)
        images, masks = by_name(folder, ".jpg"), by_name(folder, "_1stHO.png")
        # By number: a file that is missing moves no person into the other half.
        images, masks = (
            {k: d[k] for k in d if (_person(k) <= TRAINING) == (split == "train")}
            for d in (images, masks)
        )
        return self.listing(images, masks, root)

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        return (need(top(root, "CHASEDB1"), "CHASE_DB1's images"),)


def _person(name: str) -> int:
    """The number in Image_NN{L,R}; 0 for other names."""
    found = re.search(r"Image_(\d+)", name)
    return int(found[1]) if found else 0
