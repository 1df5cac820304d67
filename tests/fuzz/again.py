"""Second readings of lists and of JSON in COCO's formats, by their specifications.

They know right files only: for anything else they say that they are not sure.
"""

import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from seggpt_jax.data.sample import IGNORE
from tests.fuzz import objects, sets

Truth = dict[str, np.ndarray | None]


class Unsure(Exception):
    """A file that is not right in every part."""


def sure(fact: Any) -> None:
    if not fact:
        raise Unsure


def read(made: sets.Made, root: Path) -> Truth:
    """Record -> what it shows. Raises `Unsure`."""
    try:
        return _READERS[made.type](made, root) if made.type in _READERS else made.truth
    except Exception as error:  # of a pickle any
        if isinstance(error, Unsure):
            raise
        raise Unsure from error


# COCO.


def _whole(x: Any, low: int = 0, high: int = 2**31) -> bool:
    return type(x) is int and low <= x <= high


def _mask(given: Any, size: tuple[int, int]) -> np.ndarray:
    h, w = size
    if isinstance(given, dict):
        counts = given["counts"]
        sure(given["size"] == [h, w] and all(_whole(n) for n in counts))
        sure(sum(counts) == h * w)
        runs = np.repeat(np.arange(len(counts)) % 2, counts)
        return runs.reshape(w, h).T.astype(bool)
    sure(isinstance(given, list) and given)
    for part in given:
        sure(len(part) >= 6 and len(part) % 2 == 0)
        for n, x in enumerate(part):
            side = h if n % 2 else w
            sure(type(x) in (int, float) and math.isfinite(x))
            sure(-side <= x <= 2 * side)
    return rle.decode(rle.merge(rle.frPyObjects(given, h, w))).astype(bool)


def _document(path: Path, part: str) -> tuple[dict, dict, dict[int, list[dict]]]:
    """Category -> name, image -> its row, and image -> its annotations."""
    data = sets.load(path)
    names: dict[int, str] = {}
    for row in data["categories"]:
        sure(_whole(row["id"], 1, 254) and row["id"] not in names)
        sure(row["name"] and type(row["name"]) is str)
        names[row["id"]] = row["name"]
    sure(len(set(names.values())) == len(names))
    images: dict[int, dict] = {}
    for row in data["images"]:
        sure(_whole(row["id"]) and row["id"] not in images)
        sure(type(row["file_name"]) is str and row.keys() <= {
            "id", "file_name", "height", "width"})  # fmt: skip
        sure(_whole(row["height"], 1) and _whole(row["width"], 1))
        images[row["id"]] = row
    sure(len({row["file_name"] for row in images.values()}) == len(images))
    notes: dict[int, list[dict]] = {}
    for row in data["annotations"]:
        sure(row["image_id"] in images and _whole(row["image_id"]) and part in row)
        notes.setdefault(row["image_id"], []).append(row)
    return names, images, notes


