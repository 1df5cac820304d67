"""LVIS v1: 1,203 classes, the ground of LVIS-92i."""

import dataclasses
from typing import ClassVar

from seggpt_jax.data.sources.coco import CocoJson


@dataclasses.dataclass(frozen=True)
class Lvis(CocoJson):
    """`annotations/lvis_v1_{train,val}.json` beside COCO's `train2017/` and `val2017/`.

    An image makes a record for each of its classes, with the union of that class's
    objects, as LVIS-92i scores them: the masks of different classes overlap.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    annotations: str = "annotations/lvis_v1_{split}.json"
    images: str = "."

    def group(self, category: dict) -> str:
        return f"#{category['name']}"
