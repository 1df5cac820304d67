"""How the owners of a data set lay out its files, and what is read of them.

A layout lists records and turns the bytes of one into a label map. It neither knows
where the bytes come from (the owners' folder or the prepared form) nor which classes a
run keeps: that is `data.dataset`.
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
from seggpt_jax.data.decode import MAX_VALUE, naming_errors, read_grey, read_mask
from seggpt_jax.data.sample import BACKGROUND, CATEGORY, IGNORE

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".ppm", ".gif", ".webp")


class Entry(NamedTuple):
    """One record: files relative to the root, and what no file of its own says.

    id: unique in the split. mask: empty where `annotation` (JSON) says all. classes:
    the labels it shows; None where only decoding tells.
    """

    id: str
    image: str
    mask: str = ""
    annotation: str = ""
    classes: tuple[int, ...] | None = None


class Skipped(NamedTuple):
    """What makes no record, and why. fault: something is wrong with the files."""

    id: str
    reason: str
    fault: bool = True


class Listing(NamedTuple):
    """What a split holds. names: label -> class name, in the owners' order. facts:
    JSON, what only the folder tells of all records (see `Layout.with_facts`)."""

    names: dict[int, str]
    records: Iterable[Entry | Skipped]
    facts: Mapping[str, Any] = {}


class RawRecord(NamedTuple):
    """The bytes of one record, with the names that errors give its two parts."""

    id: str
    image: bytes
    mask: bytes
    annotation: str
    image_name: str
    mask_name: str


class Decoded(NamedTuple):
    """A label map int32 `[h, w]` of `BACKGROUND`, `IGNORE` and labels. owners: label of
    each instance -> label of its class; None where the labels are classes."""

    segments: np.ndarray
    owners: Mapping[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Layout:
    """Base of all layouts. The fields of a subclass are its settings in a config. One
    with `compare=False` leaves the records as they are: a set need not be prepared anew
    where it differs."""

    splits: ClassVar[tuple[str, ...]] = ("train", "val")  # none: any word may be one
    class_list: ClassVar[str] = ""  # the file that lists the classes, for errors
    scale_masks: ClassVar[bool] = False  # to their images, where the sizes differ
    keep_empty: ClassVar[bool] = True  # records whose masks show no class
    readers: ClassVar[int] = 64  # masks that may be decoded at once
    video: ClassVar[bool] = False  # ids are VIDEO/FRAME, in order
    kind: int | str | None = dataclasses.field(default=CATEGORY, init=False)

    @property
    def same_image_only(self) -> bool | None:
        """Whether labels mean nothing across images (see `data.sample.Source`)."""
        return False

    @property
    def labels(self) -> Mapping[int, int]:
        """Class id of the owners -> label, where settings may name classes by these."""
        return {}

    def __getstate__(self) -> dict:
        # Tables are cached beside the fields: workers make them anew.
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def splits_in(cls, root: Path) -> tuple[str, ...]:
        """The splits of a folder, as far as they are known without being named."""
        return cls.splits

    def records(self, root: Path, split: str) -> Listing:
        """The records of a split, without decoding any picture.

        Raises:
          ValueError: that names the file or folder that is wrong, and the remedy.
        """
        raise NotImplementedError

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        """Files and folders whose change makes a stored index stale."""
        raise NotImplementedError

    def with_facts(self, facts: Mapping[str, Any]) -> "Layout":
        """The layout that decodes the records of a listing with these facts."""
        return self

    def decode(self, mask: bytes, annotation: str) -> Decoded | None:
        """The label map; None for a record that nobody annotated (frames of videos).
        Raises what Pillow raises, or `BadRecord` without a name."""
        raise NotImplementedError

    def read_image(self, root: Path, entry: Entry) -> bytes:
        return (root / entry.image).read_bytes()

    def read_mask(self, root: Path, entry: Entry) -> bytes:
        return (root / entry.mask).read_bytes() if entry.mask else b""

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
    """The path, when it is there; else the error that says what is missing."""
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; {what} (docs/data.md)")
    return path


def check_split(split: str, splits: Iterable[str]) -> None:
    """Refuses a split that a layout does not have; no splits at all: any will do."""
    if (splits := tuple(splits)) and split not in splits:
        raise ValueError(f"split: {split!r} must be one of {', '.join(splits)}")


def pictures(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Picture files below a folder, by name; with `suffix`, only names that end so, in
    whatever case. Files that begin with a dot are never meant."""
    for path in sorted(folder.rglob("*")):
        name = path.name.lower()
        if name.startswith(".") or not name.endswith(suffix.lower() or PICTURES):
            continue
        yield path


