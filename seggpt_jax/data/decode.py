"""Opens picture files, and reads images. What cannot be used raises `BadRecord`."""

import contextlib
import io
import os
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from seggpt_jax.config import require
from seggpt_jax.data.sample import BadRecord

# HEIC, the photographs of phones. The plugin turns them upright as they say.
with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)


@runtime_checkable
class Array(Protocol):
    """An array of NumPy, jax or torch."""

    def __array__(self) -> np.ndarray: ...


File = str | os.PathLike | io.BytesIO
Picture = File | Image.Image | Array

MAX_PIXELS = 2**26  # 67 million; the largest aerial images have 60 million
MAX_VALUE = 2**16 - 1  # masks have 8 or 16 bits
GROUND = 255  # images lie on white, which shows through where they are transparent
DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # more than 8 bits, whole numbers
# The errors of Pillow for far more pixels than that.
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# The errors of Pillow for damaged files; each format has its own.
BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError,
    NotImplementedError, struct.error, zlib.error,
    TypeError, AttributeError,  # damaged EXIF
    *BOMBS,
)  # fmt: skip
HEIC = (".heic", ".heif")
HEIC_REMEDY = "pip install 'seggpt_jax[heic]'"
# Bytes 4 to 12 of such a file (ISO/IEC 23008-12), for one image or several.
_HEIC_BEGINS = tuple(
    b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
)
_LAYERED = ("MPO", "PSD")  # the first page is the picture; the others belong to it
_PART_OF_ANOTHER = 1 | 4  # tag 254 of a TIFF page: a small copy, or a mask of another
_BACK = {6: 8, 8: 6}  # the orientation that undoes one; all others undo themselves
_CHANNELS_LAST = "channels stand last: np.moveaxis(x, 0, -1), or x.permute(1, 2, 0)"


class Remark(NamedTuple):
    """Something about a picture that a user should know. what: the same for all
    pictures that have it. detail: of this one."""

    what: str
    detail: str


class Upright(NamedTuple):
    """An image uint8 `[h, w, 3]`, upright. orientation: the EXIF tag that was followed;
    1 where there was none."""

    pixels: np.ndarray
    orientation: int = 1
    remarks: tuple[Remark, ...] = ()


@contextlib.contextmanager
def naming_errors(
    where: str, remedy: str = "replace the file or leave it out"
) -> Iterator[None]:
    """Puts `where`, the name of the file, before the text of a `BadRecord`. An error of
    Pillow becomes a `BadRecord`, which ends with `remedy`."""
    try:
        yield
    except BadRecord as error:
        raise BadRecord(f"{where} {error}") from None
    except BOMBS as error:
        found = re.search(r"\d+ pixels", str(error))
        raise BadRecord(
            f"{where} has {found[0] if found else 'too many pixels'}, more than "
            f"{MAX_PIXELS}; scale it down"
        ) from error
    except BROKEN as error:
        raise BadRecord(f"{where} cannot be read: {_cause(error)}; {remedy}") from error


