"""Semantic segmentation of a closed set of classes by examples (paper, Table S1): for
each class a few training images that show it are the prompts of all test images.

How the maps of the classes become one is not said; here every pixel goes to the class
whose painting has the largest share of the class's colour.
"""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from seggpt_jax import colors, hosts, tiles
from seggpt_jax.data.augment import resize
from seggpt_jax.data.sample import IGNORE, Sample, Source
from seggpt_jax.evaluators import common
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.evaluators.episodes import at_least
from seggpt_jax.metrics import class_areas, confusion_scores, ratios
from seggpt_jax.sheets import Row
from seggpt_jax.staging import new_file

_NEAREST = Image.Resampling.NEAREST
_OVERLAP = 0.25  # of neighbouring tiles, as share of their side


class _Queries(NamedTuple):
    """Images: their parts uint8 `[t, h, w, 3]` at the model's size, and where these are
    in the map of the answer; the last box ends where the map ends."""

    images: list[np.ndarray]
    boxes: list[list[tiles.Box]]


class _Maps(NamedTuple):
    """The answer for every image so far `[n, h, w]`: at the model's size, or of images
    in tiles at their own, in the upper left of the largest.

    winner: place of the winning class + 1, 0 for none. share: its share. done: classes
    that were looked at, in order. file: where that number is kept, beside the maps.
    """

    winner: np.ndarray
    share: np.ndarray
    done: int
    file: Path | None


