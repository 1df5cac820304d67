"""Label Studio's regions: those that people drew as labels, and results as regions.

A region is `{"type": form, "value": {...}, "original_width": ..., ...}`. Its places are
in percent of the image's sides.
"""

import secrets
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from seggpt_jax.config import counted
from seggpt_jax.prompts import clicks
from seggpt_jax.results import outlines
from seggpt_jax.results.forms import Shown
from seggpt_jax.results.objects import Object, find
from seggpt_jax.serve.label_studio import brush
from seggpt_jax.serve.label_studio.interface import CONTROLS, Interface

Region = Mapping[str, Any]

_DRAWN = ("brushlabels", "polygonlabels")  # the mask itself; a box only says where
_SPECK = 2e-4  # of an image's pixels: a smaller part gets no box and no polygon


def names_of(
    regions: Sequence[Region], forms: Container[str] = tuple(CONTROLS)
) -> set[str]:
    """The names of labels that regions of some forms have."""
    return {
        name for region in regions if _form(region) in forms for name in _labels(region)
    }


def draw(
    regions: Sequence[Region], image: np.ndarray, interface: Interface
) -> np.ndarray:
    """The labels `[h, w]` of an image uint8 `[h, w, 3]` that regions show; later ones
    lie above. A box is cut out by GrabCut (`clicks`); where a label has masks too, its
    boxes are left out. Raises ValueError that says which region cannot be used."""
    segments = np.zeros(image.shape[:2], np.int32)
    drawn = names_of(regions, _DRAWN)
    for region in regions:
        form = _form(region)
        names = [name for name in _labels(region) if name in interface.labels]
        if form not in CONTROLS or not names:
            continue
        if form not in _DRAWN and drawn.intersection(names):
            continue
        segments[_mask(region, image)] = interface.labels[names[0]]
    return segments


def smart(
    regions: Sequence[Region], image: np.ndarray, interface: Interface
) -> tuple[np.ndarray, str]:
    """The mask bool `[h, w]` of the object that smart boxes and points mark, and the
    name of its label. Raises ValueError for marks that cannot be used."""
    box, points, names = None, [], list[str]()
    height, width, _ = image.shape
    for region in regions:
        names += [name for name in _labels(region) if name in interface.labels]
        if _form(region) == "rectanglelabels" and _labels(region):
            box = _box(region, image)
        elif _form(region) == "keypointlabels" and _labels(region):
            _check_size(region, image)
            x, y = _percent(region, "x", "y")
            column, row = int(x * width / 100), int(y * height / 100)
            inside = region.get("is_positive", True)
            place = min(max(column, 0), width - 1), min(max(row, 0), height - 1)
            points.append((*place, int(bool(inside))))
    if not names:
        raise ValueError("the mark has no label of the labelling interface")
    return clicks.example(image, box, points).target, names[0]


def answer(shown: Shown, interface: Interface, version: str) -> dict[str, Any]:
    """A result as a prediction: brush masks of whole labels; boxes and polygons of
    their connected parts."""
    regions, parts = list[dict[str, Any]](), list[Object]()
    for item in shown.objects:
        if interface.answers[item.label].form == "brushlabels":
            regions.append(_region(item, shown.size, interface))
            continue
        parts = parts or find(shown.result, split=True)
        regions += [
            _region(part, shown.size, interface)
            for part in parts
            if part.label == item.label and part.area >= _SPECK * np.prod(shown.size)
        ]
    scores = [item.score for item in shown.objects]
    score = round(sum(scores) / len(scores), 4) if scores else 0.0
    return {"result": regions, "score": score, "model_version": version}


def answer_mask(
    mask: np.ndarray, name: str, interface: Interface, version: str
) -> dict[str, Any]:
    """The mask bool `[h, w]` of a label, which a smart tool marked, as a prediction."""
    (place,) = ndimage.find_objects(mask.astype(np.int8))
    rows, columns = place
    label = interface.labels[name]
    item = Object(label, 0, columns.start, rows.start, mask[place], 1.0)
    region = _region(item, mask.shape, interface)
    return {"result": [region], "score": 1.0, "model_version": version}


