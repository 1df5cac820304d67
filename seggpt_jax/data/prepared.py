"""The prepared form of a data set, for reading: encoded bytes in ArrayRecord files.

It is a folder that tensorflow-datasets reads (`builder_from_directory`), with a
manifest and the catalog of each split. `data.prepare` writes it. It is read without
TensorFlow.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seggpt_jax.data.catalog import Catalog
from seggpt_jax.data.dataset import Raw, Store
from seggpt_jax.data.layout import Layout, RawRecord
from seggpt_jax.data.sample import BadRecord
from seggpt_jax.runs.buckets import BucketPath
from seggpt_jax.runs.checksums import sha256
from seggpt_jax.runs.paths import AnyPath, user_cache
from seggpt_jax.runs.staging import fetch

VERSION = "1.0.0"  # of the folder: tensorflow-datasets wants one
MANIFEST = "manifest.json"

logger = logging.getLogger(__name__)


def open_store(layout: Layout, root: AnyPath, split: str) -> Store:
    """The records of a split: prepared ones where the folder has them, else those of
    the owners' files. A bucket has prepared ones only (`copy_here`)."""
    if isinstance(root, BucketPath):
        root = copy_here(root, split)
    if is_prepared(root):
        return Prepared(layout, root, split)
    if next((root / VERSION).glob("catalog-*"), None):
        raise ValueError(
            f"{root / VERSION}: is a prepared set without its {MANIFEST}; copy it again"
        )
    return Raw(layout, root, split)


def is_prepared(root: AnyPath) -> bool:
    return (root / VERSION / MANIFEST).is_file()


def require_array_record(place: object) -> None:
    """Raises ValueError where ArrayRecord files cannot be read or written."""
    try:
        import array_record  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{place}: ArrayRecord files need the package array-record, which does not "
            "exist for Windows; use the owners' files as they are"
        ) from error


def copy_here(root: BucketPath, split: str) -> Path:
    """A split of a prepared set in a bucket, copied to this machine: files of a bucket
    cannot be mapped into memory, and ArrayRecord opens none.

    The copy is in the user's cache, below the digest of the manifest, which has that
    of every shard: so it is of this very set, and later runs find it there.
    """
    if not is_prepared(root):
        raise ValueError(
            f"{root}: a bucket must hold prepared data, and there is no "
            f"{VERSION}/{MANIFEST}: seggpt prepare --out=gs://... writes it"
        )
    require_array_record(root)
    import fcntl  # which does not exist for Windows either

    folder = root / VERSION
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:12]
    here = user_cache() / "seggpt_jax" / f"{root.name}-{digest}" / VERSION
    here.mkdir(parents=True, exist_ok=True)
    splits = read_manifest(folder)["splits"]
    shards = {
        shard["file"]: (name, shard)
        for name, one in splits.items()
        for shard in one["shards"]
    }
    with (here.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # processes of one machine wait for the first
        wanted = [
            name
            for name in folder.files()
            if (name not in shards or shards[name][0] == split)
            and not (here / name).is_file()
        ]
        if not wanted:
            return here.parent
        size = sum(shards[name][1]["length"] for name in wanted if name in shards)
        logger.info("%s: copying split %s to %s, %.3g GB in %d files", root, split,
                    here.parent, size / 1e9, len(wanted))  # fmt: skip

        def check(name: str, file: Path) -> None:
            if name in shards and sha256(file) != shards[name][1]["sha256"]:
                raise ValueError(
                    f"{folder / name} is not what was prepared; copy or prepare it "
                    "again"
                )

        fetch(folder, wanted, here, check)
    return here.parent


def splits_in(layout: type[Layout], root: AnyPath) -> tuple[str, ...]:
    """The splits of a folder: prepared ones where there are any, else the layout's."""
    if is_prepared(root):
        return tuple(read_manifest(root / VERSION)["splits"])
    return layout.splits_in(root)


class Prepared(Store):
    """One split of a prepared set.

    Raises:
      ValueError: if the set was prepared as another type or with other settings, if it
        lacks the split, and if a shard is missing or of another length.
    """

    opened = ("catalog", "_records")

    def __init__(self, layout: Layout, root: Path, split: str):
        self.layout, self.root, self.split = layout, root.absolute(), split
        self.folder = self.root / VERSION
        require_array_record(self.folder)
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
        # This import takes two seconds; only prepared sets need it.
        import tensorflow_datasets

        try:
            builder = tensorflow_datasets.builder_from_directory(str(self.folder))
            return builder.as_data_source(word(self.split))
        except Exception as error:  # it has no error class of its own
            raise ValueError(
                f"{self.folder}: dataset_info.json or features.json is damaged; copy "
                f"or prepare the set again ({type(error).__name__}: {error})"
            ) from error

    def __getitem__(self, index: int) -> RawRecord:
        (name,) = self.catalog[index]  # the shards have the order of the catalog
        records = self._records
        try:
            record = records[index]
            found, annotation = (record[k].decode() for k in ("id", "annotation"))
            image, mask = record["image"], record["mask"]
        except Exception as error:  # of array_record, protobuf or tensorflow-datasets
            raise BadRecord(
                f"{self.folder / self._shard(index)} record {index} is damaged; copy "
                f"or prepare it again ({type(error).__name__}: {error})"
            ) from error
        if found != name:
            raise BadRecord(
                f"{self.folder / self._shard(index)} holds {found} "
                f"where {name} belongs; copy or prepare the shards again"
            )
        where = f"{self.folder / self._shard(index)} record {name}"
        return RawRecord(name, image, mask, annotation, where, where)

    def digest(self) -> str:
        """Of the catalog and the checksums of the shards."""
        found = hashlib.sha256(self.catalog.digest())
        found.update(json.dumps([shard["sha256"] for shard in self.shards]).encode())
        return found.hexdigest()

    def damaged(self) -> Iterator[str]:
        """An error for each file whose checksum is not that of the manifest."""
        for shard in self.shards:
            if sha256(self.folder / shard["file"]) != shard["sha256"]:
                yield f"{self.folder / shard['file']} is not what was prepared"

    def _shard(self, index: int) -> str:
        """The file that holds a record."""
        for shard in self.shards:
            if index < shard["records"]:
                return shard["file"]
            index -= shard["records"]
        raise IndexError(index)


def word(name: str) -> str:
    """A name of a set or split in the form that tensorflow-datasets allows."""
    return re.sub(r"\W", "_", name)


def describe(layout: Layout) -> dict[str, Any]:
    """The type of a layout, and the settings that change its records, as JSON would
    give them back."""
    settings = dataclasses.asdict(layout)
    chosen = {f.name: settings[f.name] for f in dataclasses.fields(layout) if f.compare}
    return json.loads(json.dumps({"type": type(layout).__name__} | chosen))


def read_manifest(folder: AnyPath) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        _ = {**manifest["layout"]}
        for split in manifest["splits"].values():
            for shard in split["shards"]:
                _ = shard["file"] + "", shard["length"] + 0, shard["records"] + 0
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not the manifest of a prepared set; copy or prepare it again"
        ) from error
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
