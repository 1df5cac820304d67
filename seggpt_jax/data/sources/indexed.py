"""Indexed folders: images and masks listed in two tables. Format: docs/data.md."""

import csv
import dataclasses
import functools
import io
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seggpt_jax.config import counted, shorten, suggest
from seggpt_jax.data.decode import MAX_VALUE
from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Layout,
    Listing,
    labels_of,
    lookup,
)
from seggpt_jax.data.masks import read_ids, unlisted
from seggpt_jax.data.prepared import VERSION, is_prepared, read_manifest
from seggpt_jax.data.sample import (
    BACKGROUND,
    CATEGORY,
    IGNORE,
    INSTANCE,
    BadRecord,
    kind_of,
)
from seggpt_jax.runs.paths import AnyPath, locate

INDEX, CLASSES, SETS = "index.tsv", "classes.tsv", "sets.tsv"
INDEX_COLUMNS = ("split", "image", "mask", "width", "height", "classes")
CLASSES_COLUMNS = ("id", "name", "images")


@dataclasses.dataclass(frozen=True)
class Indexed(Layout):
    """A folder with `index.tsv` and `classes.tsv`; any word may be a split.

    A mask value listed in classes.tsv is that class. 255, if it is not listed, is
    `IGNORE`, and every other value is `BACKGROUND`. Labels are the ids of classes.tsv.
    But a listed 0 or 255 gets the first free label above 255: both are reserved.

    kind: "category" or "instance"; by default instance for class-agnostic sets.
    same_image_only: by default true for class-agnostic sets, as `sets.tsv` beside the
    folder calls them. strict: refuse records that disagree with their tables, to check
    data. check_files: look for every file when the set is opened.
    """

    splits = ()
    class_list = CLASSES
    kind: int | str | None = dataclasses.field(default=None, compare=False)
    same_image_only: bool | None = dataclasses.field(default=None, compare=False)
    strict: bool = dataclasses.field(default=False, compare=False)
    check_files: bool = dataclasses.field(default=True, compare=False)

    def __post_init__(self):
        if self.kind is not None:
            kind_of(self.kind)

    @classmethod
    def splits_in(cls, root: Path) -> tuple[str, ...]:
        """The splits of index.tsv, in order of appearance."""
        rows = read_table(root / INDEX, INDEX_COLUMNS)
        return tuple(dict.fromkeys(fields[0] for _, fields in rows))

    def records(self, root: Path, split: str) -> Listing:
        names = class_table(root)
        labels = labels_of(names)
        entries, found = _read_index(root / INDEX, split, labels)
        if not found:
            raise ValueError(f"{root / INDEX} has no rows; it needs a line per image")
        if not entries:
            raise ValueError(
                f"split: {root / INDEX} has no {split!r}{suggest(split, found)}"
            )
        if self.check_files:
            _check_files(entries, root)
        kind = set_kinds(root.parent).get(root.name, "")
        facts = {
            "ids": list(names),
            "class_agnostic": kind.startswith("class-agnostic"),
        }
        return Listing({labels[i]: name for i, name in names.items()}, entries, facts)

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        for table in (INDEX, CLASSES):
            yield _need(root / table)
        if (sets := root.parent / SETS).is_file():
            yield sets
        if self.check_files:  # a file that is removed changes the time of its folder
            yield root

    def with_facts(self, facts: Mapping[str, Any]) -> "_Opened":
        same, kind = self.same_image_only, self.kind
        if same is None:
            same = facts["class_agnostic"]
        if kind is None:
            kind = INSTANCE if same else CATEGORY
        return _Opened(kind, same, self.strict, ids=tuple(facts["ids"]))

    def origin(self, name: str) -> str:
        return re.sub("#[0-9]+$", "", name)  # of a further mask of an image

    def error_names(self, root: Path, entry: Entry) -> tuple[str, str]:
        line = f"({INDEX} line {json.loads(entry.annotation)['line']})"
        image, mask = super().error_names(root, entry)
        return f"{image} {line}", f"{mask} {line}"


@dataclasses.dataclass(frozen=True)
class _Opened(Indexed):
    """An indexed folder whose tables were read. ids: those of classes.tsv."""

    ids: tuple[int, ...] = ()

    @functools.cached_property
    def labels(self) -> dict[int, int]:
        """Class id of classes.tsv (a mask value) -> label."""
        return labels_of(self.ids)

    @functools.cached_property
    def table(self) -> np.ndarray:
        """Mask value -> label."""
        return lookup({IGNORE: IGNORE} | self.labels)

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        values, remarks = read_ids(io.BytesIO(mask), self.labels)
        if self.strict:
            _check_strict(json.loads(annotation), values, self.labels)
        remarks += unlisted(values, self.labels, CLASSES)
        return Decoded(self.table[values], remarks=remarks)


def class_table(root: str | os.PathLike[str]) -> dict[int, str]:
    """Class id -> name, as in classes.tsv of a folder."""
    path = locate(root) / CLASSES
    names: dict[int, str] = {}
    for line, (text, name, _) in read_table(path, CLASSES_COLUMNS):
        class_id = _integer(text, f"{path} line {line}: id")
        if class_id > MAX_VALUE:
            raise ValueError(
                f"{path} line {line}: id {class_id} must be 0 to {MAX_VALUE}, the "
                f"values of an 8- or 16-bit mask"
            )
        if class_id in names:
            raise ValueError(f"{path} line {line}: id {class_id} is listed twice")
        if name in names.values():
            raise ValueError(f"{path} line {line}: name {name!r} is listed twice")
        names[class_id] = name
    if not names:
        raise ValueError(f"{path} lists no class; it needs a line per class")
    return names


