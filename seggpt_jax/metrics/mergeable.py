"""What the metrics that are given one case at a time have in common."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

M = TypeVar("M", bound="Mergeable")


class Mergeable:
    """A score over many cases: `update` adds a case, `merge` joins two parts of an
    evaluation, `compute` divides at the end.

    counts: what was added so far. `+` joins two of them exactly: an array of integers,
    or a list with an entry per case where a sum of floats would depend on the order.
    classes: what is scored, in words; empty where it does not matter.
    """

    counts: Any
    classes = ""

    def __init__(self, counts: Iterable[Any] = ()):
        self.counts = list(counts)

    def merge(self: M, other: M) -> M:
        """The score of both parts together; leaves the two as they are.

        Raises ValueError for scores of other classes.
        """
        if other.classes != self.classes:
            raise ValueError(
                f"cannot merge scores of {self.classes} and of {other.classes}"
            )
        merged = copy.copy(self)
        merged.counts = self.counts + other.counts
        return merged

    def compute(self) -> dict[str, float]:
        """The scores by name, in 0..1, or nan without evidence."""
        raise NotImplementedError


def zeros(num_classes: int, *shape: int) -> np.ndarray:
    """Counts before the first case: int64 `[num_classes, *shape]`."""
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, must be at least 1")
    return np.zeros((num_classes, *shape), np.int64)


def floats(scores: Mapping[str, Any]) -> dict[str, float]:
    """Scores as plain numbers."""
    return {name: float(value) for name, value in scores.items()}
