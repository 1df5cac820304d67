"""Cityscapes, fine annotations, the 19 classes of its benchmark."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from seggpt_jax.data.layout import lookup
from seggpt_jax.data.sample import IGNORE
from seggpt_jax.data.sources.folders import Folders

# The ids of the owners' labels.py; all others are void there.
NAMES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
    19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain",
    23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus",
    31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cityscapes(Folders):
    """`leftImg8bit/{train,val}/CITY/*_leftImg8bit.png` and
    `gtFine/{train,val}/CITY/*_gtFine_labelIds.png`. Ids of no class are `IGNORE`."""

    image_suffix = "_leftImg8bit.png"
    mask_suffix = "_gtFine_labelIds.png"
    names = NAMES
    table = lookup({i: i for i in NAMES}, other=IGNORE)

    def places(self, root: Path, split: str) -> Iterable[tuple[Path, Path]]:
        yield root / "leftImg8bit" / split, root / "gtFine" / split
