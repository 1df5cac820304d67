"""The names of classes beneath an overlay, each beside its colour there."""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from seggpt_jax.pictures.images import tint

_PAPER, _INK = (255, 255, 255), (0, 0, 0)
_SMALLEST, _LARGEST = 11, 64  # px: letters
_LINE = 40  # letters of the longer side of a picture that the strip is made for


def with_legend(
    picture: np.ndarray, entries: Iterable[tuple[str, Sequence[int]]]
) -> np.ndarray:
    """An overlay uint8 `[h, w, 3]` with a strip of (name, colour of the painting)
    beneath it, in as many lines as they need. Colours are shown as in the overlay
    (`tint`). The pixels of the picture stay as they are; without entries
    there is no strip."""
    strip = _strip(picture.shape[1], max(picture.shape[:2]), list(entries))
    return np.concatenate([picture, strip])


def _strip(
    width: int, side: int, entries: Sequence[tuple[str, Sequence[int]]]
) -> np.ndarray:
    """uint8 `[h, width, 3]`, of an even height, as videos need."""
    size = min(max(side // _LINE, _SMALLEST), _LARGEST)
    font, gap, line = ImageFont.load_default(size), size // 2, 2 * (3 * size // 4)
    places, x, y = [], gap, 0
    for name, color in entries:
        wide = size + gap + round(font.getlength(name))
        if x > gap and x + wide > width:
            x, y = gap, y + line
        places.append((x, y, name, tuple(tint(np.array(color)).tolist())))
        x += wide + 2 * gap
    height = y + line if places else 0
    strip = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(strip)
    for x, y, name, color in places:
        middle = y + line // 2
        box = (x, middle - size // 2, x + size - 1, middle + (size - 1) // 2)
        draw.rectangle(box, color, _INK)
        draw.text((x + size + gap, middle), name, _INK, font, "lm")
    return np.asarray(strip)
