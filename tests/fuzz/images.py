"""Pictures of every form, intact and damaged, read by `pictures.images.read_image`.

What was written is the second reading: the pixels are made as numbers, and the table of
docs/data.md, "Images", is applied to these. JPEG, lossy, is held against OpenCV.
"""

import io
import struct
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import tifffile
from PIL import ExifTags, Image

from seggpt_jax.pictures import images
from tests.fuzz import png
from tests.fuzz.outcomes import Wrong, check_equal, damaged, new_file, refusing

_QUOTED = "cannot be read:"


class Made(NamedTuple):
    """A picture. right: the pixels uint8 `[h, w, 3]` that it must be read as; None
    where it must be refused. near: how far a channel may be from that. checked: a
    damaged file is either refused or the same, as the format has sums."""

    name: str
    content: Any
    right: np.ndarray | None
    near: int = 0
    bits: int = 16
    checked: bool = False
    rare: bool = False


def start(home: Path) -> None:
    Image.init()


def attempt(rng: np.random.Generator, folder: Path, started: None) -> None:
    made = _FORMS[rng.integers(len(_FORMS))](rng)
    if not isinstance(made.content, bytes):
        return _check(made, made.content, "picture")
    name, content, way = made.name, made.content, ""
    if rng.random() < 0.1:  # a suffix says nothing
        name = f"{Path(name).stem}{rng.choice(['.png', '.jpg', '.tif', '', '.txt'])}"
    if rng.random() < 0.5:
        way, content = damaged(rng, content)
    path = new_file(folder, name, content)
    picture = path if rng.random() < 0.8 else str(path)
    if not way:
        return _check(made, picture, name)
    lossless = made.right is not None and not made.near
    known = lossless and (way in ("cut", "more") or made.checked)
    with refusing(name, quoted=_QUOTED):
        shown = images.read_image(picture, bits=made.bits)
        if known:
            check_equal(shown.pixels, made.right, f"{name} ({way})")


def _check(made: Made, picture: Any, name: str) -> None:
    try:
        with refusing(name, quoted=_QUOTED):
            shown = images.read_image(picture, "picture", made.bits)
    except Exception as error:
        if made.right is None or made.rare or isinstance(error, Wrong):
            raise
        raise Wrong(f"an intact picture is refused: {error}") from error
    if made.right is None and made.rare:
        return
    if made.right is None:
        raise Wrong(f"{made.name} is to be refused, and was read")
    check_equal(shown.pixels, made.right, made.name, made.near)


def _size(rng: np.random.Generator) -> tuple[int, int]:
    return tuple(int(n) for n in rng.integers(1, rng.choice([4, 40]), 2))


def _on_white(pixels: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """pixels uint8 `[h, w, c]` of 1 or 3 channels over white, by shares `[h, w]`."""
    shown = np.repeat(pixels, 3, -1) if pixels.shape[-1] == 1 else pixels
    if alpha is None:
        return shown
    share = alpha[..., None] / 255
    return np.floor(shown * share + 255 * (1 - share) + 0.5).astype(np.uint8)


def _png(rng: np.random.Generator) -> Made:
    kind = int(rng.choice(list(png.CHANNELS)))
    depth = int(rng.choice(png.DEPTHS[kind]))
    bits = int(rng.integers(9, 17)) if depth == 16 and rng.random() < 0.5 else 16
    size = _size(rng)
    values = rng.integers(0, 1 << min(depth, bits), (*size, png.CHANNELS[kind]))
    if kind in (png.GREY_ALPHA, png.RGBA) and depth == 16:
        values[..., -1] = rng.integers(0, 1 << 16, size)
    palette, clear = None, b""
    colors, alpha = values, None
    if kind == png.INDEX:
        palette = rng.integers(0, 256, (1 << depth, 3)).astype(np.uint8)
        colors = palette[values[..., 0]]
        if rng.random() < 0.5:
            shares = rng.integers(0, 256, rng.integers(1, 1 + len(palette)))
            clear = bytes(shares.tolist())
            table = np.full(256, 255)
            table[: len(shares)] = shares
            alpha = table[values[..., 0]]
    else:
        colors = values[..., :3] if kind in (png.RGB, png.RGBA) else values[..., :1]
        upper = min(depth, bits) - 8 if depth == 16 else 0
        colors = colors >> upper if depth >= 8 else colors * 255 // ((1 << depth) - 1)
        if kind in (png.GREY_ALPHA, png.RGBA):
            alpha = values[..., -1] >> (8 if depth == 16 else 0)
        elif rng.random() < 0.4:
            picked = values[rng.integers(size[0]), rng.integers(size[1])]
            clear = struct.pack(f">{len(picked)}H", *picked.tolist())
            alpha = np.where((values == picked).all(-1), 0, 255)
    interlaced = bool(rng.random() < 0.4)
    content = png.write(values, depth, kind, interlaced, palette, clear)
    right = _on_white(colors.astype(np.uint8), alpha)
    rare = kind == png.GREY_ALPHA and bits < 16
    name = f"kind{kind}-{depth}{'i' * interlaced}{'t' * bool(clear)}.png"
    return Made(name, content, right, 0, bits, True, rare)


# Modes that each format of Pillow keeps as they are, and its options.
_LOSSLESS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "PNG": ("1 L LA P RGB RGBA I;16", [{}, {"optimize": True}]),
    "BMP": ("1 L P RGB", [{}]),
    "DIB": ("1 L P RGB", [{}]),
    "GIF": ("1 L P", [{}, {"interlace": 0}]),
    "TIFF": ("1 L LA P RGB RGBA CMYK I;16", [
        {}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"},
        {"compression": "packbits"}, {"big_tiff": True},
    ]),
    "WEBP": ("RGB RGBA", [{"lossless": True, "exact": True}]),
    "PPM": ("1 L RGB I;16", [{}]),
    "TGA": ("L LA P RGB RGBA", [{}, {"compression": "tga_rle"}]),
    "SGI": ("L RGB RGBA", [{}]),
    "QOI": ("RGB RGBA", [{}]),
    "IM": ("1 L P RGB", [{}]),
    "MSP": ("1", [{}]),
    "XBM": ("1", [{}]),
    "JPEG2000": ("L LA RGB RGBA", [{"irreversible": False}]),
    "DDS": ("L LA RGB RGBA", [{}]),
}  # fmt: skip


