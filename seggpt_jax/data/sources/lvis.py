"""LVIS v1: 1,203 classes; and LVIS-92i, its folds of about 92 classes."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

from seggpt_jax.data.sources.coco import CocoJson
from seggpt_jax.data.sources.coco_file import CocoFile, Id, Note

FOLDS = 10


@dataclasses.dataclass(frozen=True)
class Lvis(CocoJson):
    """`annotations/lvis_v1_{train,val}.json` beside COCO's `train2017/` and `val2017/`.

    An image makes a record for each of its classes, with the union of that class's
    objects, as LVIS-92i scores them: the masks of different classes overlap.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    annotations: str = "annotations/lvis_v1_{split}.json"
    images: str = "."

    def group(self, category: str) -> str:
        return f"#{category}"

    def origin(self, name: str) -> str:
        return name.rpartition("#")[0]


@dataclasses.dataclass(frozen=True)
class Lvis92i(Lvis):
    """LVIS-92i by Matcher's rule (github.com/aim-uofa/Matcher, matcher/data/lvis.py).

    A record is one image of one class, class by class. Of the classes with more than
    `shots` images, numbered in order, fold f has f, f + 10, f + 20, ..., as many as
    every fold can have: `shots` is that of the episodes. Matcher goes by the order of
    its own pickles, which are not at hand; here classes and images are in the order of
    their ids.
    """

    splits = ("val",)
    fold: int = dataclasses.field(kw_only=True)
    shots: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.fold not in range(FOLDS):
            raise ValueError(f"fold: {self.fold!r} must be 0 to {FOLDS - 1}")
        if self.shots < 1:
            raise ValueError(f"shots: {self.shots!r} must be at least 1")

    def categories(self, coco: CocoFile) -> list[int]:
        shown = coco.images_of
        enough = sorted(c for c, images in shown.items() if len(images) > self.shots)
        return enough[self.fold :: FOLDS][: len(enough) // FOLDS]

    def choose(self, coco: CocoFile) -> Iterator[tuple[Id, Sequence[Note], str]]:
        for category in self.categories(coco):
            for image_id in coco.images_of[category]:
                # One of unknown category may be of this one.
                own = [
                    note
                    for note in coco.notes[image_id]
                    if note.category in (category, None)
                ]
                yield image_id, own, self.group(coco.names[category])
