"""Masks of every form, intact and damaged, read by `data.masks.read_mask`.

Each form is made of labels that are known, in a way that the table of docs/data.md,
"Masks", says how to read. So the labels themselves are the second reading.
"""

import io
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageFilter

from seggpt_jax.data.sample import IGNORE
from seggpt_jax.pictures import images
from tests.fuzz import png
from tests.fuzz.outcomes import Wrong, check_equal, damaged, new_file, refusing

_QUOTED = "cannot be read:"


class Made(NamedTuple):
    """A mask. right: what it must be read as, values `[h, w]` or colours `[h, w, 3]`;
    None where it must be refused. unsure: bool `[h, w]`, pixels that may be either.
    checked: the format has sums."""

    name: str
    content: Any
    right: np.ndarray | None
    unsure: np.ndarray | None = None
    checked: bool = False


def start(home: Path) -> None:
    Image.init()


def attempt(rng: np.random.Generator, folder: Path, started: None) -> None:
    made = _FORMS[rng.integers(len(_FORMS))](rng)
    if not isinstance(made.content, bytes):
        return _check(made, made.content, "mask")
    content, way = made.content, ""
    if rng.random() < 0.25:
        way, content = damaged(rng, content)
    path = new_file(folder, made.name, content)
    if not way:
        return _check(made, path, made.name)
    with refusing(made.name, quoted=_QUOTED):
        values = images.read_mask(path).values
        if made.right is not None and (way in ("cut", "more") or made.checked):
            _compare(made, values, f"{made.name} ({way})")


def _check(made: Made, picture: Any, name: str) -> None:
    try:
        with refusing(name, quoted=_QUOTED):
            mask = images.read_mask(picture)
    except Exception as error:
        if made.right is None or isinstance(error, Wrong):
            raise
        raise Wrong(f"an intact mask is refused: {error}") from error
    if made.right is None:
        raise Wrong(f"{made.name} is to be refused, and was read")
    _compare(made, mask.values, made.name)


def _compare(made: Made, values: np.ndarray, name: str) -> None:
    right = made.right
    if made.unsure is not None and values.shape == right.shape:
        right = np.where(made.unsure, values, right)
    check_equal(values, right, name)


