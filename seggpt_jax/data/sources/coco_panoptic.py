"""COCO 2017 panoptic as semantic segmentation: 80 things and 53 stuff classes."""

import dataclasses
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from seggpt_jax.config import shorten
from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Layout,
    Listing,
    Skipped,
    files_in,
    labels_of,
    need,
    nth_label,
    placed,
    relative,
)
from seggpt_jax.data.masks import read_colors
from seggpt_jax.data.sample import IGNORE, INSTANCE, BadRecord
from seggpt_jax.data.sources.coco import read_json

_UNKNOWN = -1


@dataclasses.dataclass(frozen=True)
class CocoPanoptic(Layout):
    """`{train,val}2017/*.jpg`, `annotations/panoptic_{train,val}2017.json` and
    `annotations/panoptic_{train,val}2017/*.png`, where R + 256 G + 65536 B is the
    segment of a pixel (cocodataset.org/#format-data). The three are settings; `{split}`
    in them stands for the split.

    Labels are the category ids. Segment 0 (void) and crowds are `IGNORE`.
    """

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
                        s["id"]: (labels[s["category_id"]], bool(s["iscrowd"]))
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

        noted = {image for image, _, _ in notes}

        def entries() -> Iterator[Entry | Skipped]:
            for image in sorted({*file_names.values()} - noted):
                yield Skipped(image, f"has no annotation in {path}", listed=True)
            for image, mask, segments in notes:
                if image not in there[0]:
                    why = f"has no image {image} in {images}"
                    yield Skipped(mask, why, listed=True)
                elif mask not in there[1]:
                    why = f"has no mask {mask} in {masks}"
                    yield Skipped(image, why, listed=True)
                else:
                    shown = {label for label, crowd in segments.values() if not crowd}
                    yield Entry(
                        Path(mask).stem,
                        relative(images / image, root),
                        relative(masks / mask, root),
                        json.dumps({n: self.mark(*s) for n, s in segments.items()}),
                        tuple(sorted(shown)),
                    )

        return Listing({labels[i]: name for i, name in names.items()}, entries())

    def mark(self, label: int, crowd: bool) -> Any:
        """The note of a segment in an annotation."""
        return IGNORE if crowd else label

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        images, path, masks = (
            placed(root, name, getattr(self, name), split)
            for name in ("images", "annotations", "masks")
        )
        found = images, path, masks if masks.is_dir() else root / masks.name
        return tuple(need(path, "COCO's panoptic annotations") for path in found)

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return paint_segments(mask, annotation)


@dataclasses.dataclass(frozen=True)
class CocoPanopticSegments(CocoPanoptic):
    """The same files, where every segment is a label of its own. Panoptic quality is
    scored on them, and prompts for instances are made of them."""

    kind = INSTANCE

    def mark(self, label: int, crowd: bool) -> Any:
        return label, crowd

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        ids, segments = read_segments(mask, annotation)
        found = np.full(ids.shape, IGNORE, np.int32)
        owners = {}
        for number, segment in enumerate(segments):
            if not segment["iscrowd"]:
                owners[nth_label(number)] = segment["category_id"]
                found[ids == segment["id"]] = nth_label(number)
        return Decoded(found, owners)


def read_segments(mask: bytes, annotation: str) -> tuple[np.ndarray, list[dict]]:
    """The segment of each pixel of `CocoPanopticSegments`, 0 for none, and COCO's
    `segments_info` with labels for `category_id`."""
    segments = [
        {"id": int(number), "category_id": label, "iscrowd": crowd}
        for number, (label, crowd) in json.loads(annotation).items()
    ]
    ids = read_colors(io.BytesIO(mask))
    shown = set(np.unique(ids).tolist()) - {0}
    if odd := shown ^ {segment["id"] for segment in segments}:
        raise BadRecord(f"and its annotation have other segments: {shorten(odd)}")
    return ids, segments


def paint_segments(mask: bytes, annotation: str) -> Decoded:
    """The label map of a mask of segments. annotation: JSON, segment -> label."""
    labels = {int(k): label for k, label in json.loads(annotation).items()}
    labels[0] = IGNORE
    ids = read_colors(io.BytesIO(mask))
    segments = np.full(ids.shape, _UNKNOWN, np.int32)
    for number, label in labels.items():  # a dozen: faster than a sort of the pixels
        segments[ids == number] = label
    if len(unknown := np.unique(ids[segments == _UNKNOWN])):
        raise BadRecord(
            f"has segments that its annotation does not list: {shorten(unknown)}"
        )
    return Decoded(segments)
