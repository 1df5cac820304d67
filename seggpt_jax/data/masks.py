"""Reads masks. The table of the rules is in docs/data.md, "Masks"."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from PIL import Image

from seggpt_jax.config import shorten
from seggpt_jax.data.decode import (
    DEEP_GREY,
    MAX_VALUE,
    File,
    Picture,
    Remark,
    is_deep,
    opacity,
    opened,
    orientation,
    rgb_of,
    turned,
)
from seggpt_jax.data.sample import BACKGROUND, IGNORE, BadRecord

EVERY = range(MAX_VALUE + 1)
INEXACT = ("JPEG", "MPO")  # formats that change values
_LOW, _HIGH = 16, 240  # values below and from which on a smooth mask is at its ends
_MOST_BETWEEN = 0.4  # of the pixels of a smooth mask; an outline has few
_NOISE = 0.05  # of the pixels, at most, where noise has few values
_FEW = 3  # values between the ends: a drawn mask may have as many classes
_BLENDS = 5  # values of blends; fewer may be thin classes
_BETWEEN = 0.8  # of the pixels between the ends, at least, are blends
_SLOPE = 0.6  # of the pixels of a value that is a blend only, at least, are steps
_SMOOTH = "smooth masks are cut at half: 128 and more is inside"


class Mask(NamedTuple):
    """A mask as it was drawn, upright.

    values: int32 `[h, w]`, 0 background; or the colours of a painting, uint8
    `[h, w, 3]`. pictured: values are the greys of a picture with three channels.
    """

    values: np.ndarray
    pictured: bool = False
    remarks: tuple[Remark, ...] = ()


def read_mask(picture: Picture, listed: Collection[int] = ()) -> Mask:
    """A mask of any form. Raises `BadRecord` for one that could mean several things.

    listed: the values that a table of classes has. A mask with others may be smooth.
    """
    remarks: tuple[Remark, ...] = ()
    exact, alpha = True, None
    if isinstance(picture, np.ndarray):
        pixels = _of_array(picture)
        if pixels.ndim == 3 and pixels.shape[-1] == 4:
            pixels, alpha = pixels[..., :3], pixels[..., 3]
    else:
        with opened(picture) as image:
            _check_exact(image)
            turn = orientation(image)
            image.load()
            alpha, exact = opacity(image), image.format not in INEXACT
            pixels, remarks = _of_image(image, alpha)
            if image.format != "TIFF":  # Pillow has turned it
                pixels = turned(pixels, turn)
                alpha = None if alpha is None else turned(alpha, turn)
    if alpha is not None:
        hidden, remark = _hidden(alpha)
        pixels, remarks = _seen(pixels, hidden), remarks + remark
    pictured = pixels.ndim == 3
    if pictured and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim == 2:
        low, high = int(pixels.min()), int(pixels.max())
        if not 0 <= low <= high <= MAX_VALUE:
            raise BadRecord(f"has values of {low} to {high}, outside 0 to {MAX_VALUE}")
        pixels, remark = _hardened(pixels, listed, exact)
        remarks += remark
    dtype = np.int32 if pixels.ndim == 2 else np.uint8
    return Mask(np.ascontiguousarray(pixels, dtype), pictured, remarks)


def read_ids(
    file: File, listed: Collection[int] = EVERY
) -> tuple[np.ndarray, tuple[Remark, ...]]:
    """The values int32 `[h, w]` of a mask that must not be a painting."""
    mask = read_mask(file, listed)
    if mask.values.ndim == 3:
        raise BadRecord(
            "has colours instead of class ids, or is a JPEG, which changes them; "
            "docs/data.md shows how to turn colours into ids"
        )
    return mask.values, mask.remarks


def unlisted(
    values: np.ndarray, listed: Collection[int], where: str
) -> tuple[Remark, ...]:
    """What a table of classes says nothing of. where: the table, for the remark."""
    found, counts = np.unique(values, return_counts=True)
    other = [v for v in found.tolist() if v and v != IGNORE and v not in listed]
    remarks = []
    if other:
        share = counts[np.isin(found, other)].sum() / values.size
        remarks.append(
            Remark(
                f"values that {where} does not list are background",
                f"{shorten(other)} ({share:.1%} of the pixels)",
            )
        )
    if IGNORE not in listed and found.tolist() in ([IGNORE], [BACKGROUND, IGNORE]):
        remarks.append(
            Remark(
                f"masks of 0 and 255 only teach nothing where {where} does not list "
                f"255: it is ignored; {where} lists {shorten(listed)}",
                f"255 covers {counts[-1] / values.size:.1%} of the pixels",
            )
        )
    return tuple(remarks)


def read_grey(file: File) -> np.ndarray:
    """A mask of any form as brightness uint8 `[h, w]`; transparent pixels are 0."""
    with opened(file) as mask:
        mask.load()
        alpha = opacity(mask)
        mask.info.pop("transparency", None)  # Pillow warns when it is dropped
        if mask.mode in DEEP_GREY:
            deep = np.asarray(mask)
            grey = np.clip(deep >> (8 if deep.max() > 255 else 0), 0, 255)
        else:
            grey = np.asarray(mask.convert("L"))
        grey = grey.astype(np.uint8)
    return grey if alpha is None else np.where(_hidden(alpha)[0], 0, grey)


def read_colors(file: File) -> np.ndarray:
    """A mask whose ids are colours: 0xBBGGRR of each pixel, int32 `[h, w]`."""
    with opened(file) as mask:
        # RGBA as one little-endian number: faster than to sum three channels.
        rgba = np.array(mask.convert("RGB").convert("RGBA"))
    return rgba.view("<i4")[..., 0] & 0xFFFFFF


def _check_exact(mask: Image.Image) -> None:
    """Refuses forms whose values Pillow changes."""
    tile = getattr(mask, "tile", None)
    if mask.format == "PNG" and tile and tile[0][3] in ("L;2", "L;4"):
        raise BadRecord("has 2 or 4 bits of grey; save it with 8 bits or a palette")
    if is_deep(mask):
        raise BadRecord(
            "has several channels of 16 bits: save labels with one channel, or a "
            "painting with 8 bits for each"
        )
    if mask.mode == "F":
        raise BadRecord("has floating-point pixels; save it with whole numbers")


def _of_array(values: np.ndarray) -> np.ndarray:
    shape = values.shape
    if values.ndim == 3 and shape[-1] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or 0 in shape or values.shape[2:] not in (
        (), (3,), (4,)
    ):  # fmt: skip
        raise BadRecord(f"{shape}: labels [h, w], or colours [h, w, 3], are wanted")
    if values.dtype == bool:
        return values * np.uint8(255)
    if not np.issubdtype(values.dtype, np.integer):
        raise BadRecord(f"is {values.dtype}: labels are integers, or bool")
    if values.ndim == 3 and values.dtype != np.uint8:
        raise BadRecord(f"is {values.dtype}: colours are uint8")
    return values


def _of_image(
    image: Image.Image, alpha: np.ndarray | None
) -> tuple[np.ndarray, tuple[Remark, ...]]:
    """The values `[h, w]` or the colours `[h, w, 3]` of a loaded mask."""
    if image.mode == "1":
        return np.array(image) * np.uint8(255), ()
    if image.mode == "L" or image.mode in DEEP_GREY:
        return np.array(image), ()
    if image.mode == "P":
        return _of_palette(image, alpha)
    return rgb_of(image), ()


def _of_palette(
    image: Image.Image, alpha: np.ndarray | None
) -> tuple[np.ndarray, tuple[Remark, ...]]:
    """The indices are the values, if their order is not a program's own."""
    index = np.array(image)
    palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    seen = index.ravel() if alpha is None else index[~_hidden(alpha)[0]]
    hidden = seen.size < index.size
    used = np.unique(seen).tolist()
    if hidden and used == [0] and not table[0].any() and table[index].any():
        raise BadRecord(
            "has colours in its transparent pixels only: save it without transparency"
        )
    if len(used) > 1 and (table[used] == table[used[0]]).all():
        what = "palettes of one colour tell nothing: the indices are the labels"
        return index, (Remark(what, f"index {shorten(used)}"),)
    black = [i for i in used if not table[i].any()]
    grey = bool((palette == palette[:, :1]).all())
    if grey and image.format == "GIF":
        return table[index, 0], ()  # encoders renumber greys
    two = len(used) == len(black) + 1 and len(black) + hidden == 1
    # A palette that ends early has black for its last labels, and for 255.
    last = not table[0].any() or (black == [IGNORE] and not grey)
    if two and (black in ([], [BACKGROUND]) or not last):
        (inside,) = set(used) - set(black)  # one colour on black, or on nothing
        return np.where(index == inside, inside or 1, 0).astype(np.uint8), ()
    if grey and not two:
        greys = table[index, 0]
        if (np.diff(table[used, 0].astype(int)) <= 0).any() or _is_smooth(greys):
            return greys, ()
    unseen = [i for i in black if i not in (BACKGROUND, IGNORE)]
    if table[0].any() and (unseen or (hidden and 0 in used)):
        return table[index], ()  # 0 is not the background: the order is a program's
    if not unseen:
        return index, ()
    what = "labels that a palette paints black are read as labels"
    return index, (Remark(what, f"index {shorten(unseen)}"),)


