"""The forms of a result: each is the content of one file.

The command line writes them into folders (`folder`); a server sends them.
"""

import dataclasses
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from seggpt_jax.config import suggest
from seggpt_jax.data.sources.coco_file import Listed
from seggpt_jax.inference import Result
from seggpt_jax.pictures.images import overlay, save_labels
from seggpt_jax.pictures.legend import with_legend
from seggpt_jax.results import coco, table, yolo
from seggpt_jax.results.categories import Categories
from seggpt_jax.results.objects import Object


@dataclasses.dataclass(frozen=True)
class Shown:
    """An image and what was found in it: all that a form is made of.

    source: the image's file, as results name it. image: uint8 `[h, w, 3]`. known: the
    image's entry in a COCO file whose ids are wanted, or None. names: label -> name, in
    the legend of the overlay.
    """

    source: str
    image: np.ndarray
    result: Result
    objects: Sequence[Object]
    categories: Categories
    known: Listed | None = None
    names: Mapping[int, str] = dataclasses.field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.result.segments.shape
        return height, width


class Form(NamedTuple):
    """suffix: of the file, after the name of the image. content: the file's bytes."""

    suffix: str
    content: Callable[[Shown], bytes]


def read_forms(text: str, known: Sequence[str]) -> list[str]:
    """`segments,overlay` -> the forms, each one of the known."""
    forms = list(dict.fromkeys(form.strip() for form in text.split(",")))
    forms = [form for form in forms if form]
    for form in forms:
        if form not in known:
            raise ValueError(f"--as {form!r} is unknown{suggest(form, known)}")
    if not forms:
        raise ValueError(f"--as is empty: choose from {', '.join(known)}")
    return forms


def _overlay(shown: Shown) -> bytes:
    """JPEG. Beneath the image stand the names of the labels found, if they have any."""
    result, names = shown.result, shown.names
    there = np.unique(result.segments).tolist() if names else []
    entries = [(names[k], result.palette[k]) for k in there if k in names]
    return _picture(with_legend(overlay(shown.image, result.colors), entries), "JPEG")


def _segments(shown: Shown) -> bytes:
    file = io.BytesIO()
    save_labels(file, shown.result.segments, shown.result.palette)
    return file.getvalue()


def _picture(rgb: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, format=kind)
    return file.getvalue()


def _confidence(shown: Shown) -> bytes:
    """npz of `labels` int32 `[c]`, 0 first, and `shares` float16 `[c, h, w]`: the share
    of every label in every pixel, 0..1. The shares of a pixel sum to 1."""
    file, shares = io.BytesIO(), shown.result.shares
    np.savez_compressed(
        file,
        labels=np.array(list(shares), np.int32),
        shares=np.stack([share.astype(np.float16) for share in shares.values()]),
    )
    return file.getvalue()


def _coco(shown: Shown) -> bytes:
    part = coco.piece(shown.source, shown.size, shown.objects, shown.categories,
                      shown.known)  # fmt: skip
    return as_json(part)


def _yolo(shown: Shown) -> bytes:
    return yolo.lines(shown.objects, shown.size, shown.categories).encode()


def _table(shown: Shown) -> bytes:
    return table.text(
        table.rows(shown.source, shown.objects, shown.categories)
    ).encode()


def as_json(content: Any) -> bytes:
    return (json.dumps(content) + "\n").encode()


FORMS: dict[str, Form] = {
    "segments": Form(".png", _segments),
    "overlay": Form("_overlay.jpg", _overlay),
    "colors": Form("_colors.png", lambda shown: _picture(shown.result.colors, "PNG")),
    "confidence": Form("_confidence.npz", _confidence),
    "coco-json": Form(".coco.json", _coco),
    "yolo": Form(".txt", _yolo),
    "csv": Form(".csv", _table),
}
OF_OBJECTS = ("coco-json", "yolo", "csv")  # forms of objects, with their categories
NAMING = ("overlay", *OF_OBJECTS)  # forms that show names
