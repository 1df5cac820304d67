"""Collages: what images of other sources show, cut out and pasted on their images.

In most photographs one thing stands out, and a model that paints it scores well,
whatever is asked for. In a collage several do, and only the prompt says which is meant
(copy-paste, Ghiasi et al. 2021, for pairs in context).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from seggpt_jax.data.augment import visible
from seggpt_jax.data.sample import (
    BACKGROUND,
    CATEGORY,
    IGNORE,
    INSTANCE,
    BadRecord,
    Sample,
    Source,
)

FIRST_ID = IGNORE + 1  # class ids stay clear of the reserved labels
MIN_SIDE = 32
TOGETHER = 2  # classes that every scene of either shows
CELLS = 4  # of a scene, two by two, a thing in each
SIDES = (0.3, 0.6)  # of a thing, in shares of the scene's shorter side
TURN = 20.0  # degrees, either way
GAIN = 0.2  # of brightness, either way
_SLIVER = 0.004  # a thing with less in sight is nobody's example: ignored
_CUTS, _GROUNDS = 4096, 256  # kept decoded, in reduced size: about 100 MiB at 128


class Thing(NamedTuple):
    """The largest region of a label in one record.

    key: the name of its category, across sources.
    """

    source: int
    record: int
    label: int
    key: str


class Collage:
    """`length` scenes of `size` (h, w), a function of (seed, index) and the sources.

    A scene pastes two or three things that may be asked for, or stand beside them, on a
    record of any source. Every other scene asks for things (class ids of the family
    "thing": this very cut-out, scaled, turned, on another ground), the others for
    classes (family "category": any cut-out of a class; sources share those of a name).
    Pixels of an asked category that the ground itself shows are `IGNORE`.

    Args:
      sources: whose records' labels are what they show: no objects of instances.

    Raises:
      ValueError: for a setting that is out of range, and sources of instances.
    """

    same_image_only = False

    def __init__(
        self,
        sources: Sequence[Source],
        seed: int = 0,
        length: int = 100_000,
        size: Sequence[int] = (128, 128),
        name: str = "collage",
    ):
        if seed < 0:
            raise ValueError(f"seed: {seed} must be 0 or more")
        if length < 2:
            raise ValueError(f"length: {length} must be 2 or more")
        if len(size) != 2 or min(size) < MIN_SIDE:
            raise ValueError(f"size: {size} must be (h, w), both at least {MIN_SIDE}")
        self.size = int(size[0]), int(size[1])
        for source in sources:
            objects = hasattr(source, "object_names")
            if objects and getattr(source, "kind", CATEGORY) == INSTANCE:
                raise ValueError(
                    f"{name}: {source.name} labels objects, not classes; take a "
                    f"semantic set"
                )
        self.sources, self.seed, self.length = list(sources), seed, length
        self.name = name

    @functools.cached_property
    def _things(self) -> list[Thing]:
        return [
            Thing(place, int(record), label, _key(source, label))
            for place, source in enumerate(self.sources)
            for label, records in source.by_class.items()
            for record in records
        ]

    @functools.cached_property
    def _categories(self) -> dict[str, list[int]]:
        """Name -> places in `_things`, of those with two records or more."""
        found: dict[str, list[int]] = {}
        for place, thing in enumerate(self._things):
            if not self.sources[thing.source].same_image_only:
                found.setdefault(thing.key, []).append(place)
        return {key: places for key, places in found.items() if len(places) > 1}

    @functools.cached_property
    def families(self) -> dict[str, tuple[int, ...]]:
        """Task -> its class ids."""
        middle = FIRST_ID + len(self._categories)
        found = {
            "category": range(FIRST_ID, middle),
            "thing": range(middle, middle + len(self._things)),
        }
        return {task: tuple(ids) for task, ids in found.items() if ids}

    @functools.cached_property
    def class_names(self) -> dict[int, str]:
        """Class id -> name, such as "category: cat" or "thing: pets 12 cat"."""
        things = (
            f"{self.sources[t.source].name} {t.record} "
            f"{self.sources[t.source].class_names[t.label]}"
            for t in self._things
        )
        names = {"category": self._categories, "thing": things}
        return {
            class_id: f"{task}: {name}"
            for task, ids in self.families.items()
            for class_id, name in zip(ids, names[task], strict=True)
        }

    @functools.cached_property
    def _groups(self) -> list[list[tuple[int, ...]]]:
        """Of each family the class ids that are shown together."""
        rng = np.random.default_rng(self.seed)
        orders = [rng.permutation(ids).tolist() for ids in self.families.values()]
        return [
            [tuple(ids[k : k + TOGETHER]) for k in range(0, len(ids), TOGETHER)]
            for ids in orders
        ]

    @functools.cached_property
    def by_class(self) -> Mapping[int, Sequence[int]]:
        """Class id -> indices of the scenes that it is pasted in, if there are any."""
        families = len(self._groups)
        found = {
            class_id: range(
                place * families + family, self.length, len(groups) * families
            )
            for family, groups in enumerate(self._groups)
            for place, ids in enumerate(groups)
            for class_id in ids
        }
        return {class_id: found[class_id] for class_id in sorted(found)
                if found[class_id]}  # fmt: skip

    def __getstate__(self) -> dict:
        own = ("sources", "seed", "length", "size", "name")
        return {key: vars(self)[key] for key in own}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        index = range(self.length)[index]
        lap, family = divmod(index, len(self._groups))
        ids = self._groups[family][lap % len(self._groups[family])]
        rng = np.random.default_rng((self.seed, index))
        asked = [self._pick(class_id, rng) for class_id in ids]
        others = self._distractors(asked, 1 + int(rng.integers(2)), rng)
        image, segments = self._ground({thing.key for thing in asked}, rng)
        pasted = [*zip(asked, ids, strict=True), *((t, BACKGROUND) for t in others)]
        cells = rng.permutation(CELLS)
        for place in rng.permutation(len(pasted)).tolist():
            thing, label = pasted[place]
            cut = _vary(self._cut(*thing), min(self.size), rng)
            _paste(image, segments, cut, label, int(cells[place]), rng)
        seen = visible(segments, _SLIVER)
        segments[np.isin(segments, [i for i in ids if i not in seen])] = IGNORE
        return Sample(image, segments, CATEGORY, seen)

    @functools.cached_property
    def _candidates(self) -> list[list[int]]:
        """Of each class, in the order of their ids: places in `_things`."""
        own = ([place] for place in range(len(self._things)))
        return [*self._categories.values(), *own]

    def _pick(self, class_id: int, rng: np.random.Generator) -> Thing:
        places = self._candidates[class_id - FIRST_ID]
        return self._things[places[int(rng.integers(len(places)))]]

    def _distractors(
        self, asked: Sequence[Thing], count: int, rng: np.random.Generator
    ) -> list[Thing]:
        """Things of other categories; none where a few draws find none."""
        keys = {thing.key for thing in asked}
        drawn = [
            self._things[k] for k in rng.integers(len(self._things), size=4 * count)
        ]
        return [thing for thing in drawn if thing.key not in keys][:count]

    def _ground(
        self, keys: set[str], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A random crop of a random record: image and segments, of `size`."""
        thing = self._things[int(rng.integers(len(self._things)))]
        image, segments = self._small(thing.source, thing.record)
        source = self.sources[thing.source]
        asked = [label for label in source.class_names if _key(source, label) in keys]
        h, w = segments.shape
        share = rng.uniform(0.6, 1.0)
        rows, cols = max(1, round(h * share)), max(1, round(w * share))
        top, left = rng.integers(h - rows + 1), rng.integers(w - cols + 1)
        box = (left, top, left + cols, top + rows)
        size = self.size[1], self.size[0]
        cut = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box)
        hidden = np.isin(segments, [IGNORE, *asked]).astype(np.uint8)
        hide = Image.fromarray(hidden).resize(size, Image.Resampling.NEAREST, box)
        labels = np.where(np.asarray(hide), IGNORE, BACKGROUND).astype(np.int32)
        return np.array(cut), labels

    @functools.cached_property
    def _small(self) -> Any:
        return functools.lru_cache(_GROUNDS)(self._read_small)

    def _read_small(self, source: int, record: int) -> tuple[np.ndarray, np.ndarray]:
        sample = self.sources[source][record]
        h, w = sample.segments.shape
        scale = max(self.size) / min(h, w)
        size = (max(1, round(w * scale)), max(1, round(h * scale)))
        image = Image.fromarray(sample.image).resize(size, Image.Resampling.BOX)
        segments = Image.fromarray(sample.segments).resize(
            size, Image.Resampling.NEAREST
        )
        return np.asarray(image), np.asarray(segments)

    @functools.cached_property
    def _cut(self) -> Any:
        return functools.lru_cache(_CUTS)(self._read_cut)

    def _read_cut(self, source: int, record: int, label: int, key: str) -> Image.Image:
        """The box around a label, RGBA, no larger than it is ever pasted."""
        sample = self.sources[source][record]
        mask = sample.segments == label
        if not mask.any():
            name = self.sources[source].name
            raise BadRecord(f"{name}[{record}] shows no {key}, which it is listed for")
        regions, _ = ndimage.label(mask)
        largest = int(np.argmax(np.bincount(regions.ravel())[1:])) + 1
        box = ndimage.find_objects(regions)[largest - 1]
        alpha = 255 * (regions[box] == largest).astype(np.uint8)
        cut = Image.fromarray(np.dstack([sample.image[box], alpha]))
        longest = SIDES[1] * min(self.size)
        cut.thumbnail((longest, longest))
        return cut


