"""Samples, the sources that yield them, and the error for a bad record."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from seggpt_jax.config import counted, shorten

CATEGORY, INSTANCE = 0, 1  # `kind`: which type embedding the model adds
BACKGROUND, IGNORE = 0, 255  # the two reserved labels of `segments`

_OTHER_SIDE = {"left": "right", "right": "left"}
_SIDE = re.compile(r"(?<![a-z])(left|right)(?![a-z])")

KINDS = {"category": CATEGORY, "instance": INSTANCE}


def kind_of(value: int | str | None) -> int:
    """`CATEGORY` or `INSTANCE`, as a setting names it: by word or by number."""
    kind = KINDS.get(str(value), value)
    if kind not in (CATEGORY, INSTANCE):
        raise ValueError(f"kind: {value!r} must be category or instance")
    return int(kind)


class BadRecord(ValueError):
    """An image or mask that cannot be used; the message names the file."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image with its segmentation.

    Attributes:
      image: uint8 `[h, w, 3]`.
      segments: int32 `[h, w]` of `BACKGROUND`, `IGNORE` and of labels in `classes`.
      kind: `CATEGORY`, where classes are ids of categories, or `INSTANCE`, where they
        are numbers of instances.
      classes: the labels in sight.
      beside: of a record that stands for one class, the other classes that its mask
        shows; they are background in `segments`.
      sides: labels that a mirror image exchanges (`sides_of`).
    """

    image: np.ndarray
    segments: np.ndarray
    kind: int
    classes: tuple[int, ...]
    beside: tuple[int, ...] = ()
    sides: Mapping[int, int] = dataclasses.field(default_factory=dict)


def sides_of(names: Mapping[int, str]) -> dict[int, int]:
    """Label -> the label that a mirror image shows in its place, of classes whose names
    differ in the word left or right alone, such as left-arm and right-arm."""
    labels = {name.lower(): label for label, name in names.items()}
    found = {}
    for name, label in labels.items():
        other = _SIDE.sub(lambda word: _OTHER_SIDE[word[0]], name)
        if other != name and other in labels:
            found[label] = labels[other]
    return found


@runtime_checkable
class Source(Protocol):
    """A data set as a sequence of samples. Must pickle: workers are processes.

    class_names: class id -> name, in the order of the data set.
    by_class: class id -> indices of the samples that show it; decodes none.
    same_image_only: ids mean nothing across images, as those of class-agnostic regions.
    Then two views of one image are the only context.
    """

    name: str
    class_names: Mapping[int, str]
    by_class: Mapping[int, Sequence[int]]
    same_image_only: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@runtime_checkable
class TaskSource(Source, Protocol):
    """A source of several tasks, such as `sources.shapes`. Classes of different tasks
    do not go together.

    families: task -> its class ids; empty for a task without classes.
    """

    families: Mapping[str, Sequence[int]]

    def indices_of(self, task: str) -> Sequence[int]:
        """Indices of the samples of a task."""
        ...


@runtime_checkable
class NamedSource(Source, Protocol):
    """A source whose records have names. Some have `origins` and a `digest`, too
    (`Dataset`)."""

    def record_id(self, index: int) -> str:
        """The name of a record, unique in the source."""
        ...


def require_names(source: Source) -> NamedSource:
    """The source itself. Raises ValueError where its records have no names."""
    if not isinstance(source, NamedSource):
        raise ValueError(
            f"source {source.name!r} draws its records, which have no names: give a "
            "data set"
        )
    return source


def require_whole(source: Any) -> None:
    """Raises BadRecord where a source has lost records of its split (`Dataset.lost`): a
    score without them would be that of another set."""
    if lost := getattr(source, "lost", ()):
        named = shorten((f"{item.id} {item.reason}" for item in lost), 5)
        raise BadRecord(
            f"source {source.name!r} lacks {counted(len(lost), 'record')} of its "
            f"split, so its scores would be those of another set: {named}; restore "
            f"the files (after a change in place delete the catalog, docs/data.md)"
        )


@runtime_checkable
class VideoSource(NamedSource, Protocol):
    """A source whose records may be frames, named VIDEO/FRAME.

    videos: video -> indices of its frames, in order; empty for a set of images.
    """

    videos: Mapping[str, range]

    def object_names(self, index: int) -> Mapping[int, str]:
        """Label of each object of a record -> name of its class."""
        ...


def families(source: Source) -> Mapping[str, Sequence[int]]:
    """Task -> its class ids; all classes as one task, "", where a source has none."""
    return getattr(source, "families", {"": tuple(source.by_class)})
