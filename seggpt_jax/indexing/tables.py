"""Writes the tables of an indexed folder (docs/data.md) for images with masks."""

import collections
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from seggpt_jax.config import shorten
from seggpt_jax.data.sample import IGNORE
from seggpt_jax.data.sources.indexed import (
    CLASSES,
    CLASSES_COLUMNS,
    INDEX,
    INDEX_COLUMNS,
    class_table,
    read_table,
)
from seggpt_jax.indexing.pairs import pair, splits_of
from seggpt_jax.indexing.read import Failed, Found, Row, Show, read_coco, read_masks
from seggpt_jax.runs import staging

MASKS = "class-masks"  # the folder of masks that are made
_OBJECT = "object"  # the name of a single class that has none


class Written(NamedTuple):
    """root: the folder of the tables. splits: split -> its number of images. classes:
    id, name and number of images of each. notes, failed: as of `read.Found`."""

    root: Path
    splits: dict[str, int]
    classes: list[tuple[int, str, int]]
    notes: list[str]
    failed: list[Failed]


def write_tables(
    images: Path,
    masks: Path,
    out: Path | None,
    named: Mapping[int, str],
    split: str,
    show: Show,
) -> Written:
    """Makes an indexed folder of images and their masks.

    masks: a folder, whose masks are paired with the images by name (`pairs.pair`), or a
    COCO JSON. out: of the tables; without it, the folder that holds both. Masks of a
    JSON, and painted ones, are written there as ids. named: id -> name; else the names
    of a classes.tsv that is there. split: of all images, added to the tables that are
    there; without it, images are split by `pairs.splits_of`.

    Raises ValueError, and writes nothing, where the masks cannot be understood, nothing
    is left, or tables are there that this would replace.
    """
    if masks.is_file() and masks.suffix.lower() != ".json":
        raise ValueError(
            f"{masks} is a file: a folder of masks is wanted, or a JSON file of COCO's "
            "format"
        )
    root = out or _common(images, masks)
    older = _older_rows(root, split)
    if masks.suffix.lower() == ".json":
        found = read_coco(images, masks, show)
    else:
        files, notes = pair(images, masks)
        found = read_masks(files, named, show)
        found.notes[:0] = notes
    if not found.rows:
        why = [
            reason if str(path) in reason else f"{path}: {reason}"
            for path, reason in found.failed[:1]
        ] or found.notes
        raise ValueError("; ".join([f"no image of {images} can be used", *why]))
    if older and found.values is not None and masks.suffix.lower() != ".json":
        raise ValueError(
            f"{root / INDEX} is there: the colours of painted masks get their numbers "
            "from all masks at once; put the splits in folders train/ and val/ instead"
        )
    names = _names(root, found, named)
    rows = sorted(found.rows, key=lambda row: row.name)
    shown = {row.name: row.ids for row in rows}
    splits = [split] * len(rows) if split else splits_of([*shown], shown)
    root.mkdir(parents=True, exist_ok=True)
    lines = _lines(root, root / MASKS / split, rows, splits, found)
    counts = collections.Counter(i for row in rows for i in row.ids)
    for fields in older:
        counts.update(int(text) for text in fields[5].split(",") if text)
    classes = [(i, name, counts[i]) for i, name in names.items()]
    _write_table(root / CLASSES, CLASSES_COLUMNS, classes)
    _write_table(root / INDEX, INDEX_COLUMNS, [*older, *lines])
    number = collections.Counter([*(fields[0] for fields in older), *splits])
    return Written(root, dict(number), classes, found.notes, found.failed)


def _common(images: Path, masks: Path) -> Path:
    """The folder that holds both, if one of the two lies directly in it."""
    parents = _plain(images).parent, _plain(masks).parent
    common = Path(os.path.commonpath(parents))
    if common not in parents:
        raise ValueError(f"{images} and {masks} are far apart: say where with --out")
    return Path(os.path.relpath(common))


def _older_rows(root: Path, split: str) -> list[list[str]]:
    """The rows of the index that is there. Raises ValueError where it would be lost, or
    is no such table."""
    path = root / INDEX
    if not path.exists():
        return []
    if not split:
        raise ValueError(
            f"{path} is there: remove it to make it anew ({CLASSES} may stay, for its "
            "names), or add images to it with --split NAME"
        )
    rows = [fields for _, fields in read_table(path, INDEX_COLUMNS)]
    if any(row[0] == split for row in rows):
        raise ValueError(f"{path} has a split {split!r}: remove its rows first")
    return rows


def _names(root: Path, found: Found, named: Mapping[int, str]) -> dict[int, str]:
    """Id -> name of every class: as given, else of the table, else of the masks."""
    if [*found.names] == [IGNORE] and [*named] == [1]:
        named = {IGNORE: named[1]}  # of masks of 0 and 255, whose inside prompts call 1
    if unknown := named.keys() - found.names.keys():
        raise ValueError(
            f"--names {shorten(sorted(unknown))}: no mask has it; the classes are "
            f"{shorten(found.names, 20)}"
        )
    there = class_table(root) if (root / CLASSES).exists() else {}
    for i, name in found.names.items():
        if i in there and name not in ("", there[i]) and not name.startswith("#"):
            raise ValueError(
                f"{root / CLASSES} calls class {i} {there[i]!r}, and here it is "
                f"{name!r}: the two do not go together"
            )
    plain = {i: name or f"class {i}" for i, name in found.names.items()}
    if len(plain) == 1 and not there and not found.names[min(plain)]:
        plain = dict.fromkeys(plain, _OBJECT)
    names = dict(sorted((plain | there | dict(named)).items()))
    for i, name in names.items():
        if not name.strip() or set(name) & set("\t\r\n"):
            raise ValueError(f"{name!r} cannot be the name of class {i}")
        if list(names.values()).count(name) > 1:
            raise ValueError(f"two classes are named {name!r}: give them other names")
    return names


def _lines(
    root: Path, made: Path, rows: list[Row], splits: list[str], found: Found
) -> list[tuple[object, ...]]:
    """The rows of the index. Masks that are made are written first, below `made`."""
    if found.values is not None:
        for row in rows:
            path = made / f"{row.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            with staging.new_file(path) as new:
                _ids_png(found.values(row)).save(new, format="PNG")
    lines: list[tuple[object, ...]] = []
    for row, split in zip(rows, splits, strict=True):
        mask = row.mask or made / f"{row.name}.png"
        ids = ",".join(map(str, row.ids))
        files = _place(root, row.image), _place(root, mask)
        if any(set(text) & set("\t\r\n") for text in files):
            raise ValueError(f"{row.image}: a name with a tab or a line break")
        lines.append((split, *files, *row.size[::-1], ids))
    return lines


def _ids_png(values: np.ndarray) -> Image.Image:
    """A mask of ids: grey, of 8 bits, or of 16 where an id needs them."""
    return Image.fromarray(values.astype(np.uint16 if values.max() > IGNORE else "u1"))


def _place(root: Path, path: Path) -> str:
    """A file as the index names it: below its folder, or else by its whole path."""
    path, root = _plain(path), _plain(root)
    inside = path.is_relative_to(root)
    return path.relative_to(root).as_posix() if inside else str(path)


def _plain(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _write_table(
    path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]
) -> None:
    lines = ["\t".join(map(str, row)) for row in (columns, *rows)]
    with staging.new_file(path) as new:
        new.write_text("\n".join(lines) + "\n", encoding="utf-8")
