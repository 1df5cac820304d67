"""PASCAL-Part: the parts of VOC's objects in four folds, for few-shot evaluation."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from seggpt_jax.data.decode import BROKEN, naming_errors
from seggpt_jax.data.layout import Flaw, Listing, Skipped, need, nth_label, top
from seggpt_jax.data.sample import BadRecord
from seggpt_jax.data.sources.coco import stored_size
from seggpt_jax.data.sources.coco_file import read_json
from seggpt_jax.data.sources.parts import Box, Found, Parts, clipped, entry, union

GROUPS = ("animals", "indoor", "person", "vehicles")  # of the folds
# In both halves of the list, and no class of the benchmark.
LEFT_OUT = "aeroplane+TAIL"
MOST = 2500  # episodes of a fold
LIST = "Matcher's list of the images of each part"


class _Object(NamedTuple):
    """parts: name -> its masks in COCO's format."""

    name: str
    box: Box | None
    parts: dict[str, list[Any]]


@dataclasses.dataclass(frozen=True)
class PascalPart(Parts):
    """`[Pascal-Part/][VOCdevkit/]VOC2010/` with VOC's `JPEGImages/NAME.jpg`, and of
    Matcher (github.com/aim-uofa/Matcher, datasets/README.md) `all_obj_part_to_image.
    json` and `Annotations_Part_json_merged_part_classes/NAME.json`.

    A record is an object of an image, cut out by its box, with one of its parts. The
    classes of a fold are the pairs OBJECT+PART of its group that have images in both
    halves of the list.
    """

    def records(self, root: Path, split: str) -> Listing:
        images, notes, path = self.watched(root, split)
        lists, listed = read_lists(path, GROUPS[self.fold])
        sizes: dict[str, tuple[int, int]] = {}
        read: dict[str, list[_Object]] = {}  # an image is of several lists
        found: Found = []
        pools: dict[str, list[tuple[str, list[str | None]]]] = {}
        for place, (name, members) in enumerate(lists.items()):
            label = nth_label(place)
            pool = pools.setdefault(str(label), [])
            for image in members:
                file, given = images / f"{image}.jpg", notes / f"{image}.json"
                records: list[str | None] = []
                try:
                    if image not in read:
                        sizes[image] = stored_size(file)
                        read[image] = _read_objects(given, sizes[image])
                    size = sizes[image]
                    for record, box, masks in _chosen(image, read[image], name):
                        if record and box:
                            with naming_errors(str(given)):
                                counts = union(masks, size)
                            item = entry(record, file, root, label, size, box, counts)
                            found.append(item)
                        records.append(record)
                    if not any(records):
                        why = f"is listed in {path.name}, and no object has the part"
                        found.append(Flaw(f"{image}#{name}", why, fault=False))
                except BadRecord as error:
                    why = f"is listed in {path.name}; {error}"
                    found.append(Skipped(f"{image}#{name}", why, listed=True))
                pool.append((image, records))
        names = {nth_label(place): name for place, name in enumerate(lists)}
        once = {item.id: item for item in found}  # of images that are listed twice
        facts = {"pools": pools, "episodes": min(listed, MOST)}
        return Listing(names, once.values(), facts)

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        base = top(top(top(root, "Pascal-Part"), "VOCdevkit"), "VOC2010")
        yield need(base / "JPEGImages", "VOC 2010's images")
        annotations = "Annotations_Part_json_merged_part_classes"
        yield need(base / annotations, "Matcher's annotations of parts")
        yield need(base / "all_obj_part_to_image.json", LIST)


def read_lists(path: Path, group: str) -> tuple[dict[str, list[str]], int]:
    """OBJECT+PART -> names of its images of val, and the length of all lists of val.
    Raises ValueError for another file."""
    data, found, count = read_json(path), {}, 0
    try:
        for kind, parts in data[group]["object"].items():
            for part, halves in parts["part"].items():
                train, val = _images(halves["train"]), _images(halves["val"])
                count += len(val)
                if train and val and f"{kind}+{part}" != LEFT_OUT:
                    found[f"{kind}+{part}"] = val
    except BROKEN as error:
        raise ValueError(f"{path}: not {LIST} of {group}") from error
    if not found:
        raise ValueError(f"{path}: lists no part of {group} in train and val")
    return found, count


def _chosen(
    image: str, objects: list[_Object], name: str
) -> Iterator[tuple[str | None, Box | None, list[Any]]]:
    """Record, box and masks of each object of a class; no record without the part."""
    kind, _, part = name.partition("+")
    for number, one in enumerate(objects):
        if one.name == kind:
            whole = part in one.parts and one.box
            record = f"{image}#{number} {name}" if whole else None
            yield record, one.box, one.parts.get(part, [])


def _images(names: Any) -> list[str]:
    """The names of a list. Raises TypeError or ValueError for anything else."""
    for name in names:
        if type(name) is not str or not name or {*"/\\#\0"} & {*name}:
            raise ValueError(name)
    return [*names]


def _read_objects(path: Path, size: tuple[int, int]) -> list[_Object]:
    """The objects of an image. Raises BadRecord for another file."""
    try:
        data = read_json(path)
    except ValueError as error:
        raise BadRecord(str(error)) from error
    found = []
    with naming_errors(str(path), "copy it again"):
        for row in data["object"]:
            box = [row["bndbox"][side] for side in ("xmin", "ymin", "xmax", "ymax")]
            parts: dict[str, list[Any]] = {}
            for part in row["parts"]:
                parts.setdefault(part["name"], []).extend(_masks(part))
            found.append(_Object(row["name"], clipped(box, size), parts))
    return found


def _masks(part: Mapping[str, Any]) -> list[Any]:
    if not isinstance(part["mask"], list):
        raise TypeError("mask")
    return part["mask"]
