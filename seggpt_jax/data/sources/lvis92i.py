"""LVIS-92i: LVIS v1 val in ten folds of about 92 classes, by Matcher's rule."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from seggpt_jax.data.layout import (
    Entry,
    Listing,
    Skipped,
    files_in,
    labels_of,
    relative,
)
from seggpt_jax.data.sources.coco import encode, file_names, open_coco
from seggpt_jax.data.sources.lvis import Lvis

FOLDS = 10


@dataclasses.dataclass(frozen=True)
class Lvis92i(Lvis):
    """The tree of `lvis`; github.com/aim-uofa/Matcher, matcher/data/lvis.py.

    A record is one image of one class, with the union of that class's objects, class by
    class. Of the classes with more than `shots` images, numbered in order, fold f has
    f, f + 10, f + 20, ..., as many as every fold can have: `shots` is that of the
    episodes. Matcher goes by the order of its own pickles, which are not at hand; here
    classes are in the order of their category ids and images in that of theirs.
    """

    splits: ClassVar[tuple[str, ...]] = ("val",)
    fold: int = dataclasses.field(kw_only=True)
    shots: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.fold not in range(FOLDS):
            raise ValueError(f"fold: {self.fold!r} must be 0 to {FOLDS - 1}")
        if self.shots < 1:
            raise ValueError(f"shots: {self.shots!r} must be at least 1")

    def records(self, root: Path, split: str) -> Listing:
        images, path = self.watched(root, split)
        coco = open_coco(path)
        labels = labels_of(sorted(coco.cats))
        shown = {c: sorted(set(coco.catToImgs.get(c, ()))) for c in sorted(coco.cats)}
        there = files_in(images)

        def entry(category: int, image_id: int) -> Entry | Skipped:
            image = coco.imgs[image_id]
            names = file_names(image)
            name = next((name for name in names if name in there), None)
            group = self.group(coco.cats[category])
            if name is None:
                return Skipped(names[0] + group, f"is not in {images}")
            own = [
                note
                for note in coco.imgToAnns[image_id]
                if note["category_id"] == category
            ]
            try:
                notes = [n for note in own if (n := encode(coco, note, labels))]
            except (ValueError, TypeError, IndexError, KeyError) as error:
                return Skipped(
                    name + group, f"has an annotation out of form: {error!r}"
                )
            if not notes:
                return Skipped(name + group, "has no object", fault=False)
            size = int(image["height"]), int(image["width"])
            return Entry(
                name + group,
                relative(images / name, root),
                annotation=json.dumps({"size": size, "objects": notes}),
                classes=(labels[category],),
            )

        chosen = self._fold([c for c, members in shown.items()
                             if len(members) > self.shots])  # fmt: skip

        def entries() -> Iterator[Entry | Skipped]:
            for category in chosen:
                for image_id in shown[category]:
                    yield entry(category, image_id)

        return Listing({labels[c]: coco.cats[c]["name"] for c in chosen}, entries())

    def _fold(self, classes: list[int]) -> list[int]:
        return classes[self.fold :: FOLDS][: len(classes) // FOLDS]
