"""Panoptic quality by panopticapi's rules (github.com/cocodataset/panopticapi)."""

import collections
import dataclasses
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from seggpt_jax.metrics.masks import mean_known, ratios

VOID = 0
_FP, _FN = 0, 1


@dataclasses.dataclass
class PanopticQuality:
    """PQ, SQ and RQ: means over the categories that were shown or predicted.

    categories: COCO's dicts, with `id` and `isthing`.
    """

    categories: Sequence[Mapping[str, Any]]

    def __post_init__(self):
        ids = [category["id"] for category in self.categories]
        if not ids or len(set(ids)) < len(ids):
            raise ValueError(f"categories must have ids of their own, got {ids}")
        self.places = {category_id: k for k, category_id in enumerate(ids)}
        self.counts = np.zeros((len(ids), 3), np.int64)
        # IoUs one by one: sums of floats would depend on the order of merging.
        self.ious = collections.defaultdict(list)

    def update(
        self,
        pred_ids: np.ndarray,
        pred_segments: Sequence[Mapping[str, Any]],
        truth_ids: np.ndarray,
        truth_segments: Sequence[Mapping[str, Any]],
    ) -> None:
        """Adds an image.

        pred_ids, truth_ids: the segment of each pixel, integer `[h, w]`, 0 for none.
        pred_segments, truth_segments: COCO's `segments_info`: `id`, `category_id`, and
        of the truth `iscrowd` (0 where it is not given).

        Raises:
          ValueError: for maps of two shapes, segments that a map has and its list has
            not or the other way round, and unknown categories.
        """
        found = match(pred_ids, pred_segments, truth_ids, truth_segments, self.places)
        for category, (ious, wrong) in found.items():
            self.counts[self.places[category]] += [len(ious), *wrong]
            self.ious[category] += ious

    def merge(self, other: "PanopticQuality") -> "PanopticQuality":
        """The score of both parts together; leaves the two as they are."""
        if other.places != self.places:
            raise ValueError("cannot merge scores of different categories")
        merged = PanopticQuality(self.categories)
        merged.counts = self.counts + other.counts
        for part in (self, other):
            for category, values in part.ious.items():
                merged.ious[category] += values
        return merged

    def compute(self) -> dict[str, float]:
        """`{"pq", "sq", "rq"}` and the same of `_things` and of `_stuff`, in 0..1 or
        nan."""
        totals = [math.fsum(self.ious[one["id"]]) for one in self.categories]
        counts = np.column_stack([self.counts, totals])
        things = np.array([bool(one["isthing"]) for one in self.categories])
        return {k: float(v) for k, v in panoptic_scores(counts, things).items()}


def match(
    pred_ids: np.ndarray,
    pred_segments: Sequence[Mapping[str, Any]],
    truth_ids: np.ndarray,
    truth_segments: Sequence[Mapping[str, Any]],
    known: Container[int],
) -> dict[int, tuple[list[float], list[int]]]:
    """Category -> IoUs of its matched segments, and how many were false and missed, in
    one image. Arguments as of `PanopticQuality.update`; known: all category ids."""
    if pred_ids.shape != truth_ids.shape:
        raise ValueError(f"pred_ids is {pred_ids.shape}, truth_ids {truth_ids.shape}")
    pred_area, preds = _segments("pred", pred_ids, pred_segments, known)
    truth_area, truths = _segments("truth", truth_ids, truth_segments, known)
    # Every pair of segments that share pixels, and how many.
    pairs = np.stack([truth_ids.ravel(), pred_ids.ravel()])
    shared, sizes = np.unique(pairs, axis=1, return_counts=True)
    overlap = dict(zip(map(tuple, shared.T.tolist()), sizes.tolist(), strict=True))

    found: dict[int, tuple[list[float], list[int]]] = collections.defaultdict(
        lambda: ([], [0, 0])
    )
    matched = set()
    for (truth, pred), both in overlap.items():
        if truth == VOID or pred == VOID or truths[truth].get("iscrowd"):
            continue
        category = truths[truth]["category_id"]
        if preds[pred]["category_id"] != category:
            continue
        void = overlap.get((VOID, pred), 0)
        iou = both / (truth_area[truth] + pred_area[pred] - both - void)
        if iou > 0.5:
            found[category][0].append(iou)
            matched |= {("truth", truth), ("pred", pred)}

    crowds = {}  # of each category the last one
    for truth, segment in truths.items():
        if segment.get("iscrowd"):
            crowds[segment["category_id"]] = truth
        elif ("truth", truth) not in matched:
            found[segment["category_id"]][1][_FN] += 1
    for pred, segment in preds.items():
        if ("pred", pred) in matched:
            continue
        category = segment["category_id"]
        excused = overlap.get((VOID, pred), 0)
        if category in crowds:
            excused += overlap.get((crowds[category], pred), 0)
        if excused / pred_area[pred] <= 0.5:
            found[category][1][_FP] += 1
    return dict(found)


def _segments(name: str, ids: np.ndarray, segments, known: Container[int]):
    """Area of each segment, and the segments by their ids."""
    numbers, areas = np.unique(ids, return_counts=True)
    area = dict(zip(numbers.tolist(), areas.tolist(), strict=True))
    area.pop(VOID, None)
    listed = {int(segment["id"]): segment for segment in segments}
    if odd := area.keys() ^ listed.keys():
        raise ValueError(
            f"{name}: only one of the map and the list has segments {sorted(odd)[:10]}"
        )
    for segment in segments:
        if segment["category_id"] not in known:
            raise ValueError(
                f"{name}: segment {segment['id']} has the unknown category "
                f"{segment['category_id']}"
            )
    return area, listed


def panoptic_counts(
    pred_ids: np.ndarray,
    pred_segments: Sequence[Mapping[str, Any]],
    truth_ids: np.ndarray,
    truth_segments: Sequence[Mapping[str, Any]],
    known: Container[int],
) -> dict[int, list[float]]:
    """What an image adds to `panoptic_scores`: category -> segments that are matched,
    false and missed, and the sum of the IoUs of the matched. Arguments of `match`."""
    found = match(pred_ids, pred_segments, truth_ids, truth_segments, known)
    return {
        category: [float(len(ious)), *map(float, wrong), math.fsum(ious)]
        for category, (ious, wrong) in found.items()
    }


def panoptic_scores(counts: np.ndarray, things: np.ndarray) -> dict[str, np.ndarray]:
    """`PanopticQuality`'s scores of `panoptic_counts` `[..., c, 4]`, summed over
    images. things: bool `[c]`, the categories that are things."""
    matched, false, missed, total = np.moveaxis(counts, -1, 0)
    weight = matched + false / 2 + missed / 2
    rows = {
        "pq": ratios(total, weight),
        # 0 of a category that came up without a match, as panopticapi has it.
        "sq": np.where((matched == 0) & (weight > 0), 0, ratios(total, matched)),
        "rq": ratios(matched, weight),
    }
    parts = {"": np.ones_like(things), "_things": things, "_stuff": ~things}
    return {
        name + suffix: mean_known(row[..., part])
        for suffix, part in parts.items()
        for name, row in rows.items()
    }
