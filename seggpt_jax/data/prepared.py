"""The prepared form of a data set, for reading: encoded bytes in ArrayRecord files.

A folder that tensorflow-datasets reads (`builder_from_directory`), with a manifest and
the catalog of each split; `data.prepare` writes it. No TensorFlow is needed.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seggpt_jax.data.catalog import Catalog
from seggpt_jax.data.dataset import Raw, Store
from seggpt_jax.data.layout import Layout, RawRecord
from seggpt_jax.data.sample import BadRecord

VERSION = "1.0.0"  # folder below the set's, as tensorflow-datasets wants one
MANIFEST = "manifest.json"


def open_store(layout: Layout, root: Path, split: str) -> Store:
    """The records of a split: prepared ones where the folder has them, else the owners'
    files."""
    if is_prepared(root):
        return Prepared(layout, root, split)
    return Raw(layout, root, split)


def is_prepared(root: Path) -> bool:
    return (root / VERSION / MANIFEST).is_file()


def splits_in(layout: type[Layout], root: Path) -> tuple[str, ...]:
    """The splits of a folder: those prepared where there are any, else the layout's."""
    if is_prepared(root):
        return tuple(read_manifest(root / VERSION)["splits"])
    return layout.splits_in(root)


class Prepared(Store):
    """One split of a prepared set.

    Raises:
      ValueError: for another set or other settings than those it was prepared with,
        for an unknown split, and for shards that are missing or of the wrong length.
    """

    opened = ("catalog", "_records")

    def __init__(self, layout: Layout, root: Path, split: str):
        self.layout, self.split = layout, split
        self.folder = root.absolute() / VERSION
        manifest = read_manifest(self.folder)
        asked = describe(layout)
        for name in ("type", *sorted(asked.keys() | manifest["layout"].keys())):
            if asked.get(name) != manifest["layout"].get(name):
                raise ValueError(
                    f"{self.folder}: was prepared with {name}="
                    f"{manifest['layout'].get(name)!r}, not {asked.get(name)!r}; set "
                    f"it so, or prepare the set anew"
                )
        if split not in manifest["splits"]:
            raise ValueError(
                f"{self.folder}: split {split!r} is not prepared, only "
                f"{', '.join(manifest['splits'])}"
            )
        self.shards = manifest["splits"][split]["shards"]
        for shard in self.shards:
            _check_shard(self.folder / shard["file"], shard["length"])

    @functools.cached_property
    def catalog(self) -> Catalog:
        return Catalog(self.folder / f"catalog-{self.split}")

    @functools.cached_property
    def _records(self) -> Any:
        # Two seconds, which only those pay who read a prepared set.
        import tensorflow_datasets

        builder = tensorflow_datasets.builder_from_directory(str(self.folder))
        return builder.as_data_source(word(self.split))

    def __getitem__(self, index: int) -> RawRecord:
        (name,) = self.catalog[index]  # the order of the records is its too
        try:
            record = self._records[index]
        except RuntimeError as error:  # of array_record, which names no file
            raise BadRecord(
                f"{self.folder / self._shard(index)} record {index} is damaged; copy "
                f"or prepare it again ({error})"
            ) from error
        if record["id"].decode() != name:
            raise BadRecord(
                f"{self.folder / self._shard(index)} holds {record['id'].decode()} "
                f"where {name} belongs; copy or prepare the shards again"
            )
        where = f"{self.folder / self._shard(index)} record {name}"
        return RawRecord(
            name,
            record["image"],
            record["mask"],
            record["annotation"].decode(),
            where,
            where,
        )

    def damaged(self) -> Iterator[str]:
        """The files that are not what was written, by their checksums: reads all."""
        for shard in self.shards:
            if file_digest(self.folder / shard["file"]) != shard["sha256"]:
                yield f"{self.folder / shard['file']} is not what was prepared"

    def _shard(self, index: int) -> str:
        for shard in self.shards:
            if index < shard["records"]:
                return shard["file"]
            index -= shard["records"]
        raise IndexError(index)


def word(name: str) -> str:
    """A name of a set or split as tensorflow-datasets allows it in file names."""
    return re.sub(r"\W", "_", name)


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(layout: Layout) -> dict[str, Any]:
    """The type and settings of a layout that records depend on, as JSON gives them
    back."""
    settings = dataclasses.asdict(layout)
    chosen = {f.name: settings[f.name] for f in dataclasses.fields(layout) if f.compare}
    return json.loads(json.dumps({"type": type(layout).__name__} | chosen))


def read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["layout"], manifest["splits"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the manifest of a prepared set") from error
    return manifest


def _check_shard(path: Path, length: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise ValueError(f"{path}: shard is missing; copy or prepare it") from error
    if found != length:
        raise ValueError(
            f"{path}: torn shard, {found} bytes instead of {length}; copy or prepare "
            f"it again"
        )
