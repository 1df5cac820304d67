"""The catalog of a split: its records and the classes they show, kept on disk.

It is a folder of arrays that processes map into memory and so share. A large set opens
at once, and takes little memory of its own.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from seggpt_jax.config import counted, shorten
from seggpt_jax.data.augment import visible
from seggpt_jax.data.decode import naming_errors
from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Flaw,
    Layout,
    Skipped,
    check_split,
    need,
    tree_of,
)
from seggpt_jax.data.sample import BadRecord
from seggpt_jax.runs import log
from seggpt_jax.runs.paths import AnyPath, user_cache
from seggpt_jax.runs.staging import new_folder

VERSION = 4
_WRITABLE = 0o222  # by anybody
BESIDE = ".seggpt"  # folder below the root of a data set
_TEXT, _STARTS, _MEMBERS, _META = "text.npy", "starts.npy", "members.npy", "meta.json"

logger = logging.getLogger(__name__)


class Catalog:
    """A stored catalog, mapped into memory.

    names: label -> class name. by_class: label -> rising indices of the records that
    show it; labels without any are left out. facts: of the layout's `Listing`. skipped:
    files that make no record. unreadable: records whose mask cannot be decoded. flaws:
    what is wrong with parts of records.
    """

    def __init__(self, folder: Path):
        """Raises ValueError, which names the folder, for damaged files."""
        self.folder = folder
        try:
            self._read(folder)
            self._check()
        except Exception as error:  # the bytes of NumPy's files may raise any error
            raise self._damaged(error) from error

    def _read(self, folder: Path) -> None:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        self.fingerprint = str(meta["fingerprint"])
        self.names = {int(k): str(v) for k, v in meta["names"].items()}
        self.facts: dict[str, Any] = meta.get("facts", {})
        self.skipped = [Skipped(*item) for item in meta["skipped"]]
        self.unreadable = [Skipped(*item) for item in meta["unreadable"]]
        self.flaws = [Flaw(*item) for item in meta.get("flaws", ())]
        self._text = np.load(folder / _TEXT, mmap_mode="r")
        self._starts = np.load(folder / _STARTS, mmap_mode="r")
        members = np.load(folder / _MEMBERS, mmap_mode="r")
        self.by_class: dict[int, np.ndarray] = {
            int(label): members[start:stop]
            for label, (start, stop) in meta["members"].items()
        }

    def _check(self) -> None:
        """Refuses arrays that do not fit each other."""
        ends, count = self._starts, len(self)
        whole = all(x.dtype.kind in "iu" and x.ndim == 1 for x in (ends, self._text))
        if not whole or count < 0 or ends[0] or ends[-1] != len(self._text):
            raise ValueError("its records have no ends")
        if (np.diff(ends) < 0).any():
            raise ValueError("its records have no ends")
        for label, members in self.by_class.items():
            rising = members.dtype.kind == "i" and (np.diff(members) > 0).all()
            inside = len(members) and members[0] >= 0 and members[-1] < count
            if label not in self.names or not rising or not inside:
                raise ValueError(f"its records of class {label} are wrong")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Any:
        """The JSON that was stored for a record."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, stop = self._starts[index : index + 2]
        try:
            return json.loads(self._text[start:stop].tobytes())
        except ValueError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> ValueError:
        # Of a torn header NumPy shows the parts that Python saw in it.
        text = "" if " at 0x" in str(error) else f": {error}"
        return ValueError(
            f"{self.folder}: the catalog of a data set is damaged "
            f"({type(error).__name__}{text}); copy a prepared set again, and remove "
            f"the catalog of any other, which is then made anew"
        )

    def causes(self, limit: int = 1) -> list[str]:
        """For each kind of fault a text, with its count and `limit` examples."""
        return _causes(self.skipped, self.unreadable, self.flaws, limit)

    def digest(self) -> bytes:
        """Of the records, their annotations, and the classes that they show."""
        found = hashlib.sha256(json.dumps([self.names, self.facts]).encode())
        for values in (self._text, self._starts, *self.by_class.values()):
            found.update(values.tobytes())
        return found.digest()

    def entry(self, index: int) -> Entry:
        """A record as a layout lists it, but for its classes: see `by_class`."""
        return Entry(*self[index])


