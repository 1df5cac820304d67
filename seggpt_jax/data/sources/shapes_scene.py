"""Chooses the classes, looks and places of the things in procedural scenes.

The categories of every task are numbered here, once for all splits.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from seggpt_jax.data.sample import BACKGROUND, IGNORE
from seggpt_jax.data.sources import shapes_draw as draw
from seggpt_jax.data.sources import shapes_forms as forms

AIM = 0.0295  # share of the primary class in the pixels: 2 %, and the loss by rotation
_SIZES = (0.25, 0.5)  # of an object's box, in sqrt(h * w)
_CROWDED = 0.42  # the largest box where there are four things or more
_TRIES = 10  # places tried for a thing, to keep it in sight
_OBJECTS = {"train": 128, "heldout": 40}  # appearances of the `object` task
_COUNTS = (2, 3, 4, 4, 5, 5)  # things in a scene
_INSTANCES = (3, 4, 5, 6)
_THEME = 0.6, 5  # chance that a further class is a theme mate, and classes of a theme
_STRIDED = 0.4  # chance that the theme is of the second grouping
# A scene teaches shape or texture only if nothing else differs between its things, and
# only if another scene shows most of the same few classes, in few and large things.
_SUBTLE = ("shape", "texture")
_SUBTLE_THEME, _SUBTLE_COUNTS, _SUBTLE_SIZES = (0.9, 3), (2,), (0.38, 0.47)
_PLAIN_SIZES = (0.45, 0.46)
_PLAIN = 0.7  # share of the scenes of shapes without a texture
_LIGHT = 0.13  # by how much things of one look differ in value
_SOLID = 0.4  # share of its box that a shape fills to show a texture
_MAX_PARTS = max(map(len, forms.COMPOSITES.values()))
_CONTRAST = {"shape": 0.3, "texture": 0.6, "colour": 0.14, "part": 0.2, "object": 0.4}


@dataclasses.dataclass(frozen=True)
class Category:
    """The meaning of a class id. value: the attribute, or (colour, texture, shape)."""

    task: str
    value: tuple[str, ...]
    heldout: bool

    @property
    def name(self) -> str:
        return f"{self.task}: {' '.join(self.value)}"


def _of_split(names, heldout_names, heldout: bool) -> list[str]:
    return [name for name in names if (name in heldout_names) == heldout]


def _appearances(heldout: bool) -> list[tuple[str, ...]]:
    """Distinct (colour, texture, shape), all of one split, every value used evenly."""
    shapes = _of_split(forms.SHAPES, forms.HELDOUT_SHAPES, heldout)
    textures = _of_split(draw.TEXTURES, draw.HELDOUT_TEXTURES, heldout)
    colours = _of_split(draw.COLOURS, draw.HELDOUT_COLOURS, heldout)
    found: list[tuple[str, ...]] = []
    for k in range(_OBJECTS["heldout" if heldout else "train"]):
        lap, s = divmod(k, len(shapes))
        t = (11 * k + lap) % len(textures)
        c = (7 * k + 3 * lap) % len(colours)
        found.append((colours[c], textures[t], shapes[s]))
    return found


def _number_categories() -> Mapping[int, Category]:
    tables = (
        ("shape", forms.SHAPES, forms.HELDOUT_SHAPES),
        ("texture", draw.TEXTURES, draw.HELDOUT_TEXTURES),
        ("colour", draw.COLOURS, draw.HELDOUT_COLOURS),
    )
    found = [
        Category(task, (value,), value in heldout)
        for task, values, heldout in tables
        for value in values
    ]
    held_out = {  # a part may belong to several composites of one split
        part: name in forms.HELDOUT_COMPOSITES
        for name, parts in forms.COMPOSITES.items()
        for part, _ in parts
        if part is not None
    }
    found += [Category("part", (part,), held) for part, held in held_out.items()]
    found += [Category("object", v, held) for held in (False, True)
              for v in _appearances(held)]  # fmt: skip
    ids = (i for i in itertools.count(1) if i != IGNORE)
    return MappingProxyType(dict(zip(ids, found, strict=False)))


CATEGORIES: Mapping[int, Category] = _number_categories()


@dataclasses.dataclass(frozen=True)
class _Nuisance:
    """The attributes that the task does not ask for. tones: for each part."""

    shape: str
    texture: str
    tones: tuple[tuple[draw.Hsv, draw.Hsv], ...]


@functools.cache
def _nuisances(task: str, split: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Shapes and textures to choose from. Training never has a held-out one."""
    shapes, textures = tuple(forms.SHAPES), tuple(draw.TEXTURES)
    if split == "train":
        shapes = tuple(_of_split(shapes, forms.HELDOUT_SHAPES, False))
        textures = tuple(_of_split(textures, draw.HELDOUT_TEXTURES, False))
    if task == "texture":  # thin shapes show too little of a texture
        shapes = tuple(s for s in shapes if draw.coverage(s)[s] > _SOLID)
    return shapes, textures


