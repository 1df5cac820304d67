"""Reads every record of sources, counts what they show, and names what is wrong."""

import collections
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from seggpt_jax.config import counted
from seggpt_jax.data.dataset import Dataset
from seggpt_jax.data.decode import Remark
from seggpt_jax.data.layout import Layout
from seggpt_jax.data.prepared import Prepared, splits_in
from seggpt_jax.data.sample import BACKGROUND, IGNORE, INSTANCE, BadRecord
from seggpt_jax.data.sources import load, open_sources
from seggpt_jax.runs.paths import locate

ALIKE_BITS = 3  # of 64: another size or quality of a JPEG changes so many
LISTED = 10  # problems of one kind that are named; all are counted
UNREADABLE = "records that cannot be read or whose parts do not fit"
LEFT_OUT = "files that make no record"
FLAWED = "faults in annotations, which cost an object each"
TAKEN = "annotations that do not count as they are (no error)"
TRAINED_ON = "held-out images that are trained on"
EMPTY = "images without any class (no error)"
ALIKE = "held-out images that look like a trained one (no error)"
_REMARKS, _REMARK = "remarks that are no error: ", "remark that is no error: "
_ONE = {
    UNREADABLE: "record that cannot be read or whose parts do not fit",
    LEFT_OUT: "file that makes no record",
    FLAWED: "fault in annotations, which costs an object",
    TAKEN: "annotation that does not count as it is (no error)",
    TRAINED_ON: "held-out image that is trained on",
    EMPTY: "image without any class (no error)",
    ALIKE: "held-out image that looks like a trained one (no error)",
}
ERRORS = (UNREADABLE, LEFT_OUT, FLAWED, TRAINED_ON)


class Record(NamedTuple):
    """A record in short. pixels: label -> count. exact: digest of the image. outline:
    64 bits of the image at 9 x 8: whether the grey rises from a pixel to the next."""

    name: str
    size: tuple[int, int]
    pixels: Mapping[int, int]
    exact: bytes
    outline: np.uint64


Problems = dict[str, list[str]]  # kind -> what was found


def check(source: Dataset, problems: Problems, quiet: bool = False) -> list[Record]:
    """Reads all records of a source, and adds to the problems."""
    records = []
    for found, remarks in _read_all(source, quiet):
        if isinstance(found, str):
            problems[UNREADABLE].append(found)
            continue
        records.append(found)
        for name, remark in remarks:
            problems[_REMARKS + remark.what].append(f"{name}: {remark.detail}")
        if not found.pixels.keys() - {BACKGROUND, IGNORE}:
            problems[EMPTY].append(found.name)
    if isinstance(source.store, Prepared):
        problems[UNREADABLE] += source.store.damaged()
    for item in source.store.catalog.skipped:
        problems[LEFT_OUT if item.fault else EMPTY].append(f"{item.id} {item.reason}")
    for flaw in source.store.catalog.flaws:
        problems[FLAWED if flaw.fault else TAKEN].append(f"{flaw.id} {flaw.reason}")
    return records


def describe(source: Dataset, records: list[Record], of: str = "") -> str:
    """Counts, sizes and the label histogram. of: words after the name."""
    instances = source.kind == INSTANCE
    lines = [
        f"{source.name}{of}: {counted(len(source), 'record')}, "
        f"{len(source.by_class)} of "
        f"{counted(len(source.class_names), 'class', 'classes')} shown"
    ]
    if records:
        heights, widths = np.array([record.size for record in records]).T
        lines.append(
            f"  width {widths.min()} to {widths.max()}, median "
            f"{int(np.median(widths))}; height {heights.min()} to {heights.max()}, "
            f"median {int(np.median(heights))}"
        )
    total: collections.Counter[int] = collections.Counter()
    for record in records:
        total.update(record.pixels)
    pixels = max(1, sum(total.values()))
    lines.append(f"  {'images':>8} {'pixels %':>9}  class")
    for label, name in {BACKGROUND: "(background)", IGNORE: "(ignored)"}.items():
        lines.append(f"  {'':>8} {100 * total[label] / pixels:9.3f}  {name}")
    for label, name in source.class_names.items():
        count = len(source.by_class.get(label, ()))
        share = f"{100 * total[label] / pixels:9.3f}"
        if instances:  # labels are objects there
            share = f"{'':>9}"
        lines.append(f"  {count:8} {share}  {name}")
    return "\n".join(lines)