def _labels(rng: np.random.Generator, most: int = 8, top: int = 200) -> np.ndarray:
    """Labels `[h, w]` of discs on background; values up to `top`, without 255."""
    h, w = (int(n) for n in rng.integers(12, 60, 2))
    y, x = np.mgrid[:h, :w]
    values = np.zeros((h, w), np.int64)
    for _ in range(rng.integers(1, most + 1)):
        cy, cx, radius = rng.integers(h), rng.integers(w), rng.integers(3, 14)
        disc = (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
        values[disc] = rng.integers(1, rng.choice([3, top]))
    values[values == IGNORE] = 1
    if rng.random() < 0.3:
        values[: rng.integers(1, 4)] = IGNORE
    return values


def _binary(rng: np.random.Generator) -> np.ndarray:
    inside = (_labels(rng, 4) > 0) & True
    inside[:2] = False
    inside[4:9, 4:9] = True
    return inside


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _values(rng: np.random.Generator) -> Made:
    """One channel of 8, 16 or 32 bits."""
    form = str(rng.choice(["PNG", "BMP", "TIFF", "PGM", "deep", "i2", "i4", "array"]))
    values = _labels(rng, top=200 if form in ("PNG", "BMP", "TIFF", "PGM") else 32767)
    if form == "array":
        dtype = str(rng.choice(["u2", "i4", "i8", "u4", "u8", "i2"]))
        return Made("array", values.astype(dtype), values)
    if form in ("i2", "i4"):
        file = io.BytesIO()
        tifffile.imwrite(file, values.astype(form), photometric="minisblack")
        return Made(f"{form}.tif", file.getvalue(), values)
    if form == "deep":
        image = Image.fromarray(values.astype(np.uint16))
        return Made("deep.png", _saved(image, "PNG"), values, checked=True)
    image = Image.fromarray(values.astype(np.uint8))
    name = f"values.{form.lower()}"
    kind = "PPM" if form == "PGM" else form
    return Made(name, _saved(image, kind), values, checked=form == "PNG")


def _equal_channels(rng: np.random.Generator) -> Made:
    values = _labels(rng)
    three = np.repeat(values[..., None], 3, -1).astype(np.uint8)
    kind = str(rng.choice(["PNG", "BMP", "TIFF"]))
    return Made(f"equal.{kind.lower()}", _saved(Image.fromarray(three), kind), values)


def _two(rng: np.random.Generator) -> Made:
    """One bit, bool, or 0 and 255."""
    inside = _binary(rng)
    right = inside * 255
    form = str(rng.choice(["1", "bool", "L", "u1"]))
    if form == "bool":
        return Made("array", inside, right)
    eight = Image.fromarray(right.astype(np.uint8))
    if form == "u1":
        return Made("array", right.astype(np.uint8), right)
    kind = str(rng.choice(["PNG", "BMP", "TIFF"]))
    image = eight.convert("1", dither=0) if form == "1" else eight
    return Made(f"two{form}.{kind.lower()}", _saved(image, kind), right)


def _colors(rng: np.random.Generator, count: int) -> np.ndarray:
    """Colours uint8 `[count, 3]`, not grey, not black, and different."""
    steps = rng.permutation(6**3)[:count]
    found = np.stack([steps // 36, steps // 6 % 6, steps % 6], -1) * 40 + 20
    found[:, 0] += 3
    return found.astype(np.uint8)


def _palette(rng: np.random.Generator) -> Made:
    """Palettes: of labels, of two colours, in a program's order, of greys."""
    form = str(
        rng.choice(["labels", "black", "two", "program", "greys", "mixed", "gif"])
    )
    values = _labels(rng, 6, 100)
    top = int(values.max())
    table = np.zeros((256, 3), np.uint8)
    used = [int(v) for v in np.unique(values) if v]
    table[used] = _colors(rng, len(used))
    if form in ("greys", "mixed", "gif"):
        values[values == IGNORE] = 0
        values = np.unique(values, return_inverse=True)[1].reshape(values.shape)
        top = max(1, int(values.max()))
        if top < 3:
            return _values(rng)
        greys = np.sort(rng.permutation(np.arange(20, 230))[: top + 1])
        greys[0] = 0
        if form == "mixed":
            greys[1:] = rng.permutation(greys[1:])
        table = np.repeat(np.arange(256)[:, None], 3, 1).astype(np.uint8)
        table[: top + 1] = greys[:, None]
        rising = bool((np.diff(greys) > 0).all())
        kind = "GIF" if form == "gif" else "PNG"
        image = Image.fromarray(values.astype(np.uint8))
        image.putpalette((table[: top + 1] if form != "gif" else table).tobytes())
        right = greys[values] if form == "gif" or not rising else values
        return Made(f"{form}.{kind.lower()}", _saved(image, kind), right)
    if form == "two":
        inside = _binary(rng)
        black, other = (int(i) for i in rng.permutation(4)[:2])
        index = np.where(inside, other, black)
        table = np.zeros((256, 3), np.uint8)
        table[:4] = _colors(rng, 4)
        table[black] = 0
        image = Image.fromarray(index.astype(np.uint8))
        image.putpalette(table.tobytes())
        right = np.where(inside, other or 1, 0)
        return Made("two.png", _saved(image, "PNG"), right, checked=True)
    if form == "program":
        place = rng.permutation(len(used) + 1)
        if place[0] == 0:
            place = np.roll(place, 1)
        if len(used) < 2 or values.all():
            return _values(rng)
        order = np.unique(values, return_inverse=True)[1].reshape(values.shape)
        index = place[order]
        colors = np.zeros((len(used) + 1, 3), np.uint8)
        colors[place[1:]] = _colors(rng, len(used))
        image = Image.fromarray(index.astype(np.uint8))
        image.putpalette(colors.tobytes())
        return Made("program.png", _saved(image, "PNG"), colors[index], checked=True)
    if form == "black" and len(used) > 2:
        table[used[0]] = 0
    size = max(top + 1, int(rng.integers(1, 257)))
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette(table[:size].tobytes())
    if form == "black":
        return Made("black.png", _saved(image, "PNG"), values, checked=True)
    kind = str(rng.choice(["PNG", "BMP", "TIFF"]))
    return Made(f"labels.{kind.lower()}", _saved(image, kind), values)


def _transparent(rng: np.random.Generator) -> Made:
    """Transparent pixels of grey, colours and palettes are background."""
    form = str(rng.choice(["LA", "RGBA", "alpha", "index", "grey"]))
    values = _labels(rng)
    shown = values > 0
    if shown.all() or not shown.any():
        return _values(rng)
    alpha = np.where(shown, 255, 0)
    if form == "grey":
        clear = int(values.max()) + 1 if values.max() < 255 else 251
        if (values == clear).any():
            return _values(rng)
        stored = np.where(shown, values, clear)
        data = png.write(stored[..., None], 8, png.GREY, clear=bytes([0, clear]))
        return Made("grey.png", data, values, checked=True)
    if form == "LA":
        noise = np.where(shown, values, rng.integers(0, 256, values.shape))
        data = png.write(np.stack([noise, alpha], -1), 8, png.GREY_ALPHA)
        return Made("LA.png", data, values, checked=True)
    if form == "alpha":
        color = np.broadcast_to(
            rng.choice([0, 255]) * np.ones(3, int), (*values.shape, 3)
        )
        if color.any():  # white where it is opaque: a mask of one label
            color = np.where(shown[..., None], color, 0)
        data = png.write(np.concatenate([color, alpha[..., None]], -1), 8, png.RGBA)
        return Made("alpha.png", data, shown * 255, checked=True)
    used = np.unique(values[shown]).tolist()
    table = np.zeros((256, 3), np.uint8)
    table[used] = _colors(rng, len(used))
    if form == "RGBA":
        noise = rng.integers(0, 256, (*values.shape, 3))
        color = np.where(shown[..., None], table[values], noise)
        data = png.write(np.concatenate([color, alpha[..., None]], -1), 8, png.RGBA)
        return Made("RGBA.png", data, table[values], checked=True)
    table[0] = 9
    if len(used) < 2:
        return _values(rng)
    palette = table[: max(used) + 1]
    data = png.write(values[..., None], 8, png.INDEX, palette=palette, clear=b"\0")
    return Made("index.png", data, values, checked=True)


def _smooth(rng: np.random.Generator) -> Made:
    """A binary mask that was resized or blurred is cut at half."""
    inside = _binary(rng)
    image = Image.fromarray((inside * 255).astype(np.uint8))
    if rng.random() < 0.5:
        ways = Image.Resampling
        way = [ways.BILINEAR, ways.BICUBIC, ways.LANCZOS, ways.BOX][rng.integers(4)]
        by = rng.uniform(1.2, 2)
        image = image.resize([round(n * by) for n in image.size], way)
    else:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.2))))
    values = np.asarray(image).astype(np.int64)
    between = (values >= 16) & (values < 240)
    # A level of its own along a straight edge may be a class: then nobody can tell.
    levels = np.bincount(values[between], minlength=1)
    known = (
        values.size > 900
        and len(np.unique(values)) > 12
        and 0.01 < between.mean() < 0.35
        and levels.max() < 0.02 * values.size
    )
    if not known or (values >= 240).sum() < between.sum():
        return _values(rng)
    right = np.where(values < 128, 0, 255)
    return Made("smooth.png", _saved(image, "PNG"), right, checked=True)