@functools.cache
def _owners(part: str) -> tuple[str, ...]:
    """The composites that have a part."""
    return tuple(c for c in forms.COMPOSITES if part in draw.coverage(c))


@functools.cache
def members(task: str, split: str) -> tuple[int, ...]:
    """The class ids of a task and split; instances look like those of `object`."""
    wanted = ("object" if task == "instance" else task, split == "heldout")
    return tuple(i for i, c in CATEGORIES.items() if (c.task, c.heldout) == wanted)


class Composer:
    """Makes up one scene of a task; lengths count in `sqrt(h * w)`."""

    def __init__(
        self, rng: np.random.Generator, task: str, split: str, size, plain: bool
    ):
        self.rng, self.task, self.split, self.plain = rng, task, split, plain
        unit = math.sqrt(size[0] * size[1])
        self.height, self.width = size[0] / unit, size[1] / unit

    def between(self, low: forms.Number, high: forms.Number) -> float:
        return low + (high - low) * self.rng.random()

    def pick(self, items):
        return items[int(self.rng.random() * len(items))]

    def things(self, primary: int | None) -> tuple[list[draw.Thing], list[int]]:
        """Things, in drawing order, and the label of every piece of theirs."""
        known = members(self.task, self.split)
        first = self.pick(known) if primary is None else primary
        classes = self.classes(first, known)
        subtle = self.task in _SUBTLE
        shared = self.nuisance() if subtle or self.rng.random() < 0.5 else None
        looks = [
            self.look(c, self.lit(shared) if shared else self.nuisance())
            for c in classes
        ]
        of_subtle = _PLAIN_SIZES if self.plain else _SUBTLE_SIZES
        smallest, largest = of_subtle if subtle else _SIZES
        lows = [smallest] * len(classes)
        lows[0] = max(smallest, math.sqrt(AIM / looks[0][2]))
        places = self.places(lows, largest)
        # The first thing is drawn last: nothing hides the class that must be in sight.
        order = [*self.rng.permutation(len(classes) - 1).tolist(), -1]
        things, labels = [], []
        for number, k in enumerate(order, start=1):
            pieces, parts, _ = looks[k + 1]
            things.append(self.place(pieces, places[k + 1]))
            labels += self.labels(classes[k + 1], first, parts, number)
        return things, labels

    def labels(self, class_id: int, first: int, parts, number: int) -> list[int]:
        if self.task == "instance":
            return [number] * len(parts)
        if self.task == "part":  # one part is asked for, whatever has it
            asked = CATEGORIES[first].value[0]
            return [first if part == asked else BACKGROUND for part in parts]
        return [class_id] * len(parts)

    def classes(self, first: int, known: tuple[int, ...]) -> list[int]:
        """Two to five classes with repeats (up to six instances of two or three).

        A further class is often a mate of the first in one of two fixed groupings,
        so that two scenes of a class share more than that class, but not all.
        """
        n, at = len(known), known.index(first)
        subtle = self.task in _SUBTLE
        chance, size = _SUBTLE_THEME if subtle else _THEME
        groups = max(1, round(n / size))
        # The two things of a subtle scene differ in nothing else: let them look unlike.
        if subtle or self.rng.random() < _STRIDED:
            theme = known[at % groups :: groups]
        else:
            group = at * groups // n
            theme = known[-(-group * n // groups) : -(-(group + 1) * n // groups)]
        many = _INSTANCES if self.task == "instance" else _COUNTS
        count = self.pick(_SUBTLE_COUNTS if subtle else many)
        found = [first] * min(self.copies(), count - 1)
        while len(found) < count:
            new = self.pick(theme if self.rng.random() < chance else known)
            if new not in found:
                found += [new] * self.copies()
        return found[:count]

    def copies(self) -> int:
        """How many things of a class: 1 or 2, or up to 3 instances that look alike."""
        return 1 + int((3 if self.task == "instance" else 1.4) * self.rng.random())

    def random_hsv(self, hue: float) -> draw.Hsv:
        return hue, self.between(0.4, 1), self.between(0.35, 1)

    def named_hsv(self, colour: str) -> draw.Hsv:
        h, s, v = draw.COLOURS[colour]
        s, v = s + self.between(-0.05, 0.05), v + self.between(-0.05, 0.05)
        return h + self.between(-5, 5), min(s, 1.0), min(v, 1.0)

    def tones(self, hsv: draw.Hsv) -> tuple[draw.Hsv, draw.Hsv]:
        contrast = _CONTRAST["object" if self.task == "instance" else self.task]
        if self.task != "texture":
            return hsv, draw.second_tone(hsv, contrast)
        other = draw.second_tone(hsv, contrast, hue=self.between(0, 360))
        return (hsv, other) if self.rng.random() < 0.5 else (other, hsv)

    def nuisance(self) -> _Nuisance:
        shapes, textures = _nuisances(self.task, self.split)
        # The parts of a composite keep their hues apart: their outlines must show.
        hue, count = self.between(0, 360), _MAX_PARTS if self.task == "part" else 1
        hues = (hue + 360 * k / count + self.between(-25, 25) for k in range(count))
        tones = tuple(self.tones(self.random_hsv(hue)) for hue in hues)
        plain = self.task == "shape" and (self.rng.random() < _PLAIN or self.plain)
        texture = "flat" if plain else self.pick(textures)
        return _Nuisance(self.pick(shapes), texture, tones)

    def lit(self, nuisance: _Nuisance) -> _Nuisance:
        """The same look in another light, so that things that touch stay apart."""
        light = self.between(-_LIGHT, _LIGHT)
        tones = tuple(
            (_lighter(first, light), _lighter(second, light))
            for first, second in nuisance.tones
        )
        return dataclasses.replace(nuisance, tones=tones)

    def look(self, class_id: int, nuisance: _Nuisance):
        """Pieces of a thing, their part names, and the share of its box to count on."""
        value = CATEGORIES[class_id].value
        shape, texture, tones = nuisance.shape, nuisance.texture, nuisance.tones
        if self.task == "part":
            return self.composite(value[0], nuisance)
        if self.task == "shape":
            shape = value[0]
        elif self.task == "texture":
            texture = value[0]
        elif self.task == "colour":
            tones = (self.tones(self.named_hsv(value[0])),)
        else:
            colour, texture, shape = value
            tones = (self.tones(self.named_hsv(colour)),)
        piece = draw.Piece((forms.SHAPES[shape],), texture, tones[0])
        return (piece,), (shape,), draw.coverage(shape)[shape]

    def composite(self, part: str, nuisance: _Nuisance):
        owner = self.pick(_owners(part))
        pieces, names = [], []
        for (name, outlines), tones in zip(
            forms.COMPOSITES[owner], nuisance.tones, strict=False
        ):
            plain = name is None or self.rng.random() < 0.5
            texture = "flat" if plain else nuisance.texture
            pieces.append(draw.Piece(outlines, texture, tones))
            names.append(name)
        return tuple(pieces), tuple(names), draw.coverage(owner)[part]

    def places(
        self, lows: Sequence[float], largest: float
    ) -> list[tuple[float, float, float]]:
        """x, y and size of every thing, inside the image; overlaps are kept small."""
        high = largest if len(lows) < 4 else _CROWDED
        placed: list[tuple[float, float, float]] = []
        for low in lows:
            size = self.between(min(low, largest), max(low, high))
            room = size / 2
            spots = [
                (
                    self.between(room, self.width - room),
                    self.between(room, self.height - room),
                    size,
                )
                for _ in range(_TRIES)
            ]
            placed.append(min(spots, key=lambda s: sum(_hidden(s, p) for p in placed)))
        return placed

    def place(self, pieces, spot: tuple[float, float, float]) -> draw.Thing:
        x, y, size = spot
        angle = 0.0 if self.plain else 0.25
        return draw.Thing(
            pieces, x, y, size,
            angle=self.between(-angle, angle),
            period=0.14 * self.between(0.85, 1.15),
            turn=self.between(-0.12, 0.12),
            phase=(self.rng.random(), self.rng.random()),
        )  # fmt: skip

    def ground(self) -> draw.Ground:
        """A grey with a slight tint, uneven, and in half of the scenes textured."""
        tint = draw.rgb((self.between(0, 360), self.between(0, 0.2), 1.0))
        textured = 0.0 if self.plain and self.task == "shape" else 0.5
        grey = self.between(0.3, 0.75) + self.rng.uniform(-0.1, 0.1, (5, 5, 1))
        return draw.Ground(
            np.clip(grey * tint, 0, 220).astype(np.uint8),
            self.pick(_nuisances(self.task, self.split)[1]),
            contrast=self.between(8, 30) if self.rng.random() < textured else 0.0,
            period=self.between(0.1, 0.3),
            turn=self.between(0, math.pi),
        )


def draw_light(rng: np.random.Generator, strength: float) -> draw.Light:
    """A random light: level within `strength`, cast a third of it, slope all of it."""
    level = 1 + strength * rng.uniform(-1, 0.5)
    cast = level * (1 + strength / 3 * rng.uniform(-1, 1, 3))
    x, y = strength * rng.uniform(-1, 1, 2)
    return draw.Light(tuple(cast.tolist()), (x, y))


def _hidden(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    """Share of the smaller of two boxes (x, y, size) that the other one covers."""
    reach = (a[2] + b[2]) / 2
    small = min(a[2], b[2])
    x = min(reach - abs(a[0] - b[0]), small)
    y = min(reach - abs(a[1] - b[1]), small)
    return x * y / small**2 if x > 0 and y > 0 else 0.0


def _lighter(hsv: draw.Hsv, light: float) -> draw.Hsv:
    return hsv[0], hsv[1], min(max(hsv[2] + light, 0.05), 1.0)
