"""Panoptic quality by panopticapi's rules (github.com/cocodataset/panopticapi)."""

import collections
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from seggpt_jax.metrics.masks import mean_known, ratios
from seggpt_jax.metrics.mergeable import Mergeable, floats

VOID = 0
_FP, _FN = 0, 1


class PanopticQuality(Mergeable):
    """PQ, SQ and RQ: means over the categories that were shown or predicted.

    categories: COCO's dicts, with `id` and `isthing`.
    """

    def __init__(self, categories: Sequence[Mapping[str, Any]]):
        super().__init__()
        ids = [category["id"] for category in categories]
        if not ids or len(set(ids)) < len(ids):
            raise ValueError(f"categories must have ids of their own, got {ids}")
        self.classes = f"categories {ids}"
        self.things = {one["id"]: bool(one["isthing"]) for one in categories}

    def update(
        self,
        pred_ids: np.ndarray,
        pred_segments: Sequence[Mapping[str, Any]],
        truth_ids: np.ndarray,
        truth_segments: Sequence[Mapping[str, Any]],
    ) -> None:
        """Adds an image; arguments of `panoptic_counts`."""
        self.counts.append(
            panoptic_counts(
                pred_ids, pred_segments, truth_ids, truth_segments, self.things
            )
        )

    def compute(self) -> dict[str, float]:
        """`{"pq", "sq", "rq"}` and the same of `_things` and of `_stuff`, in 0..1 or
        nan."""
        none = [0.0] * 4
        rows = [
            [math.fsum(image.get(one, none)[k] for image in self.counts)
             for k in range(4)]
            for one in self.things
        ]  # fmt: skip
        things = np.array([*self.things.values()])
        return floats(panoptic_scores(np.array(rows), things))


def panoptic_counts(
    pred_ids: np.ndarray,
    pred_segments: Sequence[Mapping[str, Any]],
    truth_ids: np.ndarray,
    truth_segments: Sequence[Mapping[str, Any]],
    known: Container[int],
) -> dict[int, list[float]]:
    """What an image adds to `panoptic_scores`: category -> segments that are matched,
    false and missed, and the sum of the IoUs of the matched.

    pred_ids, truth_ids: the segment of each pixel, integer `[h, w]`, 0 for none.
    pred_segments, truth_segments: COCO's `segments_info`: `id`, `category_id`, and of
    the truth `iscrowd` (0 where it is not given). known: all category ids.

    Raises ValueError for maps of two shapes, segments that a map has and its list has
    not or the other way round, and unknown categories.
    """
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
    return {
        category: [float(len(ious)), *map(float, wrong), math.fsum(ious)]
        for category, (ious, wrong) in found.items()
    }


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
