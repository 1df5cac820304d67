"""Writes the prepared form of a data set: sharded, resumable, by several workers.

The unit of work is a shard. `write_shard` makes one file, whole or not at all, and a
note beside it. Processes of this machine and workers of Apache Beam both call it. So
they make the same bytes, and each can end a run that the other began.
"""

import collections
import contextlib
import dataclasses
import fcntl
import functools
import json
import logging
import math
import multiprocessing
import os
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tqdm import tqdm

from seggpt_jax.data.catalog import store_catalog
from seggpt_jax.data.dataset import Dataset, Raw
from seggpt_jax.data.layout import Layout, RawRecord, Skipped
from seggpt_jax.data.prepared import MANIFEST, VERSION, describe, word
from seggpt_jax.data.sample import BadRecord
from seggpt_jax.runs import paths
from seggpt_jax.runs.buckets import BucketPath
from seggpt_jax.runs.checksums import sha256
from seggpt_jax.runs.paths import AnyPath
from seggpt_jax.runs.staging import new_file

# Groups of one record: random reads are fast. Pictures are compressed already.
WRITER = "group_size:1,uncompressed"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard: records `start` to `stop` of the owners' files."""

    split: str
    number: int
    count: int
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """The prepared set to make, and the owners' folder to make it of. Must pickle."""

    layout: Layout
    root: Path
    out: AnyPath  # the set's folder
    splits: tuple[str, ...]
    shard_records: int

    @property
    def final(self) -> AnyPath:
        return self.out / VERSION

    @property
    def staging(self) -> AnyPath:
        return self.out / f".{VERSION}.part"

    @property
    def files(self) -> AnyPath:
        """The folder to write files into. Objects of a bucket cannot be renamed: there
        the manifest, which comes last, makes a set of them."""
        return self.final if isinstance(self.out, BucketPath) else self.staging

    def source(self, split: str) -> Dataset:
        return Dataset(Raw(self.layout, self.root, split), self.out.name)

    def template(self, split: str) -> tfds.core.ShardedFileTemplate:
        return tfds.core.ShardedFileTemplate(
            data_dir=self.files,
            dataset_name=word(self.out.name),
            split=word(split),
            filetype_suffix="array_record",
        )

    def path(self, shard: Shard) -> AnyPath:
        name = self.template(shard.split).sharded_filepath(
            shard_index=shard.number, num_shards=shard.count
        )
        return paths.locate(name)

    def shards(self) -> Iterator[Shard]:
        for split in self.splits:
            total = len(self.source(split))
            count = math.ceil(total / self.shard_records)
            ends = [round(total * k / count) for k in range(count + 1)]
            for k in range(count):
                yield Shard(split, k, count, ends[k], ends[k + 1])

    def describe(self) -> dict[str, Any]:
        catalogs = {s: self.source(s).store.catalog for s in self.splits}
        return {
            "layout": describe(self.layout),
            "records": {split: len(c) for split, c in catalogs.items()},
            "fingerprints": {split: c.fingerprint for split, c in catalogs.items()},
            "shard_records": self.shard_records,
        }


