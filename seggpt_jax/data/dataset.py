"""A split of any layout as a source, from the owners' folder or the prepared form."""

import functools
import hashlib
import io
import itertools
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, SupportsIndex

import numpy as np
from PIL import Image

from seggpt_jax.config import counted, shorten, suggest
from seggpt_jax.data.augment import visible
from seggpt_jax.data.catalog import Catalog, open_catalog
from seggpt_jax.data.decode import (
    BROKEN,
    Remark,
    check_bits,
    naming_errors,
    read_image,
)
from seggpt_jax.data.layout import Decoded, Layout, RawRecord, Skipped
from seggpt_jax.data.masks import read_mask
from seggpt_jax.data.sample import (
    BACKGROUND,
    CATEGORY,
    IGNORE,
    Sample,
    kind_of,
    sides_of,
)

logger = logging.getLogger(__name__)

NEAREST = Image.Resampling.NEAREST


class Store:
    """The records of a split, still encoded, and the layout that decodes them.

    opened: attributes that are opened when they are first used, in every process.
    """

    opened: ClassVar[tuple[str, ...]] = ("catalog",)
    layout: Layout
    root: Path
    split: str

    @functools.cached_property
    def catalog(self) -> Catalog:
        raise NotImplementedError

    def __getitem__(self, index: int) -> RawRecord:
        """Raises `BadRecord` for a record that cannot be read."""
        raise NotImplementedError

    def digest(self) -> str:
        """Tells these records from others, and from the same after a change."""
        raise NotImplementedError

    def __getstate__(self) -> dict:
        # Mapped arrays would be copied, and readers cannot be.
        return {k: v for k, v in vars(self).items() if k not in self.opened}


class Raw(Store):
    """The records of a split in the owners' folder."""

    def __init__(self, layout: Layout, root: Path, split: str):
        self.layout, self.root, self.split = layout, root.absolute(), split

    @functools.cached_property
    def catalog(self) -> Catalog:
        return open_catalog(self.layout, self.root, self.split)

    def __getitem__(self, index: int) -> RawRecord:
        return self.layout.read(self.root, self.catalog.entry(index))

    def digest(self) -> str:
        """Of the catalog, the bytes of masks and the sizes of images: masks are
        corrected in place. A copy of the folder has the same."""
        found = hashlib.sha256(self.catalog.digest())
        entries = [self.catalog.entry(i) for i in range(len(self.catalog))]
        images = dict.fromkeys(self.root / entry.image for entry in entries)
        masks = dict.fromkeys(self.root / entry.mask for entry in entries)
        sizes = [_size(path) for path in images]
        if not any(sizes):  # they lie in files of many records
            watched = self.layout.watched(self.root, self.split)
            sizes = [_size(path) for path in watched]
        found.update(json.dumps(sizes).encode())
        with ThreadPoolExecutor(self.layout.readers) as pool:
            for one in pool.map(_file_digest, masks):
                found.update(one)
        return found.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _file_digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest()


