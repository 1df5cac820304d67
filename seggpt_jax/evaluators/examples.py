"""Semantic segmentation of a closed set of classes by examples (paper, Table S1): for
each class a few training images that show it are the prompts of all test images.

The paper does not say how the maps of the classes become one map. Here every pixel goes
to the class whose painting has the largest share of the class's colour.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from seggpt_jax import colors
from seggpt_jax.data.augment import resize
from seggpt_jax.data.sample import (
    IGNORE,
    BadRecord,
    Sample,
    Source,
    require_whole,
)
from seggpt_jax.evaluators import common
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.evaluators.episodes import at_least
from seggpt_jax.evaluators.maps import Maps, kept_winner
from seggpt_jax.metrics import class_areas, confusion_scores, ratios
from seggpt_jax.pictures import tiles
from seggpt_jax.pictures.images import resize_target
from seggpt_jax.pictures.sheets import Row

_OVERLAP = 0.25  # of neighbouring tiles, as share of their side


class _Queries(NamedTuple):
    """Images: the parts uint8 `[t, h, w, 3]` of each, at the model's size, and the box
    of each part in the map of the answer. The last box ends where the map ends."""

    images: list[np.ndarray]
    boxes: list[list[tiles.Box]]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of maps that have room for the largest: `[n, h, w]`."""
        height, width = np.max([boxes[-1][2:] for boxes in self.boxes], 0).tolist()
        return len(self.boxes), height, width


class _Way(NamedTuple):
    """Images per class, and the seed that draws them."""

    examples: int
    seed: int

    @property
    def file(self) -> str:
        return f"N{self.examples}-seed{self.seed}"


