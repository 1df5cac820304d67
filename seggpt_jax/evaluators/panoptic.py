"""Panoptic segmentation by two prompts for all images: one paints every class, things
and stuff, the other every thing by where it is, whatever its class (paper: 34.4 PQ of
COCO with tuned prompts).

SegGPT's decoding is not known; this is Painter's (`seggpt_jax.painter`).
"""

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from seggpt_jax import colors, painter
from seggpt_jax.data.augment import resize
from seggpt_jax.data.sample import CATEGORY, INSTANCE, Sample
from seggpt_jax.data.sources.coco_panoptic import CocoPanopticSegments, read_segments
from seggpt_jax.evaluators import common, fixed
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.evaluators.episodes import at_least
from seggpt_jax.metrics import panoptic_counts, panoptic_scores
from seggpt_jax.prompts import Prompts
from seggpt_jax.sheets import Row

_NEAREST = Image.Resampling.NEAREST


class _Truth(NamedTuple):
    """An image with its segments, as `metrics.panoptic_counts` takes them."""

    number: int
    image: np.ndarray
    ids: np.ndarray
    segments: list[dict[str, Any]]


class Evaluator:
    """PQ, SQ and RQ of a source of `coco_panoptic_segments`, at each image's own
    resolution; an image is a case.

    predict_fns: `predict.PredictFns`. The first `things` classes of the source are
    things. Images are squashed to `size`, the model's; the painting of classes is
    brought back by bilinear interpolation, that of instances by nearest pixel.

    semantic, instance: tuned prompts; the labels of the first are the source's classes,
    each with a colour. Or example: a record of `prompts`, a source as `source` is,
    painted in Painter's palettes (classes by `base`). min_score, stuff_area:
    `painter.merge`. images: score only the first so many; 0: all. put, put_everywhere:
    `fixed.Painter`. threads: that decode, each of them some hundred megabytes.
    """

    headings = ("query", "truth", "classes", "instances", "decoded")

    def __init__(
        self,
        predict_fns: Any,
        *,
        name: str,
        source: Any,
        size: tuple[int, int],
        batch_size: int,
        semantic: Prompts | None = None,
        instance: Prompts | None = None,
        prompts: Any = None,
        example: str = "",
        things: int = 80,
        base: int = painter.COCO_BASE,
        min_score: float = 0.55,
        stuff_area: int = 8192,
        images: int = 0,
        put: Callable[[Any], Any] = jax.device_put,
        put_everywhere: Callable[[Any], Any] = jax.device_put,
        threads: int = 4,
    ):
        at_least(1, batch_size=batch_size, threads=threads, things=things)
        at_least(0, images=images, stuff_area=stuff_area, min_score=min_score)
        self._source, self._name, self._size = source, name, size
        self._labels, self._things = [*source.class_names], things
        for given in filter(None, (source, prompts)):
            layout = getattr(getattr(given, "store", None), "layout", None)
            if not isinstance(layout, CocoPanopticSegments):
                raise ValueError(
                    f"source {given.name!r} has no segments: its type must be "
                    "coco_panoptic_segments"
                )
        if things > len(self._labels):
            raise ValueError(
                f"things is {things}: {source.name!r} has {len(self._labels)} classes"
            )
        if bool(example) != (prompts is not None) or {bool(example)} != {
            semantic is None, instance is None
        }:  # fmt: skip
            raise ValueError(
                "tuned prompts, semantic and instance, or an example and the prompts "
                "it is of, must be given"
            )
        if semantic is None or instance is None:
            semantic, instance = self._examples(prompts, example, base)
        if semantic.labels[1:].tolist() != self._labels:
            raise ValueError(
                f"semantic has the labels {semantic.labels[1:].tolist()}, must have "
                f"those of {source.name!r}: {self._labels}"
            )
        self._prompts, self._threads = (semantic, instance), threads
        self._min_score, self._stuff_area = min_score, stuff_area
        self._painter = fixed.Painter(predict_fns, batch_size, put, put_everywhere)
        self.count = min(images or len(source), len(source))
        self._records: list[Any] = []

    def run(
        self, params: Any, cases: Cases | None = None
    ) -> Iterator[tuple[str, float]]:
        """Evaluates what `cases` has not yet; yields `(name, value)`. A value without
        any evidence is nan."""
        cases = Cases() if cases is None else cases
        for truth, _, (ids, segments) in self._answer(params, cases.left(self.count)):
            counts = panoptic_counts(
                ids, segments, truth.ids, truth.segments, self._labels
            )
            cases.add(truth.number, {"counts": counts})
        self._records = cases.records(self.count)
        for key, value in self.scores(np.ones((1, self.count))).items():
            yield key, float(value[0])

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The scores of the last run `[n]`, image j counted `weights[:, j]` times."""
        places = {label: k for k, label in enumerate(self._labels)}
        counts = np.zeros((self.count, len(places), 4))
        for row, record in enumerate(self._records):
            for label, values in record["counts"].items():
                counts[row, places[int(label)]] = values
        summed = common.weighted(weights, counts)
        things = np.arange(len(places)) < self._things
        found = panoptic_scores(summed, things)
        return {f"{self._name}/{key}": value for key, value in found.items()}

    def ranked(self) -> list[int]:
        """The images of the last run, best first, by the quality over all segments."""
        values = {}
        for number, record in enumerate(self._records):
            matched, false, missed, total = np.sum(
                [[0, 0, 0, 0], *record["counts"].values()], 0
            )
            if weight := matched + false / 2 + missed / 2:
                values[number] = total / weight
        return sorted(values, key=lambda number: -values[number])

    def rows(self, params: Any, numbers: Sequence[int]) -> list[Row]:
        """Pictures of some images, under `headings`: stuff in the colours of classes,
        things in those of their places."""
        rows = []
        for truth, paintings, answer in self._answer(params, numbers):
            own = truth.image, self._picture(truth.ids, truth.segments)
            cells = [self._small(cell) for cell in (*own, self._picture(*answer))]
            name = self._source.record_id(truth.number)
            caption = f"{name}   {len(truth.segments)} segments, {len(answer[1])} found"
            rows.append(Row((*cells[:2], *paintings, cells[2]), caption))
        return rows

    def _examples(self, prompts: Any, example: str, base: int):
        common.check_classes(self._source, prompts)
        truth = _read(prompts, fixed.find_record(prompts, example))
        kept = [segment for segment in truth.segments if not segment["iscrowd"]]
        classes, things = np.zeros((2, *truth.ids.shape), np.int32)
        for number, segment in enumerate(kept, start=1):
            classes[truth.ids == segment["id"]] = segment["category_id"]
            if segment["category_id"] in self._labels[: self._things]:
                things[truth.ids == segment["id"]] = number
        palette = painter.semantic_palette(len(self._labels), base)
        white = np.full((1, 3), 255, np.uint8)
        semantic = fixed.by_example(
            Sample(truth.image, classes, CATEGORY, ()), self._size, CATEGORY,
            self._labels, palette,
            lambda segments: colors.paint(segments, self._labels, palette)[0],
        )  # fmt: skip
        instance = fixed.by_example(
            Sample(truth.image, things, INSTANCE, ()), self._size, INSTANCE, [1], white,
            lambda segments: painter.paint_locations(
                segments, np.setdiff1d(segments, 0).tolist()
            ),
        )  # fmt: skip
        return semantic, instance

    def _answer(self, params: Any, numbers: Sequence[int]):
        """The truth of each image, its two paintings, and the segments found: ids and
        what they are."""

        def read(number: int) -> tuple[np.ndarray, _Truth]:
            truth = _read(self._source, number)
            sample = Sample(truth.image, np.zeros(truth.ids.shape, np.int32), 0, ())
            return resize(sample, self._size).image, truth

        ahead = 2 * self._painter.batch_size
        reading = common.prefetch(read, numbers, self._threads, ahead)
        with concurrent.futures.ThreadPoolExecutor(self._threads) as pool:
            for truths, (classes, places) in self._painter.paint(
                params, self._prompts, reading
            ):
                found = pool.map(self._decode, truths, classes, places)
                paintings = zip(classes, places, strict=True)
                yield from zip(truths, paintings, found, strict=True)

    def _decode(self, truth: _Truth, classes: np.ndarray, places: np.ndarray):
        semantic = self._prompts[0].palette[1:]
        instances = painter.find_instances(
            painter.resize_nearest(places, truth.ids.shape)
        )
        ids, found = painter.merge(
            painter.resize_smooth(classes, truth.ids.shape), semantic, self._things,
            instances, min_score=self._min_score, stuff_area=self._stuff_area,
        )  # fmt: skip
        return ids, [
            {"id": number, "category_id": self._labels[place]}
            for number, place in found
        ]

    def _picture(self, ids: np.ndarray, segments: list[dict[str, Any]]) -> np.ndarray:
        things = set(self._labels[: self._things])
        of_things = [s["id"] for s in segments if s["category_id"] in things]
        picture = painter.paint_locations(ids, of_things)
        palette = dict(zip(self._labels, self._prompts[0].palette[1:], strict=True))
        for segment in segments:
            if segment["category_id"] not in things:
                picture[ids == segment["id"]] = palette[segment["category_id"]]
        return picture

    def _small(self, cell: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(cell).resize(self._size[::-1], _NEAREST))


def _read(source: Any, number: int) -> _Truth:
    encoded = source.store[number]
    image = source.sample(encoded).image
    return _Truth(number, image, *read_segments(encoded.mask, encoded.annotation))