def _lossless(rng: np.random.Generator) -> Made:
    kind = str(rng.choice(list(_LOSSLESS)))
    modes, options = _LOSSLESS[kind]
    mode = str(rng.choice(modes.split()))
    image, right = _of_mode(rng, mode, _size(rng))
    given = dict(options[rng.integers(len(options))])
    if kind == "WEBP" and not np.asarray(image)[..., 3:].any():
        image, right = _of_mode(rng, "RGB", image.size[::-1])
    if kind == "TIFF" and mode == "P" and given.get("compression") == "packbits":
        given = {}
    file = io.BytesIO()
    image.save(file, kind, **given)
    name = f"{mode.replace(';', '')}.{kind.lower()}"
    return Made(name, file.getvalue(), right, checked=kind == "PNG")


def _of_mode(rng, mode: str, size) -> tuple[Image.Image, np.ndarray]:
    """An image of a mode, and the pixels that it must be read as."""
    h, w = size
    values = rng.integers(0, 256, (h, w, 4)).astype(np.uint8)
    if mode == "1":
        on = values[..., 0] > 99
        image = Image.fromarray(on * np.uint8(255)).convert("1", dither=0)
        return image, _on_white((on * np.uint8(255))[..., None], None)
    if mode == "L":
        return Image.fromarray(values[..., 0]), _on_white(values[..., :1], None)
    if mode == "LA":
        image = Image.merge("LA", [Image.fromarray(values[..., i]) for i in (0, 3)])
        return image, _on_white(values[..., :1], values[..., 3])
    if mode == "P":
        palette = rng.integers(0, 256, (256, 3)).astype(np.uint8)
        image = Image.fromarray(values[..., 0])
        image.putpalette(palette.tobytes())
        return image, palette[values[..., 0]]
    if mode == "I;16":
        deep = rng.integers(0, 1 << 16, (h, w)).astype(np.uint16)
        deep[0, 0] = 65535
        return Image.fromarray(deep), _on_white((deep >> 8).astype(np.uint8)[..., None],
                                                None)  # fmt: skip
    if mode == "CMYK":
        inks = values.astype(np.int64)
        image = Image.merge("CMYK", [Image.fromarray(values[..., i]) for i in range(4)])
        white, black = 255 - inks[..., :3], 255 - inks[..., 3:]
        mixed = white * black + 128  # as Pillow rounds a product of bytes
        return image, (((mixed >> 8) + mixed) >> 8).astype(np.uint8)
    if mode == "RGB":
        return Image.fromarray(values[..., :3].copy()), values[..., :3]
    return Image.fromarray(values), _on_white(values[..., :3], values[..., 3])


_TURNS = {1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1],
          4: lambda x: x[::-1], 5: lambda x: x.swapaxes(0, 1),
          6: lambda x: np.rot90(x, -1), 7: lambda x: np.rot90(x.swapaxes(0, 1), 2),
          8: lambda x: np.rot90(x)}  # fmt: skip


