"""Pictures and masks as users have them, of any kind, and results as pictures."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from seggpt_jax.data.decode import (
    MASK_MODES,
    check_depth,
    check_size,
    naming_errors,
    to_rgb,
)
from seggpt_jax.data.sample import BACKGROUND, IGNORE

Picture = str | os.PathLike | Image.Image | np.ndarray

_REMEDY = "replace it, or save it anew as PNG"
_NEAR = 96  # L1 distance within which colours of a painted target are one label's
_RARE = 1e-3  # share of the pixels below which a colour is an edge's, nobody's label


def read_rgb(picture: Picture, name: str = "image") -> np.ndarray:
    """A picture as uint8 `[h, w, 3]`, turned as its EXIF says.

    picture: path, PIL image, or array uint8, uint16 or bool `[h, w]` or `[h, w, c]` of
    1, 3 or 4 channels; grey is repeated, transparency dropped, 16 bits cut to the upper
    8. name: what an error calls it if it has no path. Raises BadRecord (a ValueError).
    """
    if isinstance(picture, np.ndarray):
        return _array_rgb(picture, name)
    with naming_errors(_name(picture, name), _REMEDY):
        return to_rgb(_upright(picture))


def read_target(picture: Picture, name: str = "mask") -> np.ndarray:
    """A segmentation: labels int32 `[h, w]`, or colours uint8 `[h, w, 3]`.

    What has one channel, or a palette, holds labels: 0 background, 255 ignored, which
    here is background too; but one with no value other than 0 and 255 (or a bool one)
    is a binary mask, of label 1. What has three or four channels holds colours.
    """
    if isinstance(picture, np.ndarray):
        values = picture
        if values.ndim == 3 and values.shape[-1] != 1:
            return _array_rgb(values, name)
        if values.ndim == 3:
            values = values[..., 0]
    else:
        with naming_errors(_name(picture, name), _REMEDY):
            image = _upright(picture, check_depth)
            if image.mode not in MASK_MODES or image.format == "JPEG":
                return to_rgb(image)  # JPEG changes values: colours stand them better
            values = np.array(image)
    return _labels(values, _name(picture, name))


def colors_of(target: np.ndarray, most: int = 254) -> np.ndarray:
    """The colours uint8 `[c, 3]` that a painted target uint8 `[h, w, 3]` means, most
    frequent first, black left out.

    Blends at edges, as resizing and JPEG leave them, are rare or near another colour.
    """
    found, counts = np.unique(target.reshape(-1, 3), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    enough = max(1.0, _RARE * counts.sum())
    kept = [np.zeros(3, np.int64)]
    for color, count in zip(found[order], counts[order], strict=True):
        gaps = np.abs(np.stack(kept) - color).sum(-1)
        if count >= enough and gaps.min() > _NEAR:
            kept.append(color.astype(np.int64))
        if len(kept) > most + 1:
            break
    return np.stack(kept)[1:].astype(np.uint8)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 `[h, w, 3]` -> size (h, w), bicubic as the released engine does it."""
    how = Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize(size[::-1], how))


def resize_target(target: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 `[h, w, 3]` -> size (h, w), nearest as the released engine does it."""
    how = Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(target).resize(size[::-1], how))


def overlay(image: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """An image with its segmentation over it, uint8 `[h, w, 3]`; the background is left
    as it is, the labels' colours are mixed in by 60 percent."""
    mixed = image * np.float32(0.4) + colors * np.float32(0.6)
    labelled = colors.any(-1, keepdims=True)
    return np.where(labelled, mixed, image).round().astype(np.uint8)


def save_labels(path: Path, segments: np.ndarray, palette: dict[int, tuple]) -> None:
    """Writes labels as a PNG: with the palette (as DAVIS has them) up to 255, with 16
    bits beyond."""
    if segments.max(initial=0) > 255:
        Image.fromarray(segments.astype(np.uint16)).save(path, format="PNG")
        return
    image = Image.fromarray(segments.astype(np.uint8))
    table = np.zeros((256, 3), np.uint8)
    for label, color in palette.items():
        table[label] = color
    image.putpalette(table.tobytes())
    image.save(path, format="PNG")


def _upright(
    picture: str | os.PathLike | Image.Image,
    check: Callable[[Image.Image], None] = lambda image: None,
) -> Image.Image:
    """Loaded, and turned as its EXIF says; `check` sees it before."""
    if not isinstance(picture, Image.Image):
        with Image.open(Path(picture)) as image:
            return _upright(image, check)
    check_size(picture)
    check(picture)
    picture.load()  # turns a TIFF by itself
    turned = ImageOps.exif_transpose(picture)
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
    labels = values.astype(np.int32)
    if set(np.unique(labels)) <= {0, 255}:
        return labels.astype(bool).astype(np.int32)
    labels[labels == IGNORE] = BACKGROUND
    return labels