class Evaluator:
    """mIoU, mAcc and pAcc of a source of categories; an image is a case.

    predict_fns: `predict.PredictFns`, which encode the prompts of a class once for all
    images of the source.

    `run(params)` yields `<name>/N<n>/seed<s>/<score>` for every n of `examples` (images
    per class) and every seed, and `<name>/N<n>/<score>` of the seed of the best mIoU,
    which is what the paper reports. Of a single class against its background there are
    also `dice` and `image_iou`, means over the images. Images are drawn per class and
    seed, without replacement, the first n of the same order; a class with fewer has
    them all.

    source: what is scored, at its own resolution; the whole image is squashed to
    `size`, the model's, and the labels brought back by nearest pixel. tile: instead of
    that, images are cut into overlapping squares of so many pixels, whose shares are
    averaged where they overlap; a prompt is then one such square of its image, drawn
    from those that show no less of the class than the mean of them. prompts: where
    examples are drawn from; both must have the same classes. background: pixels of no
    class are a class of their own, painted by none; else they are not scored. images:
    score only the first so many; 0: all. put: places host arrays on the devices, a
    batch shared out between them; put_everywhere: whole, on each.
    """

    headings = ("query", "truth", "decoded")

    def __init__(
        self,
        predict_fns: Any,
        *,
        name: str,
        source: Source,
        prompts: Source,
        size: tuple[int, int],
        batch_size: int,
        examples: Sequence[int] = (1,),
        seeds: Sequence[int] = (1000,),
        background: bool = False,
        images: int = 0,
        tile: int = 0,
        put: Callable[[Any], Any] = jax.device_put,
        put_everywhere: Callable[[Any], Any] = jax.device_put,
        threads: int = 4,
    ):
        at_least(1, examples=min(examples), batch_size=batch_size, threads=threads)
        at_least(0, images=images, seeds=min(seeds), tile=tile)
        common.check_classes(source, prompts)
        shown = prompts.by_class
        self._labels = [c for c in source.class_names if len(shown.get(c, ()))]
        if not self._labels:
            raise ValueError(f"source {prompts.name!r} shows none of its classes")
        self._encode, self._paint = predict_fns
        self._put_everywhere = put_everywhere
        self._source, self._prompts, self._name = source, prompts, name
        self._size, self._batch_size, self._put = size, batch_size, put
        self._ways = [(number, seed) for number in examples for seed in seeds]
        self._background, self._threads, self._tile = background, threads, tile
        self.count = min(images or len(source), len(source))
        self._single = background and len(source.class_names) == 1
        self._records: list[Any] = []
        self._best: dict[int, int] = {}
        self._winner = np.zeros(0)  # of the first way

    def run(
        self, params: Any, cases: Cases | None = None
    ) -> Iterator[tuple[str, float]]:
        """Evaluates what `cases` has not yet; yields `(name, value)`. A value without
        any evidence is nan."""
        cases = Cases() if cases is None else cases
        left = cases.left(len(self._ways) * self.count)
        # At the model's size, kept: the prompts of every class serve them all.
        queries = _Queries([], [])
        for sample in self._read(range(self.count) if left else (), lambda s: s):
            parts, boxes = self._cut(sample)
            queries.images.append(np.stack([part.image for part in parts]))
            queries.boxes.append(boxes)
        for place, (number, seed) in enumerate(self._ways):
            own = [n for n in left if n // self.count == place]
            if not own:
                continue
            ends = [boxes[-1][2:] for boxes in queries.boxes]
            shape = self.count, *np.max(ends, 0).tolist()
            maps = self._open(cases.folder, f"N{number}-seed{seed}", shape)
            maps = self._segment(params, queries, number, seed, maps)
            self._score(cases, own, maps.winner)
            self._close(maps, keep=place == 0)
            if place == 0:
                self._winner = maps.winner
        if not len(self._winner):  # an earlier process found it
            number, seed = self._ways[0]
            path = (cases.folder or Path()) / f"N{number}-seed{seed}-winner.npy"
            if hosts.is_first():  # which alone shows pictures
                self._winner = np.load(path, mmap_mode="r")
            else:
                self._winner = np.zeros((self.count, *self._size), np.uint16)
        self._records = cases.records(len(self._ways) * self.count)
        self._best = {}  # by the scores themselves, not those of a resample
        scores = self._way_scores(np.ones((1, self.count)))
        for number, seed in self._ways:
            best = self._best.setdefault(number, seed)
            if scores[number, seed]["miou"] > scores[number, best]["miou"]:
                self._best[number] = seed
        for key, value in self.scores(np.ones((1, self.count))).items():
            yield key, float(value[0])

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The scores of the last run `[n]`, image j counted `weights[:, j]` times."""
        found: dict[str, np.ndarray] = {}
        ways = self._way_scores(weights)
        for (number, seed), scores in ways.items():
            place = f"{self._name}/N{number}"
            found |= {f"{place}/seed{seed}/{k}": v for k, v in scores.items()}
            if seed == self._ways[-1][1]:
                best = ways[number, self._best[number]]
                found |= {f"{place}/{key}": value for key, value in best.items()}
        return found

    def _way_scores(self, weights: np.ndarray) -> dict[tuple[int, int], Any]:
        return {
            way: self._scored(
                self._records[place * self.count : (place + 1) * self.count], weights
            )
            for place, way in enumerate(self._ways)
        }

    def _scored(self, records: Sequence[Any], weights: np.ndarray):
        # Class 0 is the background; without it nothing is of that class.
        areas = np.zeros((len(records), len(self._source.class_names) + 1, 3))
        for row, record in enumerate(records):
            for label, values in record["areas"].items():
                areas[row, int(label)] = values
        scores = confusion_scores(common.weighted(weights, areas))
        if self._single:
            right, shown, predicted = areas[:, 1].T
            dice = np.nan_to_num(ratios(2 * right, shown + predicted), nan=1.0)
            iou, known = ratios(right, shown + predicted - right), weights * (shown > 0)
            scores["dice"] = ratios(weights @ dice, weights.sum(1))
            scores["image_iou"] = ratios(known @ np.nan_to_num(iou), known.sum(1))
        return scores

    def ranked(self) -> list[int]:
        """The images of the last run, best first, by the share of their pixels that is
        right with the fewest examples and the first seed."""
        shares = [_right(record["areas"]) for record in self._records[: self.count]]
        known = {n: share for n, share in enumerate(shares) if share is not None}
        return sorted(known, key=lambda n: -known[n])

    def rows(self, params: Any, numbers: Sequence[int]) -> list[Row]:
        """Pictures of some images, under `headings`, with the fewest examples and the
        first seed."""
        samples = self._read(numbers, lambda sample: sample)
        return [
            self._row(
                number, sample, *self._compared(self._winner[number], sample.segments)
            )
            for number, sample in zip(numbers, samples, strict=True)
        ]

    def _read(
        self, numbers: Sequence[int], of: Callable[[Sample], Any]
    ) -> Iterator[Any]:
        def read(index: int) -> Any:
            return of(self._source[index])

        return common.prefetch(read, numbers, self._threads, 2 * self._batch_size)

    def _cut(self, sample: Sample) -> tuple[list[Sample], list[tiles.Box]]:
        """The parts of an image that are painted, at the model's size, and where they
        are in it; a whole image is where the map of it is, at that size."""
        if not self._tile:
            return [resize(sample, self._size)], [tiles.Box(0, 0, *self._size)]
        boxes = tiles.cut(sample.segments.shape, self._tile, _OVERLAP)
        return [resize(_part(sample, box), self._size) for box in boxes], boxes

    def _open(self, folder: Path | None, way: str, shape) -> _Maps:
        """Maps to fill; what a stopped run has done of them is not done again."""
        # Where nothing may win, a class must have the larger share of its own painting.
        empty = 0.5 if self._background else 0.0
        if folder is None or not hosts.is_first():
            arrays = np.zeros(shape, np.uint16), np.full(shape, empty, np.float16)
            maps = _Maps(*arrays, 0, None)
        else:
            maps = self._open_files(folder, way, shape, empty)
        maps = maps._replace(done=hosts.agree(maps.done))
        if maps.done and jax.process_count() > 1:
            for array, number in itertools.product(maps[:2], range(self.count)):
                array[number] = hosts.broadcast(array[number])
        return maps

    def _open_files(self, folder: Path, way: str, shape, empty: float) -> _Maps:
        paths = [folder / f"{way}-{part}.npy" for part in ("winner", "share")]
        file = folder / f"{way}.json"
        mode, done = "r+", json.loads(file.read_text()) if file.exists() else 0
        if not (done and all(path.exists() for path in paths)):
            mode, done = "w+", 0
        winner, share = (
            np.lib.format.open_memmap(path, mode, kind, shape)
            for path, kind in zip(paths, (np.uint16, np.float16), strict=True)
        )
        if mode == "w+":
            share[:] = empty
        return _Maps(winner, share, done, file)

    def _close(self, maps: _Maps, keep: bool) -> None:
        """The maps of a way that is scored go, but for the answer if `keep`."""
        if maps.file:
            maps.file.unlink()
            maps.file.with_name(f"{maps.file.stem}-share.npy").unlink()
            if not keep:
                maps.file.with_name(f"{maps.file.stem}-winner.npy").unlink()

    def _segment(
        self, params, queries: _Queries, number: int, seed: int, maps: _Maps
    ) -> _Maps:
        winner, best, done, file = maps
        palette = np.concatenate([np.zeros((1, 3), np.uint8), colors.spread_palette(1)])
        for place, label in enumerate(self._labels[done:], start=done + 1):
            encoded = self._encoded(params, label, number, seed, palette)
            shares = self._shares(params, encoded, palette, queries)
            for image, boxes in enumerate(queries.boxes):
                own = [next(shares) for _ in boxes]
                size = boxes[-1][2:]
                share = tiles.averaging(boxes, size)(own) if self._tile else own[0]
                shown = np.s_[: size[0], : size[1]]
                wins = share > best[image][shown]
                # In this order: a class that a kill cut off is done once more, and
                # must not lose to itself.
                winner[image][shown][wins] = place
                best[image][shown][wins] = share[wins]
            if file:
                with new_file(file) as part:
                    part.write_text(str(place))
        return maps

    def _shares(
        self, params, encoded, palette: np.ndarray, queries: _Queries
    ) -> Iterator[np.ndarray]:
        """The share of the class's colour in every part of every image, in order."""
        parts = itertools.chain.from_iterable(queries.images)
        for batch in common.batched(parts, self._batch_size):
            spare = [batch[-1]] * (self._batch_size - len(batch))
            placed = self._put(colors.normalize(np.stack([*batch, *spare])))
            painted = common.fetch(self._paint(params, encoded, placed))
            for painting in painted[: len(batch)]:
                yield colors.Memberships(np.clip(painting, 0, 255), palette)[1]

    def _encoded(self, params, label: int, number: int, seed: int, palette):
        rng = np.random.default_rng([seed, label])
        members = rng.permutation(np.asarray(self._prompts.by_class[label]))[:number]
        samples = [self._prompt(self._prompts[int(i)], label, rng) for i in members]
        targets = [colors.paint(s.segments, (label,), palette[1:])[0] for s in samples]
        pictures = np.stack([s.image for s in samples]), np.stack(targets)
        shown = [colors.normalize(stack)[None] for stack in pictures]
        kind = np.array([samples[0].kind], np.int32)
        return self._encode(params, *self._put_everywhere((*shown, kind)))

    def _prompt(self, sample: Sample, label: int, rng: np.random.Generator) -> Sample:
        parts, boxes = self._cut(sample)
        if not self._tile:
            return parts[0]
        shown = [(_part(sample, box).segments == label).mean() for box in boxes]
        return parts[int(rng.choice(np.flatnonzero(shown >= np.mean(shown))))]

    def _score(self, cases: Cases, numbers: Sequence[int], winner: np.ndarray) -> None:
        rows = [number % self.count for number in numbers]
        truths = self._read(rows, lambda sample: sample.segments)
        for number, row, segments in zip(numbers, rows, truths, strict=True):
            pred, truth, ignore = self._compared(winner[row], segments)
            classes = len(self._source.class_names) + 1
            cases.add(number, {"areas": class_areas(pred, truth, classes, ignore)})

    def _compared(self, winner: np.ndarray, segments: np.ndarray):
        """What was found and what is true, as places among the classes + 1, 0 for the
        background, and what is not scored; each at the truth's own resolution."""
        places = {c: k for k, c in enumerate(self._source.class_names, start=1)}
        of_place = np.array([0, *(places[c] for c in self._labels)])
        if self._tile:
            winner = winner[: segments.shape[0], : segments.shape[1]]
        small = Image.fromarray(winner.astype(np.int32))
        pred = of_place[np.asarray(small.resize(segments.shape[::-1], _NEAREST))]
        ignore = segments == IGNORE
        if not self._background:
            ignore = ignore | (segments == 0)
        truth = np.zeros(segments.shape, np.int64)
        for label in np.unique(segments[~ignore]).tolist():
            truth[segments == label] = places.get(label, 0)
        return pred, truth, ignore

    def _row(self, number: int, sample: Sample, pred, truth, ignore) -> Row:
        palette = self._palette
        shown = np.where(ignore[..., None], np.uint8(128), palette[truth])
        cells = [
            np.asarray(Image.fromarray(cell).resize(self._size[::-1], _NEAREST))
            for cell in (sample.image, shown, palette[pred])
        ]
        right = (pred == truth)[~ignore]
        share = right.mean() if right.size else np.nan
        return Row(
            cells, f"{self._source.name} #{number}   {share:.2f} of pixels right"
        )

    @functools.cached_property
    def _palette(self) -> np.ndarray:
        rest = colors.spread_palette(len(self._source.class_names))
        return np.concatenate([np.zeros((1, 3), np.uint8), rest])


def _part(sample: Sample, box: tiles.Box) -> Sample:
    return dataclasses.replace(
        sample, image=sample.image[box.place], segments=sample.segments[box.place]
    )


def _right(areas) -> float | None:
    """The share of an image's scored pixels that is right."""
    total = sum(shown for _, shown, _ in areas.values())
    return sum(right for right, _, _ in areas.values()) / total if total else None
