"""Reads users' pictures and masks of any kind, and draws results."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from seggpt_jax.colors import unique_colors
from seggpt_jax.data.decode import (
    MASK_MODES,
    File,
    check_depth,
    check_size,
    is_grey,
    naming_errors,
    to_rgb,
)
from seggpt_jax.data.sample import BACKGROUND, IGNORE

Picture = str | os.PathLike | Image.Image | np.ndarray

_REMEDY = "replace it, or save it anew as PNG"
_FEW = 32  # a target with more colours was resized, or is a JPEG
_NEAR = 96  # L1 distance within which colours of a painted target are one label's
_ROUNDED = 6  # L1 distance to the line between two colours that their blend may have
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RARE = 1e-3  # a colour of a smaller share of the pixels may belong to an edge


def read_rgb(picture: Picture, name: str = "image") -> np.ndarray:
    """A picture as uint8 `[h, w, 3]`, turned as its EXIF says.

    picture: path, PIL image, or array uint8, uint16 or bool `[h, w]` or `[h, w, c]` of
    1, 3 or 4 channels. Grey is repeated, transparency dropped, 16 bits cut to the upper
    8. name: stands in errors for a picture without a path. Raises BadRecord (a
    ValueError).
    """
    if isinstance(picture, np.ndarray):
        return _array_rgb(picture, name)
    with naming_errors(_name(picture, name), _REMEDY):
        return to_rgb(_upright(picture))


def read_target(picture: Picture, name: str = "mask") -> np.ndarray:
    """A segmentation: labels int32 `[h, w]`, or colours uint8 `[h, w, 3]`.

    A picture with one channel or a palette holds labels; a bool one holds label 1. A
    picture with three or four channels holds colours. So does every JPEG, because its
    values are not exact.
    """
    if isinstance(picture, np.ndarray):
        values = picture
        if values.ndim == 3 and values.shape[-1] != 1:
            return _array_rgb(values, name)
        return _labels(values[..., 0] if values.ndim == 3 else values, name)
    with naming_errors(_name(picture, name), _REMEDY):
        image = _upright(picture, check_depth)
        if image.mode in ("LA", "La"):
            image = image.getchannel(0)
        elif image.mode not in MASK_MODES or image.format == "JPEG":
            return to_rgb(image)
        if image.format == "GIF" and image.mode == "P" and is_grey(image):
            image = image.convert("L")  # its numbers are the encoder's, not the user's
        values = np.array(image)
    return _labels(values, _name(picture, name))


def without_ignored(targets: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Label maps with ignored pixels (255) turned into background.

    Maps with no other values than 0 and 255 are binary masks: 255 becomes label 1.
    """
    values = set(np.concatenate([np.unique(target) for target in targets]).tolist())
    label = 1 if values <= {BACKGROUND, IGNORE} else BACKGROUND
    return [np.where(target == IGNORE, label, target) for target in targets]


def colors_of(target: np.ndarray, most: int = 254) -> np.ndarray:
    """The colours uint8 `[c, 3]` that stand for labels in a painted target uint8
    `[h, w, 3]`: most frequent first, without black, at most `most`.

    A target with few colours keeps them all, except rare blends of two others: these
    come from smooth edges. A target with many colours was resized or is a JPEG: there,
    rare colours and colours near a more frequent one are left out.
    """
    found, _, counts = unique_colors(target)
    order = np.argsort(-counts, kind="stable")
    if len(found) <= _FEW:
        kept, rare = found[order], counts[order] < _RARE * counts.sum()
        kept = kept[~rare | ~_are_blends(kept, kept[~rare])]
        return kept[kept.any(-1)]
    chosen = [np.zeros(3, np.int64)]
    for color, count in zip(found[order].astype(np.int64), counts[order], strict=True):
        if count < _RARE * counts.sum() or len(chosen) > most:
            break
        if np.abs(np.stack(chosen) - color).sum(-1).min() > _NEAR:
            chosen.append(color)
    return np.stack(chosen)[1:].astype(np.uint8)


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


def overlay(image: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """An image with its segmentation over it, uint8 `[h, w, 3]`: labelled pixels are 60
    percent colour, the background is unchanged."""
    mixed = image * np.float32(0.4) + colors * np.float32(0.6)
    labelled = colors.any(-1, keepdims=True)
    return np.where(labelled, mixed, image).round().astype(np.uint8)


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


def _upright(
    picture: str | os.PathLike | Image.Image,
    check: Callable[[Image.Image], None] = lambda image: None,
) -> Image.Image:
    """A loaded picture, turned as its EXIF says; `check` is called before loading."""
    if not isinstance(picture, Image.Image):
        with Image.open(Path(picture)) as image:
            return _upright(image, check)
    check_size(picture)
    check(picture)
    picture.load()  # turns a TIFF by itself
    turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    turned = picture.copy() if turn is None else picture.transpose(turn)
    turned.format = picture.format
    return turned


def _name(picture: Picture, name: str) -> str:
    if isinstance(picture, (np.ndarray, Image.Image)):
        return getattr(picture, "filename", "") or name
    return os.fspath(picture)


def _array_rgb(values: np.ndarray, name: str) -> np.ndarray:
    shape = values.shape
    channels = 1 if values.ndim == 2 else shape[-1]
    if values.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in shape:
        raise ValueError(
            f"{name} {shape}: an array [h, w], or [h, w, c] of 1, 3 or 4 channels, is "
            "wanted"
        )
    if values.dtype == np.uint16:
        values = (values >> 8).astype(np.uint8)
    elif values.dtype == bool:
        values = values * np.uint8(255)
    if values.dtype != np.uint8:
        raise ValueError(f"{name} is {values.dtype}: an array of uint8 is wanted")
    values = values.reshape(*shape[:2], channels)
    return np.repeat(values, 3, 2) if channels == 1 else values[..., :3]


def _labels(values: np.ndarray, name: str) -> np.ndarray:
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{name} {values.shape}: labels [h, w] are wanted")
    if not (np.issubdtype(values.dtype, np.integer) or values.dtype == bool):
        raise ValueError(f"{name} is {values.dtype}: labels are integers, or bool")
    if not 0 <= values.min() <= values.max() < 2**16:
        raise ValueError(f"{name} has labels outside 0 to 65535")
    return values.astype(np.int32)