def _region(item: Object, size: tuple[int, ...], interface: Interface) -> dict:
    height, width = size
    control = interface.answers[item.label]
    name = next(n for n, label in interface.labels.items() if label == item.label)
    scale = 100 / np.array([width, height])
    value: dict[str, Any] = {control.form: [name]}
    if control.form == "brushlabels":
        value |= {"format": "rle", "rle": brush.encode(item.whole(size))}
    elif control.form == "polygonlabels":
        largest = max(item.polygons, key=len)
        points = outlines.simplify(largest) * scale
        value |= {"points": points.round(4).tolist(), "closed": True}
    else:
        left, top, columns, rows = item.box
        corner, sides = np.array([left, top]) * scale, np.array([columns, rows]) * scale
        value |= {"x": corner[0], "y": corner[1], "width": sides[0],
                  "height": sides[1], "rotation": 0}  # fmt: skip
    return {
        "id": secrets.token_hex(5),
        "type": control.form,
        "from_name": control.name,
        "to_name": interface.image,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": round(item.score, 4),
        "value": value,
    }


def _form(region: Region) -> str:
    form = region.get("type")
    return form if isinstance(form, str) else ""


def _labels(region: Region) -> list[str]:
    value = region.get("value")
    names = value.get(_form(region)) if isinstance(value, Mapping) else None
    return [x for x in names if isinstance(x, str)] if isinstance(names, list) else []


def _mask(region: Region, image: np.ndarray) -> np.ndarray:
    """The pixels bool `[h, w]` of a region that a person drew."""
    _check_size(region, image)
    height, width, _ = image.shape
    value = region["value"]
    if region["type"] == "brushlabels":
        if not isinstance(value.get("rle"), list):
            raise ValueError("a brush region has no run lengths `rle`")
        return brush.decode(value["rle"], (height, width))
    if region["type"] == "rectanglelabels":
        return clicks.example(image, _box(region, image)).target
    try:
        points = np.array(value["points"], np.float64).reshape(-1, 2)
    except (KeyError, TypeError, ValueError):
        raise ValueError("a polygon has no list of `points`, each x and y") from None
    if len(points) < 3 or not np.isfinite(points).all():
        points_ = counted(len(points), "point")
        raise ValueError(f"a polygon has {points_}: 3 are wanted at least")
    places = points.clip(0, 100) * (width, height) / 100
    coded = coco_mask.frPyObjects([places.ravel().tolist()], height, width)
    return coco_mask.decode(coded)[..., 0].astype(bool)


def _box(region: Region, image: np.ndarray) -> tuple[int, int, int, int]:
    """left, top, right and bottom, in pixels."""
    _check_size(region, image)
    if region["value"].get("rotation"):
        raise ValueError("a rectangle is rotated: draw it along the image's sides")
    height, width, _ = image.shape
    x, y, columns, rows = _percent(region, "x", "y", "width", "height")
    left, top = max(0, round(x * width / 100)), max(0, round(y * height / 100))
    right = min(width, round((x + columns) * width / 100))
    return left, top, right, min(height, round((y + rows) * height / 100))


def _percent(region: Region, *names: str) -> list[float]:
    numbers = [region["value"].get(name) for name in names]
    if all(isinstance(x, (int, float)) and abs(x) <= 1000 for x in numbers):
        return [float(x) for x in numbers]
    raise ValueError(f"a region has no numbers {', '.join(names)} in percent")


def _check_size(region: Region, image: np.ndarray) -> None:
    height, width, _ = image.shape
    given = region.get("original_width"), region.get("original_height")
    if given != (width, height):
        raise ValueError(
            f"a region is of an image of {given[0]} x {given[1]}, and the image is "
            f"{width} x {height}"
        )
    if region.get("image_rotation"):
        raise ValueError("a region is of a rotated view: turn the image back")
