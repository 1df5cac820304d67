"""COCO's JSON format: instances of COCO 2017, and any data set written in it."""

import contextlib
import dataclasses
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO

from seggpt_jax.data.decode import MAX_VALUE
from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Layout,
    Listing,
    Skipped,
    files_in,
    labels_of,
    need,
    nth_label,
    placed,
    relative,
)
from seggpt_jax.data.sample import BACKGROUND, IGNORE, INSTANCE, kind_of


@dataclasses.dataclass(frozen=True)
class CocoJson(Layout):
    """A JSON of polygons or RLE (cocodataset.org/#format-data) beside images.

    annotations, images: the file and the folder below the root; `{split}` in them is
    the split, any word then. kind: "instance" gives every object a label of its own,
    "category" gives objects their category id. Crowds are `IGNORE`; small objects lie
    over large ones. Images without objects make no record.
    """

    splits: ClassVar[tuple[str, ...]] = ()
    annotations: str = "annotations/{split}.json"
    images: str = "{split}"
    kind: int | str = "category"

    def __post_init__(self):
        object.__setattr__(self, "kind", kind_of(self.kind))

    def records(self, root: Path, split: str) -> Listing:
        images, path = self.watched(root, split)
        coco = open_coco(path)
        labels = labels_of(sorted(coco.cats))
        there = files_in(images)

        def entries() -> Iterator[Entry | Skipped]:
            for image_id in sorted(coco.imgToAnns.keys() - coco.imgs.keys(), key=str):
                yield Skipped(f"image {image_id}", "has objects, but is not listed")
            for image_id in sorted(coco.imgs):
                image = coco.imgs[image_id]
                names = file_names(image)
                name = next((name for name in names if name in there), None)
                if name is None:
                    yield Skipped(names[0], f"is not in {images}")
                    continue
                try:
                    groups = self._encode(coco, image_id, labels)
                except (ValueError, TypeError, IndexError, KeyError) as error:
                    yield Skipped(name, f"has an annotation out of form: {error!r}")
                    continue
                if not groups:
                    yield Skipped(name, "has no object", fault=False)
                    continue
                size = int(image["height"]), int(image["width"])
                for group, notes in groups.items():
                    shown = {label for label, crowd, _ in notes if not crowd}
                    yield Entry(
                        name + group,
                        relative(images / name, root),
                        annotation=json.dumps({"size": size, "objects": notes}),
                        classes=tuple(sorted(shown)),
                    )

        names = {labels[i]: coco.cats[i]["name"] for i in sorted(coco.cats)}
        return Listing(names, entries())

    def group(self, category: dict) -> str:
        """Categories of one image that differ in this make records of their own, with
        this after their id: for classes that lie over each other."""
        return ""

    def _encode(
        self, coco: COCO, image_id: int, labels: dict[int, int]
    ) -> dict[str, list[tuple]]:
        """Group -> its objects; groups that show nothing but crowds are left out."""
        groups: dict[str, list[tuple]] = {}
        for note in coco.imgToAnns.get(image_id, []):
            if found := encode(coco, note, labels):
                category = coco.cats[note["category_id"]]
                groups.setdefault(self.group(category), []).append(found)
        return {
            group: notes
            for group, notes in groups.items()
            if not all(crowd for _, crowd, _ in notes)
        }

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        return (
            need(placed(root, "images", self.images, split), "the images' folder"),
            need(
                placed(root, "annotations", self.annotations, split), "COCO annotations"
            ),
        )

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        note = json.loads(annotation)
        return paint(note["size"], note["objects"], self.kind == INSTANCE)


@dataclasses.dataclass(frozen=True)
class CocoInstance(CocoJson):
    """`{train,val}2017/*.jpg` and `annotations/instances_{train,val}2017.json`: every
    object of the 80 things is a label of its own."""

    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    annotations: str = "annotations/instances_{split}2017.json"
    images: str = "{split}2017"
    kind: int | str = "instance"


def open_coco(path: Path) -> COCO:
    """pycocotools' index of a JSON file, without what it prints."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(path)
        coco.imgToAnns = dict(coco.imgToAnns)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(f"{path}: not COCO's format: {error!r}") from error
    if not coco.cats or not coco.imgs:
        raise ValueError(f"{path}: lists no category or no image")
    for number, category in coco.cats.items():
        if not (type(number) is int and 0 <= number <= MAX_VALUE):
            raise ValueError(
                f"{path}: category id {number!r} must be a whole number of 0 to "
                f"{MAX_VALUE}"
            )
        if not isinstance(category.get("name"), str):
            raise ValueError(f"{path}: category {number} has no name")
    return coco


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error


def file_names(image: dict) -> list[str]:
    """What an image's file may be called; LVIS has only the address it was at."""
    names = [image["file_name"]] if image.get("file_name") else []
    if image.get("coco_url"):
        names.append("/".join(image["coco_url"].split("/")[-2:]))
    return names or [f"image {image['id']}"]


def encode(coco: COCO, note: dict, labels: dict[int, int]) -> tuple | None:
    """(label, crowd, compressed RLE) of an annotation; None of one without a mask or
    whose mask has no pixel. Raises ValueError for what is no mask of its image."""
    if not (given := note.get("segmentation")):
        return None
    image = coco.imgs[note["image_id"]]
    size = [int(image["height"]), int(image["width"])]
    if isinstance(given, dict):
        if (found := list(given["size"])) != size:
            raise ValueError(f"RLE of {found} in an image of {size}")
        plain = given["counts"]
        if isinstance(plain, list) and sum(plain) != size[0] * size[1]:
            raise ValueError(f"RLE of {sum(plain)} pixels in an image of {size}")
    try:
        coded = coco.annToRLE(note)
    except Exception as error:  # pycocotools raises bare ones
        raise ValueError(str(error)) from error
    if not rle.area(coded):
        return None
    counts = coded["counts"]
    text = counts.decode() if isinstance(counts, bytes) else counts
    return labels[note["category_id"]], int(note.get("iscrowd", 0)), text


def paint(
    size: Sequence[int], objects: Sequence[Sequence[Any]], instances: bool
) -> Decoded:
    """The label map of objects (label, crowd, RLE): small ones lie over large ones, all
    over crowds."""
    segments = np.full(size, BACKGROUND, np.int32)
    owners = {}
    layers = []
    for number, (label, crowd, counts) in enumerate(objects):
        value = nth_label(number) if instances else label
        owners[value] = label
        coded = {"size": size, "counts": counts.encode()}
        order = (not crowd, -int(rle.area(coded)))
        layers.append((order, IGNORE if crowd else value, coded))
    for _, value, coded in sorted(layers, key=lambda layer: layer[0]):
        segments[rle.decode(coded) > 0] = value
    return Decoded(segments, owners if instances else None)
