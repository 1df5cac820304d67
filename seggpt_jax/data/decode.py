"""Image and mask files as arrays. A file that cannot be used raises `BadRecord`."""

import contextlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from seggpt_jax.data.sample import BadRecord

File = Path | io.BytesIO

MAX_PIXELS = 2**26  # 67 million; the largest aerial images have 60 million
MAX_VALUE = 2**16 - 1  # masks have 8 or 16 bits
GREY_16 = ("I", "I;16", "I;16L", "I;16B")
MASK_MODES = ("1", "L", "P", *GREY_16)
# The errors of Pillow for damaged files; each format has its own.
BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, OverflowError, struct.error, zlib.error,
    TypeError, AttributeError,  # damaged EXIF
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


@contextlib.contextmanager
def naming_errors(
    where: str, remedy: str = "replace the file or remove its row"
) -> Iterator[None]:
    """Puts `where`, the name of the file, before the text of a `BadRecord`. An error of
    Pillow becomes a `BadRecord`, which ends with `remedy`."""
    try:
        yield
    except BadRecord as error:
        raise BadRecord(f"{where} {error}") from None
    except BROKEN as error:
        # Pillow names files, but for those in memory it has only an address.
        text = re.sub(r" <_io\.BytesIO.*?>", "", str(error)) or type(error).__name__
        raise BadRecord(f"{where} cannot be read: {text}; {remedy}") from error


def check_size(image: Image.Image) -> None:
    """Refuses a file with no pixels or too many, before it is decoded."""
    width, height = image.size
    if not width or not height:
        raise BadRecord(f"has no pixels ({width} x {height}); remove its row")
    if width * height > MAX_PIXELS:
        raise BadRecord(
            f"has {width} x {height} pixels, more than {MAX_PIXELS}; scale it down"
        )


def check_depth(mask: Image.Image) -> None:
    """Refuses 2 or 4 bits of grey: Pillow stretches them to 0..255, so ids change."""
    tile = getattr(mask, "tile", None)
    if mask.format == "PNG" and tile and tile[0][3] in ("L;2", "L;4"):
        raise BadRecord("has 2 or 4 bits of grey; save it with 8 bits or a palette")


def read_mask(file: File) -> np.ndarray:
    """The values of a mask `[h, w]`, 0..65535, of an integer dtype."""
    with Image.open(file) as mask:
        check_size(mask)
        if mask.format == "JPEG":
            raise BadRecord("is a JPEG, which changes mask values; save masks as PNG")
        if mask.mode not in MASK_MODES:
            raise BadRecord(
                f"has colours (mode {mask.mode}) instead of class ids; docs/data.md "
                f"shows how to turn colours into ids"
            )
        check_depth(mask)
        if mask.format == "GIF" and mask.mode == "P" and is_grey(mask):
            # Encoders renumber the palette of a grey GIF, but keep its grey values.
            return np.array(mask.convert("L"))
        values = np.array(mask)
    if mask.mode == "1":
        return values * np.uint8(255)
    if mask.mode == "I" and not 0 <= values.min() <= values.max() <= MAX_VALUE:
        raise BadRecord(f"has values outside 0 to {MAX_VALUE}; save it with 16 bits")
    return values


def is_grey(image: Image.Image) -> bool:
    palette = np.array(image.getpalette()).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def read_grey(file: File) -> np.ndarray:
    """A mask of any mode as brightness uint8 `[h, w]`."""
    with Image.open(file) as mask:
        check_size(mask)
        return np.array(mask.convert("L"))


def read_colors(file: File) -> np.ndarray:
    """A mask whose ids are colours: 0xBBGGRR of each pixel, int32 `[h, w]`."""
    with Image.open(file) as mask:
        check_size(mask)
        # RGBA as one little-endian number: faster than to sum three channels.
        rgba = np.array(mask.convert("RGB").convert("RGBA"))
    return rgba.view("<i4")[..., 0] & 0xFFFFFF


def read_image(
    file: File, size: tuple[int, ...] | None, mask_name: object
) -> np.ndarray:
    """An image uint8 `[h, w, 3]`. size: (h, w) of its mask, which it must have; None
    for no mask."""
    with Image.open(file) as image:
        check_size(image)
        image.load()  # Pillow turns a TIFF by itself
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        # A camera's tag is followed only if the mask is that of the turned image.
        turned = image.size[::-1] if orientation >= 5 else image.size
        if size is not None and orientation != 1 and turned == size[::-1]:
            ImageOps.exif_transpose(image, in_place=True)
        if size is not None and image.size != size[::-1]:
            raise BadRecord(
                f"is {image.width} x {image.height}, but its mask {mask_name} is "
                f"{size[1]} x {size[0]}; scale the mask (nearest) to the image's size"
            )
        return to_rgb(image)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Any picture as uint8 `[h, w, 3]`; transparency is dropped."""
    if image.mode in GREY_16:
        values = np.asarray(image)
        if image.mode == "I" and not 0 <= values.min() <= values.max() <= MAX_VALUE:
            raise BadRecord(f"has values outside 0 to {MAX_VALUE}; save it with 8 bits")
        # Pillow clips 16 bits to 8; keep the upper 8, as it does for 16-bit RGB.
        return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode == "F":
        raise BadRecord("has floating-point pixels; save it with 8 bits per channel")
    if "transparency" in image.info:  # Pillow warns when it is dropped directly
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))