def open_catalog(layout: Layout, root: Path, split: str) -> Catalog:
    """The catalog of a layout's split: the stored one, or a new one at the first time
    and after a change of the watched files.

    It is stored in `<root>/.seggpt`. Where the root is read-only, a catalog there that
    is up to date is used; a new one is stored in `$XDG_CACHE_HOME/seggpt_jax` (default
    ~/.cache).
    """
    check_split(split, layout.splits)
    need(root, "the folder of a data set")
    beside, new = root / BESIDE, False
    if not beside.is_dir():
        _parent(root)  # before the times are read: making a folder changes the root's
        new = beside.is_dir()
    try:
        return _open(layout, root, split)
    except BaseException:
        if new:  # an error leaves nothing in the folder of a user
            with contextlib.suppress(OSError):
                beside.rmdir()
        raise


def _open(layout: Layout, root: Path, split: str) -> Catalog:
    setup = {"layout": type(layout).__name__, "split": split}
    setup |= dataclasses.asdict(layout)
    text = json.dumps(setup, sort_keys=True, default=str)
    word = re.sub(r"[^\w.-]", "_", split)  # any word may be a split, a/b too
    name = f"{setup['layout'].lower()}-{word}-{_digest(text)[:8]}"
    state = [
        _stamp(path, root)
        for watched in layout.watched(root, split)
        for path in tree_of(watched)
    ]
    fingerprint = _digest(json.dumps([VERSION, text, state]))
    if _fingerprint(root / BESIDE / name) == fingerprint:
        return Catalog(root / BESIDE / name)
    folder = _parent(root) / name
    if _fingerprint(folder) == fingerprint:
        return Catalog(folder)
    listing = layout.records(root, split)
    entries, skipped, flaws = _divide(listing.records)
    if not entries:
        causes = _causes(skipped, (), flaws, limit=1)
        raise ValueError("; ".join([
            f"{root}: split {split!r} has no record", *causes,
            "docs/data.md shows the expected tree",
        ]))  # fmt: skip
    decoder, title = layout.with_facts(listing.facts), f"{root.name} {split}: masks"
    found = [
        (entry, classes, why)
        for entry, (classes, why) in zip(
            entries, find_classes(decoder, root, entries, title), strict=True
        )
        if layout.keep_empty or classes or why
    ]
    store_catalog(
        folder,
        names=listing.names,
        records=(entry._replace(classes=None) for entry, _, _ in found),
        classes=[classes for _, classes, _ in found],
        skipped=skipped,
        unreadable=[Skipped(entry.id, why) for entry, _, why in found if why],
        flaws=flaws,
        facts=listing.facts,
        fingerprint=fingerprint,
    )
    catalog = Catalog(folder)
    for cause in catalog.causes(limit=3):
        logger.warning("%s: %s", folder.name, cause)
    return catalog


def _causes(
    skipped: Sequence[Skipped],
    unreadable: Sequence[Skipped],
    flaws: Sequence[Flaw],
    limit: int,
) -> list[str]:
    """For each kind of fault a text with its count and the first of its kind."""
    named: list[tuple[Sequence[Skipped | Flaw], str, str]] = [
        (skipped, "file that makes no record", "files that make no record"),
        (unreadable, "record whose mask cannot be read",
         "records whose mask cannot be read"),
        (flaws, "annotation that does not count as it is",
         "annotations that do not count as they are"),
    ]  # fmt: skip
    return [
        f"{counted(len(items), one, many)}: "
        + shorten((f"{item.id} {item.reason}" for item in items), limit)
        for items, one, many in named
        if items
    ]


