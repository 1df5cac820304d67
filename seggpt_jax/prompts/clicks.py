"""The mask of an example out of a box, points or strokes, by OpenCV's GrabCut.

Colours inside and outside are learned from what was marked, and the border is cut where
they differ most (Rother et al., "GrabCut", 2004). Equal marks give equal masks.
"""

import importlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seggpt_jax.data.decode import Picture
from seggpt_jax.pictures import images

_REMEDY = "pip install 'seggpt_jax[mask]'"
_SIDE = 640  # longer side that GrabCut works at; models see less
_ROUNDS = 5  # after which the cut moves no more
_REACH = 1 / 4  # of the longer side: so far from a mark its object is looked for
_RADIUS = 1 / 100  # of the longer side: of a point
_UNSEEN, _OBJECT, _BACKGROUND = 0, 1, 2  # what marks say of a pixel
_SIGNS = {"+": 1, "-": 0}
_FULL = 0.5  # a picture with more strokes is no layer of strokes


class Example(NamedTuple):
    """An image uint8 `[h, w, 3]` and its target, bool `[h, w]`: what `set_prompts`
    takes, as `set_prompts(*example)`."""

    image: np.ndarray
    target: np.ndarray


def require() -> None:
    """Raises ValueError, with the remedy, where OpenCV is not installed."""
    try:
        importlib.import_module("cv2")
    except ImportError as error:
        raise ValueError(f"masks by clicks need OpenCV: {_REMEDY}") from error


def example(
    picture: Picture,
    box: Sequence[int] | None = None,
    points: Sequence[Sequence[int]] = (),
    scribble: Picture | None = None,
    bits: int = 16,
) -> Example:
    """An example of one object, which is marked in a picture.

    Args:
      picture: as `images.read_image` takes it.
      box: left, top, right and bottom of the object, in pixels; right and bottom are
        the first that are outside.
      points: (x, y, inside), where inside is true on the object and false on the
        background.
      scribble: a picture of the same size with strokes: in label 1, or in any colour
        but red, on the object; in label 2, or in red, on the background.
      bits: as of `images.read_image`.

    Without a box the object is looked for around the marks, and only connected parts
    that hold a mark are kept. Raises ValueError that names the picture and the mark.
    """
    image = images.read_rgb(picture, "image", bits)
    name = images.name_of(picture, "the image")
    if box is None and not len(points) and scribble is None:
        raise ValueError(f"{name}: mark the object by a box, points or a scribble")
    height, width, _ = image.shape
    marks = np.full((height, width), _UNSEEN, np.uint8)
    if scribble is not None:
        marks = _strokes(scribble, name, (height, width))
    radius = max(1, round(_RADIUS * max(height, width)))
    y, x = np.ogrid[:height, :width]
    clicked = [_numbers(point, "point", "x, y, inside") for point in points]
    for column, row, inside in clicked:
        if not (0 <= column < width and 0 <= row < height):
            raise ValueError(
                f"point {column},{row} is outside of {name}, which is {width} x "
                f"{height}"
            )
        disc = (x - column) ** 2 + (y - row) ** 2 <= radius**2
        marks[disc] = _OBJECT if inside else _BACKGROUND
    if box is not None:
        left, top, right, bottom = _numbers(box, "box", "left, top, right, bottom")
        text = f"box {left},{top},{right},{bottom}"
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(
                f"{text} is empty, or not inside of {name}, which is {width} x "
                f"{height}: left, top, right, bottom are wanted, in pixels"
            )
        outside = np.ones(marks.shape, bool)
        outside[top:bottom, left:right] = False
        for column, row, inside in clicked:
            if inside and outside[row, column]:
                raise ValueError(f"point {column},{row},+ is outside of the {text}")
        marked = marks == _OBJECT
        if marked.any() and not marked[top:bottom, left:right].any():
            raise ValueError(f"the scribble marks the object outside of the {text}")
        marks[outside] = _BACKGROUND
        if not (marks == _BACKGROUND).any():
            raise ValueError(
                f"{text} is all of {name}: mark some background, or a smaller box"
            )
    elif not (marks == _OBJECT).any():
        raise ValueError(f"{name}: only background is marked; mark the object too")
    mask = _grown(image, marks, name, boxed=box is not None)
    if not (mask & (marks != _OBJECT)).any():
        raise ValueError(
            f"no object was found in {name} beyond the marks: mark more of it, or draw "
            "the box closer"
        )
    return Example(image, mask)


def read_box(text: str, name: str = "box") -> list[int]:
    """`10,20,200,180` -> left, top, right, bottom. name: stands in errors."""
    return _read_numbers(name, text, 4)