def _key(source: Source, label: int) -> str:
    """What tells categories apart: the name, or for regions without one, all of it."""
    name = source.class_names[label]
    return f"{source.name}/{name}" if source.same_image_only else name


def _vary(cut: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    """A cut-out mirrored or not, turned, brighter or darker, of a random size."""
    longest = rng.uniform(*SIDES) * side
    scale = longest / max(cut.size)
    size = [max(1, round(n * scale)) for n in cut.size]
    cut = cut.resize(size, Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turn = rng.uniform(-TURN, TURN)
    cut = cut.rotate(turn, Image.Resampling.BILINEAR, expand=True)
    gain = 1 + rng.uniform(-GAIN, GAIN)
    pixels = np.array(cut)
    pixels[..., :3] = np.clip(pixels[..., :3] * gain, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def _paste(
    image: np.ndarray,
    segments: np.ndarray,
    cut: Image.Image,
    label: int,
    cell: int,
    rng: np.random.Generator,
) -> None:
    """Puts a cut-out into a quarter of the scene, in place; its edges may stand out."""
    h, w = segments.shape
    row, col = divmod(cell, 2)
    y = round((0.25 + 0.5 * row + rng.uniform(-0.08, 0.08)) * h - cut.height / 2)
    x = round((0.25 + 0.5 * col + rng.uniform(-0.08, 0.08)) * w - cut.width / 2)
    y0, x0 = max(y, 0), max(x, 0)
    y1, x1 = min(y + cut.height, h), min(x + cut.width, w)
    pixels = np.asarray(cut)[y0 - y : y1 - y, x0 - x : x1 - x].astype(np.float32)
    alpha = pixels[..., 3:] / 255
    place = slice(y0, y1), slice(x0, x1)
    image[place] = (alpha * pixels[..., :3] + (1 - alpha) * image[place]).round()
    segments[place][alpha[..., 0] > 0.5] = label