def _exif(rng: np.random.Generator) -> tuple[Image.Exif, int]:
    exif, turn = Image.Exif(), int(rng.integers(0, 11))
    exif[ExifTags.Base.Orientation] = turn
    if rng.random() < 0.5:
        exif[ExifTags.Base.Software] = "x" * int(rng.integers(1, 40))
    return exif, turn


def _jpeg(rng: np.random.Generator) -> Made:
    """Held against OpenCV, which has another decoder and turns the picture itself."""
    h, w = (int(n) for n in rng.integers(1, 40, 2))
    y, x = np.mgrid[:h, :w]
    slope = rng.uniform(-3, 3, (2, 4))
    smooth = np.clip(128 + y[..., None] * slope[0] + x[..., None] * slope[1], 0, 255)
    mode = str(rng.choice(["L", "RGB", "CMYK"]))
    bands = [Image.fromarray(smooth[..., i].astype(np.uint8)) for i in range(len(mode))]
    exif, turn = _exif(rng)
    file = io.BytesIO()
    Image.merge(mode, bands).save(
        file, "JPEG", quality=int(rng.integers(60, 101)),
        progressive=bool(rng.integers(2)), exif=exif,
    )  # fmt: skip
    content = file.getvalue()
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    seen = cv2.imdecode(np.frombuffer(content, np.uint8), flags)[..., ::-1]
    right = _TURNS.get(turn, _TURNS[1])(seen)
    return Made(f"{mode}{turn}.jpg", content, right, 8)


def _turned(rng: np.random.Generator) -> Made:
    """Lossless pictures with the orientation of a camera."""
    exif, turn = _exif(rng)
    kind = str(rng.choice(["PNG", "WEBP", "TIFF", "JPEG2000"]))
    image, right = _of_mode(rng, "RGB", _size(rng))
    file = io.BytesIO()
    given = {"lossless": True} if kind == "WEBP" else {}
    if kind == "JPEG2000":
        turn = 1  # it has no EXIF
    else:
        given["exif"] = exif
    image.save(file, kind, **given)
    right = _TURNS.get(turn, _TURNS[1])(right)
    return Made(f"turn{turn}.{kind.lower()}", file.getvalue(), right,
                checked=kind == "PNG")  # fmt: skip


def _tiff(rng: np.random.Generator) -> Made:
    """Forms of scientific programs, by tifffile. Pillow has not all of them."""
    dtype = np.dtype(str(rng.choice(["u1", "u2", "i2", "i4", "u4", "f4", "i1", "f8"])))
    h, w = (int(n) for n in rng.integers(1, 60, 2))
    count = int(rng.choice([1, 1, 3, 4]))
    bits = int(rng.integers(8, 17))
    shape = (h, w) if count == 1 else (h, w, count)
    top = min(1 << bits, np.iinfo(dtype).max + 1) if dtype.kind in "iu" else 2
    values = rng.integers(0, top, shape).astype(dtype)
    beyond = dtype.itemsize > 1 and dtype.kind in "iu" and rng.random() < 0.2
    if beyond:
        values.flat[0] = -1 if dtype.kind == "i" else min(np.iinfo(dtype).max, 99999)
    given: dict[str, Any] = {"photometric": "rgb" if count > 1 else "minisblack"}
    if rng.random() < 0.4:
        given["tile"] = (16, 16 * int(rng.integers(1, 3)))
    elif rng.random() < 0.5:
        given["rowsperstrip"] = int(rng.integers(1, h + 1))
    if rng.random() < 0.4:
        given["compression"] = "zlib"
        given["predictor"] = bool(rng.integers(2)) and dtype.kind in "iu"
    if count > 1 and rng.random() < 0.3:
        values, given["planarconfig"] = np.moveaxis(values, -1, 0), "separate"
    if count == 4:
        given["extrasamples"] = ["unassalpha"]
    if rng.random() < 0.1 and count == 1:
        given["photometric"] = "miniswhite"
    file = io.BytesIO()
    order = str(rng.choice(["<", ">"]))
    with tifffile.TiffWriter(
        file, byteorder=order, bigtiff=bool(rng.integers(2))
    ) as out:
        out.write(np.ascontiguousarray(values), **given)
    if given.get("planarconfig"):
        values = np.moveaxis(values, 0, -1)
    values = values.reshape(h, w, count).astype(np.int64)
    if given["photometric"] == "miniswhite":
        values = np.iinfo(dtype).max - values if dtype.kind in "iu" else values
    name = f"{dtype.name}-{count}-{'-'.join(given)}.tif"
    made = Made(name, file.getvalue(), None, bits=bits, rare=True)
    alpha = values[..., 3] >> 8 * (dtype.itemsize - 1) if count == 4 else None
    values = values[..., :3]
    deep = dtype.itemsize > 1
    if dtype.kind == "f" or values.min() < 0 or values.max() >> (bits if deep else 8):
        return made._replace(rare=False)
    upper = bits - 8 if deep else 0
    return made._replace(right=_on_white((values >> upper).astype(np.uint8), alpha))


