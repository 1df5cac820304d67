"""Mask AP of COCO, by pycocotools."""

import contextlib
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# What COCOeval.stats holds, in order.
NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
         "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")  # fmt: skip


@dataclasses.dataclass
class MaskAP:
    """Average precision and recall of scored masks. categories: COCO's dicts."""

    categories: Sequence[Mapping[str, Any]]
    images: list[dict] = dataclasses.field(default_factory=list)
    truths: list[dict] = dataclasses.field(default_factory=list)
    preds: list[dict] = dataclasses.field(default_factory=list)

    def update(
        self,
        image_id: int,
        size: tuple[int, int],
        preds: Sequence[Mapping[str, Any]],
        truths: Sequence[Mapping[str, Any]],
    ) -> None:
        """Adds an image of `size` (h, w). preds: `mask` bool `[h, w]`, `category_id`,
        `score`. truths: `mask`, `category_id`, `iscrowd` (0 where it is not given)."""
        self.images.append({"id": image_id, "height": size[0], "width": size[1]})
        for pred in preds:
            own = _encode(image_id, size, pred) | {"score": float(pred["score"])}
            self.preds.append(own)
        for truth in truths:
            own = _encode(image_id, size, truth)
            self.truths.append(own | {"iscrowd": int(truth.get("iscrowd", 0))})

    def merge(self, other: "MaskAP") -> "MaskAP":
        """The score of both parts together; leaves the two as they are."""
        return MaskAP(
            self.categories,
            self.images + other.images,
            self.truths + other.truths,
            self.preds + other.preds,
        )

    def compute(self) -> dict[str, float]:
        """`{"ap", "ap50", "ap75", ...}` in 0..1; nan where nothing is to be found."""
        # By image, so that the order of merging leaves ties of scores alone.
        order = sorted(self.preds, key=lambda p: p["image_id"])
        with contextlib.redirect_stdout(io.StringIO()):
            truth, pred = (
                self._dataset(self.truths), self._dataset(order)
            )  # fmt: skip
            run = COCOeval(truth, pred, "segm")
            run.evaluate()
            run.accumulate()
            run.summarize()
        stats = np.where(run.stats < 0, np.nan, run.stats).tolist()
        return dict(zip(NAMES, stats, strict=True))

    def _dataset(self, notes: Sequence[dict]) -> COCO:
        dataset = COCO()
        dataset.dataset = {
            "images": self.images,
            "categories": [dict(category) for category in self.categories],
            "annotations": [{**note, "id": k} for k, note in enumerate(notes, 1)],
        }
        dataset.createIndex()
        return dataset


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
