"""How the owners of a data set arrange its files, and how a record of it is read.

A layout lists the records of a split, and turns the bytes of a mask into a label map.
`data.dataset` knows whether the bytes come from the owners' folder or the prepared
form, and which classes a run keeps.
"""

import dataclasses
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from seggpt_jax.config import shorten
from seggpt_jax.data.decode import MAX_VALUE, Remark, naming_errors
from seggpt_jax.data.files import hidden, read_file, walk
from seggpt_jax.data.masks import read_grey, read_ids, unlisted
from seggpt_jax.data.sample import BACKGROUND, CATEGORY, IGNORE, BadRecord

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".ppm", ".gif", ".webp")


class Entry(NamedTuple):
    """One record.

    id: unique in the split. image, mask: files, relative to the root; mask is empty
    where the annotation is enough. annotation: JSON, part of a file that many records
    share. classes: the labels that it shows; None where only decoding tells.
    """

    id: str
    image: str
    mask: str = ""
    annotation: str = ""
    classes: tuple[int, ...] | None = None


class Skipped(NamedTuple):
    """A file that makes no record, and why. fault: false where nothing is wrong.
    listed: a list of the owners has it in the split, so that scores need it."""

    id: str
    reason: str
    fault: bool = True
    listed: bool = False


class Flaw(NamedTuple):
    """Something wrong with a part of a record, such as an object: the rest is used. id:
    its file and its place there. fault: false where nothing needs to be mended."""

    id: str
    reason: str
    fault: bool = True


class Listing(NamedTuple):
    """The records of a split. names: label -> class name, in the owners' order. facts:
    JSON, which `Layout.with_facts` needs to decode the records, or a protocol to draw
    its episodes."""

    names: dict[int, str]
    records: Iterable[Entry | Skipped | Flaw]
    facts: Mapping[str, Any] = {}


class RawRecord(NamedTuple):
    """The bytes of one record. image_name, mask_name: what errors call the two."""

    id: str
    image: bytes
    mask: bytes
    annotation: str
    image_name: str
    mask_name: str


