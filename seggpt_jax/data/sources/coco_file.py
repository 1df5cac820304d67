"""A JSON file in one of COCO's formats (cocodataset.org/#format-data), checked.

Many programs write such files. So every value may be missing, of another type, or
absurd. A wrong value costs its own object or image only, and is named.
"""

import collections
import dataclasses
import functools
import json
import posixpath
import re
import reprlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from seggpt_jax.config import shorten
from seggpt_jax.data.decode import MAX_PIXELS, MAX_VALUE
from seggpt_jax.data.files import read_file
from seggpt_jax.data.layout import Flaw, Skipped, files_in

Id = int | str
Row = dict[str, Any]
Found = list[Skipped | Flaw]

# Paths and addresses that no file below a folder has.
_ELSEWHERE = re.compile(r"/|\.\./|[A-Za-z]:/|[A-Za-z][A-Za-z0-9+.-]+://")
_EXPORT = "export it as COCO, or Brush labels to COCO"
_UPLOAD = re.compile("[0-9a-f]{8}(-|__).")
_NUMBER = re.compile("0|-?[1-9][0-9]{0,17}")

# What users of crowds may not know.
CROWDS = "CVAT gives iscrowd 1 to every mask: set it to 0 for single objects"


class Listed(NamedTuple):
    """An image. id: as it stands in the file. name: its file name, plain. names: all
    paths below the images' folder that its file may have. size: (h, w), None where the
    JSON gives no possible one."""

    id: Any
    name: str
    names: tuple[str, ...]
    size: tuple[int, int] | None


class Note(NamedTuple):
    """An annotation. name: what errors call it. category: None if it is not listed.
    wrong: what is wrong with its class and `iscrowd`. row: as it stands in the file."""

    name: str
    category: int | None
    crowd: bool
    wrong: str
    row: Row


@dataclasses.dataclass(frozen=True)
class CocoFile:
    """names: category id -> name. images: in the order of their ids. notes: image id ->
    its annotations. found: what is wrong so far."""

    names: dict[int, str]
    images: dict[Id, Listed]
    notes: dict[Id, list[Note]]
    found: Found

    @functools.cached_property
    def images_of(self) -> dict[int, list[Id]]:
        """Category id -> the images with an annotation of it, in order."""
        found: dict[int, list[Id]] = {}
        for image in self.images:
            for category in {note.category for note in self.notes.get(image, ())}:
                if category is not None:
                    found.setdefault(category, []).append(image)
        return found


class Images:
    """The files below a folder, by the names that a JSON file gives them."""

    def __init__(self, folder: Path):
        self.folder, self.files = folder, files_in(folder)
        self._near: dict[str, str] | None = None

    def find(self, names: Collection[str]) -> str | None:
        """The name of the file; None where no file has one of the names."""
        inside = (name.removeprefix(f"{self.folder}/") for name in names)
        return next((name for name in inside if name in self.files), None)

    def why_not(self, name: str) -> str:
        """Why a name is not found, with the file that it may mean."""
        if self._near is None:
            self._near = {file.lower().split("/")[-1]: file for file in self.files}
        near = self._near.get(re.split(r"[/\\]", unquote(name).lower())[-1])
        hint = f"; is {near} meant? file_name is the path below that folder"
        return f"is not in {self.folder}{hint if near else ''}"


def read_json(path: Path) -> Any:
    try:
        return json.loads(read_file(path))
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error


def read_coco(path: Path) -> CocoFile:
    """A file of objects with masks.

    Raises:
      ValueError: for another format, and for classes that cannot be used.
    """
    data = read_lists(path, "segmentation")
    found: Found = []
    names = read_categories(path, data["categories"], found)
    images, same = read_images(path, data["images"], found)
    notes: dict[Id, list[Note]] = {}
    for number, row in enumerate(data["annotations"], 1):
        key, note = _read_note(row, number, names)
        if key is None:
            why = f"has {show(row, 'image_id')}, no image's id: it is left out"
            found.append(Flaw(f"{path.name} {note.name}", why))
        elif (image := same.get(key, key)) is not None:
            notes.setdefault(image, []).append(note)
    for image in sorted(notes.keys() - images.keys(), key=_order):
        name = f"{path.name} image {image}"
        found.append(Skipped(name, "has objects, but is not listed"))
    return CocoFile(names, images, notes, found)


def read_lists(
    path: Path,
    part: str,
    wanted: Sequence[str] = ("images", "annotations", "categories"),
) -> dict[str, list[Any]]:
    """The wanted lists of a file. part: the field that annotations of its format have.

    Raises:
      ValueError: for another format; it says which one the file looks like.
    """
    data = read_json(path)
    fields = data if isinstance(data, dict) else {}
    missing = [name for name in wanted if not isinstance(fields.get(name), list)]
    looks = _looks_like(data, part)
    if missing or looks:
        why = [f"lacks {', '.join(missing)}"] if missing else []
        why += [f"looks like {looks}"] if looks else []
        raise ValueError(f"{path}: not COCO's format: it {' and '.join(why)}")
    if not fields["images"] or not fields["categories"]:
        raise ValueError(f"{path}: lists no category or no image")
    return {name: fields[name] for name in wanted}