def _cause(error: BaseException) -> str:
    """Why a file cannot be read. The words of Python itself, where a decoder stumbled
    over damage, tell a user nothing."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # Pillow names the file once more, or an address in memory.
    text = " ".join(str(error).split())
    text = re.sub(r"(?<=^cannot identify image file) .*", "", text)
    text = re.sub(r"^b(['\"])(.*)\1$", r"\2", text)
    own = (TypeError, AttributeError, LookupError, ArithmeticError)
    raw = r"values to unpack|could not convert|invalid literal|codec can't"
    if not text or isinstance(error, own) or re.search(raw, text):
        return "it is damaged"
    return text


@contextlib.contextmanager
def opened(picture: Picture) -> Iterator[Image.Image]:
    """A picture that is not decoded yet, with pixels, not too many, and one page.

    An image that is open already stands at the page that its owner chose.
    """
    if isinstance(picture, Image.Image):
        check_size(picture)
        _check_known(picture)
        yield picture
        return
    if isinstance(picture, Array):
        raise TypeError("an array is no file")
    _check_sums(picture)
    with Image.open(picture) as image:
        check_size(image)
        check_pages(image)
        _check_known(image)
        yield image


def _check_sums(file: File) -> None:
    """Refuses a PNG that differs from its checksums. Pillow reads pixels without them:
    a flipped bit would be another label."""
    try:
        with Image.open(file) as image:
            if image.format == "PNG":
                image.verify()
    except UnidentifiedImageError:
        if "HEIF" not in Image.OPEN and _begin(file)[4:12] in _HEIC_BEGINS:
            raise BadRecord(f"is HEIC: {HEIC_REMEDY} to read it") from None
        raise
    if isinstance(file, io.BytesIO):
        file.seek(0)


def _begin(file: File) -> bytes:
    if isinstance(file, io.BytesIO):
        return file.getvalue()[:12]
    with open(file, "rb") as stream:
        return stream.read(12)


def _check_known(image: Image.Image) -> None:
    """Refuses forms of TIFF that Pillow reads wrongly, without a word."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags, white_is_zero, planes = image.tag_v2, 0, 2
    if max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) <= 8:
        return
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == white_is_zero:
        raise BadRecord("is white at 0 (TIFF, WhiteIsZero): save it with black at 0")
    if (
        tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == planes
        and len(image.getbands()) > 1
    ):
        raise BadRecord(
            "has each channel of 16 bits as a plane (TIFF, PlanarConfiguration 2): "
            "save it with its channels pixel by pixel"
        )


def check_size(image: Image.Image) -> None:
    """Refuses a file with no pixels or too many, before it is decoded."""
    width, height = image.size
    if not width or not height:
        raise BadRecord(f"has no pixels ({width} x {height})")
    if width * height > MAX_PIXELS:
        raise BadRecord(
            f"has {width} x {height} pixels, more than {MAX_PIXELS}; scale it down"
        )


def check_pages(image: Image.Image) -> None:
    """Refuses a file of several pictures."""
    if image.format in _LAYERED or not getattr(image, "is_animated", False):
        return
    pages = getattr(image, "n_frames", 1)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        parts = 0
        for page in range(1, pages):
            image.seek(page)
            parts += bool(image.tag_v2.get(254, 0) & _PART_OF_ANOTHER)
        image.seek(0)
        pages -= parts
    if pages > 1:
        raise BadRecord(
            f"has {pages} pages, and one picture is wanted: save each page as a file "
            "of its own"
        )


def orientation(image: Image.Image) -> int:
    """The EXIF tag, 1 to 8; 1 where there is none. Ask before the image is loaded:
    Pillow turns a TIFF then, and drops its tag."""
    tag = image.getexif().get(ExifTags.Base.Orientation, 1)
    return tag if tag in range(1, 9) else 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels `[h, w, ...]` turned as an EXIF tag says (EXIF 2.3, table 6)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    down = orientation in (3, 4, 7, 8)
    right = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if down else 1, :: -1 if right else 1]


def turned_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """An upright picture `[h, w, ...]` as it was stored."""
    return turned(pixels, _BACK.get(orientation, orientation))


def opacity(image: Image.Image) -> np.ndarray | None:
    """0, transparent, to 255: uint8 `[h, w]` of a loaded image; None without alpha."""
    if (last := image.getbands()[-1]) in ("A", "a"):
        return np.array(image.getchannel(last))
    clear = image.info.get("transparency")
    if clear is None:
        return None
    values = np.asarray(image)
    if image.mode == "P":  # an index, or the opacity of each
        table = np.full(256, 255, np.uint8)
        if isinstance(clear, bytes):
            table[: len(clear)] = np.frombuffer(clear[:256], np.uint8)
        else:
            table[clear] = 0
        return table[values]
    if image.mode == "1":
        values = values * np.uint8(255)
    same = values == np.asarray(clear)
    return np.where(same.all(-1) if same.ndim == 3 else same, 0, 255).astype(np.uint8)