def prepare(
    layout: Layout,
    root: Path,
    out: AnyPath,
    splits: Sequence[str] = (),
    *,
    shard_records: int = 1000,
    workers: int = 0,
    beam: Sequence[str] | None = None,
    quiet: bool = False,
) -> AnyPath:
    """Writes the prepared form of the owners' folder `root`; returns `<out>/1.0.0`. A
    run that was cut off goes on where it stopped.

    splits: by default all of the layout. shard_records: most records of a file.
    workers: processes; 0 does all in this one. beam: flags of an Apache Beam pipeline,
    which then does the work; its workers must see both folders. quiet: without a
    bar.

    In a bucket nothing keeps two runs apart: they write the same bytes.

    Raises:
      ValueError: for a fault of the folder, and if `out` was begun with other data or
        settings.
    """
    paths.check_all({"root": root, "out": out}, {"out": paths.BUCKET})
    splits = tuple(splits or layout.splits_in(root))
    if not splits:
        raise ValueError("splits: this layout has none of its own; name them")
    if shard_records < 1 or workers < 0:
        raise ValueError(
            f"shard_records={shard_records} must be >= 1, workers={workers} >= 0"
        )
    plan = Plan(layout, root.absolute(), out.absolute(), splits, shard_records)
    made = plan.final / MANIFEST if isinstance(out, BucketPath) else plan.final
    if made.exists():
        raise ValueError(f"{plan.final} is there; move it away to prepare it anew")
    with _locked(plan.staging):
        # Not earlier: the staging folder may lie in the root, whose time it changes.
        described = json.dumps(plan.describe(), sort_keys=True)
        begun = plan.staging / "plan.json"
        if begun.exists() and begun.read_text() != described:
            raise ValueError(
                f"{plan.staging} was begun with other data or settings; delete it"
            )
        begun.write_text(described)
        for leftover in plan.staging.glob("*.part"):
            leftover.unlink(missing_ok=True)
        shards = list(plan.shards())
        todo = [shard for shard in shards if not read_done(plan, shard)]
        logger.info("%d of %d shards are there", len(shards) - len(todo), len(shards))
        total = sum(shard.stop - shard.start for shard in shards)
        left = sum(shard.stop - shard.start for shard in todo)
        with tqdm(
            total=total, initial=total - left, unit=" records", desc=out.name,
            disable=quiet,
        ) as bar:  # fmt: skip
            if beam is not None:
                _run_beam(plan, todo, beam, bar)
            elif workers:
                _run_pool(plan, todo, workers, bar)
            else:
                for shard in todo:
                    bar.update(write_shard(plan, shard))
        _finish(plan, shards)
    return plan.final


def write_shard(plan: Plan, shard: Shard) -> int:
    """Makes one shard, and returns the number of its records. Records that cannot be
    read are left out, and listed in the note."""
    path, source = plan.path(shard), plan.source(shard.split)
    size, skipped = 0, []
    # A name of its own: an orphan of a killed run may write the same shard.
    with new_file(path, f".{uuid.uuid4().hex}") as new:
        # Closing writes the footer, without which nothing can be read.
        with contextlib.closing(ArrayRecordWriter(str(new), WRITER)) as writer:
            for index in range(shard.start, shard.stop):
                try:
                    raw = source.store[index]
                    source.sample(raw)  # decodes it
                except BadRecord as error:
                    skipped.append((index, str(error)))
                    continue
                data = serialize(raw)
                size += len(data)
                writer.write(data)
        done = {
            "file": path.name,
            "records": shard.stop - shard.start - len(skipped),
            "bytes": size,
            "length": new.stat().st_size,
            "sha256": sha256(new),
            "skipped": skipped,
        }
    with new_file(_done(plan, path)) as file:
        file.write_text(json.dumps(done))
    return shard.stop - shard.start


def serialize(raw: RawRecord) -> bytes:
    """A record as the bytes of a tf.Example, the same in every process."""
    record = {name: getattr(raw, name) for name in features()}
    example = serializer().get_tf_example(features().encode_example(record))
    # Without `deterministic` the order of the features differs between processes.
    return example.SerializeToString(deterministic=True)


@functools.cache
def serializer() -> ExampleSerializer:
    return ExampleSerializer(features().get_serialized_info())


@functools.cache
def features() -> tfds.features.FeaturesDict:
    """Files as they are: `tfds.features.Image` would need a decoder, and knows fewer
    formats."""
    text, raw = tfds.features.Text(), tfds.features.Scalar(np.object_)
    return tfds.features.FeaturesDict(
        {"id": text, "image": raw, "mask": raw, "annotation": text}
    )


def read_done(plan: Plan, shard: Shard) -> dict[str, Any] | None:
    """The note of a finished shard; None of one that is not finished."""
    path = plan.path(shard)
    try:
        done = json.loads(_done(plan, path).read_text())
        return done if _size(path) == done["length"] else None
    except (FileNotFoundError, ValueError):
        return None


def _done(plan: Plan, path: AnyPath) -> AnyPath:
    return plan.staging / f"{path.name}.done"


def _size(path: AnyPath) -> int:
    return path.size() if isinstance(path, BucketPath) else path.stat().st_size