def store_catalog(
    folder: AnyPath,
    *,
    names: Mapping[int, str],
    records: Iterable[Any],
    classes: Sequence[Sequence[int]],
    skipped: Sequence[Skipped],
    unreadable: Sequence[Skipped] = (),
    flaws: Sequence[Flaw] = (),
    facts: Mapping[str, Any] | None = None,
    fingerprint: str = "",
) -> None:
    """Writes a catalog. records: JSON. classes: the labels that each record shows."""
    encode = json.JSONEncoder(ensure_ascii=False).encode  # faster than `json.dumps`
    texts = [encode(record).encode() for record in records]
    members: dict[int, list[int]] = {label: [] for label in names}
    for index, shown in enumerate(classes):
        for label in shown:
            members[label].append(index)
    spans, at = {}, 0
    for label, indices in members.items():
        if indices:
            spans[label] = (at, at + len(indices))
            at += len(indices)
    meta = {
        "fingerprint": fingerprint,
        "names": names,
        "members": spans,
        "skipped": list(skipped),
        "unreadable": list(unreadable),
        "flaws": list(flaws),
    }
    if facts:
        meta["facts"] = facts
    text = json.dumps(meta, ensure_ascii=False, indent=1)
    every = np.fromiter(itertools.chain(*members.values()), np.int32)
    try:
        with new_folder(folder) as new:
            np.save(new / _TEXT, np.frombuffer(b"".join(texts), np.uint8))
            np.save(new / _STARTS, np.cumsum([0, *map(len, texts)], dtype=np.int64))
            np.save(new / _MEMBERS, every)
            (new / _META).write_text(text, encoding="utf-8")
    except OSError:  # another process may be first: its catalog is as good
        if _fingerprint(folder) != fingerprint:
            raise


def find_classes(
    layout: Layout, root: Path, entries: Sequence[Entry], title: str
) -> list[tuple[tuple[int, ...], str]]:
    """For every record the labels of the classes it shows, and "". For an unreadable
    mask there are no labels, and the text is the reason."""
    if all(entry.classes is not None for entry in entries):
        return [(entry.classes or (), "") for entry in entries]

    def find(entry: Entry) -> tuple[tuple[int, ...], str]:
        if entry.classes is not None:
            return entry.classes, ""
        try:
            with naming_errors(layout.error_names(root, entry)[1]):
                decoded = layout.decode(layout.read_mask(root, entry), entry.annotation)
        except BadRecord as error:
            return (), str(error)
        return class_labels(decoded) if decoded else (), ""

    threads = min(os.cpu_count() or 1, layout.readers)
    with ThreadPoolExecutor(threads) as pool:  # decoding releases the GIL
        work = pool.map(find, entries)
        hidden = not log.bars()
        return list(tqdm(work, title, len(entries), leave=False, disable=hidden))


def class_labels(decoded: Decoded) -> tuple[int, ...]:
    """Labels of the classes that a label map shows, rising."""
    labels = visible(decoded.segments)
    if decoded.owners is None:
        return labels
    return tuple(sorted({decoded.owners[label] for label in labels}))


def _divide(
    records: Iterable[Entry | Skipped | Flaw],
) -> tuple[list[Entry], list[Skipped], list[Flaw]]:
    entries, skipped, flaws, seen = [], [], [], set()
    for record in records:
        if isinstance(record, Flaw):
            flaws.append(record)
        elif isinstance(record, Skipped):
            skipped.append(record)
        elif record.id in seen:
            skipped.append(Skipped(record.id, "is listed twice"))
        else:
            entries.append(record)
            seen.add(record.id)
    return entries, skipped, flaws


def _parent(root: Path) -> Path:
    beside = root / BESIDE
    # The superuser may write everywhere, but leaves alone what is marked read-only.
    if root.stat().st_mode & _WRITABLE:
        with contextlib.suppress(OSError):
            beside.mkdir(exist_ok=True)
            if os.access(beside, os.W_OK):
                return beside
    name = f"{root.name}-{_digest(str(root.resolve()))[:12]}"
    folder = user_cache() / "seggpt_jax" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{folder}: {error.strerror}; the catalog of the read-only {root} is kept "
            f"there: set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    return folder


def _stamp(path: Path, root: Path) -> tuple[str, int, int]:
    state = path.stat()
    size = 0 if path.is_dir() else state.st_size
    return os.path.relpath(path, root), size, state.st_mtime_ns


def _fingerprint(folder: AnyPath) -> str | None:
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        return meta["fingerprint"]
    except (OSError, ValueError, KeyError):
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