def is_deep(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has several channels of 16 bits, of which
    Pillow keeps the upper 8."""
    tile = getattr(image, "tile", None)
    how = tile[0][3] if tile else ""
    raw = how[0] if isinstance(how, tuple) else how
    return ";16" in str(raw) and image.mode not in DEEP_GREY


def as_array(picture: object) -> np.ndarray | None:
    """A NumPy, jax or torch array as a NumPy array; None for anything else."""
    if not isinstance(picture, Array):
        return None
    if isinstance(picture, np.ma.MaskedArray) and np.ma.is_masked(picture):
        raise BadRecord("is a masked array: fill it with values first")
    try:
        return np.asarray(picture)
    except (TypeError, RuntimeError) as error:  # on a GPU, or with a gradient
        raise BadRecord(f"cannot be made a NumPy array: {error}") from error


def read_image(
    file: File, size: tuple[int, ...] | None, mask_name: object, bits: int = 16
) -> Upright:
    """An image of a data set. size: (h, w) of its mask, which it must have; None for no
    mask. bits: as of `read_rgb`. The orientation tag is followed only if the mask is
    that of the upright image."""
    shown = read_rgb(file, bits)
    if size is None:  # nothing tells whether the tag is to be followed
        return shown._replace(pixels=turned_back(shown.pixels, shown.orientation))
    if shown.pixels.shape[:2] != size and shown.pixels.shape[1::-1] == size:
        stored = turned_back(shown.pixels, shown.orientation)
        shown = shown._replace(pixels=stored)
    height, width, _ = shown.pixels.shape
    if (height, width) != size:
        remedy = "scale the mask (nearest) to the image's size"
        if size == (width, height):
            remedy = "one of them is turned, or its width and height are exchanged"
        raise BadRecord(
            f"is {width} x {height}, but its mask {mask_name} is {size[1]} x "
            f"{size[0]}; {remedy}"
        )
    return shown


def check_bits(bits: int) -> None:
    require(bits in range(8, 17), "bits", bits, "a whole number of 8 to 16")


def read_rgb(picture: Picture, bits: int = 16) -> Upright:
    """An image of any form, upright.

    bits: how many bits the values have where a file has more than 8 for a channel: the
    upper 8 of them are kept. What is transparent is white.
    """
    if isinstance(picture, np.ndarray):
        values, alpha = _of_array(picture)
        pixels, remarks = _to_8_bits(values, bits)
        if alpha is not None:
            pixels = _on_ground(pixels, _to_8_bits(alpha, bits)[0])
        return Upright(np.ascontiguousarray(pixels), 1, remarks)
    with opened(picture) as image:
        deep = is_deep(image)
        _scale_clear(image)
        turn = orientation(image)  # which loads a PNG
        image.load()
        pixels, remarks = _of_image(image, bits)
        clear, alpha = image.info.get("transparency"), opacity(image)
        if deep and (bits < 16 or clear is not None):
            lower = _lower_bytes(picture)[..., :3]
            values = pixels.astype(np.uint16) << 8 | lower
            pixels, remarks = _to_8_bits(values, bits)
            if clear is not None:  # the colour that is transparent, of 16 bits
                same = (values == np.asarray(clear)).all(-1)
                alpha = np.where(same, 0, 255).astype(np.uint8)
        elif deep:
            remarks = _dark(int(pixels.max()) << 8, bits)
        if alpha is not None:
            pixels = _on_ground(pixels, alpha)
        if image.format != "TIFF":  # Pillow has turned it
            pixels = turned(pixels, turn)
    return Upright(np.ascontiguousarray(pixels), turn, remarks)


def _of_array(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The channels `[h, w, 3]` of an array, and its alpha `[h, w]`."""
    shape = values.shape
    channels = shape[2] if values.ndim == 3 else 1
    if values.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in shape:
        first = values.ndim == 3 and 0 not in shape and shape[0] in (1, 3, 4)
        hint = f"; {_CHANNELS_LAST}" if first else ""
        raise BadRecord(
            f"{shape}: an array [h, w], or [h, w, c] of 1, 3 or 4 channels, is wanted"
            f"{hint}"
        )
    if values.dtype == bool:
        values = values * np.uint8(255)
    if values.dtype not in (np.uint8, np.uint16):
        raise BadRecord(
            f"is {values.dtype}: an array of uint8, or of uint16 for more than 8 bits, "
            "is wanted"
        )
    values = values.reshape(*shape[:2], channels)
    if channels == 1:
        values = np.repeat(values, 3, 2)
    return values[..., :3], values[..., 3] if channels == 4 else None


def rgb_of(image: Image.Image) -> np.ndarray:
    """The colours uint8 `[h, w, 3]` of a loaded image, without its alpha."""
    if image.mode in ("La", "RGBa"):  # colours multiplied by their alpha
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if "transparency" in image.info:  # Pillow warns when it is dropped
        image = image.copy()
        del image.info["transparency"]
    return np.array(image.convert("RGBA" if image.mode == "PA" else "RGB"))[..., :3]


def _of_image(image: Image.Image, bits: int) -> tuple[np.ndarray, tuple[Remark, ...]]:
    """The channels uint8 `[h, w, 3]` of a loaded image, without its alpha."""
    if image.mode == "F":
        raise BadRecord("has floating-point pixels; save it with 8 bits per channel")
    if image.mode in DEEP_GREY:
        pixels, remarks = _to_8_bits(np.asarray(image), bits)
        return np.repeat(pixels[..., None], 3, -1), remarks
    return rgb_of(image), ()


def _scale_clear(image: Image.Image) -> None:
    """Pillow stretches 2 and 4 bits of grey to 8, but not the grey that is transparent.
    Of an image that is not loaded yet."""
    tile, clear = getattr(image, "tile", None), image.info.get("transparency")
    step = {"L;2": 85, "L;4": 17}.get(str(tile[0][3])) if tile else None
    if step and clear is not None:
        image.info["transparency"] = clear * step


def _lower_bytes(picture: Picture) -> np.ndarray:
    """The lower bytes uint8 `[h, w, c]` of channels of 16 bits.

    Of each value Pillow keeps the byte that comes first, or last, as the order of the
    bytes says. So a file that is decoded in the other order gives the other byte.
    """
    if isinstance(picture, (Image.Image, Array)):
        raise BadRecord(
            "is open already, and of channels of 16 bits Pillow keeps the upper 8: "
            "give the path of its file"
        )
    if isinstance(picture, io.BytesIO):
        picture.seek(0)
    with Image.open(picture) as image:
        if any(str(tile.args).startswith("LA") for tile in image.tile):
            raise BadRecord(
                "has grey and alpha of 16 bits, of which only the upper 8 can be read: "
                "save it without alpha, or with 8 bits"
            )
        image.tile = [
            tile._replace(args=_other_order(tile.args)) for tile in image.tile
        ]
        image.load()
        return np.asarray(image)


def _other_order(args: Any) -> Any:
    if isinstance(args, tuple):
        return _other_order(args[0]), *args[1:]
    name, bits, order = args.rpartition(";16")
    own = {"N": sys.byteorder[0].upper()}.get(order, order)
    return f"{name}{bits}{'B' if own == 'L' else 'L'}"


def _to_8_bits(values: np.ndarray, bits: int) -> tuple[np.ndarray, tuple[Remark, ...]]:
    """The upper 8 of so many bits, uint8; 8-bit values as they are."""
    if values.dtype == np.uint8:
        return values, ()
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 1 << bits:
        raise BadRecord(
            f"has values of {low} to {high}, and bits = {bits}: values of 0 to "
            f"{(1 << bits) - 1} are wanted"
        )
    return (values >> (bits - 8)).astype(np.uint8), _dark(high, bits)


def _dark(high: int, bits: int) -> tuple[Remark, ...]:
    """A remark where the upper two bits are empty: most likely there are fewer bits."""
    if not 0 < high < 1 << (bits - 2) or bits == 8:
        return ()
    return (
        Remark(
            f"images of more than 8 bits look nearly black when read as {bits} bits: "
            "set bits to those that they have, 8 to 16",
            f"the largest value is {high} of {(1 << bits) - 1}",
        ),
    )


def _on_ground(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None].astype(np.uint16)
    mixed = pixels * share + np.uint16(GROUND) * (255 - share)
    return ((mixed + 127) // 255).astype(np.uint8)
