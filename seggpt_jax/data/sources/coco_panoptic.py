"""COCO 2017 panoptic as semantic segmentation: 80 things and 53 stuff classes."""

import dataclasses
import io
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seggpt_jax.config import shorten
from seggpt_jax.data.layout import (
    Decoded,
    Entry,
    Flaw,
    Layout,
    Listing,
    Skipped,
    labels_of,
    need,
    nth_label,
    placed,
    relative,
)
from seggpt_jax.data.masks import read_colors
from seggpt_jax.data.sample import IGNORE, INSTANCE, BadRecord
from seggpt_jax.data.sources.coco_file import (
    Found,
    Images,
    Row,
    category_of,
    crowd_of,
    id_of,
    read_categories,
    read_images,
    read_lists,
    show,
    text_of,
    what_is_wrong,
    whole,
)

_UNKNOWN = -1
_MAX_SEGMENT = 2**24 - 1  # three channels of 8 bits
# Label and crowd of each segment; no label for a category that is not listed.
Segments = dict[int, tuple[int | None, bool]]


@dataclasses.dataclass(frozen=True)
class CocoPanoptic(Layout):
    """`{train,val}2017/*.jpg`, `annotations/panoptic_{train,val}2017.json` and
    `annotations/panoptic_{train,val}2017/*.png`, where R + 256 G + 65536 B is the
    segment of a pixel (cocodataset.org/#format-data). The three are settings; `{split}`
    in them stands for the split.

    Labels are the category ids. Segment 0 (void), crowds and segments of unknown
    category are `IGNORE`.
    """

    images: str = "{split}2017"
    annotations: str = "annotations/panoptic_{split}2017.json"
    masks: str = "annotations/panoptic_{split}2017"

    def records(self, root: Path, split: str) -> Listing:
        folder, path, mask_folder = self.watched(root, split)
        data = read_lists(path, "segments_info")
        found: Found = []
        names = read_categories(path, data["categories"], found)
        listed, same = read_images(path, data["images"], found)
        labels = labels_of(names)
        images, masks = Images(folder), Images(mask_folder)

        def entries() -> Iterator[Entry | Skipped | Flaw]:
            yield from found
            seen = set()
            for number, row in enumerate(data["annotations"], 1):
                where = f"{path.name} annotation entry {number}"
                row = row if isinstance(row, dict) else {}
                name, segments = text_of(row.get("file_name")), row.get("segments_info")
                if name is None or not isinstance(segments, list):
                    why = f"has {show(row, 'file_name')}, and text is wanted"
                    if name is not None:
                        why = f"has {show(row, 'segments_info')}, and a list is wanted"
                    yield Skipped(where, why, listed=True)
                    continue
                plain = posixpath.normpath(name.replace("\\", "/"))
                key = id_of(row.get("image_id"))
                image = None
                if key is not None and (first := same.get(key, key)) is not None:
                    image = listed.get(first)
                    seen.add(first)
                if image is None:
                    why = f"has {show(row, 'image_id')}, which no image has"
                    yield Skipped(f"{where} ({plain})", why, listed=True)
                elif (picture := images.find(image.names)) is None:
                    why = f"has no image: {image.name} {images.why_not(image.name)}"
                    yield Skipped(plain, why, listed=True)
                elif (mask := masks.find((name, plain))) is None:
                    why = f"has no mask: {plain} {masks.why_not(plain)}"
                    yield Skipped(image.name, why, listed=True)
                else:
                    wrong: list[str] = []
                    marks = read_marks(segments, names, labels, wrong)
                    yield from (Flaw(f"{path.name} {mask}", why) for why in wrong)
                    shown = {label for label, crowd in marks.values() if not crowd}
                    yield Entry(
                        Path(mask).stem,
                        relative(folder / picture, root),
                        relative(mask_folder / mask, root),
                        json.dumps({n: self.mark(*mark) for n, mark in marks.items()}),
                        tuple(sorted(label for label in shown if label is not None)),
                    )
            for key, image in listed.items():
                if key not in seen:
                    why = f"has no annotation in {path}"
                    yield Skipped(image.name, why, listed=True)

        return Listing({labels[i]: name for i, name in names.items()}, entries())

    def mark(self, label: int | None, crowd: bool) -> Any:
        """The note of a segment in an annotation."""
        return IGNORE if crowd or label is None else label

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

    def mark(self, label: int | None, crowd: bool) -> Any:
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


def read_marks(
    rows: list[Any], names: Mapping[int, str], labels: Mapping[int, int], wrong: list
) -> Segments:
    """Segment -> its label and whether it is a crowd. Adds to `wrong` what is wrong."""
    marks: Segments = {}
    for given in rows:
        row: Row = given if isinstance(given, dict) else {}
        number = whole(row.get("id"))
        if number is None or not 0 < number <= _MAX_SEGMENT:
            why = f"its id must be a whole number of 1 to {_MAX_SEGMENT}"
            wrong.append(f"has a segment with {show(given, 'id')}: {why}")
            continue
        category, crowd = category_of(row, names), crowd_of(row)
        if why := what_is_wrong(row, names):
            wrong.append(f"segment {number} {why}: it is ignored")
        label = None if category is None or crowd is None else labels[category]
        mark = label, bool(crowd) or label is None
        if marks.setdefault(number, mark) != mark:
            wrong.append(f"lists segment {number} twice, as different: it is ignored")
            marks[number] = None, True
    return marks


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
    unknown = [s["id"] for s in segments if s["category_id"] is None]
    ids[np.isin(ids, unknown)] = 0
    return ids, [s for s in segments if s["category_id"] is not None]


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
