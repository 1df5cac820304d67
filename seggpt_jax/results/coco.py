"""Results in COCO's formats, and the COCO file whose ids they are to have.

Without such a file `coco.json` is a data set: images, annotations and categories. With
one it is a list of results, which pycocotools' `loadRes` reads beside that file.
"""

import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from seggpt_jax.data.sources.coco_file import (
    Found,
    Listed,
    read_categories,
    read_images,
    read_lists,
)
from seggpt_jax.prompts.annotations import ByPath
from seggpt_jax.results.categories import Categories
from seggpt_jax.results.objects import Object
from seggpt_jax.runs.paths import AnyPath

FILE = "coco.json"
Piece = dict[str, Any]  # {"image": ..., "annotations": [...]}: one image's part


class Truth:
    """The images and categories of a COCO file. Raises ValueError if it is none."""

    def __init__(self, path: Path):
        # Results need no annotations: the images of a test have none.
        data = read_lists(path, "segmentation", ("images", "categories"))
        found: Found = []
        names = read_categories(path, data["categories"], found)
        images, same = read_images(path, data["images"], found)
        self.path, self.categories = path, dict(sorted(names.items()))
        again = [(key, first) for key, first in same.items() if first in images]
        listed = [*zip(images, images, strict=True), *again]
        self._by_path = ByPath(path, ((key, images[first]) for key, first in listed))

    def image_of(self, path: Path) -> Listed:
        """The file's entry of an image (`ByPath.find`)."""
        return self._by_path.find(path)[1]


def piece(
    source: str,
    size: tuple[int, int],
    objects: Iterable[Object],
    categories: Categories,
    known: Listed | None = None,
) -> Piece:
    """The part of one image of size (h, w). known: its entry in a COCO file; the part
    then has its id, and the fields that results have. Raises ValueError if the file
    gives another size."""
    height, width = size
    if known is None:
        image = {"file_name": source, "height": height, "width": width}
        notes = [_annotation(each, size, categories) for each in objects]
        return {"image": image, "annotations": notes}
    if known.size not in (None, size):
        raise ValueError(
            f"{source} is {width} x {height}, and {known.size[1]} x {known.size[0]} in "
            f"the COCO file"
        )
    notes = [
        {
            "image_id": known.id,
            "category_id": categories.ids[each.label],
            # No box: `loadRes` would take the area of the box for that of the mask.
            "segmentation": each.rle(size),
            "score": round(each.score, 6),
        }
        for each in objects
    ]
    return {"image": {"id": known.id, "file_name": source}, "annotations": notes}


def _annotation(
    found: Object, size: tuple[int, int], categories: Categories
) -> dict[str, Any]:
    return {
        "category_id": categories.ids[found.label],
        "label": found.label,
        "segmentation": found.rle(size),
        "polygons": [polygon.ravel().tolist() for polygon in found.polygons],
        "area": found.area,
        "bbox": list(found.box),
        "iscrowd": 0,
        "score": round(found.score, 6),
    }


def read_piece(path: AnyPath) -> Piece:
    """The part of one image. Raises ValueError for a file that is none."""
    try:
        part = json.loads(path.read_bytes())
        _ = part["image"], part["annotations"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged: remove it, and the same command writes it anew"
        ) from error
    return part


def read(path: AnyPath) -> Any:
    """A joined file that an earlier run wrote; None without one. Raises ValueError for
    a file of another origin or a damaged one."""
    if not path.exists():
        return None
    try:
        joined = json.loads(path.read_bytes())
        if isinstance(joined, list):
            _ = [note["image_id"] for note in joined]
        else:
            _ = [joined["categories"], *(image["id"] for image in joined["images"])]
            _ = [(note["id"], note["image_id"]) for note in joined["annotations"]]
        return joined
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged, or of another program: move it away, or choose "
            "another --out"
        ) from error


def join_set(
    old: Mapping[str, Any] | None,
    pieces: Mapping[int, Piece],
    categories: Categories,
) -> dict[str, Any]:
    """A data set of the parts of images, by id. Images of `old` that have no part here
    stay. Annotations keep their ids, in order; what is new gets ids above all."""
    old = old or {}
    images = {image["id"]: image for image in old.get("images", [])}
    kept: dict[int, list[dict]] = {number: [] for number in images}
    for note in old.get("annotations", []):
        kept.setdefault(note["image_id"], []).append(note)
    used = [note["id"] for notes in kept.values() for note in notes]
    fresh = itertools.count(max(used, default=0) + 1)
    for number, part in sorted(pieces.items()):
        images[number] = {"id": number} | part["image"]
        ids = itertools.chain((note["id"] for note in kept.get(number, [])), fresh)
        kept[number] = [
            # An id is taken only for an annotation that there is.
            {"id": next(ids), "image_id": number} | note
            for note in part["annotations"]
        ]
    named = [{"id": number, "name": name} for number, name in categories.names.items()]
    return {
        "images": [images[number] for number in sorted(images)],
        "annotations": [note for number in sorted(kept) for note in kept[number]],
        "categories": named,
    }


def join_results(
    old: Iterable[Mapping[str, Any]] | None, pieces: Iterable[Piece]
) -> list[Mapping[str, Any]]:
    """A list of results out of the parts of images. Those of `old` stay whose image has
    no part here."""
    pieces = list(pieces)
    known = {part["image"]["id"] for part in pieces}
    kept = [note for note in old or () if note["image_id"] not in known]
    return kept + [note for part in pieces for note in part["annotations"]]
