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

    annotations, images: the file and the folder below the root. `{split}` in them
    stands for the split, which may be any word. kind: "instance" gives every object a
    label of its own, "category" the id of its category. Crowds are `IGNORE`; small
    objects lie over large ones. Images without objects make no record.
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
            for image_id, notes, group in self.choose(coco):
                if image_id not in coco.imgs:
                    yield Skipped(f"image {image_id}", "has objects, but is not listed")
                    continue
                image = coco.imgs[image_id]
                names = file_names(image)
                name = next((name for name in names if name in there), None)
                if name is None:
                    why = f"is not in {images}"
                    yield Skipped(names[0] + group, why, listed=True)
                    continue
                try:
                    groups = self._encode(coco, notes, labels)
                except (ValueError, TypeError, IndexError, KeyError) as error:
                    why = f"has an annotation out of form: {error!r}"
                    yield Skipped(name + group, why, listed=True)
                    continue
                if not groups:
                    yield Skipped(name + group, "has no object", fault=False)
                    continue
                size = int(image["height"]), int(image["width"])
                for group, objects in groups.items():
                    shown = {label for label, crowd, _ in objects if not crowd}
                    yield Entry(
                        name + group,
                        relative(images / name, root),
                        annotation=json.dumps({"size": size, "objects": objects}),
                        classes=tuple(sorted(shown)),
                    )

        names = {labels[i]: coco.cats[i]["name"] for i in self.categories(coco)}
        return Listing(names, entries())

    def categories(self, coco: COCO) -> list[int]:
        """The ids of the categories that are classes of the source."""
        return sorted(coco.cats)

    def choose(self, coco: COCO) -> Iterator[tuple[int, list[dict], str]]:
        """For every image its id, the annotations that records are made of, and the
        group that errors name where these are of one group."""
        unlisted = sorted(coco.imgToAnns.keys() - coco.imgs.keys(), key=str)
        for image_id in [*unlisted, *sorted(coco.imgs)]:
            yield image_id, coco.imgToAnns.get(image_id, []), ""

    def group(self, category: dict) -> str:
        """What the id of a record ends with. Categories of an image whose group differs
        make records of their own: for classes that lie over each other."""
        return ""

    def _encode(
        self, coco: COCO, notes: Iterable[dict], labels: dict[int, int]
    ) -> dict[str, list[tuple]]:
        """Group -> its objects; groups with crowds only are left out."""
        groups: dict[str, list[tuple]] = {}
        for note in notes:
            if found := encode(coco, note, labels):
                category = coco.cats[note["category_id"]]
                groups.setdefault(self.group(category), []).append(found)
        return {
            group: objects
            for group, objects in groups.items()
            if not all(crowd for _, crowd, _ in objects)
        }

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        yield need(placed(root, "images", self.images, split), "the images' folder")
        path = placed(root, "annotations", self.annotations, split)
        yield need(path, "COCO annotations")

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


def open_coco(path: Path) -> COCO:
    """pycocotools' index of a JSON file, without its printed lines."""
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
    """The names that an image's file may have. LVIS gives only its former address."""
    names = [image["file_name"]] if image.get("file_name") else []
    if image.get("coco_url"):
        names.append("/".join(image["coco_url"].split("/")[-2:]))
    return names or [f"image {image['id']}"]


def encode(coco: COCO, note: dict, labels: dict[int, int]) -> tuple | None:
    """(label, crowd, compressed RLE) of an annotation; None if it has no mask, or a
    mask without pixels. Raises ValueError for a mask that does not fit its image."""
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
    """The label map of objects (label, crowd, RLE). Small objects lie over large ones,
    and all objects over crowds."""
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
