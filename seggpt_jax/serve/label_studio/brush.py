"""Label Studio's run lengths of brush masks: bits, as @thi.ng/rle-pack packs them.

A head of 53 bits: the number of values (32), the bits of a value less one (5), and the
bits of a length, four choices, each less one (4 x 4). Then tokens: one bit, whether a
value is repeated; the choice of a length (2); the length less one; and the value, or as
many values. The values are the channels of a picture `[h, w, 4]`, whose alpha is the
mask.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

_HEAD = 32 + 5 + 4 * 4
_SIZES = (3, 4, 8, 16)  # bits of a length
_WORD = 8
_SHORT = "the run lengths end too early"


def encode(mask: np.ndarray) -> list[int]:
    """A mask bool `[h, w]` as bytes 0..255."""
    flat = mask.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0], edges])
    lengths = 4 * np.diff(np.concatenate([starts, [flat.size]]))
    values = np.where(flat[starts], 255, 0)
    longest = 1 << _SIZES[-1]  # longer runs are several
    counts = -(-lengths // longest)
    values = np.repeat(values, counts)
    last = np.cumsum(counts) - 1
    rest = lengths - (counts - 1) * longest
    lengths = np.full(len(values), longest)
    lengths[last] = rest
    choice = np.searchsorted(np.left_shift(1, _SIZES), lengths)
    width = np.take(_SIZES, choice)
    token = (((4 | choice) << width | lengths - 1) << _WORD) | values
    head = sum((size - 1) << 4 * (3 - i) for i, size in enumerate(_SIZES))
    numbers = np.concatenate([[4 * mask.size, (_WORD - 1) << 16 | head], token])
    widths = np.concatenate([[32, 21], 3 + width + _WORD])
    return np.packbits(_bits(numbers, widths)).tolist()


def decode(packed: Sequence[Any], size: tuple[int, int]) -> np.ndarray:
    """The mask bool `[h, w]` of a size (h, w). packed: any values, as a request has
    them. Raises ValueError for what is no mask of it."""
    height, width = size
    try:
        data = bytes(packed)
    except (TypeError, ValueError):
        raise ValueError("the run lengths are not numbers from 0 to 255") from None
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    count = 4 * height * width
    if len(bits) < _HEAD or _cut(data, 0, 32) != count:
        raise ValueError(f"the run lengths are not of a mask of {width} x {height}")
    word = _cut(data, 32, 5) + 1
    sizes = [_cut(data, place, 4) + 1 for place in range(37, _HEAD, 4)]
    weights = 1 << np.arange(word)[::-1]
    values: np.ndarray = np.zeros(count, np.uint8 if word <= 8 else np.uint32)
    filled, at = 0, _HEAD
    while filled < count:
        lead = _cut(data, at, 3)
        size_ = sizes[lead & 3]
        stop = min(filled + _cut(data, at + 3, size_) + 1, count)
        at += 3 + size_
        if lead & 4:
            values[filled:stop] = _cut(data, at, word)
            at += word
        else:
            end = at + word * (stop - filled)
            if end > len(bits):
                raise ValueError(_SHORT)
            values[filled:stop] = bits[at:end].reshape(-1, word) @ weights
            at = end
        filled = stop
    alpha = values.reshape(height, width, 4)[..., 3]
    # Strokes have soft edges. What is opaque has the value 255, or 1 in some exports.
    return (alpha > 0) & (alpha >= alpha.max(initial=0) / 2)


def _cut(data: bytes, start: int, count: int) -> int:
    """The number in `count` bits from bit `start` on."""
    stop = start + count
    if stop > 8 * len(data):
        raise ValueError(_SHORT)
    number = int.from_bytes(data[start // 8 : -(-stop // 8)], "big")
    return number >> -stop % 8 & (1 << count) - 1


def _bits(numbers: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Numbers of so many bits each, one after the other: uint8 0 or 1."""
    stops = np.cumsum(widths)
    place = np.repeat(stops, widths) - np.arange(stops[-1]) - 1
    return (np.repeat(numbers, widths) >> place & 1).astype(np.uint8)