def read_categories(path: Path, rows: list[Any], found: Found) -> dict[int, str]:
    """Category id -> name, as listed. Where a name comes twice, ids stand behind it:
    settings choose classes by name."""
    names: dict[int, str] = {}
    for place, row in enumerate(rows, 1):
        number, name = whole(_get(row, "id")), text_of(_get(row, "name"))
        if number is None or not 0 <= number <= MAX_VALUE:
            raise ValueError(
                f"{path}: category entry {place} has {show(row, 'id')}; an id is a "
                f"whole number of 0 to {MAX_VALUE}"
            )
        if name is None:
            raise ValueError(f"{path}: category {number} has no name")
        if names.setdefault(number, name) != name:
            raise ValueError(
                f"{path}: category id {number} is {names[number]!r} and {name!r}; give "
                f"each an id of its own"
            )
    count = collections.Counter(names.values())
    for number, name in names.items():
        if count[name] > 1:
            names[number] = f"{name} (id {number})"
            why = f"has the name of another: it is {names[number]!r} here"
            found.append(Flaw(f"{path.name} category {number}", why, fault=False))
    return names


def read_images(
    path: Path, rows: list[Any], found: Found
) -> tuple[dict[Id, Listed], dict[Id, Id | None]]:
    """Image id -> image, in the order of the ids. Also id -> the id that stands for it,
    where a file is listed several times; None for an id that cannot be used."""
    images: dict[Id, Listed] = {}
    same: dict[Id, Id | None] = {}
    by_names: dict[tuple[str, ...], Id] = {}
    for number, row in enumerate(rows, 1):
        key = id_of(_get(row, "id"))
        image = None if key is None else _read_image(row)
        if key is None or image is None:
            what = show(row, "id") if key is None else show(row, "file_name")
            why = f"has {what}: an id is a number or text, a file name is text"
            place = f"{path.name} image entry {number}"
            found.append(Skipped(place, why, listed=True))
        elif key in images and images[key] != image:
            for one in (images[key], image):
                why = f"shares its id {key} with another"
                found.append(Skipped(one.name, why, listed=True))
            same[key] = None
        elif (first := by_names.setdefault(image.names[1:], key)) == key:
            images[key] = image
        elif images[first].size == image.size or None in (
            images[first].size,
            image.size,
        ):
            same[key] = first
            why = f"is image {first} and image {key}: it has the objects of both"
            found.append(Flaw(image.name, why, fault=False))
        else:
            same[key] = None
            why = f"is image {first} too, of another size"
            found.append(Skipped(f"{image.name} (image {key})", why, listed=True))
    kept = sorted((k for k in images if same.get(k, k) is not None), key=_order)
    return _with_ends({key: images[key] for key in kept}), same


def _with_ends(images: dict[Id, Listed]) -> dict[Id, Listed]:
    """Images whose names are addresses, or paths of another machine, may also have the
    ends of these. An end that two images have is no name of either."""
    ends = {key: found for key, one in images.items() if (found := _ends(one.names[0]))}
    count = collections.Counter(end for found in ends.values() for end in found)
    for one in images.values():
        count.update({*one.names})
    for key, found in ends.items():
        names = images[key].names
        more = [end for end in found if count[end] == 1 and end not in names]
        images[key] = images[key]._replace(names=(*names, *more))
    return images


def _ends(given: str) -> dict[str, None]:
    """The ends of an address or a path from elsewhere, the longest first; and a name
    without the signs of addresses, such as %20. An end has a folder at least, because
    1.png may be many, but for uploads of Label Studio."""
    path = given.replace("\\", "/")
    elsewhere = _ELSEWHERE.match(path)
    if not elsewhere and "%" not in path:
        return {}  # nearly all
    if "?d=" in path:  # Label Studio's local files
        path = path.partition("?d=")[2]
    elif "://" in path:
        path = path.partition("?")[0]
    found: dict[str, None] = {}
    for text in (path, unquote(path)):
        parts = [p for p in posixpath.normpath(text).split("/") if p not in ("", "..")]
        last = len(parts) - (not _UPLOAD.match("".join(parts[-1:])))
        ends = ["/".join(parts[k:]) for k in range(last)] if elsewhere else []
        found |= dict.fromkeys(ends or [text])
    found.pop("", None)
    return found