def _coco(group: Callable[[str], str]):
    def reader(made: sets.Made, root: Path) -> Truth:
        names, images, notes = _document(root / made.lists[0], "segmentation")
        shown = names
        if made.type == "lvis92i":
            count = {c: {r["image_id"] for rows in notes.values() for r in rows
                         if r["category_id"] == c} for c in names}  # fmt: skip
            enough = sorted(c for c in names if len(count[c]) > 1)
            fold = enough[made.settings["fold"] :: 10][: len(enough) // 10]
            shown = {c: names[c] for c in fold}
        truth: Truth = {}
        for key, rows in notes.items():
            image = images[key]
            size = image["height"], image["width"]
            groups: dict[str, list] = {}
            for number, row in enumerate(rows):
                category, crowd = row["category_id"], row.get("iscrowd", 0)
                sure(_whole(category) and category in names and crowd in (0, 1))
                sure(type(crowd) is int)
                mask = _mask(row["segmentation"], size)
                sure(mask.any())
                if category in shown:
                    place = groups.setdefault(group(names[category]), [])
                    label = number + 1 if made.objects else category
                    place.append((not crowd, -int(mask.sum()), label, mask))
            for name, layers in groups.items():
                if not any(layer[0] for layer in layers):
                    continue
                labels = np.zeros(size, int)
                for real, _, label, mask in sorted(layers, key=lambda x: x[:2]):
                    labels[mask] = label if real else IGNORE
                truth[image["file_name"] + name] = labels
        return truth

    return reader


def _panoptic(made: sets.Made, root: Path) -> Truth:
    names, images, notes = _document(root / made.lists[0], "segments_info")
    truth: Truth = {}
    sure(all(len(rows) == 1 for rows in notes.values()) and len(notes) == len(images))
    for rows in notes.values():
        row = rows[0]
        name = Path(row["file_name"]).stem
        sure(row["file_name"] == f"{name}.png" and name in made.files)
        colors = np.asarray(sets.Image.open(root / made.files[name][1])).astype(int)
        ids = colors @ [1, 256, 65536]
        labels = np.full(ids.shape, IGNORE)
        listed = set()
        for number, segment in enumerate(row["segments_info"]):
            category, crowd = segment["category_id"], segment.get("iscrowd", 0)
            sure(category in names and _whole(category) and crowd in (0, 1))
            sure(type(crowd) is int and segment["id"] not in listed)
            sure(_whole(segment["id"], 1, 2**24 - 1))
            listed.add(segment["id"])
            label = number + 1 if made.objects else category
            labels[ids == segment["id"]] = IGNORE if crowd else label
        sure(listed == set(np.unique(ids).tolist()) - {0})
        truth[name] = labels
    return truth


# Lists.


def _lines(path: Path) -> list[str]:
    text = path.read_bytes().decode("utf-8")
    sure(not set("\r\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\ufeff") & set(text))
    return [line for line in text.split("\n") if line]


def _listing(path: Path) -> list[str]:
    """The lines of a list, where blanks do not count."""
    return [line.strip() for line in _lines(path) if line.strip()]


def _listed(of: Callable[[str], str]):
    """The records of a list, each line of which begins the names of some."""

    def reader(made: sets.Made, root: Path) -> Truth:
        lines = _listing(root / made.lists[0])
        sure(len(set(lines)) == len(lines))
        found: Truth = {}
        for line in lines:
            own = {n: x for n, x in made.truth.items() if of(n) == line}
            sure(own)
            found |= own
        return found

    return reader


def _davis(made: sets.Made, root: Path) -> Truth:
    if "480p" in made.lists[0]:
        lines = {f"/{a} /{b}" for a, b in made.files.values()}
        sure(set(_listing(root / made.lists[0])) == lines)
        return made.truth
    return _listed(lambda name: name.split("/")[0])(made, root)


def _fss(made: sets.Made, root: Path) -> Truth:
    lines = _listing(root / made.lists[0])
    sure(lines and set(lines) <= {"abacus", "cat"})
    classes = sorted(set(lines))
    found: Truth = {}
    for name, labels in made.truth.items():
        sure(labels is not None)
        if (kind := name.split("/")[0]) in classes:
            found[name] = (labels > 0) * (classes.index(kind) + 1)
    return found


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise Unsure


def _coco20i(made: sets.Made, root: Path) -> Truth:
    lists = _Plain(io.BytesIO((root / made.lists[0]).read_bytes())).load()
    sure(type(lists) is dict and set(lists) <= set(range(80)))
    truth: Truth = {}
    for number, names in lists.items():
        sure(type(names) is list and (number == 0 or not names))
        for name in names:
            truth[f"{name}#1"] = made.truth[f"{name}#1"]
    return truth


def _pascal_part(made: sets.Made, root: Path) -> Truth:
    """Records of the one kind of objects that the list has, by the owners' rule."""
    data = sets.load(root / made.lists[0])
    sure(len(data) == 1)
    ((group, things),) = data.items()
    sure(made.settings["fold"] == [*objects.GROUPS].index(group))
    truth: Truth = {}
    places: dict[tuple[str, str], int] = {}
    for kind, parts in things["object"].items():
        for part, halves in parts["part"].items():
            names = [*halves["train"], *halves["val"]]
            sure(all(type(name) is str and name[:5] == "2008_" for name in names))
            if not halves["train"] or not halves["val"]:
                continue
            label = places.setdefault((kind, part), len(places) + 1)
            for name in halves["val"]:
                image, note = next(
                    pair for n, pair in made.files.items() if n.startswith(f"{name}#")
                )
                size = np.asarray(sets.Image.open(root / image)).shape[:2]
                for number, row in enumerate(sets.load(root / note)["object"]):
                    own = [p["mask"] for p in row["parts"] if p["name"] == part]
                    if row["name"] == kind and own:
                        masks = [_mask(one, size) for m in own for one in m]
                        sure(masks and all(mask.any() for mask in masks))
                        sides = [row["bndbox"][s] for s in ("xmin", "xmax")]
                        rows = [row["bndbox"][s] for s in ("ymin", "ymax")]
                        sure(all(_whole(x) for x in (*sides, *rows)))
                        cut = np.any(masks, 0)[slice(*rows), slice(*sides)]
                        if cut.size:
                            truth[f"{name}#{number} {kind}+{part}"] = cut * label
    return truth


def _paco_part(made: sets.Made, root: Path) -> Truth:
    train, val = (
        _Plain(io.BytesIO((root / name).read_bytes())).load() for name in made.lists
    )
    known = [*train["cid2img"]]
    sure(all(_whole(c) for c in (*known, *val["cid2img"])))
    own = known[made.settings["fold"] :: 4][: len(known) // 4]
    truth: Truth = {}
    place = 0
    for category in own:
        images: dict[int, str] = {}
        for one in val["cid2img"].get(category, ()):
            ((image, name),) = one.items()
            sure(_whole(image) and type(name) is str)
            images.setdefault(image, name)
        sure(len(set(images.values())) == len(images))
        if len(images) < 2:
            continue
        place += 1
        for image, name in images.items():
            size = np.asarray(sets.Image.open(root / "coco" / name)).shape[:2]
            things: dict[int, tuple[list, list]] = {}
            for note in val["img2anno"][image]:
                sure(_whole(note["category_id"]) and _whole(note["obj_ann_id"]))
                if note["category_id"] == category:
                    box = note["obj_bbox"]
                    sure(len(box) == 4 and all(type(x) is float and 0 <= x < 1e6
                                               for x in box))  # fmt: skip
                    _, masks = things.setdefault(note["obj_ann_id"], (box, []))
                    masks.append(_mask(note["segmentation"], size))
                    sure(masks[-1].any())
            sure(things)
            for number, ((x, y, width, height), masks) in things.items():
                rows = slice(int(y), int(y + height))
                cut = np.any(masks, 0)[rows, int(x) : int(x + width)]
                if cut.size:
                    truth[f"{name}#{number} part {category}"] = cut * place
    return truth


def _youtube(made: sets.Made, root: Path) -> Truth:
    videos = sets.load(root / made.lists[0])["videos"]
    for name, video in videos.items():
        sure(f"{name}/00000" in made.truth)
        for number, item in video["objects"].items():
            sure(number in ("1", "2") and type(item.get("category", "")) is str)
            # The first tells where an object begins; masks tell where it is.
            sure(item["frames"] in (["00000", "00001"], ["00000"]))
    return {n: x for n, x in made.truth.items() if n.split("/")[0] in videos}


def _indexed(made: sets.Made, root: Path) -> Truth:
    rows = [line.split("\t") for line in _lines(root / "index.tsv")]
    kinds = [line.split("\t") for line in _lines(root / "classes.tsv")]
    sure(rows[0] == ["split", "image", "mask", "width", "height", "classes"])
    sure(kinds[0] == ["id", "name", "images"])
    sure([kind[:2] for kind in kinds[1:]] == [["1", "cat"], ["3", "dog"]])
    truth: Truth = {}
    for line, (split, image, mask, width, height, classes) in enumerate(rows[1:], 2):
        sure(split and made.files[image] == (image, mask))
        values = made.truth[image]
        sure(values is not None and (height, width) == tuple(map(str, values.shape)))
        shown = sorted(set(np.unique(values).tolist()) - {0, IGNORE})
        sure(classes == ",".join(map(str, shown)))
        if split == "train":
            truth[f"{image}#{line}" if image in truth else image] = values
    return truth


_READERS = {
    "coco_instance": _coco(lambda name: ""),
    "coco_json": _coco(lambda name: ""),
    "lvis": _coco(lambda name: f"#{name}"),
    "lvis92i": _coco(lambda name: f"#{name}"),
    "paco": _coco(lambda name: "#parts" if ":" in name else "#objects"),
    "coco_panoptic": _panoptic,
    "coco_panoptic_segments": _panoptic,
    "voc": _listed(lambda name: name),
    "pascal5i": _listed(lambda name: name),
    "isaid5i": _listed(lambda name: name),
    "davis2016": _davis,
    "davis2017": _davis,
    "fss1000": _fss,
    "coco20i": _coco20i,
    "pascal_part": _pascal_part,
    "paco_part": _paco_part,
    "youtube_vos": _youtube,
    "indexed": _indexed,
}
