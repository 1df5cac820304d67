"""Queries of one task, in colours that never change: a prompt is tuned on them."""

import dataclasses
import operator
from collections.abc import Iterable, Sequence
from typing import SupportsIndex

import numpy as np

from seggpt_jax import canvas, colors, painter
from seggpt_jax.data import augment
from seggpt_jax.data.augment import View, Window
from seggpt_jax.data.context import ContextSettings, NothingToAsk
from seggpt_jax.data.sample import IGNORE, Sample, Source


@dataclasses.dataclass(frozen=True)
class TuneTask:
    """The records of a source that show some labels, as a source; and their colours.

    labels: of the source; none for instances, whose colours follow from their places
    (`painter.paint_locations`). palette: colours of the labels uint8 `[c, 3]`. records:
    rising indices of the source.
    """

    source: Source
    labels: tuple[int, ...]
    palette: np.ndarray
    records: np.ndarray
    same_image_only: bool = False

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def class_names(self) -> dict[int, str]:
        known = {label: self.source.class_names[label] for label in self.labels}
        return known or {1: "instance"}

    @property
    def by_class(self) -> dict[int, np.ndarray]:
        found = _members(self.source, self.labels)
        return {n: np.searchsorted(self.records, members) for n, members in found}

    def shows(self, labels: Iterable[int]) -> bool:
        """Whether any of these labels of a sample is of the task."""
        return not set(self.labels or labels).isdisjoint(labels)

    def paint(self, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The target uint8 `[h, w, 3]` of a label map, and bool `[h, w]`, true where it
        is painted."""
        if self.labels:
            return colors.paint(segments, self.labels, self.palette)
        target = painter.paint_locations(segments, augment.visible(segments))
        return target, np.asarray(target.any(-1))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        return self.source[int(self.records[operator.index(index)])]


def choose(source: Source, labels: Sequence[int], palette: np.ndarray) -> TuneTask:
    """Makes a tuning task of some labels of a source. Its records are those that show
    at least one of these labels."""
    members = [records for _, records in _members(source, labels)]
    records = np.unique(np.concatenate(members)) if members else np.zeros(0, np.int64)
    return TuneTask(source, tuple(labels), palette, records)


def _members(source: Source, labels: Iterable[int]) -> list[tuple[int, np.ndarray]]:
    known = [label for label in labels if label in source.by_class]
    return [(label, np.asarray(source.by_class[label])) for label in known]


@dataclasses.dataclass(frozen=True)
class Queries:
    """Makes the elements that `data.context.Context` makes, without `labels`. The half
    of the prompt is empty: the learned prompt goes there. The query's half is hidden.

    settings: only `tries` and `min_share` count. At most `tries` crops are drawn, until
    one shows a label on `min_share` of its pixels; else the whole image is taken. size,
    patch: as of `Context`.
    """

    view: View
    settings: ContextSettings
    size: tuple[int, int]
    patch: int

    def __call__(
        self, task: TuneTask, index: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray | np.generic]:
        """The query of the task's record `index`. Raises `BadRecord` for an unreadable
        record, `NothingToAsk` for one that shows no label after all."""
        sample = task[index]
        if not task.shows(sample.classes):
            raise NothingToAsk(f"{task.name}[{task.records[index]}] shows no label")
        window, segments = self._crop(task, sample, rng)
        image = self.view.cut_image(sample.image, window, self.size, rng)
        target, painted = task.paint(segments)
        rows, cols = segments.shape
        grid = 2 * rows // self.patch, cols // self.patch
        return {
            "images": _below(image),
            "targets": _below(target),
            "foreground": _below(painted),
            "valid": _below(segments != IGNORE),
            "background": np.zeros(3, np.uint8),
            "hidden": canvas.query_half(grid),
            "kind": np.int32(sample.kind),
            "record": np.int64(task.records[index]),
        }

    def _crop(
        self, task: TuneTask, sample: Sample, rng: np.random.Generator
    ) -> tuple[Window, np.ndarray]:
        for _ in range(self.settings.tries):
            window = self.view.window(sample.segments.shape, rng)
            segments = self.view.cut_segments(sample, window, self.size)
            seen = augment.visible(segments, self.settings.min_share)
            if task.shows(seen):
                return window, segments
        window = augment.whole(sample.segments.shape)
        return window, augment.cut_segments(sample.segments, window, self.size)


def _below(query: np.ndarray) -> np.ndarray:
    """The lower half of a canvas whose upper half is zero."""
    return np.concatenate([np.zeros_like(query), query])