@dataclasses.dataclass(kw_only=True, eq=False)
class Evaluator(common.Evaluator):
    """mIoU, mAcc and pAcc of a source of categories; an image is a case. The prompts of
    a class are encoded once for all images.

    `run(params)` yields `<name>/N<n>/seed<s>/<score>` for every n of `examples` (images
    per class) and every seed, and `<name>/N<n>/<score>` of the seed with the best mIoU,
    as in the paper. For a single class against its background there are also `dice` and
    `image_iou`, means over the images. Examples are drawn per class and seed, without
    replacement: n examples are the first n of one order. A class with fewer images
    gives them all.

    source: the scored images, at their own resolution. The whole image is squashed to
    the model's size, and the labels are resized back by nearest pixel. tile: instead,
    images are cut into overlapping squares with sides of so many pixels; where squares
    overlap, their shares are averaged. A prompt is then one square of its image, drawn
    from the squares that show at least the mean area of the class. prompts() -> the
    source of the examples; both sources must have the same classes. background: pixels
    of no class are a class of their own, painted by no prompt; else they are not
    scored. images: score only the first so many; 0: all. ensemble: of several examples.
    """

    needs = ("prompts",)
    headings = ("query", "truth", "decoded")

    source: Source
    prompts: Callable[[], Source]
    batch_size: int
    examples: Sequence[int] = (1,)
    seeds: Sequence[int] = (1000,)
    background: bool = False
    images: int = 0
    tile: int = 0
    ensemble: str = "feature"
    threads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, examples=min(self.examples), batch_size=self.batch_size)
        at_least(1, threads=self.threads)
        at_least(0, images=self.images, seeds=min(self.seeds), tile=self.tile)
        self._shown = self.prompts()
        require_whole(self._shown)
        common.check_classes(self.source, self._shown)
        if _place(self.source) and _place(self.source) == _place(self._shown):
            logging.warning(
                "%s: prompts are drawn from the very images that are scored, and the "
                "answer to an image may lie in its own prompt: give `prompts` another "
                "split", self.name,
            )  # fmt: skip
        images = self._shown.by_class
        self._labels = [c for c in self.source.class_names if len(images.get(c, ()))]
        if not self._labels:
            raise ValueError(f"source {self._shown.name!r} shows none of its classes")
        self._encode, self._paint = self.engine.prompt_fns(self.ensemble)
        self._ways = [_Way(n, seed) for n in self.examples for seed in self.seeds]
        self.rounds = len(self._ways)
        self.count = min(self.images or len(self.source), len(self.source))
        self._winner: np.ndarray = np.zeros(0)  # of the first way

    @property
    def data(self) -> list[str]:
        return common.digests(self.source, self._shown)

    def collect(self, params: Any, numbers: Sequence[int], cases: Cases) -> None:
        queries = self._queries() if numbers else _Queries([], [])
        for place, way in enumerate(self._ways):
            own = [n for n in numbers if n // self.count == place]
            if not own:
                continue
            # The background is painted by no class: a share above 0.5 wins against it.
            empty = 0.5 if self.background else 0.0
            maps = Maps(cases.folder, way.file, queries.shape, empty)
            self._segment(params, queries, way, maps)
            self._score(cases, own, maps.winner)
            maps.close(keep=place == 0)
            if place == 0:
                self._winner = maps.winner
        if not len(self._winner):  # an earlier process found it
            shape = self.count, *self.engine.size
            folder = cases.folder or Path()
            self._winner = kept_winner(folder, self._ways[0].file, shape)

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        ways, best = self._way_scores(weights), self._best_seeds()
        for (number, seed), scores in ways.items():
            found |= self.named(scores, f"N{number}", f"seed{seed}")
            if seed == self._ways[-1].seed:
                found |= self.named(ways[_Way(number, best[number])], f"N{number}")
        return found

    def _best_seeds(self) -> dict[int, int]:
        """For every number of examples the seed with the best mIoU: by the scores of
        the cases themselves, not of a resample."""
        scores = self._way_scores(np.ones((1, self.count)))
        best: dict[int, int] = {}
        for way in self._ways:
            so_far = _Way(way.examples, best.setdefault(way.examples, way.seed))
            if scores[way]["miou"] > scores[so_far]["miou"]:
                best[way.examples] = way.seed
        return best

    def _way_scores(self, weights: np.ndarray) -> dict[_Way, dict[str, np.ndarray]]:
        # Class 0 is the background; without one nothing is of that class.
        classes, found = len(self.source.class_names) + 1, {}
        for way, records in zip(
            self._ways, common.batched(self.records, self.count), strict=True
        ):
            areas = common.class_areas_of(records, classes)
            found[way] = confusion_scores(common.weighted(weights, areas))
            if self.background and classes == 2:
                found[way] |= _image_means(areas[:, 1], weights)
        return found

    def ranked(self) -> list[int]:
        """The images by the fewest examples and the first seed."""
        return common.ranked_by_pixels(self.records[: self.count])

    def rows(self, params: Any, numbers: Sequence[int]) -> list[Row]:
        """The images by the fewest examples and the first seed."""
        return [
            self._row(
                number, sample, *self._compared(self._winner[number], sample.segments)
            )
            for number, sample in zip(
                numbers, self._read(self.source, numbers), strict=True
            )
        ]

    def _read(self, source: Any, numbers: Sequence[int]) -> Iterator[Sample]:
        ahead = 2 * self.batch_size
        return common.prefetch(source.__getitem__, numbers, self.threads, ahead)

    def _queries(self) -> _Queries:
        """All images at the model's size, kept: the prompts of every class serve them
        all."""
        queries = _Queries([], [])
        for sample in self._read(self.source, range(self.count)):
            parts, boxes = self._cut(sample)
            queries.images.append(np.stack([part.image for part in parts]))
            queries.boxes.append(boxes)
        return queries

    def _cut(self, sample: Sample) -> tuple[list[Sample], list[tiles.Box]]:
        """The parts of an image that are painted, at the model's size, and their boxes
        in the image. A whole image has one box: a map of the model's size."""
        size = self.engine.size
        if not self.tile:
            return [resize(sample, size)], [tiles.Box(0, 0, *size)]
        boxes = tiles.cut(sample.segments.shape, self.tile, _OVERLAP)
        return [resize(_part(sample, box), size) for box in boxes], boxes

    def _segment(self, params, queries: _Queries, way: _Way, maps: Maps) -> None:
        palette = colors.with_black(colors.spread_palette(1))
        for place, label in enumerate(self._labels[maps.done :], start=maps.done + 1):
            encoded = self._encoded(params, label, way, palette)
            shares = self._shares(params, encoded, palette, queries)
            for image, boxes in enumerate(queries.boxes):
                own = [next(shares) for _ in boxes]
                size = boxes[-1].bottom, boxes[-1].right
                share = tiles.averaging(boxes, size)(own) if self.tile else own[0]
                maps.offer(image, place, share)
            maps.finish(place)

    def _shares(
        self, params, encoded, palette: np.ndarray, queries: _Queries
    ) -> Iterator[np.ndarray]:
        """The share of the class's colour in every part of every image, in order."""
        parts = itertools.chain.from_iterable(queries.images)
        for batch in common.batched(parts, self.batch_size):
            rows = np.stack(common.filled(batch, self.batch_size))
            placed = self.engine.put(colors.normalize(rows))
            painted = self.engine.fetch(self._paint(params, encoded, placed))
            for painting in painted[: len(batch)]:
                yield colors.Memberships(np.clip(painting, 0, 255), palette)[1]

    def _encoded(self, params, label: int, way: _Way, palette):
        """The prompts of a class: its examples, painted white. Records that do not show
        it, as where other objects lie over all of it, are passed over."""
        rng = np.random.default_rng([way.seed, label])
        members = rng.permutation(np.asarray(self._shown.by_class[label]))
        samples: list[Sample] = []
        for some in common.batched(members.tolist(), way.examples):
            read = list(self._read(self._shown, some))
            shown = [sample for sample in read if (sample.segments == label).any()]
            for sample in shown[: way.examples - len(samples)]:
                samples.append(self._prompt(sample, label, rng))
            if len(samples) == way.examples:
                break
        if not samples:
            raise BadRecord(
                f"source {self._shown.name!r}: none of its {len(members)} records of "
                f"{self._shown.class_names[label]!r} shows it: other objects lie over "
                "it, or masks were changed in place (then delete the catalog, "
                "docs/data.md)"
            )
        targets = [colors.paint(s.segments, (label,), palette[1:])[0] for s in samples]
        pictures = np.stack([s.image for s in samples]), np.stack(targets)
        shown = [colors.normalize(stack)[None] for stack in pictures]
        kind = np.array([samples[0].kind], np.int32)
        return self._encode(params, *self.engine.put_everywhere((*shown, kind)))

    def _prompt(self, sample: Sample, label: int, rng: np.random.Generator) -> Sample:
        parts, boxes = self._cut(sample)
        if not self.tile:
            return parts[0]
        shown = [(_part(sample, box).segments == label).mean() for box in boxes]
        return parts[int(rng.choice(np.flatnonzero(shown >= np.mean(shown))))]

    def _score(self, cases: Cases, numbers: Sequence[int], winner: np.ndarray) -> None:
        rows = [number % self.count for number in numbers]
        classes = len(self.source.class_names) + 1
        for number, row, sample in zip(
            numbers, rows, self._read(self.source, rows), strict=True
        ):
            pred, truth, ignore = self._compared(winner[row], sample.segments)
            cases.add(number, {"areas": class_areas(pred, truth, classes, ignore)})

    def _compared(self, winner: np.ndarray, segments: np.ndarray):
        """The found and the true class of every pixel, as places among the classes + 1
        (0: background), and the pixels that are not scored; all at the truth's own
        resolution."""
        places = {c: k for k, c in enumerate(self.source.class_names, start=1)}
        of_place = np.array([0, *(places[c] for c in self._labels)])
        if self.tile:
            winner = winner[: segments.shape[0], : segments.shape[1]]
        size = segments.shape[0], segments.shape[1]
        pred = of_place[resize_target(winner.astype(np.int32), size)]
        ignore = segments == IGNORE
        if not self.background:
            ignore = ignore | (segments == 0)
        truth = np.zeros(segments.shape, np.int64)
        for label in np.unique(segments[~ignore]).tolist():
            truth[segments == label] = places.get(label, 0)
        return pred, truth, ignore

    def _row(self, number: int, sample: Sample, pred, truth, ignore) -> Row:
        *shown, share = common.compared(pred, truth, ignore, self._palette)
        cells = [resize_target(x, self.engine.size) for x in (sample.image, *shown)]
        return Row(cells, f"{self.source.name} #{number}   {share}")

    @functools.cached_property
    def _palette(self) -> np.ndarray:
        return colors.with_black(colors.spread_palette(len(self.source.class_names)))


def _place(source: Any) -> tuple[Any, str] | None:
    """The folder and the split of a source; None of one without files."""
    store = getattr(source, "store", None)
    return store and (store.root, store.split)


def _part(sample: Sample, box: tiles.Box) -> Sample:
    return dataclasses.replace(
        sample, image=sample.image[box.place], segments=sample.segments[box.place]
    )


def _image_means(areas: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Means over images of the Dice and the IoU of one class, areas `[n, 3]`: Dice over
    all (1 where the class is neither shown nor painted), IoU over those that show it.
    """
    right, shown, predicted = areas.T
    dice = np.nan_to_num(ratios(2 * right, shown + predicted), nan=1.0)
    iou, known = ratios(right, shown + predicted - right), weights * (shown > 0)
    return {
        "dice": ratios(weights @ dice, weights.sum(1)),
        "image_iou": ratios(known @ np.nan_to_num(iou), known.sum(1)),
    }
