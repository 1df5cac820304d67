"""The procedural source: drawn scenes whose objects are asked for in six ways.

A task says what a class of a scene is: a shape, a texture, a colour, a part of a
composite, a whole appearance (`object`), or each object for itself (`instance`). In
the first four tasks all other attributes of an object are random, so they mislead.
No files are needed: a sample is a function of (seed, split, index).
"""

import bisect
import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from seggpt_jax.config import suggest
from seggpt_jax.data.sample import BACKGROUND, CATEGORY, IGNORE, INSTANCE, Sample
from seggpt_jax.data.sources import shapes_draw as draw
from seggpt_jax.data.sources.shapes_scene import (
    CATEGORIES,
    Composer,
    draw_light,
    members,
)

TASKS = ("shape", "texture", "colour", "part", "object", "instance")
SPLITS = ("train", "heldout")
MIN_SIDE, MAX_ASPECT = 32, 2
MIN_PRIMARY = 0.02  # least share of the pixels that show the primary class
_SLIVER = 0.004  # an object that shows on a smaller share of the pixels is ignored
_WEIGHTS = {"shape": 2, "texture": 2, "colour": 2, "part": 1, "object": 2,
            "instance": 1}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Indices(Sequence[int]):
    """Indices of the samples of a task, or of one class of it, none of them stored.

    period: number of indices after which the tasks repeat. slots: the places of the
    task in a period. numbers: the samples, counted within the task.
    """

    numbers: range
    period: int
    slots: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, item):
        if isinstance(item, slice):
            return dataclasses.replace(self, numbers=self.numbers[item])
        lap, slot = divmod(self.numbers[item], len(self.slots))
        return lap * self.period + self.slots[slot]


