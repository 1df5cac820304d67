"""Any layout as a source, out of the owners' folder or of the prepared form."""

import functools
import io
import itertools
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, SupportsIndex

import numpy as np
from PIL import Image

from seggpt_jax.config import shorten, suggest
from seggpt_jax.data.augment import visible
from seggpt_jax.data.catalog import Catalog, open_catalog
from seggpt_jax.data.decode import naming_errors, read_image
from seggpt_jax.data.layout import Decoded, Layout, RawRecord
from seggpt_jax.data.sample import BACKGROUND, IGNORE, Sample, kind_of

NEAREST = Image.Resampling.NEAREST


class Store:
    """Where the records of a split are kept, and how they are decoded."""

    layout: Layout

    @functools.cached_property
    def catalog(self) -> Catalog:
        raise NotImplementedError

    def __getitem__(self, index: int) -> RawRecord:
        """Raises `BadRecord` for one that cannot be read."""
        raise NotImplementedError

    def __getstate__(self) -> dict:
        # Mapped arrays would be copied and readers cannot be: workers open them anew.
        return {k: v for k, v in vars(self).items() if k not in self.opened}

    opened: ClassVar[tuple[str, ...]] = ("catalog",)


class Raw(Store):
    """The owners' folder."""

    def __init__(self, layout: Layout, root: Path, split: str):
        self.layout, self.root, self.split = layout, root.absolute(), split

    @functools.cached_property
    def catalog(self) -> Catalog:
        return open_catalog(self.layout, self.root, self.split)

    def __getitem__(self, index: int) -> RawRecord:
        return self.layout.read(self.root, self.catalog.entry(index))


class Dataset:
    """One split of a layout as a source (see `data.sample`).

    Args:
      store: where the records are, and how they are decoded.
      name: of the source.
      classes: names or labels to keep; pixels of all others become background.
      exclude_classes: the same, to hide: their pixels become `IGNORE`.

    Raises:
      ValueError: on opening, for the set. BadRecord: on reading, for one record.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        classes: Sequence[int | str] | None = None,
        exclude_classes: Sequence[int | str] = (),
    ):
        self.store, self.name = store, name
        self.kind = kind_of(store.layout.kind)
        self.same_image_only = store.layout.same_image_only
        names = store.catalog.names
        self._kept = frozenset(
            names if classes is None else _labels(classes, names, "classes", name)
        )
        self._hidden = frozenset(
            _labels(exclude_classes, names, "exclude_classes", name)
        )
        if classes is None:
            self._kept -= self._hidden
        elif both := [names[i] for i in self._kept & self._hidden]:
            raise ValueError(
                f"{name}: classes and exclude_classes both have {shorten(both)}"
            )
        if not self.by_class:
            raise ValueError(f"{name}: no record shows a kept class; keep more classes")

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
        """Name -> indices of its frames, in order; empty for sets of images."""
        if not self.store.layout.video:
            return {}
        catalog = self.store.catalog
        names = (catalog[i][0].rpartition("/")[0] for i in range(len(catalog)))
        spans = {
            name: [i for i, _ in frames]
            for name, frames in itertools.groupby(
                enumerate(names), key=operator.itemgetter(1)
            )
        }
        return {name: range(span[0], span[-1] + 1) for name, span in spans.items()}

    def __getstate__(self) -> dict:
        return {k: v for k, v in vars(self).items() if k != "by_class"}

    def __len__(self) -> int:
        return len(self.store.catalog)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        return self.sample(self.store[operator.index(index)])

    def sample(self, raw: RawRecord) -> Sample:
        """Decodes one record. Raises `BadRecord`, which names the file."""
        with naming_errors(raw.mask_name):
            decoded = self.store.layout.decode(raw.mask, raw.annotation)
        segments = None if decoded is None else self._filter(decoded)
        size = None if segments is None else segments.shape
        if self.store.layout.scale_masks:
            size = None
        with naming_errors(raw.image_name):
            image = read_image(io.BytesIO(raw.image), size, raw.mask_name)
        if segments is None:
            segments = np.full(image.shape[:2], IGNORE, np.int32)
        elif segments.shape != image.shape[:2]:
            scaled = Image.fromarray(segments).resize(image.shape[1::-1], NEAREST)
            segments = np.asarray(scaled)
        return Sample(image, segments, self.kind, visible(segments))

    def record_id(self, index: int) -> str:
        """The name of a record, unique in the split."""
        return self.store.catalog[index][0]

    def object_names(self, index: int) -> dict[int, str]:
        """Label of each object of a record of instances -> name of its class."""
        raw = self.store[index]
        with naming_errors(raw.mask_name):
            decoded = self.store.layout.decode(raw.mask, raw.annotation)
        owners = (decoded and decoded.owners) or {}
        return {n: self.store.catalog.names[label] for n, label in owners.items()}

    def _filter(self, decoded: Decoded) -> np.ndarray:
        segments, owners = decoded
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


def _labels(
    chosen: Sequence[int | str], names: Mapping[int, str], setting: str, source: str
) -> list[int]:
    """Labels of names or labels."""
    if isinstance(chosen, str):  # a sequence of letters, never meant as one
        raise ValueError(f"{setting}: {chosen!r} must be a list of names or labels")
    by_name = {name: label for label, name in names.items()}
    labels = [by_name.get(str(item), item) for item in chosen]
    for label in labels:
        if label not in names:
            raise ValueError(
                f"{setting}: {source} has no {label!r}{suggest(label, names.values())}"
            )
    return [int(label) for label in labels]
