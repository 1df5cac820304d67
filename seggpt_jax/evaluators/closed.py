"""Semantic segmentation of a closed set of classes by one prompt for all images, which
paints every class in a colour of its own: a tuned prompt (paper, "In-Context Tuning":
39.6 mIoU of ADE20K), or one training image, as Painter does it.

SegGPT's decoding is not known; this is Painter's (`seggpt_jax.painter`).
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from seggpt_jax import colors, painter
from seggpt_jax.data.augment import resize
from seggpt_jax.data.sample import BACKGROUND, CATEGORY, IGNORE, Sample
from seggpt_jax.evaluators import common, fixed
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.metrics import class_areas, confusion_scores
from seggpt_jax.pictures.sheets import Row
from seggpt_jax.prompts.read import Prompts


@dataclasses.dataclass(kw_only=True, eq=False)
class Evaluator(fixed.Evaluator):
    """mIoU, mAcc and pAcc of a source of categories (`fixed.Evaluator`).

    Pixels of no class are not scored. The painting is resized to the image by bilinear
    interpolation. Every pixel then goes to the class of the nearest colour; no class is
    black.

    prompt: the file of a tuned prompt, whose labels are the source's. Without it the
    example is the prompt, painted in Painter's palette of `base`.
    """

    headings = ("query", "truth", "painting", "decoded")

    prompt: str = ""
    base: int = painter.ADE20K_BASE

    def __post_init__(self) -> None:
        super().__post_init__()
        self._places = {label: k for k, label in enumerate(self.labels)}
        self._prompt = self.load("prompt") if self.prompt else self._example()
        if odd := set(self._prompt.labels[1:].tolist()) - self._places.keys():
            raise ValueError(
                f"prompt has labels {sorted(odd)}: {self.source.name!r} has none"
            )

    @property
    def files(self):
        return {"prompt": self.prompt} if self.prompt else {}

    def collect(self, params: Any, numbers: Sequence[int], cases: Cases) -> None:
        for number, sample, painting in self._paint(params, numbers):
            areas = class_areas(*self._compare(sample, painting))
            cases.add(number, {"areas": areas})

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        areas = common.class_areas_of(self.records, len(self._places))
        return self.named(confusion_scores(common.weighted(weights, areas)))

    def ranked(self) -> list[int]:
        return common.ranked_by_pixels(self.records)

    def rows(self, params: Any, numbers: Sequence[int]) -> list[Row]:
        return [self._row(*answer) for answer in self._paint(params, numbers)]

    def _example(self) -> Prompts:
        sample = self.read_example("a tuned prompt", lambda source, n: source[n])
        palette = painter.semantic_palette(len(self.labels), self.base)
        return fixed.by_example(
            sample, self.engine.size, CATEGORY, self.labels, palette,
            lambda segments: colors.paint(segments, self.labels, palette)[0],
        )  # fmt: skip

    def _paint(
        self, params: Any, numbers: Sequence[int]
    ) -> Iterator[tuple[int, Sample, np.ndarray]]:
        def read(number: int) -> tuple[np.ndarray, Any]:
            sample = self.source[number]
            return resize(sample, self.engine.size).image, (number, sample)

        for items, (paintings,) in self.paint(params, [self._prompt], numbers, read):
            for (number, sample), painting in zip(items, paintings, strict=True):
                yield number, sample, painting

    def _compare(self, sample: Sample, painting: np.ndarray):
        """The found and the true class of every pixel, as places among the classes; the
        number of classes; and the pixels that are not scored."""
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
        *shown, share = common.compared(pred, truth, ignore, self._palette)
        query, truths, decoded = map(self.small, (sample.image, *shown))
        caption = f"{self.record_id(number)}   {share}"
        return Row((query, truths, painting, decoded), caption)

    @functools.cached_property
    def _palette(self) -> np.ndarray:
        """The prompt's colours in the order of the source's classes; grey without."""
        found = np.full((len(self._places), 3), common.GREY, np.uint8)
        for label, color in zip(
            self._prompt.labels[1:].tolist(), self._prompt.palette[1:], strict=True
        ):
            found[self._places[label]] = color
        return found
