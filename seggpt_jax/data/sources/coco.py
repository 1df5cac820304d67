"""COCO's JSON format: instances of COCO 2017, and any data set written in it."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from seggpt_jax.data.decode import check_size, naming_errors, orientation
from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Flaw,
    Layout,
    Listing,
    Skipped,
    labels_of,
    need,
    nth_label,
    placed,
    relative,
)
from seggpt_jax.data.sample import BACKGROUND, IGNORE, INSTANCE, BadRecord, kind_of
from seggpt_jax.data.sources.coco_file import CocoFile, Id, Images, Note, read_coco
from seggpt_jax.data.sources.coco_region import read_region

Object = tuple[int, int, str]  # label, whether it is a crowd or ignored, RLE


@dataclasses.dataclass(frozen=True)
class CocoJson(Layout):
    """A JSON of polygons or RLE (cocodataset.org/#format-data) beside images.

    annotations, images: the file and the folder below the root. `{split}` in them
    stands for the split, which may be any word. kind: "instance" gives every object a
    label of its own, "category" the id of its category. Crowds are `IGNORE`; small
    objects lie over large ones. Images without objects make no record.

    An object of unknown category is `IGNORE`, and so is the box of an object whose mask
    is missing or wrong: it lies somewhere there.
    """

    splits: ClassVar[tuple[str, ...]] = ()
    annotations: str = "annotations/{split}.json"
    images: str = "{split}"
    kind: int | str = "category"

    def __post_init__(self):
        object.__setattr__(self, "kind", kind_of(self.kind))

    def records(self, root: Path, split: str) -> Listing:
        folder, path = self.watched(root, split)
        return self.listing(read_coco(path), root, folder, path.name)

    def listing(self, coco: CocoFile, root: Path, folder: Path, file: str) -> Listing:
        """The records of a JSON that was read. folder: of the images. file: what errors
        call the JSON."""
        images, labels = Images(folder), labels_of(sorted(coco.names))

        def entries() -> Iterator[Entry | Skipped | Flaw]:
            yield from coco.found
            for image_id, notes, group in self.choose(coco):
                image = coco.images[image_id]
                name = images.find(image.names)
                if name is None:
                    why = images.why_not(image.name)
                    yield Skipped(image.name + group, why, listed=True)
                    continue
                if not notes:
                    yield Skipped(name + group, "has no object", fault=False)
                    continue
                size = image.size
                if size is None:
                    try:
                        size = stored_size(folder / name)
                    except BadRecord as error:
                        why = f"has no size in the JSON; {error}"
                        yield Skipped(name + group, why, listed=True)
                        continue
                    why = "has no possible size in the JSON: that of its file is taken"
                    yield Flaw(name, why, fault=False)
                groups: dict[str, list[Object]] = {}
                where = f"{file} {{}} of {name}"
                add = self._add_objects(groups, coco, notes, labels, size, where)
                yield from (flaws := list(add))
                if not groups:
                    why = "has no object but crowds and objects that are ignored"
                    lost = any(flaw.fault for flaw in flaws)
                    yield Skipped(name + group, why, fault=lost, listed=lost)
                for group, objects in groups.items():
                    shown = {label for label, crowd, _ in objects if not crowd}
                    note = {"image": image_id, "size": size, "objects": objects}
                    yield Entry(
                        name + group,
                        relative(folder / name, root),
                        annotation=json.dumps(note),
                        classes=tuple(sorted(shown)),
                    )

        names = {labels[i]: coco.names[i] for i in self.categories(coco)}
        return Listing(names, entries())

    def categories(self, coco: CocoFile) -> list[int]:
        """The ids of the categories that are classes of the source."""
        return sorted(coco.names)

    def choose(self, coco: CocoFile) -> Iterator[tuple[Id, Sequence[Note], str]]:
        """For every image its id, the annotations that records are made of, and the
        group that errors name where these are of one group."""
        for image_id in coco.images:
            yield image_id, coco.notes.get(image_id, ()), ""

    def group(self, category: str) -> str:
        """What the id of a record ends with. Categories of an image whose group differs
        make records of their own: for classes that lie over each other."""
        return ""

    def _add_objects(
        self,
        groups: dict[str, list[Object]],
        coco: CocoFile,
        notes: Iterable[Note],
        labels: Mapping[int, int],
        size: tuple[int, int],
        where: str,
    ) -> Iterator[Flaw]:
        """Adds the objects of an image to their groups, and yields what is wrong.
        Groups without a mask to learn are left out."""
        everywhere: list[Object] = []  # of unknown category
        found: dict[str, list[Object]] = {}
        for note in notes:
            region = read_region(note.row, size)
            known = region.exact and not note.wrong
            if wrong := note.wrong or region.wrong:
                then = "it is left out, as its place is unknown"
                if region.counts:
                    then = f"its {'mask' if region.exact else 'box'} is ignored"
                reason = wrong if known else f"{wrong}: {then}"
                fault = bool(note.wrong) or region.fault
                yield Flaw(where.format(note.name), reason, fault)
            if not region.counts:
                continue
            label = BACKGROUND if note.category is None else labels[note.category]
            item = label, int(note.crowd or not known), region.counts
            if note.category is None:
                everywhere.append(item)
            else:
                group = self.group(coco.names[note.category])
                found.setdefault(group, []).append(item)
        for group, objects in found.items():
            if not all(crowd for _, crowd, _ in objects):
                groups[group] = objects + everywhere

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        yield need(placed(root, "images", self.images, split), "the images' folder")
        path = placed(root, "annotations", self.annotations, split)
        yield need(path, "COCO annotations")

    def error_names(self, root: Path, entry: Entry) -> tuple[str, str]:
        image = json.loads(entry.annotation)["image"]
        return str(root / entry.image), f"(the objects of image {image} in the JSON)"

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        note = json.loads(annotation)
        return paint(note["size"], note["objects"], self.kind == INSTANCE)


@dataclasses.dataclass(frozen=True)
class CocoInstance(CocoJson):
    """`{train,val}2017/*.jpg` and `annotations/instances_{train,val}2017.json`: every
    object of the 80 things has a label of its own."""

    splits = ("train", "val")
    annotations: str = "annotations/instances_{split}2017.json"
    images: str = "{split}2017"
    kind: int | str = "instance"


def stored_size(path: Path) -> tuple[int, int]:
    """(h, w) of a picture, from its header. Raises `BadRecord`."""
    with naming_errors(str(path)), Image.open(path) as picture:
        check_size(picture)
        if orientation(picture) >= 5:
            raise BadRecord("is turned by its EXIF tag: give its width and height")
        return picture.height, picture.width


def paint(
    size: Sequence[int], objects: Sequence[Sequence[Any]], instances: bool
) -> Decoded:
    """The label map of objects (label, crowd, RLE). Small objects lie over large ones,
    and all objects over crowds."""
    segments = np.full(size, BACKGROUND, np.int32)
    owners = {}
    layers = []
    for number, (label, crowd, counts) in enumerate(objects):
        value = nth_label(number) if instances else label
        if not crowd:
            owners[value] = label
        coded = {"size": size, "counts": counts.encode()}
        order = (not crowd, -int(rle.area(coded)))
        layers.append((order, IGNORE if crowd else value, coded))
    for _, value, coded in sorted(layers, key=lambda layer: layer[0]):
        segments[rle.decode(coded) > 0] = value
    return Decoded(segments, owners if instances else None)