def pair_up(
    images: Mapping[str, Path], masks: Mapping[str, Path], root: Path
) -> Iterator[Entry | Skipped]:
    """Records of all names that both have, and the names that only one has."""
    if not images.keys() & masks.keys():
        raise ValueError(
            f"{root}: no image has a mask. Images: {shorten(images, 3)}. Masks: "
            f"{shorten(masks, 3)}. See docs/data.md for the expected names"
        )
    for name in sorted(images.keys() | masks.keys()):
        if name not in masks:
            yield Skipped(name, "has no mask")
        elif name not in images:
            yield Skipped(name, "has no image")
        else:
            yield Entry(name, relative(images[name], root), relative(masks[name], root))


def top(root: Path, *names: str) -> Path:
    """The folder that an archive unpacks to, whether the root holds it or is it."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    return root


def first_folder(root: Path, *names: str) -> Path:
    """The first of the folders that is there, else the first of all."""
    return next(
        (root / name for name in names if (root / name).is_dir()), root / names[0]
    )


def read_lines(path: Path, what: str) -> list[str]:
    """The words of a list file, a line each; blank lines do not count."""
    try:
        lines = need(path, what).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a UTF-8 text file ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def folders_in(folder: Path) -> list[str]:
    """The folders in a folder, by name; hidden ones are never meant."""
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(name for name in names if not name.startswith("."))


def files_in(folder: Path) -> set[str]:
    """All files below a folder, relative to it: cheaper than to ask for each."""
    return {
        relative(Path(where, name), folder)
        for where, _, names in os.walk(folder)
        for name in names
    }


def tree_of(path: Path) -> list[Path]:
    """A file, or a folder and all below it but hidden ones (where indices lie): a file
    that comes or goes changes the time of its own folder only."""
    if not path.is_dir():
        return [path]
    found = []
    for where, names, _ in os.walk(path):
        names[:] = sorted(name for name in names if not name.startswith("."))
        found.append(Path(where))
    return found


def placed(root: Path, setting: str, text: str, split: str) -> Path:
    """The path below the root that a setting names, with the split in it."""
    try:
        return root / text.format(split=split)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{setting}: {text!r} may have {{split}} in it and no other braces"
        ) from error


def relative(path: Path, root: Path) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def labels_of(ids: Iterable[int]) -> dict[int, int]:
    """Class id -> label: itself, but for 0 and 255, which segments reserve. These move
    to the first free labels above all ids."""
    ids = list(ids)
    free = itertools.count(max([IGNORE, *ids]) + 1)
    return {i: next(free) if i in (BACKGROUND, IGNORE) else i for i in ids}


def nth_label(number: int) -> int:
    """The label `number`, counted from 0, stepping over the reserved ones."""
    return number + 1 if number + 1 < IGNORE else number + 2


def names_of(text: str, first: int = 1) -> dict[int, str]:
    """Label -> name, from names separated by commas, on any number of lines."""
    return dict(enumerate((" ".join(name.split()) for name in text.split(",")), first))


def lookup(labels: Mapping[int, int], other: int = BACKGROUND) -> np.ndarray:
    """Table int32 `[65536]` from mask values to labels, and all other values to
    `other`."""
    table = np.full(MAX_VALUE + 1, other, np.int32)
    table[list(labels)] = list(labels.values())
    return table


def looked_up(mask: bytes, table: np.ndarray) -> Decoded:
    """A mask of one value per pixel."""
    return Decoded(table[read_mask(io.BytesIO(mask))])


def thresholded(mask: bytes) -> Decoded:
    """A mask of one class, label 1, whose pixels are bright, in whatever mode."""
    return Decoded((read_grey(io.BytesIO(mask)) > 127).astype(np.int32))
