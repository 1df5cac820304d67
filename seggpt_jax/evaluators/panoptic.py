"""Panoptic segmentation by two prompts for all images: one paints every class, things
and stuff, the other every thing by where it is, whatever its class (paper: 34.4 PQ of
COCO with tuned prompts).

SegGPT's decoding is not known; this is Painter's (`seggpt_jax.painter`).
"""

import concurrent.futures
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from seggpt_jax import colors, painter
from seggpt_jax.data.augment import resize
from seggpt_jax.data.sample import CATEGORY, INSTANCE, Sample
from seggpt_jax.data.sources.coco_panoptic import CocoPanopticSegments, read_segments
from seggpt_jax.evaluators import common, fixed
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.evaluators.episodes import at_least
from seggpt_jax.metrics import panoptic_counts, panoptic_scores
from seggpt_jax.pictures.sheets import Row
from seggpt_jax.prompts.read import Prompts

_TUNED = "tuned prompts, semantic and instance"


class _Truth(NamedTuple):
    """An image with its segments, as `metrics.panoptic_counts` takes them."""

    number: int
    image: np.ndarray
    ids: np.ndarray
    segments: list[dict[str, Any]]


@dataclasses.dataclass(kw_only=True, eq=False)
class Evaluator(fixed.Evaluator):
    """PQ, SQ and RQ of a source of `coco_panoptic_segments` (`fixed.Evaluator`).

    The first `things` classes of the source are things. The painting of classes is
    resized to the image by bilinear interpolation, the painting of instances by nearest
    pixel.

    semantic, instance: files of tuned prompts. The labels of `semantic` are the classes
    of the source, each with a colour. Without both files the example is the prompt,
    painted in Painter's palettes (classes by `base`). min_score, stuff_area:
    `painter.merge`. threads: each takes some hundred megabytes.
    """

    headings = ("query", "truth", "classes", "instances", "decoded")

    semantic: str = ""
    instance: str = ""
    things: int = 80
    base: int = painter.COCO_BASE
    min_score: float = 0.55
    stuff_area: int = 8192

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, things=self.things)
        at_least(0, stuff_area=self.stuff_area, min_score=self.min_score)
        _check_segments(self.source)
        if self.things > len(self.labels):
            raise ValueError(
                f"things is {self.things}: {self.source.name!r} has {len(self.labels)} "
                "classes"
            )
        if self.semantic and self.instance:
            self._prompts = self.load("semantic"), self.load("instance", named=False)
        else:
            self._prompts = self._examples()
        if (labels := self._prompts[0].labels[1:].tolist()) != self.labels:
            raise ValueError(
                f"semantic has the labels {labels}, must have those of "
                f"{self.source.name!r}: {self.labels}"
            )

    @property
    def files(self):
        both = {"semantic": self.semantic, "instance": self.instance}
        return {setting: path for setting, path in both.items() if path}

    def collect(self, params: Any, numbers: Sequence[int], cases: Cases) -> None:
        for truth, _, (ids, segments) in self._answer(params, numbers):
            counts = panoptic_counts(
                ids, segments, truth.ids, truth.segments, self.labels
            )
            cases.add(truth.number, {"counts": counts})

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        places = {label: k for k, label in enumerate(self.labels)}
        counts = np.zeros((self.count, len(places), 4))
        for row, record in enumerate(self.records):
            for label, values in record["counts"].items():
                counts[row, places[int(label)]] = values
        summed = common.weighted(weights, counts)
        things = np.arange(len(places)) < self.things
        return self.named(panoptic_scores(summed, things))

    def ranked(self) -> list[int]:
        """By the panoptic quality over all segments of an image."""
        values = []
        for record in self.records:
            counts = [[0] * 4, *record["counts"].values()]
            matched, false, missed, total = np.sum(counts, 0)
            weight = matched + false / 2 + missed / 2
            values.append(total / weight if weight else None)
        return common.best_first(values)

    def rows(self, params: Any, numbers: Sequence[int]) -> list[Row]:
        """Stuff has the colours of its classes, things the colours of their places."""
        rows = []
        for truth, paintings, answer in self._answer(params, numbers):
            own = truth.image, self._picture(truth.ids, truth.segments)
            cells = [self.small(cell) for cell in (*own, self._picture(*answer))]
            name = self.record_id(truth.number)
            caption = f"{name}   {len(truth.segments)} segments, {len(answer[1])} found"
            rows.append(Row((*cells[:2], *paintings, cells[2]), caption))
        return rows

    def _examples(self) -> tuple[Prompts, Prompts]:

        def read(source: Any, number: int) -> _Truth:
            _check_segments(source)
            return _read(source, number)

        size, truth = self.engine.size, self.read_example(_TUNED, read)
        kept = [segment for segment in truth.segments if not segment["iscrowd"]]
        classes, things = np.zeros((2, *truth.ids.shape), np.int32)
        for number, segment in enumerate(kept, start=1):
            classes[truth.ids == segment["id"]] = segment["category_id"]
            if segment["category_id"] in self.labels[: self.things]:
                things[truth.ids == segment["id"]] = number
        palette = painter.semantic_palette(len(self.labels), self.base)
        white = np.full((1, 3), 255, np.uint8)
        semantic = fixed.by_example(
            Sample(truth.image, classes, CATEGORY, ()), size, CATEGORY,
            self.labels, palette,
            lambda segments: colors.paint(segments, self.labels, palette)[0],
        )  # fmt: skip
        instance = fixed.by_example(
            Sample(truth.image, things, INSTANCE, ()), size, INSTANCE, [1], white,
            lambda segments: painter.paint_locations(
                segments, np.setdiff1d(segments, 0).tolist()
            ),
        )  # fmt: skip
        return semantic, instance

    def _answer(self, params: Any, numbers: Sequence[int]):
        """The truth of each image, its two paintings, and the found segments: their ids
        `[h, w]` and the class of each id."""

        def read(number: int) -> tuple[np.ndarray, _Truth]:
            truth = _read(self.source, number)
            sample = Sample(truth.image, np.zeros(truth.ids.shape, np.int32), 0, ())
            return resize(sample, self.engine.size).image, truth

        with concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
            for truths, (classes, places) in self.paint(
                params, self._prompts, numbers, read
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
            painter.resize_smooth(classes, truth.ids.shape), semantic, self.things,
            instances, min_score=self.min_score, stuff_area=self.stuff_area,
        )  # fmt: skip
        return ids, [
            {"id": number, "category_id": self.labels[place]} for number, place in found
        ]

    def _picture(self, ids: np.ndarray, segments: list[dict[str, Any]]) -> np.ndarray:
        things = set(self.labels[: self.things])
        of_things = [s["id"] for s in segments if s["category_id"] in things]
        picture = painter.paint_locations(ids, of_things)
        palette = dict(zip(self.labels, self._prompts[0].palette[1:], strict=True))
        for segment in segments:
            if segment["category_id"] not in things:
                picture[ids == segment["id"]] = palette[segment["category_id"]]
        return picture


def _check_segments(source: Any) -> None:
    layout = getattr(getattr(source, "store", None), "layout", None)
    if not isinstance(layout, CocoPanopticSegments):
        raise ValueError(
            f"source {source.name!r} has no segments: its type must be "
            "coco_panoptic_segments"
        )


def _read(source: Any, number: int) -> _Truth:
    encoded = source.store[number]
    image = source.sample(encoded).image
    return _Truth(number, image, *read_segments(encoded.mask, encoded.annotation))