def _pages(rng: np.random.Generator) -> Made:
    """Several pictures in a file are refused."""
    kind = str(rng.choice(["GIF", "TIFF", "WEBP", "PNG"]))
    frames = [_of_mode(rng, "RGB", (9, 7))[0] for _ in range(rng.integers(2, 4))]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return Made(f"pages.{kind.lower()}", file.getvalue(), None)


def _huge(rng: np.random.Generator) -> Made:
    """Heads that promise more than can be read, or nothing."""
    small = io.BytesIO()
    kind = str(rng.choice(["PNG", "BMP", "GIF", "TIFF", "PPM", "TGA"]))
    Image.fromarray(rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)).save(small, kind)
    data = bytearray(small.getvalue())
    w, h = (int(n) for n in rng.choice([0, 1, 20_000, 65_535, 1 << 20, 1 << 31], 2))
    if kind == "PNG":
        data[16:24] = struct.pack(">II", w, h)
        data[29:33] = png.chunk(b"IHDR", bytes(data[16:29]))[-4:]
    elif kind == "BMP":
        data[18:26] = struct.pack("<II", w, h)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", w & 65535, h & 65535)
    elif kind == "PPM":
        data[:] = data.replace(b"6 5", f"{w} {h}".encode(), 1)
    elif kind == "TGA":
        data[12:16] = struct.pack("<HH", w & 65535, h & 65535)
    elif kind == "TIFF":
        data[:] = data.replace(struct.pack("<HHII", 256, 4, 1, 6),
                               struct.pack("<HHII", 256, 4, 1, w))  # fmt: skip
        data[:] = data.replace(struct.pack("<HHII", 257, 4, 1, 5),
                               struct.pack("<HHII", 257, 4, 1, h))  # fmt: skip
    return Made(f"{w}x{h}.{kind.lower()}", bytes(data), None, rare=True)


def _array(rng: np.random.Generator) -> Made:
    """Arrays of every type and shape."""
    dtype = np.dtype(str(rng.choice(["u1", "u1", "u2", "?", "i4", "f4", "f8", "c8", "O",
                                     "i8", "U3", "f2"])))  # fmt: skip
    shape = tuple(int(n) for n in rng.integers(0, 6, rng.integers(0, 5)))
    if rng.random() < 0.7:
        shape = (4, 5) + (
            (int(rng.choice([1, 3, 4, 2])),) if rng.random() < 0.7 else ()
        )
    values = rng.integers(0, 250, shape).astype(dtype)
    count = 1 if len(shape) == 2 else shape[-1] if shape else 0
    good = len(shape) in (2, 3) and 0 not in shape and count in (1, 3, 4)
    if not good or dtype.name not in ("uint8", "uint16", "bool"):
        return Made("array", values, None)
    seen = np.asarray(values * 255 if dtype.kind == "b" else values)
    seen = (seen >> (8 if dtype == np.uint16 else 0)).astype(np.uint8)
    seen = seen.reshape(*shape[:2], count)
    alpha = seen[..., 3] if count == 4 else None
    return Made("array", values, _on_white(seen[..., :3], alpha))


def _no_picture(rng: np.random.Generator) -> Made:
    content = [
        b"", b"\0",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        b"<!DOCTYPE html><html></html>", b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.4\n%%EOF", b"PK\x03\x04" + bytes(40), b"GIF89a", b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"BM", b"P6\n",
        b"P6 3 3 255\n", b"P1 2 2\n1 0 2", b"P3 1 1 255 1 2", b"P7\n",
        b"RIFF\0\0\0\0WEBP",
        b"8BPS\0\1" + bytes(30), b"\0\0\1\0\1\0", bytes(rng.bytes(99)),
        b"DDS " + bytes(124),
        b"\0\0\0\x0cjP  \r\n\x87\n", b"\x00\x00\x00\x1cftypavif" + bytes(40), b"qoif",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n",
        b"SIMPLE  =                    T" + b" " * 50, b"\x01\xda" + bytes(510),
    ]  # fmt: skip
    return Made("some.png", content[rng.integers(len(content))], None)


_FORMS = (_png, _png, _png, _lossless, _lossless, _lossless, _jpeg, _jpeg, _turned,
          _tiff, _tiff, _pages, _huge, _array, _no_picture)  # fmt: skip
