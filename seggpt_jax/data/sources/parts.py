"""Sets of the parts of objects: a record is an object, cut out, with one of its parts.

Matcher's benchmarks (github.com/aim-uofa/Matcher, matcher/data/) are of this form.
"""

import dataclasses
import json
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from seggpt_jax.data.layout import Decoded, Entry, Flaw, Layout, Skipped, relative
from seggpt_jax.data.sample import BadRecord
from seggpt_jax.data.sources.coco_region import read_region
from seggpt_jax.data.sources.crops import cut

Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two are outside
Found = list[Entry | Skipped | Flaw]
FOLDS = 4


@dataclasses.dataclass(frozen=True)
class Parts(Layout):
    """Base of the layouts. Records are named `IMAGE#OBJECT CLASS`.

    The facts of a listing are what episodes are drawn from (`evaluators.hsnet`).
    `episodes`: how many. `pools`: label -> the images of its list in the owners' order,
    each as [name, the records of its objects]. An object without a record is None: it
    has not the part, or its box has no pixel. fold: 0 to 3.
    """

    splits = ("val",)
    fold: int = dataclasses.field(kw_only=True)

    def __post_init__(self):
        if self.fold not in range(FOLDS):
            raise ValueError(f"fold: {self.fold!r} must be 0, 1, 2 or 3")

    def origin(self, name: str) -> str:
        return name.partition("#")[0]

    def read_image(self, root: Path, entry: Entry) -> bytes:
        return cut(root / entry.image, json.loads(entry.annotation)["box"])

    def error_names(self, root: Path, entry: Entry) -> tuple[str, str]:
        return str(root / entry.image), f"(the mask of {entry.id})"

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        note = json.loads(annotation)
        coded = {"size": note["size"], "counts": note["counts"].encode()}
        left, top, right, bottom = note["box"]
        shown = rle.decode(coded)[top:bottom, left:right]
        return Decoded(shown * np.int32(note["label"]), only=note["label"])


def clipped(box: Sequence[Any], size: tuple[int, int]) -> Box | None:
    """The pixels of a box in an image of `size` (h, w), cut down to whole numbers as
    Matcher does; None for none. Raises BadRecord for what is no box."""
    try:
        left, top, right, bottom = map(int, box)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRecord(f"has a box {reprlib.repr(box)}; numbers are wanted") from error
    if right < left or bottom < top:
        raise BadRecord(f"has a box {reprlib.repr(box)} that ends before it begins")
    left, top = max(0, left), max(0, top)
    right, bottom = min(right, size[1]), min(bottom, size[0])
    return (left, top, right, bottom) if left < right and top < bottom else None


def union(segmentations: Iterable[Any], size: tuple[int, int]) -> str:
    """Masks in COCO's format as one compressed RLE, which may have no pixel. Raises
    BadRecord for what is no mask of an image of `size` (h, w)."""
    shown = [rle.encode(np.zeros(size, np.uint8, order="F"))]
    for one in segmentations:
        region = read_region({"segmentation": one}, size)
        if region.fault or not one:
            raise BadRecord(region.wrong)
        if region.counts:
            shown.append({"size": size, "counts": region.counts.encode()})
    return rle.merge(shown)["counts"].decode()


def entry(
    name: str, image: Path, root: Path, label: int, size: Sequence[int], box: Box,
    counts: str,
) -> Entry:  # fmt: skip
    """A record. size: of the whole image. counts: the part's mask in it, as RLE."""
    note: Mapping[str, Any] = {
        "label": label, "size": size, "box": box, "counts": counts,
    }  # fmt: skip
    shown = relative(image, root)
    return Entry(name, shown, annotation=json.dumps(note), classes=(label,))