def _run_pool(plan: Plan, todo: Sequence[Shard], workers: int, bar: tqdm) -> None:
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(workers, context, _start_worker) as pool:
        running = [pool.submit(write_shard, plan, shard) for shard in todo]
        try:
            for future in futures.as_completed(running):
                bar.update(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker() -> None:
    """Ends a worker when its parent ends: it would outlive a killed one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch():
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_beam(
    plan: Plan, todo: Sequence[Shard], flags: Sequence[str], bar: tqdm
) -> None:
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise ValueError(
            "--beam needs Apache Beam: pip install 'seggpt_jax[beam]'"
        ) from error
    done = threading.Event()

    def watch():  # a running pipeline reports nothing
        left = set(todo)
        while left and not done.wait(1):
            for shard in [shard for shard in left if read_done(plan, shard)]:
                left.remove(shard)
                bar.update(shard.stop - shard.start)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        # Without flags Beam would read those of this program.
        with apache_beam.Pipeline(options=PipelineOptions(list(flags))) as pipeline:
            shards = pipeline | apache_beam.Create(todo)
            # Without the reshuffle a single worker gets all shards.
            shards = shards | apache_beam.Reshuffle()
            _ = shards | apache_beam.Map(lambda shard: write_shard(plan, shard))
    finally:
        done.set()
        watcher.join()


def _finish(plan: Plan, shards: Sequence[Shard]) -> None:
    """Writes metadata, manifest and catalogs; then the folder gets its final name."""
    infos, splits = [], {}
    for split in plan.splits:
        done = [read_done(plan, shard) for shard in shards if shard.split == split]
        splits[split] = _finish_split(plan, split, [d for d in done if d])
        infos.append(
            tfds.core.SplitInfo(
                name=word(split),
                shard_lengths=[shard["records"] for shard in splits[split]["shards"]],
                num_bytes=sum(shard["bytes"] for shard in splits[split]["shards"]),
                filename_template=plan.template(split),
            )
        )
    with tempfile.TemporaryDirectory() as temp:  # it cannot write into a bucket
        for shard in shards:  # it wants to see their names
            (Path(temp) / plan.path(shard).name).touch()
        tfds.folder_dataset.write_metadata(
            data_dir=temp,
            features=features(),
            split_infos=infos,
            version=VERSION,
            description=f"{plan.out.name}, prepared for seggpt_jax",
            disable_shuffling=True,
            check_data=False,  # it would read by TensorFlow
        )
        for file in Path(temp).glob("*.json"):
            (plan.files / file.name).write_bytes(file.read_bytes())
    manifest = {"layout": describe(plan.layout), "splits": splits}
    text = json.dumps(manifest, ensure_ascii=False, indent=1)
    (plan.files / MANIFEST).write_text(text, encoding="utf-8")
    if isinstance(plan.staging, BucketPath):
        plan.staging.rmtree()
        return
    for pattern in ("*.done", "plan.json", ".lock"):
        for leftover in plan.staging.glob(pattern):
            leftover.unlink()
    plan.staging.rename(plan.final)


def _finish_split(
    plan: Plan, split: str, shards: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Stores the catalog of the records in the shards; returns the split's manifest."""
    catalog = plan.source(split).store.catalog
    bad = {index: why for shard in shards for index, why in shard["skipped"]}
    kept = [index for index in range(len(catalog)) if index not in bad]
    if not kept:
        raise ValueError(f"{plan.root}: no record of split {split!r} can be read")
    classes: list[list[int]] = [[] for _ in range(len(catalog))]
    for label, members in catalog.by_class.items():
        for index in members:
            classes[index].append(label)
    skipped = catalog.skipped + [
        Skipped(catalog[index][0], why, listed=True) for index, why in bad.items()
    ]
    store_catalog(
        plan.files / f"catalog-{split}",
        names=catalog.names,
        records=([catalog[index][0]] for index in kept),
        classes=[classes[index] for index in kept],
        skipped=skipped,
        flaws=catalog.flaws,
        facts=catalog.facts,
    )
    counts = collections.Counter(label for index in kept for label in classes[index])
    return {
        "records": len(kept),
        "classes": {catalog.names[label]: counts[label] for label in catalog.by_class},
        "shards": [
            {k: v for k, v in shard.items() if k != "skipped"} for shard in shards
        ],
        "skipped": skipped,
    }


@contextlib.contextmanager
def _locked(folder: AnyPath) -> Iterator[None]:
    if isinstance(folder, BucketPath):
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another run is at work there") from None
        try:
            yield
        except BaseException:
            if made and os.listdir(folder) == [".lock"]:  # nothing is begun
                (folder / ".lock").unlink()
                with contextlib.suppress(OSError):  # others' files came in between
                    for path in made:
                        path.rmdir()
            raise
