"""Indexed folders: images and masks listed in two tables. Format: docs/data.md."""

import csv
import functools
import itertools
import logging
import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, SupportsIndex

import numpy as np

from seggpt_jax.config import shorten, suggest
from seggpt_jax.data.decode import MAX_VALUE, naming_errors, read_image, read_mask
from seggpt_jax.data.layout import labels_of
from seggpt_jax.data.sample import (
    BACKGROUND,
    CATEGORY,
    IGNORE,
    INSTANCE,
    BadRecord,
    Sample,
    kind_of,
)

INDEX, CLASSES, SETS = "index.tsv", "classes.tsv", "sets.tsv"
INDEX_COLUMNS = ("split", "image", "mask", "width", "height", "classes")
CLASSES_COLUMNS = ("id", "name", "images")


class Row(NamedTuple):
    """One line of index.tsv: files, `(h, w)`, and class ids as in classes.tsv."""

    line: int
    image: str
    mask: str
    size: tuple[int, int]
    ids: tuple[int, ...]


class Table(NamedTuple):
    """The parsed tables of one split. `labels` maps class ids to labels of segments;
    `lookup` int32 `[65536]` maps mask values to them."""

    rows: list[Row]
    labels: dict[int, int]
    class_names: dict[int, str]
    by_class: dict[int, np.ndarray]
    lookup: np.ndarray