def _hidden(alpha: np.ndarray) -> tuple[np.ndarray, tuple[Remark, ...]]:
    """Which pixels are transparent: those of less than half of the most opaque."""
    top = max(1, int(alpha.max()))
    half = (alpha > top // _LOW) & (alpha < top - top // _LOW)
    hidden = alpha * np.uint16(2) < top
    if (share := half.mean()) < 0.01:
        return hidden, ()
    what = "half-transparent pixels of masks are background below half of the most"
    return hidden, (Remark(what, f"{share:.1%} of the pixels are"),)


def _seen(pixels: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Pixels with background where they are hidden. If nothing else is in sight, the
    mask lives in the alpha alone."""
    if not hidden.any():
        return pixels
    pixels = np.where(hidden if pixels.ndim == 2 else hidden[..., None], 0, pixels)
    if pixels.any():
        return pixels
    return np.where(hidden, 0, 255).astype(np.uint8)


def _hardened(
    values: np.ndarray, listed: Collection[int], exact: bool
) -> tuple[np.ndarray, tuple[Remark, ...]]:
    """A smooth mask as 0 and 255. Any other as it is, or as colours if it is not exact.

    Raises `BadRecord` for a smooth mask of several classes: no rule can tell them.
    """
    if exact and listed is EVERY:
        return values, ()
    if not exact and any(v not in (BACKGROUND, IGNORE) for v in listed):
        return np.repeat(values[..., None], 3, -1), ()
    counts = np.bincount(values.ravel())
    found = np.flatnonzero(counts)
    if exact and all(v in listed or v in (BACKGROUND, IGNORE) for v in found.tolist()):
        return values, ()
    eight = values >> 8 if found[-1] >> 15 else values  # of 16 bits the upper 8
    if _is_smooth(eight, exact):
        cut = np.where(eight < 128, 0, 255).astype(np.uint8)
        return cut, (Remark(_SMOOTH, f"it has {len(found)} values"),)
    if not exact:
        return np.repeat(values[..., None], 3, -1), ()
    if len(found) > _BLENDS:
        blends = np.bincount(values.ravel(), _steps(values)[0].ravel())[found]
        count = np.count_nonzero(blends > _SLOPE * counts[found])
        if count >= max(_BLENDS, len(found) / 2):
            raise BadRecord(
                f"has {len(found)} values, and {count} of them only in edges between "
                "others: it is a picture, or was smoothed or resized; save labels with "
                "nearest-neighbour edges"
            )
    return values, ()


def _is_smooth(values: np.ndarray, exact: bool = True) -> bool:
    """Whether nearly all pixels are near 0 or 255, and those between them are blends.

    exact: false for a JPEG, which has no classes between.
    """
    between = (values >= _LOW) & (values < _HIGH)
    inside = (values >= _HIGH).sum()
    if values.max() > 255 or not inside:
        return False
    if between.mean() > _MOST_BETWEEN or 4 * inside < between.sum():
        return False
    if not exact:
        return True
    if len(np.unique(values[between])) >= _FEW:
        steps, alone = _steps(values)
        return bool((steps | alone)[between].mean() > _BETWEEN)
    # Noise of a JPEG of high quality, which was saved anew.
    ends = np.unique(values[~between])
    low = np.count_nonzero((ends > 0) & (ends < _LOW))
    high = np.count_nonzero((ends >= _HIGH) & (ends < 255))
    rare = (values % 255 > 0).mean() < _NOISE
    noise = low and high and (rare or low + high >= _BLENDS)
    return bool(between.mean() < 0.01 and noise)


def _steps(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that lie between a lower and a higher one of their eight neighbours, as at
    a smooth edge, and those that equal none, as on a thin line: bool `[h, w]`."""
    values = values.astype(np.int32)
    lower, higher, same = (np.zeros(values.shape, bool) for _ in range(3))
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here, there = _shifted(values.shape, down, right)
        for a, b in ((here, there), (there, here)):
            lower[a] |= values[b] < values[a]
            higher[a] |= values[b] > values[a]
            same[a] |= values[b] == values[a]
    return lower & higher, ~same


def _shifted(shape: tuple[int, ...], down: int, right: int):
    """The places of all pixels that have a neighbour there, and of the neighbours."""
    h, w = shape
    rows = slice(0, h - down), slice(down, h)
    if right >= 0:
        columns = slice(0, w - right), slice(right, w)
    else:
        columns = slice(-right, w), slice(0, w + right)
    return (rows[0], columns[0]), (rows[1], columns[1])
