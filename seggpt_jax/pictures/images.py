"""Reads users' pictures, finds the colours of paintings, and draws results."""

import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from seggpt_jax.colors import by_label, spread_palette, unique_colors, with_black
from seggpt_jax.data import decode, masks
from seggpt_jax.data.decode import File, Picture, Upright
from seggpt_jax.data.masks import Mask

logger = logging.getLogger(__name__)

FEW_COLORS = 32  # a target with more may be resized, or a JPEG
_SOLID = 0.9  # of the colours of an exact target with more, at least, fill a square
NEAR = 96  # L1 distance within which a painted colour is a label's, as JPEGs need
# A painting is an image with paint over it where at least this share of its pixels is
# within this L1 distance of the image, and half of these have so many tones. No mask of
# 39 real data sets is, painted in any colours or in those of its objects and saved as
# JPEG; half of their images are, with paint over their objects.
_OVER, _SAME, _TONES = 0.3, 24, 5
_REMEDY = "replace it, or save it anew as PNG"
_ROUNDED = 6  # L1 distance to the line between two colours that their blend may have
_LINE = 600  # pixels of an image's longer side to one of the lines in its overlay
_RED = (255, 64, 64)  # it stands for white in overlays
_RARE = 1e-3  # a colour of a smaller share of the pixels may belong to an edge


def read_image(picture: Picture, name: str = "image", bits: int = 16) -> Upright:
    """A picture as uint8 `[h, w, 3]`, turned as its EXIF says, with remarks.

    picture: path, PIL image, or array (NumPy, jax or torch) uint8, uint16 or bool
    `[h, w]` or `[h, w, c]` of 1, 3 or 4 channels. Grey is repeated; what is transparent
    is white. bits: of values of more than 8 bits, of which the upper 8 are kept. name:
    stands in errors for a picture without a path. Raises BadRecord (a ValueError).
    """
    decode.check_bits(bits)
    with decode.naming_errors(name_of(picture, name), _REMEDY):
        return decode.read_rgb(_known(picture), bits)


def read_rgb(picture: Picture, name: str = "image", bits: int = 16) -> np.ndarray:
    """The pixels of `read_image`. Its remarks go to the log."""
    shown = read_image(picture, name, bits)
    for what, detail in shown.remarks:
        logger.warning("%s: %s (%s)", what, name_of(picture, name), detail)
    return shown.pixels


def read_mask(picture: Picture, name: str = "mask") -> Mask:
    """A mask of any form, by the rules of `data.masks`. Raises BadRecord."""
    with decode.naming_errors(name_of(picture, name), _REMEDY):
        return masks.read_mask(_known(picture))


def name_of(picture: Picture, name: str) -> str:
    """What errors call a picture: its path, or else `name`."""
    if isinstance(picture, (str, os.PathLike)):
        return os.fspath(picture)
    return getattr(picture, "filename", "") or name


def _known(picture: Picture) -> Picture:
    """A path, a PIL image or a NumPy array."""
    array = decode.as_array(picture)
    if array is not None:
        return array
    if isinstance(picture, (str, os.PathLike)):
        if not os.path.exists(picture):
            raise decode.BadRecord("does not exist")
        return Path(picture)
    if isinstance(picture, Image.Image):
        return picture
    raise decode.BadRecord(
        f"is {type(picture).__name__}: a path, a PIL image or an array is wanted"
    )


def colors_of(*targets: np.ndarray, most: int = 254) -> np.ndarray:
    """The colours uint8 `[c, 3]` that stand for labels in painted targets uint8
    `[h, w, 3]`: most frequent first, without black, at most `most`.

    Targets with few colours keep them all, except rare blends of two others: these come
    from smooth edges. Such an edge is a line of pixels: a blend that fills a square of
    two by two is a small object. Targets with many colours were resized, or are JPEGs,
    unless nearly all fill such a square: there, rare colours and colours near a more
    frequent one are left out.
    """
    return exact_colors(*targets, most=most)[0]


def exact_colors(*targets: np.ndarray, most: int = 254) -> tuple[np.ndarray, bool]:
    """`colors_of`, and whether the targets are exact: not resized, and no JPEGs."""
    found, counts, solid = _counted(targets)
    order = np.argsort(-counts, kind="stable")
    if _all_meant(solid):
        kept, rare = found[order], counts[order] < _RARE * counts.sum()
        suspects = np.flatnonzero(rare & ~solid[order])
        blends = suspects[_are_blends(kept[suspects], kept[~rare])]
        kept = np.delete(kept, blends, 0)
        return kept[kept.any(-1)][:most], True
    chosen = [np.zeros(3, np.int64)]
    for color, count in zip(found[order].astype(np.int64), counts[order], strict=True):
        if count < _RARE * counts.sum() or len(chosen) > most:
            break
        if np.abs(np.stack(chosen) - color).sum(-1).min() > NEAR:
            chosen.append(color)
    return np.stack(chosen)[1:].astype(np.uint8), False


def _all_meant(solid: np.ndarray) -> bool:
    """Whether colours are all meant: there are few, or nearly all fill a square."""
    most = 2**8 if solid.sum() > _SOLID * len(solid) else FEW_COLORS
    return len(solid) <= most


