"""The procedural source: drawn scenes whose objects are asked for in six ways.

A task says what a class of a scene is: a shape, a texture, a colour, a part of a
composite, a whole appearance (`object`), or each object for itself (`instance`). In
the first four everything else about an object is random, so that the other
attributes mislead. Needs no files: a sample is a function of (seed, split, index).
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
MIN_PRIMARY = 0.02  # share of the pixels that the primary class surely has
_SLIVER = 0.004  # an object with less in sight is nobody's example: ignored
_WEIGHTS = {"shape": 2, "texture": 2, "colour": 2, "part": 1, "object": 2,
            "instance": 1}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Indices(Sequence[int]):
    """Sample indices of a task, or of one class of it, none of them stored.

    Every `period` of indices has the `slots` of the task. `numbers` are those of its
    samples, counted within the task.
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
    """`length` scenes of `size` (h, w); the settings are not to be changed.

    split: "heldout" asks only for classes that "train" never shows. tasks: task ->
    weight, to hundredths. noise: uniform, in levels out of 255. lighting: by how
    much brightness, cast and shading vary from scene to scene; without it the colours
    of the prompt answer most of colour and object tasks. plain: all things upright,
    those of shapes and textures of one size, and shapes on an even ground without
    textures: what can be learned first. The scene of an index is the same at any size
    of one aspect.

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
        _check(self)

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
        """Class id -> indices whose scene is sure to show it, if there are any."""
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
        """The class that a sample is sure to show; None for `instance`."""
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
        # Two streams: the noise takes more of its own in a larger image.
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


def _check(source: Shapes) -> None:
    if source.seed < 0:
        raise ValueError(f"seed: {source.seed} must be 0 or more")
    if source.length < 1:
        raise ValueError(f"length: {source.length} must be 1 or more")
    if source.split not in SPLITS:
        raise ValueError(
            f"split: {source.name} has no {source.split!r}"
            f"{suggest(source.split, SPLITS)}"
        )
    size = tuple(source.size)
    if len(size) != 2 or min(size) < MIN_SIDE or max(size) > MAX_ASPECT * min(size):
        raise ValueError(
            f"size: {size} must be (h, w), both at least {MIN_SIDE}, and the longer "
            f"at most {MAX_ASPECT} times the shorter"
        )
    if not isinstance(source.noise, int) or not 0 <= source.noise <= 64:
        raise ValueError(f"noise: {source.noise} must be an integer, 0 to 64")
    if not 0 <= source.lighting <= 0.6:
        raise ValueError(f"lighting: {source.lighting} must be 0 to 0.6")
    if not source.tasks:
        raise ValueError(f"tasks: empty; choose from {', '.join(TASKS)}")
    for task, weight in source.tasks.items():
        if task not in TASKS:
            raise ValueError(
                f"tasks: {source.name} has no {task!r}{suggest(task, TASKS)}"
            )
        if not 0.01 <= weight <= 1000:
            raise ValueError(f"tasks: weight {weight} of {task!r} must be 0.01 to 1000")


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
