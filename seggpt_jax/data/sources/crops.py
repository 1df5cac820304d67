"""Records that are cut out of larger images."""

import functools
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from seggpt_jax.data.decode import naming_errors, read_rgb


def cut(path: Path, box: Sequence[int]) -> bytes:
    """The part of an image within a box (left, top, right, bottom) as PNG, cut off at
    the end of a small image."""
    with naming_errors(str(path)):
        changed = path.stat().st_mtime_ns
    picture = _open(path, changed)
    left, top, right, bottom = box
    part = picture.crop(
        (left, top, min(right, picture.width), min(bottom, picture.height))
    )
    file = io.BytesIO()
    part.save(file, "PNG", compress_level=1)
    return file.getvalue()


@functools.lru_cache(maxsize=2)  # an image and its mask: up to 60 million pixels each
def _open(path: Path, changed: int) -> Image.Image:
    return Image.fromarray(read_rgb(path).pixels)
