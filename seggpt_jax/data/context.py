"""In-context pairs: a prompt and a query that share a label (paper, "In-Context
Coloring")."""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from seggpt_jax import canvas, colors
from seggpt_jax.data import augment
from seggpt_jax.data.augment import View, Window
from seggpt_jax.data.masking import Masking
from seggpt_jax.data.recolor import Recolor
from seggpt_jax.data.sample import (
    BACKGROUND,
    IGNORE,
    INSTANCE,
    Sample,
    Source,
    families,
)

MOST_PROMPTS = 64  # of a query: all canvases of one are in memory at once


class NothingToAsk(ValueError):
    """A record that shows no label: readable, but no pair can be made of it."""


class Tile(NamedTuple):
    """A sample in its place in a frame. rows, cols: the pixels of the frame that it
    fills. part: the part of its own view seen there, (x0, y0, x1, y1) in shares of the
    view."""

    sample: Sample
    rows: slice
    cols: slice
    part: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


class Side(NamedTuple):
    """Half a pair before its image is resized: crops may be drawn again, and to resize
    an image costs far more than to cut its segments.

    windows: the crop of each tile. segments: int32 `[h, w]`. classes: labels that cover
    at least `min_share` of the segments.
    """

    tiles: Sequence[Tile]
    windows: Sequence[Window]
    segments: np.ndarray
    classes: tuple[int, ...]


class _Plan(NamedTuple):
    """The images of both sides. without: labels that the query's image shows, and the
    prompt must not; empty where the sides are to share a label."""

    prompt: list[Tile]
    query: list[Tile]
    without: frozenset[int] = frozenset()

    @property
    def absent(self) -> bool:
        """Whether the prompt asks for what the query does not show."""
        return bool(self.without)

    @property
    def alone(self) -> bool:
        """Whether one image is on both sides."""
        return self.prompt is self.query

    def fits(self, prompt: Side, query: Side) -> bool:
        """Whether crops show what they must: the prompt a label, and the query too."""
        asked = prompt.classes if self.absent else {*prompt.classes} & {*query.classes}
        return bool(asked)


@dataclasses.dataclass(frozen=True)
class ContextSettings:
    """Which image the prompt of a training pair shows.

    same_image: probability that a category sample is its own prompt, in another view
    (0.5 in the paper). Two kinds of samples always are (1.0 in the paper): instance
    samples, and samples of a source whose labels mean nothing across images. Otherwise
    the prompt is another image that shares a class.
    mix_prob: of these pairs of two images, probability of mix-context on both sides: a
    grid of up to mix_grid (rows, columns) views of images that share the class, cropped
    and resized back.
    prompts: of each query, for the feature ensemble; 1 in the paper. Each makes a pair.
    Further prompts show one label that the first one shows too: in other crops, where
    an image is its own prompt, and else in other images of the class.
    one_prompt: of queries with several prompts, probability that the first prompt comes
    in place of the others too. The ensemble of equal prompts is the answer to one.
    absent_prob: of the pairs of two images, probability that the prompt asks for labels
    that the query does not show; the answer is all background. 0 in the paper.
    tries: most draws of the crops until both sides show one label on at least min_share
    of their pixels.

    The paper gives neither the probability and the grid of mix-context nor the retries.
    By default one category pair in ten is mixed. Such a pair reads five images, the
    others one and a half on average.
    """

    same_image: float = 0.5
    prompts: int = 1
    one_prompt: float = 0.0
    absent_prob: float = 0.0
    mix_prob: float = 0.2
    mix_grid: tuple[int, int] = (2, 2)
    tries: int = 8
    min_share: float = 0.002

    def __post_init__(self):
        for name in (
            "same_image",
            "one_prompt",
            "absent_prob",
            "mix_prob",
            "min_share",
        ):
            augment.check_share(name, getattr(self, name))
        if min(self.mix_grid) < 1 or max(self.mix_grid) < 2:
            raise ValueError(f"mix_grid={self.mix_grid}: needs two cells or more")
        if not 1 <= self.prompts <= MOST_PROMPTS:
            raise ValueError(f"prompts={self.prompts}: must be in [1, {MOST_PROMPTS}]")
        if self.tries < 1:
            raise ValueError(f"tries={self.tries}: must be >= 1")


