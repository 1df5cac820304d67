"""PACO-LVIS: 75 objects and their parts."""

import dataclasses

from seggpt_jax.data.sources.coco import CocoJson


@dataclasses.dataclass(frozen=True)
class Paco(CocoJson):
    """`annotations/paco_lvis_v1_{train,val}.json` beside COCO's `train2017/` and
    `val2017/`.

    An image makes two records, one of its objects and one of its parts (named
    `object:part`), since parts lie on objects.
    """

    splits = ("train", "val", "test")
    annotations: str = "annotations/paco_lvis_v1_{split}.json"
    images: str = "."

    def group(self, category: str) -> str:
        return "#parts" if ":" in category else "#objects"

    def origin(self, name: str) -> str:
        return name.rpartition("#")[0]