def _counted(
    targets: Sequence[np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The colours uint8 `[c, 3]` of targets, how many pixels each has, and whether it
    fills a square of 2 x 2 pixels somewhere."""
    pixels = [target.reshape(-1, 3) for target in targets]
    found, index, counts = unique_colors(np.concatenate(pixels)[:, None])
    solid, at = np.zeros(len(found), bool), 0
    for target in targets:
        own = index[at : (at := at + target[..., 0].size)]
        solid[_in_squares(own.reshape(target.shape[:2]))] = True
    return found, counts, solid


def _in_squares(values: np.ndarray) -> np.ndarray:
    """The values of a map `[h, w]` that fill a square of 2 x 2 pixels somewhere."""
    corner = values[1:, 1:]
    others = values[:-1, 1:], values[1:, :-1], values[:-1, :-1]
    return np.unique(corner[np.logical_and.reduce([corner == x for x in others])])


def _are_blends(colors: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which of colours `[c, 3]` lie on a line between black or one of `ends` `[e, 3]`
    and another: bool `[c]`."""
    ends = np.concatenate([np.zeros((1, 3)), ends])
    start, end = ends[:, None, None], ends[None, :, None]
    along = end - start
    length = np.maximum((along**2).sum(-1), 1)
    share = np.clip(((colors - start) * along).sum(-1) / length, 0, 1)
    gap = np.abs(start + share[..., None] * along - colors).sum(-1)
    return (gap <= _ROUNDED).any((0, 1))


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 `[h, w, 3]` -> size (h, w), bicubic as the released engine does it."""
    resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(resized)


def resize_target(target: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture uint8 `[h, w, 3]` or a label map `[h, w]` -> size (h, w), by nearest
    pixel as in the released engine."""
    resized = Image.fromarray(target).resize(size[::-1], Image.Resampling.NEAREST)
    return np.asarray(resized)


def painted_over(painting: np.ndarray, image: np.ndarray) -> bool:
    """Whether a painting is the image, both uint8 `[h, w, 3]`, with paint over it."""
    h, w = image.shape[:2]
    size = min(h, 256), min(w, 256)  # enough to tell
    marks, shown = resize_target(painting, size), resize_target(image, size)
    drawn = marks.any(-1)
    same = drawn & (np.abs(marks.astype(int) - shown).sum(-1) <= _SAME)
    if not _OVER * drawn.sum() <= same.sum() < drawn.sum():
        return False
    tones = np.bincount((marks[same] >> 4).astype(int) @ [256, 16, 1])
    covered = np.cumsum(np.sort(tones)[::-1])
    return int(np.searchsorted(covered, covered[-1] / 2)) + 1 >= _TONES


def overlay(image: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """An image with its segmentation over it, uint8 `[h, w, 3]`: labelled pixels are 60
    percent colour (`tint`), the background is unchanged. A line along the inside of
    each region is black, of dark colours white: white on a bright object would not be
    seen."""
    mixed = image * np.float32(0.4) + tint(colors) * np.float32(0.6)
    labelled = colors.any(-1, keepdims=True)
    shown = np.where(labelled, mixed, image).round().astype(np.uint8)
    edge = _edges(colors) & colors.any(-1)
    shown[edge] = np.where(colors[edge].mean(-1, keepdims=True) < 96, 255, 0)
    return shown


def tint(colors: np.ndarray) -> np.ndarray:
    """Colours `[..., 3]` as an overlay has them, uint8: red for white. White over a
    photograph looks like the thing bleached, or like nothing over a bright one."""
    white = (colors == 255).all(-1, keepdims=True)
    return np.where(white, _RED, colors).astype(np.uint8)


def _edges(colors: np.ndarray) -> np.ndarray:
    """Where another colour is near, bool `[h, w]`; wider in large images."""
    near = np.zeros(colors.shape[:2], bool)
    width = max(1, round(max(near.shape) / _LINE))
    for axis in (0, 1):
        along, found = np.moveaxis(colors, axis, 0), np.moveaxis(near, axis, 0)
        for step in range(1, min(width, len(along) - 1) + 1):
            apart = (along[step:] != along[:-step]).any(-1)
            found[step:] |= apart
            found[:-step] |= apart
    return near


def label_png(segments: np.ndarray) -> bytes:
    """Labels `[h, w]`, or a mask of bool, as a PNG in colours far apart, by
    `save_labels`."""
    palette = with_black(spread_palette(max(1, int(segments.max()))))
    file = io.BytesIO()
    save_labels(file, segments, by_label(np.arange(len(palette)), palette))
    return file.getvalue()


def save_labels(file: File, segments: np.ndarray, palette: dict[int, tuple]) -> None:
    """Writes labels as a PNG: with their palette, as DAVIS does, or in 16 bits if a
    label is above 255."""
    if max(palette) > 255:
        Image.fromarray(segments.astype(np.uint16)).save(file, format="PNG")
        return
    image = Image.fromarray(segments.astype(np.uint8))
    table = np.zeros((256, 3), np.uint8)
    for label, color in palette.items():
        table[label] = color
    image.putpalette(table.tobytes())
    image.save(file, format="PNG")
