"""The pixels of an annotation in COCO's format: polygons or RLE, checked.

pycocotools is written in C and trusts what it is given: numbers that are not finite or
far too large end the process. So everything is checked here first.
"""

import math
import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as rle

from seggpt_jax.config import counted
from seggpt_jax.data.sources.coco_file import Row

# pycocotools walks along an outline in steps of a fifth of a pixel, all in memory.
_STEP, _MAX_STEPS = 5, 2**25
_POLYGONS = "polygons [[x, y, x, y, x, y, ...], ...] or RLE are wanted"
_DIGIT, _MORE, _SIGN, _MAX_DIGITS = 0x1F, 0x20, 0x10, 6


class Region(NamedTuple):
    """Pixels as compressed RLE, "" for none. exact: they are the object's mask; else
    its box, within which it lies. wrong: what is wrong, or "". fault: whether the file
    is to be mended."""

    counts: str
    exact: bool
    wrong: str = ""
    fault: bool = True


def read_region(row: Row, size: tuple[int, int]) -> Region:
    """The mask of an annotation in an image of `size` (h, w); its box if the mask is
    missing or cannot be used."""
    given, wrong, fault = row.get("segmentation"), "", True
    try:
        counts, stray = "", 0
        if isinstance(given, dict) and given:
            counts = _run_lengths(given, size)
        elif isinstance(given, list):
            counts, stray = _polygons(given, size)
        elif given:
            raise ValueError(f"has segmentation {reprlib.repr(given)}; {_POLYGONS}")
        if counts:
            if stray:
                wrong = f"has parts of less than three points, left out: {stray}"
            return Region(counts, True, wrong, fault=False)
        wrong, fault = "has no pixel in its mask" if given else "has no mask", False
    except ValueError as error:
        wrong = str(error)
    return Region(_box(row.get("bbox"), size), False, wrong, fault)


def _polygons(parts: Sequence[Any], size: tuple[int, int]) -> tuple[str, int]:
    """The union of polygons, and the number of parts that are no polygons because they
    have less than three points."""
    whole = []
    for part in parts:
        if part is None or part == []:
            continue
        if not isinstance(part, list) or isinstance(part[0], list):
            raise ValueError(f"has a part {reprlib.repr(part)}; {_POLYGONS}")
        if len(part) % 2:
            numbers = counted(len(part), "number")
            raise ValueError(f"has a part of {numbers}; x and y are wanted")
        if len(part) >= 6:
            _check_points(part, size)
            whole.append(part)
    if not whole:
        if any(parts):
            raise ValueError(f"has no part of three points or more; {_POLYGONS}")
        return "", 0
    coded = rle.merge(rle.frPyObjects(whole, *size))
    counts = coded["counts"].decode() if rle.area(coded) else ""
    return counts, len(parts) - len(whole)


def _check_points(part: Sequence[Any], size: tuple[int, int]) -> None:
    """Refuses points that are farther from the image than it is long."""
    for values, side in ((part[1::2], size[0]), (part[::2], size[1])):
        try:
            # The sum tells whether all are numbers, and finite: faster than one by one.
            fits = math.isfinite(sum(values)) and (
                -side <= min(values) and max(values) <= 2 * side
            )
        except (TypeError, OverflowError):
            fits = False
        if not fits:
            shown = next(v for v in values if not _fits(v, side))
            raise ValueError(
                f"has a coordinate {reprlib.repr(shown)}; numbers of {-side} to "
                f"{2 * side} are wanted"
            )
    points = len(part) // 2
    if points * 3 * max(size) * _STEP > _MAX_STEPS:  # else it cannot be too long
        xy = np.array(part, float).reshape(-1, 2)
        length = np.abs(xy - np.roll(xy, 1, 0)).max(-1).sum()
        if length * _STEP > _MAX_STEPS:
            most = _MAX_STEPS // _STEP
            raise ValueError(f"has an outline of {length:.0f} pixels, above {most}")


def _fits(value: Any, side: int) -> bool:
    return isinstance(value, (int, float)) and -side <= value <= 2 * side


def _run_lengths(given: Row, size: tuple[int, int]) -> str:
    """COCO's RLE as compressed text; "" for one without pixels."""
    if given.get("size") != list(size):
        shown = reprlib.repr(given.get("size"))
        raise ValueError(f"has an RLE of size {shown}; its image has {list(size)}")
    counts = given.get("counts")
    if isinstance(counts, str):
        runs = _decompressed(counts)
    elif isinstance(counts, list) and all(type(n) is int and n >= 0 for n in counts):
        runs = counts
    else:
        raise ValueError(
            f"has RLE counts {reprlib.repr(counts)}; lengths of runs, or COCO's text "
            f"of them, are wanted"
        )
    if (total := int(sum(runs))) != size[0] * size[1]:
        raise ValueError(f"has an RLE of {total} pixels; its image has {list(size)}")
    if not any(runs[1::2]):
        return ""
    if isinstance(counts, str):
        return counts
    coded = rle.frPyObjects({"size": list(size), "counts": counts}, *size)
    return coded["counts"].decode()


def _decompressed(text: str) -> list[int]:
    """The lengths of runs of COCO's compressed code.

    A number is characters from "0" on, each of 5 bits, the lowest first. A sixth bit
    says that more follow; the fifth bit of the last is the sign. From the fourth number
    on, it is the difference to the last but one.
    """
    if not text.isascii():
        raise ValueError(f"has RLE counts {reprlib.repr(text)}, which is no RLE")
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & _MORE) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = np.diff(np.concatenate([starts, [len(codes)]]))
    valid = len(codes) and codes.min() >= 0 and codes.max() < 64 and len(ends)
    if not valid or ends[-1] != len(codes) - 1 or digits.max() > _MAX_DIGITS:
        raise ValueError(f"has RLE counts {reprlib.repr(text)}, which is no RLE")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, digits))
    values = np.add.reduceat((codes & _DIGIT) << shifts, starts)
    values -= np.where(codes[ends] & _SIGN, 1 << (5 * digits), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.min() < 0:
        raise ValueError(f"has RLE counts {reprlib.repr(text)}, which is no RLE")
    return values.tolist()


def _box(box: Any, size: tuple[int, int]) -> str:
    """The pixels of a box [x, y, w, h] as compressed RLE; "" for none."""
    try:
        if not isinstance(box, list) or len(box) != 4 or not math.isfinite(sum(box)):
            return ""
        x, y, width, height = box
        left, right = math.floor(max(0, x)), math.ceil(min(size[1], x + width))
        upper, lower = math.floor(max(0, y)), math.ceil(min(size[0], y + height))
    except (TypeError, OverflowError):
        return ""
    if left >= right or upper >= lower:
        return ""
    whole = np.array([[left, upper, right - left, lower - upper]], float)
    return rle.frPyObjects(whole, *size)[0]["counts"].decode()
