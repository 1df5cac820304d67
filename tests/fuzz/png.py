"""A writer of PNG by its specification: forms that Pillow cannot write."""

import struct
import zlib

import numpy as np

GREY, RGB, INDEX, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, INDEX: 1, GREY_ALPHA: 2, RGBA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), INDEX: (1, 2, 4, 8),
          GREY_ALPHA: (8, 16), RGBA: (8, 16)}  # fmt: skip
# Adam7: first row and column, and the steps, of each pass.
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2),
           (0, 1, 2, 2), (1, 0, 2, 1))  # fmt: skip


def write(
    values: np.ndarray,
    depth: int,
    kind: int,
    interlaced: bool = False,
    palette: np.ndarray | None = None,
    clear: bytes = b"",
    more: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    """values: `[h, w, c]` of `depth` bits. palette: uint8 `[n, 3]`. clear: the content
    of tRNS. more: other chunks, before the pixels."""
    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    chunks = [(b"IHDR", header), *more]
    if palette is not None:
        chunks.append((b"PLTE", palette.tobytes()))
    if clear:
        chunks.append((b"tRNS", clear))
    parts = [values]
    if interlaced:
        parts = [values[y::down, x::right] for y, x, down, right in _PASSES]
    rows = b"".join(_rows(part, depth) for part in parts if part.size)
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def _rows(values: np.ndarray, depth: int) -> bytes:
    """Rows without a filter, each after its zero byte."""
    bits = (values[..., None] >> np.arange(depth)[::-1]) & 1
    packed = np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=-1)
    return np.pad(packed, ((0, 0), (1, 0))).tobytes()