@dataclasses.dataclass(frozen=True)
class Context:
    """Makes the in-context pair of one record of a source.

    size: rows and columns of one image. patch: pixels along a patch of the model, for
    the grid of `hidden`.
    """

    settings: ContextSettings = ContextSettings()
    view: View = View()
    recolor: Recolor = Recolor()
    masking: Masking = Masking()
    size: tuple[int, int] = (448, 448)
    patch: int = 16

    def __post_init__(self):
        if min(self.size) < 1:
            raise ValueError(f"size={self.size}: rows and columns must be >= 1")
        if self.patch < 1 or any(n % self.patch for n in self.size):
            raise ValueError(f"patch={self.patch}: must divide size={self.size}")

    def __call__(
        self, source: Source, index: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray | np.generic]:
        """The pair of record `index`, prompt stacked above query.

        images, targets: uint8 `[2h, w, 3]`. foreground: bool `[2h, w]`, true on painted
        pixels. valid: bool `[2h, w]`, false on ignored pixels, which are black in the
        target. background: uint8 `[3]`, a colour apart from all that are used. hidden:
        bool `[2h / patch, w / patch]`. kind: int32. record: int64, `index`. labels:
        int32 `[recolor.max_colors]`, the labels asked for, then zeros. With several
        prompts each array has them as a further first axis.

        Raises `BadRecord` for an unreadable record, `NothingToAsk` for an empty one.
        """
        sample = source[index]
        if not sample.classes:
            raise NothingToAsk(f"{source.name}[{index}] has no labelled pixel")
        # First the images, then the crops, and last the colours and the hidden patches:
        # an image is read once and resized once, whatever is drawn anew.
        plan = self._plan(source, index, sample, rng)
        sides = self._choose(plan, sample, rng)
        if not sides[0].classes:
            raise NothingToAsk(f"{source.name}[{index}] has labels below one pixel")
        prompt, query = (self._render(side, rng) for side in sides)
        recolored = self.recolor(prompt, query, rng)
        rows, cols = self.size[0] * 2, self.size[1]
        labels = np.zeros(self.recolor.max_colors, np.int32)
        labels[: len(recolored.labels)] = recolored.labels
        common: dict[str, np.ndarray | np.generic] = {
            "background": recolored.background,
            "hidden": self.masking((rows // self.patch, cols // self.patch), rng),
            "kind": np.int32(sample.kind),
            "record": np.int64(index),
            "labels": labels,
        }
        below = query, recolored.query, recolored.query_painted
        above = prompt, recolored.prompt, recolored.prompt_painted
        pair = _canvases(above, below) | common
        if self.settings.prompts == 1:
            return pair
        alike = self.settings.one_prompt and rng.random() < self.settings.one_prompt
        if alike:
            return {n: np.stack([x] * self.settings.prompts) for n, x in pair.items()}
        pairs = [pair]
        for other in self._further(source, index, plan, prompt, int(labels[0]), rng):
            # The colours of the first prompt: all prompts of a query ask for the same.
            painted = colors.paint(other.segments, recolored.labels, recolored.palette)
            pairs.append(_canvases((other, *painted), below) | common)
        return {name: np.stack([one[name] for one in pairs]) for name in pair}

    def _plan(
        self, source: Source, index: int, query: Sample, rng: np.random.Generator
    ) -> _Plan:
        """Draws the kind of context (paper, "In-Context Coloring"), and reads its
        images.

        The draws are in the order of the text below: a change of it changes all pairs.
        """
        # 1. The record is its own prompt: two crops of one image.
        alone = self._full(query)
        known = [c for c in query.classes if c in source.by_class]
        same = source.same_image_only or query.kind == INSTANCE or not known
        if same or rng.random() < self.settings.same_image:
            return _Plan(alone, alone)
        # A class of the query is drawn first, then an image of this class. So its rare
        # classes are asked for as often as the frequent ones.
        wanted = int(rng.choice(known))
        # 2. Another image, for a label that the query does not show (not in the paper).
        if self.settings.absent_prob and rng.random() < self.settings.absent_prob:
            shown = _shown(source, index, query)
            rivals = _rivals(source, wanted, shown)
            if rivals:
                members = source.by_class[int(rng.choice(rivals))]
                other = source[int(members[int(rng.integers(len(members)))])]
                # Labels that both show leave the prompt: nothing in the query matches.
                return _Plan(self._full(_without(other, shown)), alone, shown)
        # 3. Mix-context: a grid of images of one class on both sides.
        members = source.by_class[wanted]
        if rng.random() < self.settings.mix_prob:
            prompt = self._mix(source, members, None, rng)
            return _Plan(prompt, self._mix(source, members, query, rng))
        # 4. Another image of the same class; the record, where there is no other.
        at = _another(members, index, rng)
        partner = query if at == index else source[at]
        return _Plan(self._full(partner), alone)

    def _further(
        self,
        source: Source,
        index: int,
        plan: _Plan,
        prompt: Sample,
        label: int,
        rng: np.random.Generator,
    ) -> Iterator[Sample]:
        """The second prompt and those after it, which all show `label`. Where no view
        shows it, the first prompt comes again."""
        members = () if plan.alone else source.by_class.get(label, ())
        for _ in range(self.settings.prompts - 1):
            tiles = plan.prompt
            if len(members):
                other = source[_another(members, index, rng)]
                tiles = self._full(_without(other, plan.without))
            sides = (self._crop(tiles, rng) for _ in range(self.settings.tries))
            shown = (side for side in sides if label in side.classes)
            side = next(shown, None)
            yield prompt if side is None else self._render(side, rng)

    def _full(self, sample: Sample) -> list[Tile]:
        rows, cols = self.size
        return [Tile(sample, slice(0, rows), slice(0, cols))]

    def _mix(
        self,
        source: Source,
        members: Sequence[int] | np.ndarray,
        query: Sample | None,
        rng: np.random.Generator,
    ) -> list[Tile]:
        """Mix-context: a random grid of images, randomly cropped and resized back to
        `size`. The query takes one cell.

        The grid itself is never drawn. Its crop comes first, then every cell in sight
        is cut at its final size. So pixels are interpolated once, and images out of
        sight are never read.
        """
        view, most = self.view, self.settings.mix_grid
        shape = rng.integers(1, most, endpoint=True)
        if shape.prod() == 1:  # one cell is no mix: split the longer way
            shape[np.argmax(most)] = 2
        box = augment.random_box(self.size, view.crop_scale, view.crop_ratio, rng)
        left, top, width, height = box
        cells = [
            (rows, cols, (x0, y0, x1, y1))
            for rows, y0, y1 in _cells(int(shape[0]), self.size[0], top, height)
            for cols, x0, x1 in _cells(int(shape[1]), self.size[1], left, width)
        ]
        # With replacement: a class may have fewer images than the grid has cells.
        picks = [int(members[k]) for k in rng.integers(len(members), size=len(cells))]
        own = int(rng.integers(len(cells)))
        return [
            Tile(query if query is not None and n == own else source[pick], *cell)
            for n, (pick, cell) in enumerate(zip(picks, cells, strict=True))
        ]

    def _choose(
        self, plan: _Plan, sample: Sample, rng: np.random.Generator
    ) -> tuple[Side, Side]:
        """Draws crops until both sides show what they must.

        After `tries` draws it takes whole images: the prompt's and the query's, or the
        query's twice, where those do not show it either.
        """
        least = self.settings.min_share
        for _ in range(self.settings.tries):
            sides = self._crop(plan.prompt, rng), self._crop(plan.query, rng)
            if plan.fits(*sides):
                return sides
        sides = self._whole(plan.prompt[0].sample, least), self._whole(sample, least)
        if plan.fits(*sides):
            return sides
        # The query has a label, though perhaps on less than `min_share` of the pixels.
        whole = self._whole(sample, min_share=0.0)
        return whole, whole

    def _crop(self, tiles: list[Tile], rng: np.random.Generator) -> Side:
        """Draws a window for every tile and cuts the segments."""
        windows, frame = [], np.empty(self.size, np.int32)
        for tile in tiles:
            shape = tile.sample.segments.shape
            window = self.view.window(shape, rng).part(*tile.part)
            place = frame[tile.rows, tile.cols]
            place[:] = self.view.cut_segments(tile.sample, window, place.shape)
            windows.append(window)
        classes = augment.visible(frame, self.settings.min_share)
        return Side(tiles, windows, frame, classes)

    def _whole(self, sample: Sample, min_share: float) -> Side:
        """The whole image, resized, whatever its aspect."""
        window = augment.whole(sample.segments.shape)
        frame = augment.cut_segments(sample.segments, window, self.size)
        classes = augment.visible(frame, min_share)
        return Side(self._full(sample), [window], frame, classes)

    def _render(self, side: Side, rng: np.random.Generator) -> Sample:
        """Resizes and jitters the images of a side."""
        frame = np.empty((*self.size, 3), np.uint8)
        for tile, window in zip(side.tiles, side.windows, strict=True):
            place = frame[tile.rows, tile.cols]
            image = tile.sample.image
            place[:] = self.view.cut_image(image, window, place.shape[:2], rng)
        return Sample(frame, side.segments, side.tiles[0].sample.kind, side.classes)


def _canvases(above: tuple, below: tuple) -> dict[str, np.ndarray | np.generic]:
    """The arrays of a pair with one value per pixel. above, below: a sample, its target
    and its painted pixels."""
    (prompt, its, painted), (query, other, also) = above, below
    return {
        "images": canvas.stitch(prompt.image, query.image),
        "targets": canvas.stitch(its, other),
        "foreground": np.concatenate([painted, also]),
        "valid": np.concatenate([prompt.segments, query.segments]) != IGNORE,
    }


def _another(
    members: Sequence[int] | np.ndarray, index: int, rng: np.random.Generator
) -> int:
    """A random member that is not `index`, where there is another."""
    at = int(rng.integers(len(members)))
    if members[at] == index and len(members) > 1:
        # A random step forward: all others are equally likely.
        at = (at + int(rng.integers(1, len(members)))) % len(members)
    return int(members[at])


def _shown(source: Source, index: int, query: Sample) -> frozenset[int]:
    """Labels that the image of a record shows: the record's own, those that are
    background in it (`Sample.beside`), and those of the image's other records."""
    found = {*query.classes, *query.beside}
    numbers = getattr(source, "origins", None)
    if numbers is not None:
        own = np.flatnonzero(numbers == numbers[index])
        for label, members in source.by_class.items():  # rising indices
            places = np.searchsorted(members, own)
            inside = places < len(members)
            if (np.asarray(members)[places[inside]] == own[inside]).any():
                found.add(label)
    return frozenset(found)


def _rivals(source: Source, wanted: int, shown: Collection[int]) -> list[int]:
    """Classes of the family of `wanted` that are not among those shown. Those of
    another family differ in kind: to tell them apart would need no matching."""
    family = next(ids for ids in families(source).values() if wanted in ids)
    return [c for c in family if c not in shown and len(source.by_class.get(c, ()))]


def _without(sample: Sample, labels: Collection[int]) -> Sample:
    """The sample; these labels become background."""
    if not labels:
        return sample
    shared = np.isin(sample.segments, [*labels])
    segments = np.where(shared, BACKGROUND, sample.segments)
    classes = tuple(c for c in sample.classes if c not in labels)
    return dataclasses.replace(sample, segments=segments, classes=classes)


def _cells(
    count: int, size: int, start: int, length: int
) -> list[tuple[slice, float, float]]:
    """The cells of a grid that a crop shows, along one axis.

    `count` equal cells share `size` pixels. The crop has `length` pixels from `start`
    on and is resized to `size`. Returns for every cell in sight its pixels after the
    resize, and the shares of the cell where it begins and ends to be seen.
    """
    edges = [
        round((k * size / count - start) * size / length) for k in range(count + 1)
    ]
    cells = []
    for low, high in zip(edges, edges[1:], strict=False):
        first, last = max(low, 0), min(high, size)
        if first < last:
            extent = high - low
            share = (first - low) / extent, (last - low) / extent
            cells.append((slice(first, last), *share))
    return cells
