"""HRF: 45 retinal images of 3504 x 2336 with traced vessels."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from seggpt_jax.data.layout import Listing, need, top
from seggpt_jax.data.sources.folders import by_name
from seggpt_jax.data.sources.vessels import Vessels

TRAINING = 5  # of each kind (dr, g, h); the owners give no division


@dataclasses.dataclass(frozen=True)
class Hrf(Vessels):
    """`[HRF/]images/NN_{dr,g,h}.jpg` (or .JPG) and `manual1/NN_{dr,g,h}.tif`.

    train is the images 01 to 05 of each kind (healthy, glaucoma, retinopathy), test
    the other ten of each.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    def records(self, root: Path, split: str) -> Listing:
        images, masks = (by_name(folder, "") for folder in self.watched(root, split))
        # By number: a file that is missing moves no other into the other half.
        images, masks = (
            {k: d[k] for k in d if (_number(k) <= TRAINING) == (split == "train")}
            for d in (images, masks)
        )
        return self.listing(images, masks, root)

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        for name in ("images", "manual1"):
            yield need(top(root, "HRF") / name, "HRF's images and manual masks")


def _number(name: str) -> int:
    """NN of NN_KIND; 0 for other names."""
    number = name.partition("_")[0]
    return int(number) if number.isdecimal() else 0
