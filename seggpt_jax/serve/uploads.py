"""Pictures that clients send: opened from memory, and refused by their heads."""

import io
from collections.abc import Sequence
from pathlib import PurePosixPath

from fastapi import HTTPException
from PIL import Image, UnidentifiedImageError

from seggpt_jax.config import counted
from seggpt_jax.data.decode import BOMBS, BROKEN, MAX_PIXELS, check_pages
from seggpt_jax.data.sample import BadRecord

FORMATS = {
    "PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif",
    "BMP": "image/bmp", "TIFF": "image/tiff",
}  # fmt: skip
Upload = tuple[str, bytes]  # the name that the client gave, and the content


def last_part(name: str | None, default: str) -> str:
    """The name of a client's file, without its folders. It stands in errors and
    results, and is never opened."""
    return PurePosixPath((name or "").replace("\\", "/")).name or default


def open_pictures(uploads: Sequence[Upload], megapixels: int) -> list[Image.Image]:
    """Opens files, which are decoded later. Raises HTTPException 415 for a file that is
    no picture, and 413 for too many pixels."""
    opened = [_open(name, content) for name, content in uploads]
    pixels = 0
    for (name, _), image in zip(uploads, opened, strict=True):
        own = image.width * image.height
        pixels += own
        if pixels > megapixels * 1_000_000:
            before = "" if image is opened[0] else " with the pictures before it"
            raise HTTPException(
                413,
                f"{name} ({image.width} x {image.height}){before} has more than "
                f"{counted(megapixels, 'megapixel')}, this server's limit",
            )
        if own > MAX_PIXELS:  # the library takes no larger one
            raise HTTPException(
                413,
                f"{name} has {image.width} x {image.height} pixels, more than "
                f"{MAX_PIXELS}; scale it down",
            )
    return opened


def _open(name: str, content: bytes) -> Image.Image:
    try:
        # From memory: Pillow opens an image's `filename` again, and here it has none.
        image = Image.open(io.BytesIO(content), formats=list(FORMATS))
        check_pages(image)
        return image
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise HTTPException(415, f"{name} is no picture of {known}") from None
    except BOMBS as error:
        raise HTTPException(413, f"{name} has too many pixels: {error}") from None
    except BadRecord as error:
        raise HTTPException(415, f"{name} {error}") from None
    except BROKEN as error:
        raise HTTPException(415, f"{name} cannot be read: {error}") from None
