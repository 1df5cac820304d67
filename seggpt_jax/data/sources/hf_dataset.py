"""A folder of Hugging Face `datasets` on disk: Arrow of `save_to_disk`, or Parquet."""

import bisect
import dataclasses
import functools
import glob
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from seggpt_jax.config import shorten, suggest
from seggpt_jax.data.files import hidden, read_file
from seggpt_jax.data.layout import Entry, Listing, need, relative
from seggpt_jax.data.sample import BadRecord
from seggpt_jax.data.sources.ids import ById

# Looked for in this order. `state.json` names the files of `save_to_disk`.
PATTERNS = (
    "{split}/state.json", "data/{split}-*.parquet", "{split}/*.parquet",
    "{split}-*.parquet", "{split}.parquet", "state.json",
)  # fmt: skip

# What pyarrow raises for damaged files; ArrowException alone has many kinds.
_DAMAGED = (pyarrow.ArrowException, OSError, ValueError, RuntimeError)
# How `datasets` names the files of a split; its older versions add a digest.
_SAVED = re.compile(r"data-(?P<number>\d+)-of-(?P<total>\d+)\.arrow")
_SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d+)-of-(?P<total>\d+)(-\w+)?\.parquet")


@dataclasses.dataclass(frozen=True)
class HfDataset(ById):
    """`SPLIT/data-*.arrow` of `DatasetDict.save_to_disk`, `data-*.arrow` of
    `Dataset.save_to_disk` (with any name for the split), or `data/SPLIT-*.parquet` of a
    hub's copy.

    image, mask: the columns, of the feature type Image. Masks hold one id per pixel.
    """

    splits = ()
    image: str = "image"
    mask: str = "label"

    def records(self, root: Path, split: str) -> Listing:
        def entries() -> Iterator[Entry]:
            for path in _files(root, split):
                _check_columns(path, (self.image, self.mask))
                for row in range(_length(path)):
                    name = f"{relative(path, root)}#{row}"
                    yield Entry(name, name)

        return Listing(self.names, entries())

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        return _files(root, split)

    def read_image(self, root: Path, entry: Entry) -> bytes:
        return self._read(root, entry, self.image)

    def read_mask(self, root: Path, entry: Entry) -> bytes:
        return self._read(root, entry, self.mask)

    def _read(self, root: Path, entry: Entry, column: str) -> bytes:
        file, _, row = entry.image.rpartition("#")
        path = root / file
        try:
            cell = _cell(path, (self.image, self.mask), column, int(row))
        except _DAMAGED as error:
            raise BadRecord(f"cannot be read: {error}; copy {file} again") from error
        given = cell if isinstance(cell, dict) else {"bytes": cell}
        if given.get("bytes"):
            return given["bytes"]
        if name := given.get("path"):
            found = (folder / name for folder in (path.parent, root))
            return read_file(next((p for p in found if p.exists()), Path(name)))
        raise BadRecord(f"column {column} holds no picture")


def _files(root: Path, split: str) -> list[Path]:
    need(root, "a folder of Hugging Face datasets")
    if split.startswith("/"):
        raise ValueError(f"{root}: split {split!r} is a path, and a name is wanted")
    for pattern in PATTERNS:
        found = [
            path
            for path in sorted(root.glob(pattern.format(split=glob.escape(split))))
            if not hidden(path.relative_to(root))
        ]
        if found and found[0].name == "state.json":
            return _saved(found[0])
        if found := _shards(found, split):
            return found
    looked = ", ".join(pattern.format(split="SPLIT") for pattern in PATTERNS)
    raise ValueError(
        f"{root}: split {split!r} has no files; looked for {looked}, where SPLIT is "
        "its name"
    )