class Indexed:
    """A folder with `index.tsv` and `classes.tsv` as a source (see `data.sample`).

    A mask value listed in classes.tsv is that class, 255 unlisted is `IGNORE`, every
    other value is `BACKGROUND`. Labels of `segments` are the ids of classes.tsv,
    except that a listed 0 or 255 moves to the first free label above 255, since both
    are reserved. `class_names` and `by_class` are keyed by label.

    Args:
      root: the folder; sets.tsv beside it, when there, tells class-agnostic sets.
      split: a value of the column `split`.
      classes: names, or ids as in classes.tsv, to keep; others become background.
      exclude_classes: the same, to hide: their pixels become `IGNORE`.
      kind: "category" or "instance"; by default instance for class-agnostic sets.
      same_image_only: by default true for class-agnostic sets.
      strict: refuse records that disagree with their tables (for checking data).
      check_files: look that every file is there when opening.
      name: by default the folder's.

    Raises:
      ValueError: on opening, for the set. BadRecord: on reading, for one record.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        classes: Sequence[int | str] | None = None,
        exclude_classes: Sequence[int | str] = (),
        kind: int | str | None = None,
        same_image_only: bool | None = None,
        strict: bool = False,
        check_files: bool = True,
        name: str | None = None,
    ):
        self.root = Path(os.path.abspath(root))
        self.split = split
        self.classes = None if classes is None else _listed(classes, "classes")
        self.exclude_classes = _listed(exclude_classes, "exclude_classes")
        if same_image_only is None:
            set_kind = set_kinds(self.root.parent).get(self.root.name, "")
            same_image_only = set_kind.startswith("class-agnostic")
        self.same_image_only = same_image_only
        if kind is None:
            kind = INSTANCE if same_image_only else CATEGORY
        self.kind = kind_of(kind)
        self.strict = strict
        self.name = name or self.root.name
        _log_unused(self._table, self)
        if check_files:
            _check_files(self._table.rows, self.root)

    @functools.cached_property
    def _table(self) -> Table:
        return _read_tables(self.root, self.split, self.classes, self.exclude_classes)

    def __getstate__(self) -> dict:
        # Workers get the settings only, and read the tables again on first use.
        return {key: value for key, value in vars(self).items() if key != "_table"}

    @property
    def class_names(self) -> dict[int, str]:
        """Label -> name of the kept classes, in the order of classes.tsv."""
        return self._table.class_names

    @property
    def by_class(self) -> dict[int, np.ndarray]:
        """Label -> rising indices of its samples; classes without any are left out."""
        return self._table.by_class

    @property
    def labels(self) -> dict[int, int]:
        """Class id of classes.tsv (a mask value) -> label of `segments`."""
        return self._table.labels

    def __len__(self) -> int:
        return len(self._table.rows)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        table, row = self._table, self._table.rows[operator.index(index)]
        image_path, mask_path = self.root / row.image, self.root / row.mask
        with naming_errors(f"{mask_path} ({INDEX} line {row.line})"):
            values = read_mask(mask_path)
            if self.strict:
                _check_strict(row, values, table)
        with naming_errors(f"{image_path} ({INDEX} line {row.line})"):
            image = read_image(image_path, values.shape, mask_path)
        segments = table.lookup[values]
        present = np.flatnonzero(np.bincount(segments.ravel())).tolist()
        classes = tuple(label for label in present if label in table.class_names)
        return Sample(image, segments, self.kind, classes)


def splits(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """The splits that index.tsv of a folder has, in order of appearance."""
    rows = _read_table(Path(root) / INDEX, INDEX_COLUMNS)
    return tuple(dict.fromkeys(fields[0] for _, fields in rows))


def class_table(root: str | os.PathLike[str]) -> dict[int, str]:
    """Class id -> name, as in classes.tsv of a folder."""
    path = Path(root) / CLASSES
    names: dict[int, str] = {}
    for line, (text, name, _) in _read_table(path, CLASSES_COLUMNS):
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
    path = Path(data_dir) / SETS
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


# Tables.


def _read_table(
    path: Path, columns: tuple[str, ...]
) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, fields) of a tab-separated table with these columns."""
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent}: no such folder; docs/data.md describes it")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
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
    except FileNotFoundError:
        raise ValueError(
            f"{path}: no such file; an indexed folder needs {INDEX} and {CLASSES} "
            f"(docs/data.md shows how to write them)"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a readable UTF-8 table ({error})") from error


def _integer(text: str, what: str, low: int = 0) -> int:
    try:
        if (value := int(text)) >= low:
            return value
    except ValueError:
        pass
    raise ValueError(f"{what} {text!r} must be a whole number of {low} or more")


def _listed(chosen: Sequence[int | str], setting: str) -> tuple[int | str, ...]:
    if isinstance(chosen, str):  # a sequence of letters, never meant as one
        raise ValueError(f"{setting}: {chosen!r} must be a list of names or ids")
    return tuple(chosen)


def _read_index(
    path: Path, split: str, names: dict[int, str]
) -> tuple[list[Row], set[str]]:
    """The rows of one split, and all splits. Every row is checked."""
    rows: list[Row] = []
    found: set[str] = set()
    # A large index repeats few texts: each is read once.
    known = {str(i): i for i in names}
    sizes: dict[tuple[str, str], tuple[int, int]] = {}
    for line, (row_split, image, mask, width, height, ids) in _read_table(
        path, INDEX_COLUMNS
    ):
        found.add(row_split)
        texts = ids.split(",") if ids else []
        for text in texts:
            if text not in known:
                known[text] = _class_id(text, path, line, names)
        if (height, width) not in sizes:
            sizes[height, width] = (
                _integer(height, f"{path} line {line}: height", 1),
                _integer(width, f"{path} line {line}: width", 1),
            )
        if row_split == split:
            listed = tuple(sorted({known[text] for text in texts}))
            rows.append(Row(line, image, mask, sizes[height, width], listed))
    return rows, found


def _class_id(text: str, path: Path, line: int, names: dict[int, str]) -> int:
    class_id = _integer(text, f"{path} line {line}: class id")
    if class_id not in names:
        raise ValueError(
            f"{path} line {line}: class id {class_id} is not in "
            f"{path.with_name(CLASSES)}, which has {shorten(names)}; add it there or "
            f"correct the row"
        )
    return class_id


def _read_tables(
    root: Path,
    split: str,
    classes: Sequence[int | str] | None,
    exclude_classes: Sequence[int | str],
) -> Table:
    names = class_table(root)
    rows, found = _read_index(root / INDEX, split, names)
    if not found:
        raise ValueError(f"{root / INDEX} has no rows; it needs a line per image")
    if not rows:
        raise ValueError(
            f"split: {root / INDEX} has no {split!r}{suggest(split, found)}"
        )

    hidden = _choose(exclude_classes, names, "exclude_classes", root)
    kept = _choose(names if classes is None else classes, names, "classes", root)
    if classes is None:
        kept = [i for i in kept if i not in hidden]
    if both := [names[i] for i in kept if i in hidden]:
        raise ValueError(f"classes and exclude_classes both have {shorten(both)}")

    members: dict[int, list[int]] = {i: [] for i in kept}
    for index, row in enumerate(rows):
        for class_id in row.ids:
            if class_id in members:
                members[class_id].append(index)
    empty = [names[i] for i in kept if not members[i]]
    if empty and classes is not None:
        raise ValueError(
            f"classes: split {split!r} of {root / INDEX} has no image of "
            f"{shorten(empty)}; leave the class out or use another split"
        )
    if len(empty) == len(kept):
        raise ValueError(
            f"split {split!r} of {root / INDEX} has no image of any kept class; leave "
            f"the set out or keep more classes"
        )

    labels, lookup = _labels(names, kept, hidden)
    return Table(
        rows=rows,
        labels=labels,
        class_names={labels[i]: names[i] for i in kept},
        by_class={labels[i]: np.array(m) for i, m in members.items() if m},
        lookup=lookup,
    )


def _labels(
    names: Iterable[int], kept: list[int], hidden: list[int]
) -> tuple[dict[int, int], np.ndarray]:
    """Class id -> label, and the table from mask values to labels."""
    labels = labels_of(names)
    lookup = np.full(MAX_VALUE + 1, BACKGROUND, np.int32)
    if IGNORE not in labels:
        lookup[IGNORE] = IGNORE
    lookup[hidden] = IGNORE
    lookup[kept] = [labels[i] for i in kept]
    return labels, lookup


def _choose(
    chosen: Iterable[int | str], names: dict[int, str], setting: str, root: Path
) -> list[int]:
    """Class ids of names or ids, in the order of classes.tsv."""
    ids: dict[int | str, int] = {name: i for i, name in names.items()}
    wanted = [ids.get(item, item) for item in chosen]
    for item in wanted:
        if item not in names:
            raise ValueError(
                f"{setting}: {root / CLASSES} has no {item!r}"
                f"{suggest(item, names.values())}"
            )
    return [i for i in names if i in wanted]


def _log_unused(table: Table, source: Indexed) -> None:
    used = set(itertools.chain.from_iterable(table.by_class.values()))
    if unused := len(table.rows) - len(used):
        logging.getLogger(__name__).info(
            "%s: %d of %d images of split %s show no kept class and are no one's "
            "partner", source.name, unused, len(table.rows), source.split,
        )  # fmt: skip


def _check_files(rows: list[Row], root: Path) -> None:
    files = dict.fromkeys(file for row in rows for file in (row.image, row.mask))
    missing = [file for file in files if not os.path.isfile(os.path.join(root, file))]
    if missing:
        raise ValueError(
            f"{root}: {len(missing)} files that {INDEX} lists are missing: "
            f"{shorten(missing, 5)}; restore them or remove their rows"
        )


def _check_strict(row: Row, values: np.ndarray, table: Table) -> None:
    """Raises `BadRecord` where a mask says something else than the tables."""
    found = set(np.unique(values).tolist())
    if unknown := sorted(found - table.labels.keys() - {BACKGROUND, IGNORE}):
        raise BadRecord(
            f"has values that {CLASSES} does not list: {shorten(unknown)}; "
            f"add them there or make them 0 (background) or 255 (ignore)"
        )
    if row.size != values.shape:
        raise BadRecord(
            f"is {values.shape[1]} x {values.shape[0]}, but the row says "
            f"{row.size[1]} x {row.size[0]}; correct width and height"
        )
    if found & table.labels.keys() != set(row.ids):
        raise BadRecord(
            f"has classes {shorten(sorted(found & table.labels.keys()))}, but "
            f"the row says {shorten(row.ids)}; correct the column classes"
        )