@dataclasses.dataclass
class Shapes:
    """`length` scenes of `size` (h, w). The settings must not change later.

    split: "heldout" asks only for classes that "train" never shows. tasks: task ->
    weight, to hundredths. noise: uniform, in levels out of 255. lighting: how much
    brightness, cast and shading vary from scene to scene; without it, the colours of
    the prompt answer most colour and object tasks. plain: scenes that can be learned
    first. All things are upright, things of shape and texture tasks have one size, and
    shapes have no textures and lie on an even ground.

    The scene of an index is the same at all sizes of one aspect.

    Raises:
      ValueError: for a setting that is out of range.
    """

    seed: int = 0
    length: int = 100_000
    size: Sequence[int] = (64, 64)
    split: str = "train"
    tasks: Mapping[str, int | float] = dataclasses.field(default_factory=_WEIGHTS.copy)
    noise: int = 8
    lighting: float = 0.3
    plain: bool = False
    name: str = "shapes"
    same_image_only: bool = dataclasses.field(default=False, init=False)

    def __post_init__(self):
        if self.seed < 0:
            raise ValueError(f"seed: {self.seed} must be 0 or more")
        if self.length < 1:
            raise ValueError(f"length: {self.length} must be 1 or more")
        if self.split not in SPLITS:
            raise ValueError(
                f"split: {self.name} has no {self.split!r}{suggest(self.split, SPLITS)}"
            )
        size = tuple(self.size)
        if len(size) != 2 or min(size) < MIN_SIDE or max(size) > MAX_ASPECT * min(size):
            raise ValueError(
                f"size: {size} must be (h, w), both at least {MIN_SIDE}, and the longer"
                f" at most {MAX_ASPECT} times the shorter"
            )
        if not isinstance(self.noise, int) or not 0 <= self.noise <= 64:
            raise ValueError(f"noise: {self.noise} must be an integer, 0 to 64")
        if not 0 <= self.lighting <= 0.6:
            raise ValueError(f"lighting: {self.lighting} must be 0 to 0.6")
        if not self.tasks:
            raise ValueError(f"tasks: empty; choose from {', '.join(TASKS)}")
        for task, weight in self.tasks.items():
            if task not in TASKS:
                hint = suggest(task, TASKS)
                raise ValueError(f"tasks: {self.name} has no {task!r}{hint}")
            if not 0.01 <= weight <= 1000:
                name = f"weight {weight} of {task!r}"
                raise ValueError(f"tasks: {name} must be 0.01 to 1000")

    @functools.cached_property
    def families(self) -> dict[str, tuple[int, ...]]:
        """Task -> its class ids in this split; `instance` has none."""
        return {
            task: () if task == "instance" else members(task, self.split)
            for task in self.tasks
        }

    @functools.cached_property
    def class_names(self) -> dict[int, str]:
        """Class id -> name, such as "object: red striped star5"."""
        ids = itertools.chain.from_iterable(self.families.values())
        return {i: CATEGORIES[i].name for i in sorted(ids)}

    @functools.cached_property
    def by_class(self) -> dict[int, Indices]:
        """Class id -> indices of scenes that surely show it, if there are any."""
        found = {}
        for task, ids in self.families.items():
            whole = self.indices_of(task)
            for k, class_id in enumerate(ids[: len(whole)]):
                numbers = range(k, len(whole), len(ids))
                found[class_id] = dataclasses.replace(whole, numbers=numbers)
        return found

    def indices_of(self, task: str) -> Indices:
        """All indices of a task."""
        if task not in self.tasks:
            raise ValueError(
                f"task: {self.name} has no {task!r}{suggest(task, self.tasks)}"
            )
        slots, period = self._slots[task], len(self._pattern)
        laps, rest = divmod(self.length, period)
        count = laps * len(slots) + sum(slot < rest for slot in slots)
        return Indices(range(count), period, slots)

    def task_at(self, index: int) -> str:
        """The task of a sample."""
        return self._pattern[index % len(self._pattern)]

    def primary_at(self, index: int) -> int | None:
        """The class that a sample surely shows; None for `instance`."""
        task = self.task_at(index)
        ids, slots = self.families[task], self._slots[task]
        lap, slot = divmod(index, len(self._pattern))
        return (
            ids[(lap * len(slots) + bisect.bisect_left(slots, slot)) % len(ids)]
            if ids
            else None
        )

    @functools.cached_property
    def _pattern(self) -> tuple[str, ...]:
        """The tasks of one period of indices, each spread evenly over it."""
        hundredths = [round(100 * weight) for weight in self.tasks.values()]
        counts = [weight // math.gcd(*hundredths) for weight in hundredths]
        places = [
            ((k + 0.5) / count, i, task)
            for i, (task, count) in enumerate(zip(self.tasks, counts, strict=True))
            for k in range(count)
        ]
        return tuple(task for _, _, task in sorted(places))

    @functools.cached_property
    def _slots(self) -> dict[str, tuple[int, ...]]:
        return {
            task: tuple(i for i, t in enumerate(self._pattern) if t == task)
            for task in self.tasks
        }

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        index = range(self.length)[index]
        task, (h, w) = self.task_at(index), self.size
        # Streams of their own: a larger image draws more noise, but the same scene.
        seed = (self.seed, SPLITS.index(self.split), index)
        rng = np.random.default_rng(seed)
        composer = Composer(rng, task, self.split, (h, w), self.plain)
        noise = np.random.default_rng((*seed, 1))
        things, labels = composer.things(self.primary_at(index))
        light = draw_light(np.random.default_rng((*seed, 2)), self.lighting)
        image, slots = draw.render(
            things, composer.ground(), light, (h, w), self.noise, noise
        )
        segments, classes = _segment(slots, labels, task)
        kind = INSTANCE if task == "instance" else CATEGORY
        return Sample(image, segments, kind, classes)


def _segment(
    slots: np.ndarray, labels: Sequence[int], task: str
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Slots `[h, w]` -> segments int32 `[h, w]`, and the labels in sight.

    Slivers become `IGNORE`; instances are numbered anew, without gaps.
    """
    table = np.array([BACKGROUND, *labels], np.int32)
    counts = np.bincount(slots.ravel(), minlength=len(table))
    table[(counts < _SLIVER * slots.size) & (table != BACKGROUND)] = IGNORE
    seen = sorted(set(table[counts > 0].tolist()) - {BACKGROUND, IGNORE})
    if task == "instance":
        numbers = {label: i for i, label in enumerate(seen, start=1)}
        table = np.array([numbers.get(x, x) for x in table.tolist()], np.int32)
        seen = list(numbers.values())
    return table[slots], tuple(seen)