def _shards(files: list[Path], split: str) -> list[Path]:
    """The files of a split, without those of a split whose longer name begins alike.
    Raises ValueError where files that count themselves are not all there."""
    own: list[Path] = []
    counted: dict[str, list[re.Match[str]]] = {}
    for path in files:
        match = _SHARD.fullmatch(path.name)
        # In a folder of the split its files may have any name.
        if match and match["name"] != split and path.parent.name != split:
            continue
        own.append(path)
        if match:
            counted.setdefault(match["name"], []).append(match)
    for name, shards in counted.items():
        where = f"{files[0].parent}: split {split!r}"
        total, there = shards[0]["total"], [int(shard["number"]) for shard in shards]
        if {total} < {s["total"] for s in shards} or len({*there}) < len(there):
            raise ValueError(
                f"{where} has files of several copies, of which one must stay: "
                f"{shorten(shard[0] for shard in shards)}"
            )
        if missing := sorted({*range(int(total))} - {*there}):
            names = (f"{name}-{n:0{len(total)}}-of-{total}.parquet" for n in missing)
            raise ValueError(
                f"{where} lacks {len(missing)} of its {int(total)} files: "
                f"{shorten(names, 5)}; copy them too"
            )
    return own


def _saved(state: Path) -> list[Path]:
    try:
        files = json.loads(state.read_bytes())["_data_files"]
        names = [state.parent / file["filename"] for file in files]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{state}: not the state of `datasets`, with a list _data_files of "
            '{"filename": ...}; save or copy the set again'
        ) from error
    if not names:
        raise ValueError(f"{state}: lists no file in _data_files")
    counted = [match for path in names if (match := _SAVED.fullmatch(path.name))]
    for total in {match["total"] for match in counted}:
        listed = {int(m["number"]) for m in counted if m["total"] == total}
        if missing := sorted({*range(int(total))} - listed):
            shown = shorten((f"data-{n:0{len(total)}}-of-{total}" for n in missing), 5)
            raise ValueError(
                f"{state}: lists {len(listed)} of {int(total)} files, without {shown}; "
                "save or copy the set again"
            )
    return [need(path, f"Arrow data, which {state.name} lists") for path in names]


def _check_columns(path: Path, columns: Iterable[str]) -> None:
    """Refuses a file without these columns, or where they hold no pictures."""
    if path.suffix == ".parquet":
        try:
            schema = pyarrow.parquet.read_schema(path)
            _ = schema.names  # may be no UTF-8
        except _DAMAGED as error:
            raise ValueError(f"{path}: not a Parquet file ({error})") from error
    else:
        schema = _arrow(path, _time(path)).schema
    for column in columns:
        if schema.names.count(column) != 1:
            what = "two columns" if column in schema.names else "no column"
            raise ValueError(
                f"{path} has {what} {column!r}{suggest(column, schema.names)}"
            )
        kind = schema.field(column).type
        if not _is_image(kind):
            raise ValueError(
                f"{path}: column {column!r} is {kind}, not the feature Image, which is "
                f"bytes and path"
            )


def _is_image(kind: pyarrow.DataType) -> bool:
    if pyarrow.types.is_struct(kind):
        return any(kind.get_field_index(name) >= 0 for name in ("bytes", "path"))
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _length(path: Path) -> int:
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_metadata(path).num_rows
    return len(_arrow(path, _time(path)))


def _cell(path: Path, columns: tuple[str, ...], column: str, row: int) -> Any:
    time = _time(path)
    if path.suffix != ".parquet":
        return _arrow(path, time)[column][row].as_py()
    starts = _starts(path, time)
    group = bisect.bisect_right(starts, row) - 1
    return _group(path, time, group, columns)[column][row - starts[group]].as_py()


def _time(path: Path) -> int:
    """Time of the last change: a key of the caches, as a file may be replaced."""
    return path.stat().st_mtime_ns


@functools.lru_cache(maxsize=1024)
def _arrow(path: Path, time: int) -> pyarrow.Table:
    """A file of Arrow, mapped into memory: to open it reads no picture."""
    try:
        table = pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all()
        table.validate(full=True)  # damaged places of values would end the process
        _ = table.schema.names  # may be no UTF-8
        return table
    except _DAMAGED as error:
        raise ValueError(f"{path}: not a file of `datasets` ({error})") from error


@functools.lru_cache(maxsize=1024)
def _starts(path: Path, time: int) -> list[int]:
    meta = pyarrow.parquet.read_metadata(path)
    sizes = [meta.row_group(k).num_rows for k in range(meta.num_row_groups)]
    return [0, *itertools.accumulate(sizes[:-1])]


@functools.lru_cache(maxsize=4)  # row groups hold about a hundred pictures each
def _group(
    path: Path, time: int, group: int, columns: tuple[str, ...]
) -> pyarrow.Table:
    return pyarrow.parquet.ParquetFile(path).read_row_group(group, list(columns))