def compare(trained: Iterable[Record], held_out: Iterable[Record], problems: Problems):
    """Adds held-out images that are trained on to the problems."""
    trained = list(trained)
    exact = {record.exact: record.name for record in trained}
    outlines = np.array([record.outline for record in trained], np.uint64)
    for record in held_out:
        if record.exact in exact:
            problems[TRAINED_ON].append(f"{record.name} is {exact[record.exact]}")
            continue
        bits = np.bitwise_count(outlines ^ record.outline)
        if trained and bits.min() <= ALIKE_BITS:
            twin = trained[int(bits.argmin())].name
            problems[ALIKE].append(f"{record.name} and {twin}")


def _read_all(
    source: Dataset, quiet: bool
) -> Iterator[tuple[Record | str, list[tuple[str, Remark]]]]:
    def read(index: int) -> tuple[Record | str, list[tuple[str, Remark]]]:
        try:
            raw = source.store[index]
            sample, remarks = source.inspect(raw)
        except BadRecord as error:
            return str(error), []
        counts = np.bincount(sample.segments.ravel())
        labels = np.flatnonzero(counts).tolist()
        small = Image.fromarray(sample.image).convert("L").resize((9, 8))
        grey = np.asarray(small, np.int16)
        record = Record(
            raw.image_name,
            sample.segments.shape,
            {label: int(counts[label]) for label in labels},
            hashlib.sha1(sample.image.tobytes()).digest(),
            np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)[0],
        )
        return record, remarks

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(read, range(len(source)))
        yield from tqdm(
            found, source.name, total=len(source), leave=False, disable=quiet or None,
            unit="record",
        )  # fmt: skip


def open_named(kind: str, root: str, splits: list[str], settings: Mapping[str, Any]):
    """The sources of one type: (to train on, held out)."""
    path = locate(root).absolute()
    if not splits and issubclass(cls := load(kind), Layout):
        splits = [*splits_in(cls, path)]
    if not splits:
        raise ValueError(f"type {kind!r} has no splits of its own; name --splits")
    specs = {
        f"{kind} {split}": {
            "type": kind, "folder": path.name, "split": split, **settings
        }
        for split in splits
    }  # fmt: skip
    sources = open_sources(specs, path.parent)
    trained = {n: s for n, s in sources.items() if n == f"{kind} train"}
    return trained, {n: s for n, s in sources.items() if n not in trained}


def run(
    trained: Mapping[str, Dataset],
    held_out: Mapping[str, Dataset],
    quiet: bool = False,
) -> bool:
    """Prints the reports; true when nothing is wrong. quiet: without bars, which only
    a terminal gets."""
    problems: Problems = collections.defaultdict(list)
    seen: dict[str, list[Record]] = {"trained": [], "held out": []}
    names = {source.name for source in trained.values()}
    for half, sources in zip(seen.values(), (trained, held_out), strict=True):
        for source in sources.values():
            records = check(source, problems, quiet)
            again = sources is held_out and source.name in names
            print(describe(source, records, " (held out)" * again))
            half += records
    compare(seen["trained"], seen["held out"], problems)
    for kind, named in problems.items():
        one = _ONE.get(kind) or kind.replace(_REMARKS, _REMARK)
        print(f"{counted(len(named), one, kind)}:")
        for line in named[:LISTED]:
            print(f"  {line}")
        if len(named) > LISTED:
            print(f"  and {len(named) - LISTED} more")
    wrong = [kind for kind in ERRORS if problems[kind]]
    print(f"wrong: {', '.join(wrong)}" if wrong else "nothing is wrong")
    return not wrong