def id_of(value: object) -> Id | None:
    """An id: a whole number or text; None for anything else. The text of a number is
    that number, because files mix the two."""
    if type(value) is int:  # nearly all
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    return text_of(value)


def whole(value: object) -> int | None:
    """A whole number, also as text; None for anything else."""
    number = id_of(value)
    return number if isinstance(number, int) else None


def text_of(value: object) -> str | None:
    """A text that can be stored; None for anything else. JSON may hold zero bytes, and
    halves of characters, which UTF-8 has not."""
    if not isinstance(value, str) or not value:
        return None
    return None if re.search("[\0\ud800-\udfff]", value) else value


def crowd_of(row: Row) -> bool | None:
    """`iscrowd`, false where it is missing; None where it is neither 0 nor 1."""
    value = row.get("iscrowd")
    number = value if value is None or isinstance(value, bool) else whole(value)
    if number is None and value is not None:
        return None
    return bool(number) if number in (None, 0, 1) else None


def category_of(row: Row, names: Mapping[int, str]) -> int | None:
    """The category of an annotation; None if it is not listed."""
    category = whole(row.get("category_id"))
    return category if category in names else None


def what_is_wrong(row: Row, names: Mapping[int, str]) -> str:
    """What is wrong with the category or `iscrowd` of an annotation, or ""."""
    if category_of(row, names) is None:
        return f"has {show(row, 'category_id')}; the file lists {shorten(names)}"
    if crowd_of(row) is None:
        return f"has {show(row, 'iscrowd')}, which must be 0 or 1"
    return ""


def show(row: Any, name: str) -> str:
    """A field of an entry as errors show it, in short."""
    if not isinstance(row, dict):
        return f"{reprlib.repr(row)} in place of fields"
    return f"{name} {reprlib.repr(row[name])}" if name in row else f"no {name}"


def _read_note(
    row: Any, number: int, names: Mapping[int, str]
) -> tuple[Id | None, Note]:
    """The image of an annotation, and the annotation."""
    if not isinstance(row, dict):
        return None, Note(f"annotation entry {number}", None, False, "", {})
    key = id_of(row.get("id"))
    name = f"annotation entry {number}" if key is None else f"annotation {key}"
    category, crowd = category_of(row, names), crowd_of(row)
    wrong = what_is_wrong(row, names) if None in (category, crowd) else ""
    return id_of(row.get("image_id")), Note(name, category, bool(crowd), wrong, row)


def _read_image(row: Any) -> Listed | None:
    """None for an image without a file name. LVIS gives only a former address."""
    given, address = text_of(_get(row, "file_name")), text_of(_get(row, "coco_url"))
    former = ["/".join(address.split("/")[-2:])] if address else []
    if given is None and not former:
        return None
    # Windows has other slashes, and some programs write `./`.
    plain = [posixpath.normpath(given.replace("\\", "/"))] if given else []
    names = tuple([*plain, *former])
    return Listed(row["id"], names[0], (given or names[0], *names), _size(row))


def _size(row: Row) -> tuple[int, int] | None:
    height, width = whole(row.get("height")), whole(row.get("width"))
    if not height or not width or height < 1 or width < 1:
        return None
    return (height, width) if height * width <= MAX_PIXELS else None


def _get(row: Any, name: str) -> Any:
    return row.get(name) if isinstance(row, dict) else None


def _order(key: Id) -> tuple[bool, Any]:
    """Numbers come before text."""
    return isinstance(key, str), key


def _looks_like(data: Any, part: str) -> str:
    """The format of a file whose annotations lack the field `part`; "" if unknown."""
    rows = data.get("annotations") if isinstance(data, dict) else data
    head = rows[:100] if isinstance(rows, list) else []
    fields = {field for row in head if isinstance(row, dict) for field in row}
    if isinstance(data, list):
        if {"image_id", "score"} <= fields:
            return "COCO's results, which are predictions"
        if "annotations" in fields:
            return f"Label Studio's own JSON: {_EXPORT}"
        if "annotator" in fields:
            return f"Label Studio's JSON-MIN: {_EXPORT}"
        return "a list of annotations alone" if "image_id" in fields else "a list"
    if not isinstance(data, dict):
        return "a single value"
    if "shapes" in data and "imagePath" in data:
        return "labelme's JSON of one image: convert it to COCO's"
    regions = (isinstance(v, dict) and "regions" in v for v in data.values())
    if "_via_img_metadata" in data or any(regions):
        return "VIA's own JSON: export it as COCO"
    if "videos" in data:
        return "a set of videos"
    if part not in fields and "segments_info" in fields:
        return "COCO's panoptic format: take the type coco_panoptic"
    if part not in fields and "segmentation" in fields:
        return "COCO's format of objects: take the type coco_instance or coco_json"
    return "captions, which have no masks" if "caption" in fields else ""
