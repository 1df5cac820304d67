"""Mask AP of COCO, by pycocotools."""

import contextlib
import io
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seggpt_jax.metrics.mergeable import Mergeable

# What COCOeval.stats holds, in order.
NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
         "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")  # fmt: skip


class MaskAP(Mergeable):
    """Average precision and recall of scored masks. categories: COCO's dicts."""

    def __init__(self, categories: Sequence[Mapping[str, Any]]):
        super().__init__()
        self.categories = [dict(category) for category in categories]
        self.classes = f"categories {[category['id'] for category in categories]}"

    def update(
        self,
        image_id: int,
        size: tuple[int, int],
        preds: Sequence[Mapping[str, Any]],
        truths: Sequence[Mapping[str, Any]],
    ) -> None:
        """Adds an image of `size` (h, w). preds: `mask` bool `[h, w]`, `category_id`,
        `score`. truths: `mask`, `category_id`, `iscrowd` (0 where it is not given), and
        `area`: the annotation's, by which COCO calls an object small, medium or large
        (the mask's own where it is not given; COCO's differ from these)."""
        image = {"id": image_id, "height": size[0], "width": size[1]}
        found = [
            _encode(image_id, size, pred) | {"score": float(pred["score"])}
            for pred in preds
        ]
        shown = [_truth(image_id, size, truth) for truth in truths]
        self.counts.append((image, found, shown))

    def compute(self) -> dict[str, float]:
        """`{"ap", "ap50", "ap75", ...}` in 0..1; nan where nothing is to be found."""
        # By image, so that the order of merging leaves ties of scores alone.
        rows = sorted(self.counts, key=lambda row: row[0]["id"])
        images = [image for image, _, _ in rows]
        with contextlib.redirect_stdout(io.StringIO()):
            preds, truths = (
                self._dataset(images, [note for row in rows for note in row[k]])
                for k in (1, 2)
            )
            run = COCOeval(truths, preds, "segm")
            run.evaluate()
            run.accumulate()
            run.summarize()
        stats = np.where(run.stats < 0, np.nan, run.stats).tolist()
        return dict(zip(NAMES, stats, strict=True))

    def _dataset(self, images: Sequence[dict], notes: Sequence[dict]) -> COCO:
        dataset = COCO()
        dataset.dataset = {
            "images": images,
            "categories": self.categories,
            "annotations": [{**note, "id": k} for k, note in enumerate(notes, 1)],
        }
        dataset.createIndex()
        return dataset


def _truth(image_id: int, size: tuple[int, int], item: Mapping[str, Any]) -> dict:
    note = _encode(image_id, size, item) | {"iscrowd": int(item.get("iscrowd", 0))}
    area = item.get("area", note["area"])
    if not (isinstance(area, numbers.Real) and 0 <= float(area) < math.inf):
        raise ValueError(f"image {image_id}: area {area!r} must be a number of pixels")
    return note | {"area": float(area)}


def _encode(image_id: int, size: tuple[int, int], item: Mapping[str, Any]) -> dict:
    mask = item["mask"]
    if mask.dtype != bool or mask.shape != tuple(size):
        raise ValueError(
            f"image {image_id}: a mask is {mask.dtype} {list(mask.shape)}, must be "
            f"bool {list(size)}"
        )
    coded = rle.encode(np.asfortranarray(mask, np.uint8))
    return {
        "image_id": image_id,
        "category_id": item["category_id"],
        "segmentation": coded,
        "area": float(rle.area(coded)),
        "bbox": rle.toBbox(coded).tolist(),
        "iscrowd": 0,
    }
