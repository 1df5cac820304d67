"""Contact sheets: pictures in rows, to see what a score means."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_SMALL, _LARGE = 128, 256  # px: cells are brought to at least and at most this
_GAP, _STRIP, _FONT = 4, 18, 12  # px: between cells, lines of text, letters
_END = 16  # last letters of a caption that stay: they tell the score
_PAPER, _INK = (255, 255, 255), (0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Row:
    """Cells `[h, w, 3]` of one size, colours 0..255 of any dtype, and a caption.

    What exceeds the range, as a painting may, is clipped; nan becomes black.
    """

    cells: Sequence[np.ndarray]
    caption: str


def contact_sheet(rows: Sequence[Row], headings: Sequence[str]) -> np.ndarray:
    """A picture uint8 `[H, W, 3]`: headings, then each row's caption and its cells.

    Small cells grow by a whole factor, so that a pixel stays a square; large ones
    shrink. All cells must have one size, and each row one cell per heading.
    """
    sizes = {cell.shape for row in rows for cell in row.cells}
    counts = {len(row.cells) for row in rows}
    if len(sizes) != 1 or counts != {len(headings)}:
        raise ValueError(
            f"a contact sheet needs rows of {len(headings)} cells (one per heading) of "
            f"one size [h, w, 3], got counts {sorted(counts)}, sizes {sorted(sizes)}"
        )
    height, width = _cell_size(*sizes.pop()[:2])
    step_x, step_y = width + _GAP, height + _STRIP + _GAP
    sheet = Image.new(
        "RGB", (_GAP + len(headings) * step_x, _STRIP + len(rows) * step_y), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT)
    for j, heading in enumerate(headings):
        draw.text((_GAP + j * step_x, 1), heading, _INK, font)
    for i, row in enumerate(rows):
        top = _STRIP + i * step_y
        caption = _shortened(row.caption, font, sheet.width - 2 * _GAP)
        draw.text((_GAP, top + 1), caption, _INK, font)
        for j, cell in enumerate(row.cells):
            picture = _resized(cell, height, width)
            sheet.paste(picture, (_GAP + j * step_x, top + _STRIP))
    return np.asarray(sheet)


def _shortened(caption: str, font: Any, width: int) -> str:
    """The caption, without letters of its middle where it is wider than so many
    pixels."""
    shown, kept = caption, len(caption)
    while font.getlength(shown) > width and kept > _END:
        kept -= 1
        shown = f"{caption[: kept - _END]}…{caption[-_END:]}"
    return shown


def _cell_size(height: int, width: int) -> tuple[int, int]:
    """The size shown; one side alone decides, the aspect stays."""
    if max(height, width) > _LARGE:
        scale = _LARGE / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))
    factor = max(1, math.ceil(_SMALL / max(height, width)))
    return factor * height, factor * width


def _resized(cell: np.ndarray, height: int, width: int) -> Image.Image:
    rgb = np.clip(np.nan_to_num(cell), 0, 255).round().astype(np.uint8)
    enlarged = height >= rgb.shape[0]
    how = Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX
    return Image.fromarray(rgb).resize((width, height), how)
