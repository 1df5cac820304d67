"""Semantic segmentation of a closed set of classes by one prompt for all images, which
paints every class in a colour of its own: a tuned prompt (paper, section 3.5: 39.6 mIoU
of ADE20K), or one training image, as Painter does it.

SegGPT's decoding is not known; this is Painter's (`seggpt_jax.painter`).
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from seggpt_jax import colors, painter
from seggpt_jax.data.augment import resize
from seggpt_jax.data.sample import BACKGROUND, CATEGORY, IGNORE, Sample
from seggpt_jax.evaluators import common, fixed
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.evaluators.episodes import at_least
from seggpt_jax.metrics import class_areas, confusion_scores
from seggpt_jax.prompts import Prompts
from seggpt_jax.sheets import Row

_GREY = 128  # pixels that are not scored, in pictures
_NEAREST = Image.Resampling.NEAREST


class Evaluator:
    """mIoU, mAcc and pAcc of a source of categories, at each image's own resolution; an
    image is a case.

    predict_fns: `predict.PredictFns`. source: what is scored, but for pixels of no
    class; images are squashed to `size`, the model's. The painting is brought back by
    bilinear interpolation, and every pixel goes to the class of the nearest colour:
    none is black.

    prompt: a tuned one, whose labels are the source's. Or example: a record of
    `prompts`, a source of the same classes, painted in Painter's palette of `base`.
    images: score only the first so many; 0: all. put, put_everywhere: `fixed.Painter`.
    """

    headings = ("query", "truth", "painting", "decoded")

    def __init__(
        self,
        predict_fns: Any,
        *,
        name: str,
        source: Any,
        size: tuple[int, int],
        batch_size: int,
        prompt: Prompts | None = None,
        prompts: Any = None,
        example: str = "",
        base: int = painter.ADE20K_BASE,
        images: int = 0,
        put: Callable[[Any], Any] = jax.device_put,
        put_everywhere: Callable[[Any], Any] = jax.device_put,
        threads: int = 4,
    ):
        at_least(1, batch_size=batch_size, threads=threads)
        at_least(0, images=images)
        self._source, self._name, self._size = source, name, size
        self._places = {label: k for k, label in enumerate(source.class_names)}
        if (prompt is None) == (not example) or bool(example) != (prompts is not None):
            raise ValueError(
                "a tuned prompt, or an example and the prompts it is of, must be given"
            )
        if prompt is None:
            prompt = self._example(prompts, example, base)
        if odd := set(prompt.labels[1:].tolist()) - self._places.keys():
            raise ValueError(
                f"prompt has labels {sorted(odd)}: {source.name!r} has none"
            )
        self._prompt, self._threads = prompt, threads
        self._painter = fixed.Painter(predict_fns, batch_size, put, put_everywhere)
        self.count = min(images or len(source), len(source))
        self._records: list[Any] = []

    def run(
        self, params: Any, cases: Cases | None = None
    ) -> Iterator[tuple[str, float]]:
        """Evaluates what `cases` has not yet; yields `(name, value)`. A value without
        any evidence is nan."""
        cases = Cases() if cases is None else cases
        for number, sample, painting in self._paint(params, cases.left(self.count)):
            areas = class_areas(*self._compare(sample, painting))
            cases.add(number, {"areas": areas})
        self._records = cases.records(self.count)
        for key, value in self.scores(np.ones((1, self.count))).items():
            yield key, float(value[0])

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The scores of the last run `[n]`, image j counted `weights[:, j]` times."""
        areas = np.zeros((self.count, len(self._places), 3))
        for row, record in enumerate(self._records):
            for place, values in record["areas"].items():
                areas[row, int(place)] = values
        found = confusion_scores(common.weighted(weights, areas))
        return {f"{self._name}/{key}": value for key, value in found.items()}

    def ranked(self) -> list[int]:
        """The images of the last run, best first, by the share of their pixels that is
        right."""
        sums = np.array(
            [
                np.sum([[0, 0, 0], *record["areas"].values()], 0)
                for record in self._records
            ]
        )
        known = np.flatnonzero(sums[:, 1]).tolist()
        return sorted(known, key=lambda n: -sums[n, 0] / sums[n, 1])

    def rows(self, params: Any, numbers: Sequence[int]) -> list[Row]:
        """Pictures of some images, under `headings`."""
        return [self._row(*answer) for answer in self._paint(params, numbers)]

    def _example(self, prompts: Any, example: str, base: int) -> Prompts:
        common.check_classes(self._source, prompts)
        labels = [*self._places]
        palette = painter.semantic_palette(len(labels), base)
        sample = prompts[fixed.find_record(prompts, example)]
        return fixed.by_example(
            sample, self._size, CATEGORY, labels, palette,
            lambda segments: colors.paint(segments, labels, palette)[0],
        )  # fmt: skip

    def _paint(
        self, params: Any, numbers: Sequence[int]
    ) -> Iterator[tuple[int, Sample, np.ndarray]]:
        def read(number: int) -> tuple[np.ndarray, Any]:
            sample = self._source[number]
            return resize(sample, self._size).image, (number, sample)

        ahead = 2 * self._painter.batch_size
        reading = common.prefetch(read, numbers, self._threads, ahead)
        for items, (paintings,) in self._painter.paint(params, [self._prompt], reading):
            for (number, sample), painting in zip(items, paintings, strict=True):
                yield number, sample, painting

    def _compare(self, sample: Sample, painting: np.ndarray):
        """What was found and what is true, as places among the classes, how many these
        are, and what is not scored."""
        shape = sample.segments.shape
        of_color = np.array([self._places[c] for c in self._prompt.labels[1:].tolist()])
        resized = painter.resize_smooth(painting, shape)
        pred = of_color[painter.nearest(resized, self._prompt.palette[1:])]
        truth = np.zeros(shape, np.int64)
        for label in sample.classes:
            truth[sample.segments == label] = self._places[label]
        ignore = np.isin(sample.segments, (BACKGROUND, IGNORE))
        return pred, truth, len(self._places), ignore

    def _row(self, number: int, sample: Sample, painting: np.ndarray) -> Row:
        pred, truth, _, ignore = self._compare(sample, painting)
        shown = np.where(ignore[..., None], np.uint8(_GREY), self._palette[truth])
        query, truths, decoded = (
            np.asarray(Image.fromarray(cell).resize(self._size[::-1], _NEAREST))
            for cell in (sample.image, shown, self._palette[pred])
        )
        right = (pred == truth)[~ignore]
        share = right.mean() if right.size else np.nan
        name = self._source.record_id(number)
        return Row(
            (query, truths, painting, decoded), f"{name}   {share:.2f} of pixels right"
        )

    @functools.cached_property
    def _palette(self) -> np.ndarray:
        """The prompt's colours in the order of the source's classes; grey without."""
        found = np.full((len(self._places), 3), _GREY, np.uint8)
        for label, color in zip(
            self._prompt.labels[1:].tolist(), self._prompt.palette[1:], strict=True
        ):
            found[self._places[label]] = color
        return found