def set_kinds(data_dir: str | os.PathLike[str]) -> dict[str, str]:
    """Set -> kind of task, from sets.tsv of a folder of sets; empty without one."""
    path = locate(data_dir) / SETS
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        columns = rows.fieldnames or ()
        if "set" not in columns or "kind" not in columns:
            raise ValueError(
                f"{path} line 1: the columns must include set and kind, separated by "
                f"tabs; found {', '.join(columns) or 'nothing'}"
            )
        return {row["set"]: row["kind"] or "" for row in rows}


def contents(root: AnyPath) -> dict[str, Collection[str]]:
    """Split -> names of its classes; empty for a folder that holds another layout."""
    if is_prepared(root):
        manifest = read_manifest(root / VERSION)
        if manifest["layout"]["type"] != Indexed.__name__:
            return {}
        return {split: one["classes"] for split, one in manifest["splits"].items()}
    if not (root / INDEX).is_file():
        return {}
    return dict.fromkeys(Indexed.splits_in(root), class_table(root).values())


# Tables.


def _need(path: AnyPath) -> AnyPath:
    """The path of a table. Raises ValueError if it is missing."""
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent}: no such folder; docs/data.md describes it")
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; an indexed folder needs {INDEX} and {CLASSES} "
            f"(docs/data.md shows how to write them)"
        )
    return path


def read_table(
    path: AnyPath, columns: tuple[str, ...]
) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, fields) of a tab-separated table with these columns. Raises
    ValueError that names the line."""
    try:
        with _need(path).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            header = tuple(next(rows, ()))
            if header != columns:
                raise ValueError(
                    f"{path} line 1: the columns must be {', '.join(columns)}, "
                    f"separated by tabs; found {', '.join(header) or 'nothing'}"
                )
            for fields in rows:
                if not fields:
                    continue  # a blank line, as many editors leave at the end
                if len(fields) != len(columns):
                    raise ValueError(
                        f"{path} line {rows.line_num}: {len(fields)} fields instead "
                        f"of {len(columns)} ({', '.join(columns)}), separated by tabs"
                    )
                yield rows.line_num, fields
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a readable UTF-8 table ({error})") from error


def _integer(text: str, what: str, low: int = 0) -> int:
    try:
        if (value := int(text)) >= low:
            return value
    except ValueError:
        pass
    raise ValueError(f"{what} {text!r} must be a whole number of {low} or more")


def _read_index(
    path: Path, split: str, labels: Mapping[int, int]
) -> tuple[list[Entry], set[str]]:
    """The records of one split, and the names of all splits. Every row is checked.

    The annotation of a record is its row: {"line": 2, "size": [h, w], "classes": ids}.
    """
    entries: list[Entry] = []
    found: set[str] = set()
    seen: set[str] = set()
    # A large index repeats few texts: each text is parsed once.
    known = {str(i): i for i in labels}
    sizes: dict[tuple[str, str], tuple[int, int]] = {}
    for line, (row_split, image, mask, width, height, ids) in read_table(
        path, INDEX_COLUMNS
    ):
        found.add(row_split)
        texts = ids.split(",") if ids else []
        for text in texts:
            if text not in known:
                known[text] = _class_id(text, path, line, labels)
        if (height, width) not in sizes:
            sizes[height, width] = (
                _integer(height, f"{path} line {line}: height", 1),
                _integer(width, f"{path} line {line}: width", 1),
            )
        if row_split == split:
            listed = sorted({known[text] for text in texts})
            h, w = sizes[height, width]
            # JSON by hand: `json.dumps` would take most of the time.
            row = f'{{"line": {line}, "size": [{h}, {w}], "classes": {listed}}}'
            name = f"{image}#{line}" if image in seen else image  # several masks
            seen.add(image)
            classes = tuple([labels[i] for i in listed])
            entries.append(Entry(name, image, mask, row, classes))
    return entries, found


def _class_id(text: str, path: Path, line: int, known: Iterable[int]) -> int:
    class_id = _integer(text, f"{path} line {line}: class id")
    if class_id not in known:
        raise ValueError(
            f"{path} line {line}: class id {class_id} is not in "
            f"{path.with_name(CLASSES)}, which has {shorten(known)}; add it there or "
            f"correct the row"
        )
    return class_id


def _check_files(entries: list[Entry], root: Path) -> None:
    files = dict.fromkeys(
        file for entry in entries for file in (entry.image, entry.mask)
    )
    missing = [file for file in files if not os.path.isfile(os.path.join(root, file))]
    if missing:
        raise ValueError(
            f"{root} lacks {counted(len(missing), 'file')} that {INDEX} lists: "
            f"{shorten(missing, 5)}; restore them or remove their rows"
        )


def _check_strict(
    row: Mapping[str, Any], values: np.ndarray, ids: Mapping[int, int]
) -> None:
    """Raises `BadRecord` for a mask that disagrees with the tables."""
    found = set(np.unique(values).tolist())
    if unknown := sorted(found - ids.keys() - {BACKGROUND, IGNORE}):
        raise BadRecord(
            f"has values that {CLASSES} does not list: {shorten(unknown)}; "
            f"add them there or make them 0 (background) or 255 (ignore)"
        )
    if tuple(row["size"]) != values.shape:
        raise BadRecord(
            f"is {values.shape[1]} x {values.shape[0]}, but the row says "
            f"{row['size'][1]} x {row['size'][0]}; correct width and height"
        )
    if found & ids.keys() != set(row["classes"]):
        raise BadRecord(
            f"has classes {shorten(sorted(found & ids.keys()))}, but "
            f"the row says {shorten(row['classes'])}; correct the column classes"
        )
