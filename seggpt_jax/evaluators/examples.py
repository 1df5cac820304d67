"""Semantic segmentation of a closed set of classes by examples (paper, Table S1): for
each class a few training images that show it are the prompts of all test images.

How the maps of the classes become one is not said; here every pixel goes to the class
whose painting has the largest share of the class's colour.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from seggpt_jax import colors
from seggpt_jax.data.augment import resize
from seggpt_jax.data.sample import IGNORE, Sample, Source
from seggpt_jax.evaluators import common
from seggpt_jax.evaluators.episodes import at_least
from seggpt_jax.metrics import Confusion, Dice, EpisodeIoU
from seggpt_jax.sheets import Row, contact_sheet

_HEADINGS = ("query", "truth", "decoded")
_NEAREST = Image.Resampling.NEAREST


class Evaluator:
    """mIoU, mAcc and pAcc of a source of categories.

    predict_fns: `predict.PredictFns`, which encode the prompts of a class once for all
    images of the source.

    `run(params)` yields `<name>/N<n>/seed<s>/<score>` for every n of `examples` (images
    per class) and every seed, and `<name>/N<n>/<score>` of the seed of the best mIoU,
    which is what the paper reports. Of a single class against its background there are
    also `dice` and `image_iou`, means over the images. Images are drawn per class and
    seed, without replacement, the first n of the same order; a class with fewer has
    them all.

    source: what is scored, at its own resolution; the whole image is squashed to
    `size`, the model's, and the labels brought back by nearest pixel. prompts: where
    examples are drawn from; both must have the same classes. background: pixels of no
    class are a class of their own, painted by none; else they are not scored. images:
    score only the first so many; 0: all. put: places host arrays on the devices, a
    batch shared out between them; put_everywhere: whole, on each.
    """

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
        put: Callable[[Any], Any] = jax.device_put,
        put_everywhere: Callable[[Any], Any] = jax.device_put,
        pictures: int = 8,
        threads: int = 4,
    ):
        at_least(1, examples=min(examples), batch_size=batch_size, threads=threads)
        at_least(0, images=images, seeds=min(seeds))
        if dict(source.class_names) != dict(prompts.class_names):
            raise ValueError(
                f"sources {source.name!r} and {prompts.name!r} have different classes"
            )
        shown = prompts.by_class
        self._labels = [c for c in source.class_names if len(shown.get(c, ()))]
        if not self._labels:
            raise ValueError(f"source {prompts.name!r} shows none of its classes")
        self._encode, self._paint = predict_fns
        self._put_everywhere = put_everywhere
        self._source, self._prompts, self._name = source, prompts, name
        self._size, self._batch_size, self._put = size, batch_size, put
        self._examples, self._seeds = tuple(examples), tuple(seeds)
        self._background, self._threads = background, threads
        self._count = min(images or len(source), len(source))
        self._pictures = pictures
        self._rows: list[Row] = []

    def run(self, params: Any) -> Iterator[tuple[str, float]]:
        """Evaluates; yields `(name, value)`. A value without any evidence is nan."""
        self._rows = []
        # At the model's size, kept: the prompts of every class serve them all.
        queries = np.stack(list(self._read(lambda s: resize(s, self._size).image)))
        for number in self._examples:
            found = []
            for seed in self._seeds:
                scores = self._score(self._segment(params, queries, number, seed))
                for key, value in scores.items():
                    yield f"{self._name}/N{number}/seed{seed}/{key}", value
                found.append(scores)
            best = max(found, key=lambda scores: scores["miou"])
            for key, value in best.items():
                yield f"{self._name}/N{number}/{key}", value

    def sheet(self, count: int) -> np.ndarray:
        """Contact sheet uint8 `[H, W, 3]` of the last run's first images, with the
        fewest examples and the first seed."""
        if not self._rows:
            raise ValueError(f"evaluator {self._name!r} has no pictures: run it first")
        return contact_sheet(self._rows[:count], _HEADINGS)

    def _read(self, of: Callable[[Sample], Any]) -> Iterator[Any]:
        def read(index: int) -> Any:
            return of(self._source[index])

        ahead = 2 * self._batch_size
        return common.prefetch(read, range(self._count), self._threads, ahead)

    def _segment(self, params, queries: np.ndarray, number: int, seed: int):
        """Place of the winning class + 1 of every pixel, 0 for none, uint16 `[n, h, w]`
        at the model's size."""
        winner = np.zeros(queries.shape[:3], np.uint16)
        # Where nothing may win, a class must have the larger share of its own painting.
        best = np.full(queries.shape[:3], 0.5 if self._background else 0, np.float16)
        palette = np.concatenate([np.zeros((1, 3), np.uint8), colors.spread_palette(1)])
        for place, label in enumerate(self._labels, start=1):
            encoded = self._encoded(params, label, number, seed, palette)
            for start in range(0, len(queries), self._batch_size):
                rows = slice(start, start + self._batch_size)
                batch = queries[rows]
                filled = np.concatenate(
                    [batch, *[batch[-1:]] * (self._batch_size - len(batch))]
                )
                painted = self._paint(
                    params, encoded, self._put(colors.normalize(filled))
                )
                for row, painting in enumerate(common.fetch(painted)[: len(batch)]):
                    share = colors.Memberships(np.clip(painting, 0, 255), palette)[1]
                    wins = share > best[start + row]
                    winner[start + row][wins] = place
                    best[start + row][wins] = share[wins]
        return winner

    def _encoded(self, params, label: int, number: int, seed: int, palette):
        rng = np.random.default_rng([seed, label])
        members = rng.permutation(np.asarray(self._prompts.by_class[label]))[:number]
        samples = [resize(self._prompts[int(i)], self._size) for i in members]
        targets = [colors.paint(s.segments, (label,), palette[1:])[0] for s in samples]
        pictures = np.stack([s.image for s in samples]), np.stack(targets)
        shown = [colors.normalize(stack)[None] for stack in pictures]
        kind = np.array([samples[0].kind], np.int32)
        return self._encode(params, *self._put_everywhere((*shown, kind)))

    def _score(self, winner: np.ndarray) -> dict[str, float]:
        """Against the truth, at its own resolution. Class 0 of the matrix is the
        background; without it nothing is of that class."""
        confusion = Confusion(len(self._source.class_names) + 1)
        dice, per_image, shown = Dice(), EpisodeIoU(), not self._rows
        places = {c: k for k, c in enumerate(self._source.class_names, start=1)}
        of_place = np.array([0, *(places[c] for c in self._labels)])
        truths = self._read(lambda sample: (sample.segments, sample.image))
        for row, (segments, image) in enumerate(truths):
            small = Image.fromarray(winner[row].astype(np.int32))
            pred = of_place[np.asarray(small.resize(segments.shape[::-1], _NEAREST))]
            ignore = segments == IGNORE
            if not self._background:
                ignore = ignore | (segments == 0)
            truth = np.zeros(segments.shape, np.int64)
            for label in np.unique(segments[~ignore]).tolist():
                truth[segments == label] = places.get(label, 0)
            confusion.update(pred, truth, ignore)
            dice.update(pred > 0, truth > 0, ignore)
            per_image.update(pred, truth, ignore)
            if shown and row < self._pictures:
                self._rows.append(self._row(row, image, truth, ignore, pred))
        scores = confusion.compute()
        if self._background and len(self._source.class_names) == 1:
            scores |= {"dice": dice.compute()["dice"]}
            scores |= {"image_iou": per_image.compute()["episode_miou"]}
        return scores

    def _row(self, row: int, image, truth, ignore, pred) -> Row:
        palette = self._palette
        shown = np.where(ignore[..., None], np.uint8(128), palette[truth])
        cells = [
            np.asarray(Image.fromarray(cell).resize(self._size[::-1], _NEAREST))
            for cell in (image, shown, palette[pred])
        ]
        right = (pred == truth)[~ignore]
        share = right.mean() if right.size else np.nan
        return Row(cells, f"{self._source.name} #{row}   {share:.2f} of pixels right")

    @functools.cached_property
    def _palette(self) -> np.ndarray:
        rest = colors.spread_palette(len(self._source.class_names))
        return np.concatenate([np.zeros((1, 3), np.uint8), rest])