def read_point(text: str, name: str = "points") -> list[int]:
    """`x,y,+` or `x,y,-` -> x, y, inside. name: stands in errors."""
    place, _, sign = text.rpartition(",")
    if sign not in _SIGNS:
        raise ValueError(f"{name} {text}: x,y,+ or x,y,- is wanted")
    return [*_read_numbers(name, place, 2), _SIGNS[sign]]


def _read_numbers(name: str, text: str, count: int) -> list[int]:
    numbers = text.split(",")
    try:
        if len(numbers) == count:
            return [int(number) for number in numbers]
    except ValueError:
        pass
    wanted = "left,top,right,bottom" if count == 4 else "x,y"
    raise ValueError(f"{name} {text}: {wanted} are wanted, whole numbers of pixels")


def _numbers(values: Sequence[int], what: str, wanted: str) -> list[int]:
    numbers = [value for value in values if math.isfinite(value)]
    if len(values) != len(wanted.split(",")) or len(numbers) != len(values):
        raise ValueError(f"{what} {tuple(values)}: {wanted} are wanted")
    return [int(value) for value in numbers]


def _strokes(scribble: Picture, image: str, size: tuple[int, int]) -> np.ndarray:
    """Marks uint8 `[h, w]` of a picture of strokes."""
    drawn = images.read_mask(scribble, "scribble").values
    name = images.name_of(scribble, "the scribble")
    if drawn.shape[:2] != size:
        raise ValueError(
            f"{name} is {drawn.shape[1]} x {drawn.shape[0]}, and {image} {size[1]} x "
            f"{size[0]}: strokes are drawn on a layer of the image's size"
        )
    if drawn.ndim == 2:
        marks = np.select([drawn == 0, drawn == 2], [_UNSEEN, _BACKGROUND], _OBJECT)
    else:
        red, others = drawn[..., 0].astype(int), drawn[..., 1:].max(-1).astype(int)
        bright = drawn.max(-1) >= 128  # strokes with smooth edges fade into black
        marks = np.select([~bright, red > 2 * others], [_UNSEEN, _BACKGROUND], _OBJECT)
    if not marks.any():
        raise ValueError(f"{name} has no strokes")
    if (marks != _UNSEEN).mean() > _FULL:
        raise ValueError(
            f"{name} has strokes on more than half of its pixels: draw them on a black "
            "or transparent layer, not on the image"
        )
    return marks.astype(np.uint8)


def _grown(image: np.ndarray, marks: np.ndarray, name: str, boxed: bool) -> np.ndarray:
    """The object that marks `[h, w]` tell, as bool `[h, w]`."""
    require()
    import cv2

    height, width = marks.shape
    scale = min(1, _SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    seeds = np.full(size, _UNSEEN, np.uint8)
    for mark in (_BACKGROUND, _OBJECT):  # by place: a thin stroke would be averaged out
        rows, columns = np.nonzero(marks == mark)
        seeds[rows * size[0] // height, columns * size[1] // width] = mark
    cut = np.full(size, cv2.GC_PR_FGD, np.uint8)
    if not boxed:
        cut[~_near(seeds)] = cv2.GC_PR_BGD
    cut[seeds == _BACKGROUND] = cv2.GC_BGD
    cut[seeds == _OBJECT] = cv2.GC_FGD
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(
            small[..., ::-1].copy(), cut, (0, 0, 0, 0), np.zeros((1, 65)),
            np.zeros((1, 65)), _ROUNDS, cv2.GC_INIT_WITH_MASK,
        )  # fmt: skip
    except cv2.error as error:
        raise ValueError(
            f"{name}: too little of it is object or background by these marks "
            f"({error.err})"
        ) from error
    found = (cut == cv2.GC_FGD) | (cut == cv2.GC_PR_FGD)
    if not boxed:
        from scipy import ndimage  # late: a third of a second

        parts, _ = ndimage.label(found, np.ones((3, 3)))
        found &= np.isin(parts, parts[seeds == _OBJECT])
    share = cv2.resize(found.astype(np.float32), (width, height))
    mask = share >= 0.5
    mask[marks == _OBJECT], mask[marks == _BACKGROUND] = True, False
    return mask


def _near(seeds: np.ndarray) -> np.ndarray:
    """Where the object of marks is looked for: nearer to it than to background."""
    from scipy import ndimage

    to_object = ndimage.distance_transform_edt(seeds != _OBJECT)
    near = to_object < _REACH * max(seeds.shape)
    if (seeds == _BACKGROUND).any():
        near &= to_object < ndimage.distance_transform_edt(seeds != _BACKGROUND)
    return near
