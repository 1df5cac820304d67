"""What a source yields, and the errors that name a bad record."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

CATEGORY, INSTANCE = 0, 1  # `kind`: which type embedding the model adds
BACKGROUND, IGNORE = 0, 255  # the two reserved labels of `segments`


KINDS = {"category": CATEGORY, "instance": INSTANCE}


def kind_of(value: int | str) -> int:
    """The `kind` that a setting names."""
    kind = KINDS.get(str(value), value)
    if kind not in (CATEGORY, INSTANCE):
        raise ValueError(f"kind: {value!r} must be category or instance")
    return int(kind)


class BadRecord(ValueError):
    """An image or mask that cannot be used; the message names the file."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image with its segmentation.

    image: uint8 `[h, w, 3]`. segments: int32 `[h, w]`, `BACKGROUND`, `IGNORE` or an id
    of `classes` (category ids, or instance numbers when `kind` is `INSTANCE`).
    """

    image: np.ndarray
    segments: np.ndarray
    kind: int
    classes: tuple[int, ...]


def families(source: "Source") -> Mapping[str, Sequence[int]]:
    """Task -> its class ids: of a source that keeps several apart, else all as one."""
    return getattr(source, "families", {"": tuple(source.by_class)})


@runtime_checkable
class Source(Protocol):
    """A data set as a sequence of samples. Must pickle: workers are processes.

    by_class: class id -> indices of the samples that have it, without decoding any.
    class_names: class id -> name, in the order of the data set.
    same_image_only: the ids mean nothing across images (class-agnostic regions), so
    two views of one image are the only context there is.
    """

    name: str
    class_names: Mapping[int, str]
    by_class: Mapping[int, Sequence[int]]
    same_image_only: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