class Decoded(NamedTuple):
    """A label map int32 `[h, w]` of `BACKGROUND`, `IGNORE` and labels. owners: label of
    each instance -> label of its class; None where the labels are classes. only: the
    class that the record stands for, where the map shows other classes too. remarks:
    about the mask."""

    segments: np.ndarray
    owners: Mapping[int, int] | None = None
    only: int | None = None
    remarks: tuple[Remark, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
    """Base of all layouts. The fields of a subclass are its settings in a config.

    A field with `compare=False` does not change the records: a prepared set serves all
    its values.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val")  # empty: any word is a split
    class_list: ClassVar[str] = ""  # the file that lists the classes, for errors
    scale_masks: ClassVar[bool] = False  # scales masks whose size is not their image's
    keep_empty: ClassVar[bool] = True  # lists records whose masks show no class too
    readers: ClassVar[int] = 64  # threads that decode masks at once
    video: ClassVar[bool] = False  # ids are VIDEO/FRAME, frames in order
    # Splits of videos where a mask shows only the objects that begin in its frame.
    starts_only: ClassVar[tuple[str, ...]] = ()
    kind: int | str | None = dataclasses.field(default=CATEGORY, init=False)

    @property
    def same_image_only(self) -> bool | None:
        """Whether labels mean nothing across images (see `data.sample.Source`)."""
        return False

    @property
    def labels(self) -> Mapping[int, int]:
        """Class id of the owners -> label, where settings may name classes by ids."""
        return {}

    def __getstate__(self) -> dict:
        # Without the tables that are cached beside the fields: workers make them anew.
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def splits_in(cls, root: Path) -> tuple[str, ...]:
        """The splits of a folder; empty where a config must name them."""
        return cls.splits

    def records(self, root: Path, split: str) -> Listing:
        """The records of a split, without decoding any picture.

        Raises:
          ValueError: that names the file or folder that is wrong, and the remedy.
        """
        raise NotImplementedError

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        """The files and folders that `records` reads: when one changes, the stored
        catalog is out of date."""
        raise NotImplementedError

    def with_facts(self, facts: Mapping[str, Any]) -> "Layout":
        """The layout that decodes the records of a listing that had these facts."""
        return self

    def decode(self, mask: bytes, annotation: str) -> Decoded | None:
        """The label map; None for a record without annotation, such as a frame of a
        video. Raises what Pillow raises, or `BadRecord` without the file's name."""
        raise NotImplementedError

    def origin(self, name: str) -> str:
        """What other records show too, by the name of a record: its image, where a
        record is one of the image's classes or objects."""
        return name

    def read_image(self, root: Path, entry: Entry) -> bytes:
        return read_file(root / entry.image)

    def read_mask(self, root: Path, entry: Entry) -> bytes:
        return read_file(root / entry.mask) if entry.mask else b""

    def error_names(self, root: Path, entry: Entry) -> tuple[str, str]:
        """What errors call the image and the mask of a record."""
        return str(root / entry.image), str(root / (entry.mask or entry.image))

    def read(self, root: Path, entry: Entry) -> RawRecord:
        """The bytes of a record. Raises `BadRecord` for a file that is not there."""
        names = self.error_names(root, entry)
        with naming_errors(names[0], "restore it"):
            image = self.read_image(root, entry)
        with naming_errors(names[1], "restore it"):
            mask = self.read_mask(root, entry)
        return RawRecord(entry.id, image, mask, entry.annotation, *names)


def need(path: Path, what: str) -> Path:
    """The path. Raises ValueError, which says what it should be, if it is missing."""
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; {what} (docs/data.md)")
    return path


def check_split(split: str, splits: Iterable[str]) -> None:
    """Refuses a split that is not one of `splits`; if these are empty, any will do."""
    if (splits := tuple(splits)) and split not in splits:
        raise ValueError(f"split: {split!r} must be one of {', '.join(splits)}")


def pictures(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Picture files below a folder, sorted; with `suffix`, those whose names end in it,
    in upper or lower case. `hidden` files are left out."""
    endings = suffix.lower() or PICTURES
    for path in sorted(place / name for place, names in walk(folder) for name in names):
        if path.name.lower().endswith(endings):
            yield path


def pair_up(
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    root: Path,
    listed: bool = False,
) -> Iterator[Entry | Skipped]:
    """A record for each name that both have; `Skipped` for those that only one has.
    listed: as of `Skipped`."""
    if not images.keys() & masks.keys():
        raise ValueError(
            f"{root}: no image has a mask. Images: {shorten(images, 3)}. Masks: "
            f"{shorten(masks, 3)}. See docs/data.md for the expected names"
        )
    for name in sorted(images.keys() | masks.keys()):
        if name not in masks:
            yield Skipped(name, "has no mask", listed=listed)
        elif name not in images:
            yield Skipped(name, "has no image", listed=listed)
        else:
            yield Entry(name, relative(images[name], root), relative(masks[name], root))


def top(root: Path, *names: str) -> Path:
    """The folder that an archive unpacks to: the root may hold it or be it."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    return root


def first_folder(root: Path, *names: str) -> Path:
    """The first of these folders that exists; the first of all if none does."""
    found = (root / name for name in names if (root / name).is_dir())
    return next(found, root / names[0])


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a list file, but for blank ones. what: for errors."""
    try:
        lines = need(path, what).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a UTF-8 text file ({error})") from error
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise ValueError(f"{path} line {number}: has a zero byte; copy it again")
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise ValueError(f"{path}: is empty; {what}")
    return found


def folder_name(path: Path, name: str) -> str:
    """A name of a list, which must be that of a folder there, not lead elsewhere."""
    if name in (".", "..") or "/" in name or "\\" in name:
        raise ValueError(f"{path}: {name!r} is no name of a folder")
    return name


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, but for `hidden` ones."""
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(name for name in names if not hidden(Path(name)))


def files_in(folder: Path) -> set[str]:
    """All files below a folder, relative to it, but for `hidden` ones. To ask for each
    would take longer."""
    found = set()
    for place, names in walk(folder):
        below = "" if place == folder else f"{relative(place, folder)}/"
        found |= {f"{below}{name}" for name in names}
    return found


def tree_of(path: Path) -> list[Path]:
    """The file itself, or a folder and all folders below it. A new or a removed file
    changes the time of its own folder only. Hidden folders, such as that of the
    catalogs, are left out."""
    if not path.is_dir():
        return [path]
    return [place for place, _ in walk(path)]


def placed(root: Path, setting: str, text: str, split: str) -> Path:
    """The path below the root that the text of a setting names, with the split filled
    in for `{split}`."""
    try:
        return root / text.format(split=split)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{setting}: {text!r} may have {{split}} in it and no other braces"
        ) from error


def relative(path: Path, root: Path) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def labels_of(ids: Iterable[int]) -> dict[int, int]:
    """Class id -> label: the id itself, but for 0 and 255, which are reserved. These
    two get the labels after the largest other id: 1, where 255 is the only class. Where
    that would be 255 or more, they get the first above 255 and above all ids."""
    ids = list(ids)
    reserved = {BACKGROUND, IGNORE} & {*ids}
    first = max({*ids} - reserved, default=0) + 1
    if first + len(reserved) > IGNORE:
        first = max([IGNORE, *ids]) + 1
    free = itertools.count(first)
    return {i: next(free) if i in reserved else i for i in ids}


def nth_label(number: int) -> int:
    """The label of the class `number`, counted from 0, without the reserved labels."""
    return number + 1 if number + 1 < IGNORE else number + 2


def names_of(text: str, first: int = 1) -> dict[int, str]:
    """Label -> name, for names separated by commas. first: the first label."""
    return dict(enumerate((" ".join(name.split()) for name in text.split(",")), first))


def lookup(labels: Mapping[int, int], other: int = BACKGROUND) -> np.ndarray:
    """Table int32 `[65536]` of the label of each mask value; `other` for the rest."""
    table = np.full(MAX_VALUE + 1, other, np.int32)
    table[list(labels)] = list(labels.values())
    return table


def looked_up(mask: bytes, table: np.ndarray) -> Decoded:
    """Decodes a mask of one value per pixel by the owners' table of labels."""
    values, remarks = read_ids(io.BytesIO(mask))
    return Decoded(table[values], remarks=remarks)


def looked_up_in(
    mask: bytes, labels: Mapping[int, int], table: np.ndarray, where: str
) -> Decoded:
    """Decodes a mask of one value per pixel by a user's own `labels`, id -> label, of
    which `table` is made. where: the list of the ids, for remarks."""
    values, remarks = read_ids(io.BytesIO(mask), labels)
    remarks += unlisted(values, labels, where)
    return Decoded(table[values], remarks=remarks)


def looked_up_one(mask: bytes, table: np.ndarray, annotation: str) -> Decoded:
    """As `looked_up`, of a record that stands for one of the mask's classes: the label
    that is its annotation."""
    if not annotation:
        raise BadRecord(
            "does not say which class it stands for, as prepared by an older version; "
            "prepare the set anew"
        )
    return looked_up(mask, table)._replace(only=int(annotation))


def thresholded(mask: bytes, label: int = 1) -> Decoded:
    """Decodes a mask of any mode whose bright pixels are one class."""
    return Decoded((read_grey(io.BytesIO(mask)) > 127) * np.int32(label))
