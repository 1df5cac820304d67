"""COCO 2017 panoptic as semantic segmentation: 80 things and 53 stuff classes."""

import dataclasses
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from seggpt_jax.config import shorten
from seggpt_jax.data.decode import read_colors
from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Layout,
    Listing,
    Skipped,
    files_in,
    labels_of,
    need,
    placed,
    relative,
)
from seggpt_jax.data.sample import IGNORE, BadRecord
from seggpt_jax.data.sources.coco import read_json

_UNKNOWN = -1


@dataclasses.dataclass(frozen=True)
class CocoPanoptic(Layout):
    """`{train,val}2017/*.jpg`, `annotations/panoptic_{train,val}2017.json` and
    `annotations/panoptic_{train,val}2017/*.png`, where a pixel's segment is
    R + 256 G + 65536 B (cocodataset.org/#format-data). The three may be set, with
    `{split}` in them.

    Labels are the category ids. Segment 0 (void) and crowds are `IGNORE`.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    images: str = "{split}2017"
    annotations: str = "annotations/panoptic_{split}2017.json"
    masks: str = "annotations/panoptic_{split}2017"

    def records(self, root: Path, split: str) -> Listing:
        images, path, masks = self.watched(root, split)
        data = read_json(path)
        try:
            names = {c["id"]: c["name"] for c in data["categories"]}
            labels = labels_of(names)
            file_names = {image["id"]: image["file_name"] for image in data["images"]}
            notes = [
                (
                    file_names.get(a["image_id"]),
                    a["file_name"],
                    {
                        s["id"]: IGNORE if s["iscrowd"] else labels[s["category_id"]]
                        for s in a["segments_info"]
                    },
                )
                for a in data["annotations"]
            ]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: not COCO's panoptic format: {type(error).__name__} {error}"
            ) from error
        there = files_in(images), files_in(masks)

        def entries() -> Iterator[Entry | Skipped]:
            for image, mask, segments in notes:
                if image not in there[0]:
                    yield Skipped(mask, f"has no image {image} in {images}")
                elif mask not in there[1]:
                    yield Skipped(image, f"has no mask {mask} in {masks}")
                else:
                    shown = {v for v in segments.values() if v != IGNORE}
                    yield Entry(
                        Path(mask).stem,
                        relative(images / image, root),
                        relative(masks / mask, root),
                        json.dumps(segments),
                        tuple(sorted(shown)),
                    )

        return Listing({labels[i]: name for i, name in names.items()}, entries())

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        images, path, masks = (
            placed(root, name, getattr(self, name), split)
            for name in ("images", "annotations", "masks")
        )
        found = images, path, masks if masks.is_dir() else root / masks.name
        return tuple(need(path, "COCO's panoptic annotations") for path in found)

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return paint_segments(mask, annotation)


def paint_segments(mask: bytes, annotation: str) -> Decoded:
    """A mask of segments, whose labels are a JSON: segment -> label."""
    labels = {int(k): label for k, label in json.loads(annotation).items()}
    labels[0] = IGNORE
    ids = read_colors(io.BytesIO(mask))
    segments = np.full(ids.shape, _UNKNOWN, np.int32)
    for number, label in labels.items():  # a dozen: faster than to sort the pixels
        segments[ids == number] = label
    if len(unknown := np.unique(ids[segments == _UNKNOWN])):
        raise BadRecord(
            f"has segments that its annotation does not list: {shorten(unknown)}"
        )
    return Decoded(segments)