def _jpeg(rng: np.random.Generator) -> Made:
    """A binary mask as JPEG, as OpenCV reads it."""
    inside = _binary(rng)
    image = Image.fromarray((inside * 255).astype(np.uint8))
    content = _saved(image, "JPEG", quality=int(rng.integers(75, 100)))
    seen = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    if not 0.02 < inside.mean() < 0.9:
        return _values(rng)
    right = np.where(seen < 128, 0, 255)
    return Made("two.jpg", content, right, np.abs(seen.astype(int) - 128) < 5)


def _painting(rng: np.random.Generator) -> Made:
    values = _labels(rng)
    used = [int(v) for v in np.unique(values) if v]
    table = np.zeros((256, 3), np.uint8)
    table[used] = _colors(rng, len(used))
    painted = table[values]
    form = str(rng.choice(["PNG", "BMP", "TIFF", "array", "WEBP"]))
    if form == "array":
        return Made("array", painted, painted)
    given = {"lossless": True} if form == "WEBP" else {}
    content = _saved(Image.fromarray(painted), form, **given)
    return Made(f"painting.{form.lower()}", content, painted, checked=form == "PNG")


def _refused(rng: np.random.Generator) -> Made:
    """What could mean several things, or what Pillow changes."""
    form = str(rng.choice(["grey", "several", "F", "wide", "negative", "RGB16", "low",
                           "pages", "floats", "shape"]))  # fmt: skip
    values = _labels(rng)
    if form == "grey":
        y, x = np.mgrid[:64, :64]
        picture = (60 + y * 1.7 + x * 1.1 + rng.normal(0, 2, y.shape)).clip(0, 255)
        image = Image.fromarray(picture.astype(np.uint8)).resize((80, 80), 2)
        return Made("grey.png", _saved(image, "PNG"), None)
    if form == "several":
        values[:8], values[8:16, :9], values[-9:, -9:] = 0, 90, 200
        image = Image.fromarray(values.astype(np.uint8))
        image = image.resize((values.shape[1] * 3, values.shape[0] * 3), 2)
        return Made("several.png", _saved(image, "PNG"), None)
    if form in ("F", "wide", "negative"):
        file = io.BytesIO()
        dtype = "f4" if form == "F" else "i4"
        values = values.astype(dtype)
        values[0, 0] = {"wide": 65536, "negative": -1}.get(form, 0.5)
        tifffile.imwrite(file, values, photometric="minisblack")
        return Made(f"{form}.tif", file.getvalue(), None)
    if form == "RGB16":
        deep = np.stack([values] * 3, -1) * 200
        deep[..., 1] //= 2
        return Made("RGB16.png", png.write(deep, 16, png.RGB), None)
    if form == "low":
        depth = int(rng.choice([2, 4]))
        data = png.write((values % (1 << depth))[..., None], depth, png.GREY)
        return Made("low.png", data, None)
    if form == "pages":
        frames = [
            Image.fromarray(((values + k) % 250).astype(np.uint8)) for k in (0, 9)
        ]
        return Made("pages.tif", _saved(frames[0], "TIFF", save_all=True,
                                        append_images=frames[1:]), None)  # fmt: skip
    if form == "floats":
        return Made("array", values.astype(str(rng.choice(["f4", "f8", "f2"]))), None)
    shapes = [
        (),
        (5,),
        (3, 4, 2),
        (3, 4, 5),
        (0, 4),
        (2, 3, 4, 3),
        (0, 0, 3),
        (1, 1, 1, 1),
    ]
    return Made("array", np.zeros(shapes[rng.integers(len(shapes))], np.uint8), None)


_FORMS = (_values, _values, _equal_channels, _two, _palette, _palette, _palette,
          _transparent, _transparent, _smooth, _jpeg, _painting, _refused,
          _refused)  # fmt: skip