class Dataset:
    """One split of a layout as a source (see `data.sample`).

    Args:
      store: the records.
      name: of the source.
      classes: names or labels to keep; pixels of all other classes become background.
      exclude_classes: names or labels to hide; their pixels become `IGNORE`.
      bits: how many bits the values of images have where files have more than 8 for a
        channel, 8 to 16: the upper 8 of them are kept.

    Raises:
      ValueError: when it is opened, for a fault of the set or a setting.
      BadRecord: when a record is read that cannot be used.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        classes: Sequence[int | str] | None = None,
        exclude_classes: Sequence[int | str] = (),
        bits: int = 16,
    ):
        check_bits(bits)
        self.store, self.name, self.bits = store, name, bits
        self._said: set[str] = set()  # remarks that are in the log
        self.layout = store.layout.with_facts(store.catalog.facts)
        self.kind = kind_of(self.layout.kind)
        self.same_image_only = bool(self.layout.same_image_only)
        names = store.catalog.names
        self._hidden = self._labels(exclude_classes, "exclude_classes")
        if classes is None:
            self._kept = frozenset(names) - self._hidden
        else:
            self._kept = self._labels(classes, "classes")
        if both := [names[i] for i in self._kept & self._hidden]:
            raise ValueError(
                f"{name}: classes and exclude_classes both have {shorten(both)}"
            )
        by_name = self.kind == CATEGORY and not self.same_image_only
        self._sides = sides_of(self.class_names) if by_name else {}
        self._check_shown(chosen=classes is not None)
        self._log_unused()

    @property
    def class_names(self) -> dict[int, str]:
        """Label -> name of the kept classes, in the owners' order."""
        names = self.store.catalog.names
        return {label: n for label, n in names.items() if label in self._kept}

    @functools.cached_property
    def by_class(self) -> Mapping[int, np.ndarray]:
        """Label -> rising indices of its records; classes without any are left out."""
        members = self.store.catalog.by_class
        return {label: m for label, m in members.items() if label in self._kept}

    @functools.cached_property
    def videos(self) -> dict[str, range]:
        """Video -> indices of its frames, in order; empty for sets of images."""
        if not self.layout.video:
            return {}
        catalog = self.store.catalog
        names = (catalog[i][0].rpartition("/")[0] for i in range(len(catalog)))
        found, start = {}, 0
        for name, frames in itertools.groupby(names):
            found[name] = range(start, start := start + len(list(frames)))
        return found

    @property
    def starts_only(self) -> bool:
        """Whether a mask shows only the objects that begin in its frame: of those that
        began before, the frame has no truth."""
        return self.store.split in self.layout.starts_only

    @property
    def lost(self) -> list[Skipped]:
        """Records of the split that cannot be had: those of the owners' list that are
        missing, and those whose mask cannot be read."""
        catalog = self.store.catalog
        return [i for i in catalog.skipped if i.listed] + catalog.unreadable

    def __getstate__(self) -> dict:
        # `by_class` is of mapped arrays, which would be copied.
        return {k: v for k, v in vars(self).items() if k != "by_class"}

    def __len__(self) -> int:
        return len(self.store.catalog)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        return self.sample(self.store[range(len(self))[index]])

    def sample(self, raw: RawRecord) -> Sample:
        """Decodes a record, and logs each remark about a first file. Raises
        `BadRecord`, which names the file."""
        sample, remarks = self.inspect(raw)
        for name, remark in remarks:
            if remark.what not in self._said:
                self._said.add(remark.what)
                logger.warning(
                    "%s: %s; first in %s: %s (seggpt check lists all)",
                    self.name, remark.what, name, remark.detail,
                )  # fmt: skip
        return sample

    def inspect(self, raw: RawRecord) -> tuple[Sample, list[tuple[str, Remark]]]:
        """A decoded record, and the remarks about its two files."""
        with naming_errors(raw.mask_name):
            decoded = self.layout.decode(raw.mask, raw.annotation)
        segments: np.ndarray | None = None
        beside: tuple[int, ...] = ()
        absent: list[tuple[str, Remark]] = []
        if decoded is not None:
            segments, beside = self._alone(self._filter(decoded), decoded.only)
            if decoded.only is not None and not (segments == decoded.only).any():
                what = "masks do not show the class that a list gives their records"
                detail = f"class {decoded.only} of {raw.id}"
                absent = [(raw.mask_name, Remark(what, detail))]
        free = self.layout.scale_masks  # the image may be of another size
        size = None if segments is None or free else segments.shape
        with naming_errors(raw.image_name):
            shown = read_image(io.BytesIO(raw.image), size, raw.mask_name, self.bits)
        image, remarks = shown.pixels, [(raw.image_name, r) for r in shown.remarks]
        remarks += absent
        if decoded is not None:
            remarks += [(raw.mask_name, remark) for remark in decoded.remarks]
        if segments is None:
            segments = np.full(image.shape[:2], IGNORE, np.int32)
        elif segments.shape != image.shape[:2]:
            (h, w), (height, width, _) = segments.shape, image.shape
            detail = f"{w} x {h} becomes {width} x {height}"
            remark = Remark("masks are scaled to the size of their images", detail)
            remarks.append((raw.mask_name, remark))
            mask = Image.fromarray(segments).resize(image.shape[1::-1], NEAREST)
            segments = np.asarray(mask)
        sample = Sample(
            image, segments, self.kind, visible(segments), beside, self._sides
        )
        return sample, remarks

    @functools.cached_property
    def digest(self) -> str:
        """Another one after a change of the data (`Store.digest`)."""
        return self.store.digest()

    def record_id(self, index: int) -> str:
        """The name of a record, unique in the split."""
        return self.store.catalog[index][0]

    @functools.cached_property
    def origins(self) -> np.ndarray | None:
        """The number of each record's origin (`Layout.origin`), int `[records]`; None
        where every record has its own."""
        if type(self.layout).origin is Layout.origin:
            return None
        names = [self.layout.origin(self.record_id(i)) for i in range(len(self))]
        found, numbers = np.unique(names, return_inverse=True)
        return numbers if len(found) < len(names) else None

    def object_names(self, index: int) -> dict[int, str]:
        """Label of each object of a record -> name of its class; empty where the labels
        are classes."""
        raw = self.store[index]
        with naming_errors(raw.mask_name):
            decoded = self.layout.decode(raw.mask, raw.annotation)
        owners = (decoded and decoded.owners) or {}
        return {n: self.store.catalog.names[label] for n, label in owners.items()}

    def _filter(self, decoded: Decoded) -> np.ndarray:
        """Segments `[h, w]` without the labels of classes that are not kept."""
        segments, owners = decoded.segments, decoded.owners
        if len(self._kept) == len(self.store.catalog.names):
            return segments
        lookup = np.full(int(segments.max()) + 1, BACKGROUND, np.int32)
        if len(lookup) > IGNORE:
            lookup[IGNORE] = IGNORE
        for label in visible(segments):
            owner = label if owners is None else owners[label]
            if owner in self._kept:
                lookup[label] = label
            elif owner in self._hidden:
                lookup[label] = IGNORE
        return lookup[segments]

    @staticmethod
    def _alone(
        segments: np.ndarray, only: int | None
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        """Segments `[h, w]` with `only` as their one class, and the others they had."""
        if only is None:
            return segments, ()
        beside = tuple(label for label in visible(segments) if label != only)
        return np.where(np.isin(segments, beside), BACKGROUND, segments), beside

    def _labels(self, chosen: Sequence[int | str], setting: str) -> frozenset[int]:
        """The labels that a setting names."""
        # A string would pass as a list of letters.
        listed = isinstance(chosen, Collection) and not isinstance(chosen, (str, bytes))
        if not listed or not all(isinstance(one, (int, str)) for one in chosen):
            raise ValueError(
                f"{setting} of {self.name}: {chosen!r} must be a list of names or "
                "labels"
            )
        names = self.store.catalog.names
        known: dict[Any, int] = {
            **{name: label for label, name in names.items()},
            **{label: label for label in names},
            **self.layout.labels,
        }
        labels = {item: known.get(item, known.get(str(item))) for item in chosen}
        for item, label in labels.items():
            if label is None:
                table = self.store.root / self.layout.class_list
                source = table if table.is_file() else self.name
                raise ValueError(
                    f"{setting}: {source} has no {item!r}"
                    f"{suggest(item, names.values())}"
                )
        return frozenset(filter(None, labels.values()))

    def _check_shown(self, chosen: bool) -> None:
        """Refuses a set that shows no kept class, or not all that a setting chose. The
        error says first what the masks themselves have to do with it."""
        catalog, bad = self.store.catalog, len(self.store.catalog.unreadable)
        where = f"split {self.store.split!r} of {self.name}"
        why = "".join(f"; {cause}" for cause in catalog.causes())
        if not catalog.by_class:
            empty = len(catalog) - bad
            raise ValueError(
                f"{self.store.root}: {where} shows no class: of "
                f"{counted(len(catalog), 'record')} {bad} have masks that cannot be "
                f"read, and {empty} have no class, "
                f"only background and ignored pixels{self._first_values()}{why}"
            )
        why = why if bad else ""
        absent = [n for k, n in self.class_names.items() if k not in self.by_class]
        if absent and chosen:
            raise ValueError(
                f"classes: {where} has no image of {shorten(absent)}; leave the class "
                f"out or use another split{why}"
            )
        if not self.by_class:
            raise ValueError(
                f"{where} has no image of any kept class; leave the set out or keep "
                f"more classes{why}"
            )

    def _first_values(self) -> str:
        """What the first mask has beside what is listed, for an error; "" without."""
        try:
            raw = self.store[0]
            values = read_mask(io.BytesIO(raw.mask)).values if raw.mask else None
        except BROKEN:
            return ""
        if values is None or values.ndim > 2:
            return ""
        found = shorten(np.unique(values).tolist())
        listed = shorten([f"{i} {name}" for i, name in self.class_names.items()])
        return (
            f"; {raw.mask_name} has the values {found}, and the classes are {listed}: "
            "`seggpt index` makes tables that fit the masks"
        )

    def _log_unused(self) -> None:
        unused = np.ones(len(self), bool)
        for members in self.by_class.values():
            unused[members] = False
        if count := np.count_nonzero(unused):
            logger.info(
                "%s: %d of %d images of split %s show no kept class and are no one's "
                "partner", self.name, count, len(self), self.store.split,
            )  # fmt: skip
