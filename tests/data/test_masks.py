"""The rules of docs/data.md, "Masks": values, palettes, alpha and edges."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFilter

from seggpt_jax.data import masks
from seggpt_jax.data.masks import read_mask
from seggpt_jax.data.sample import BadRecord

DISC = np.hypot(*np.mgrid[-20:20, -20:24]) < 13
ROW, COLUMN = np.mgrid[:40, :44]
CELLS = (ROW // 8 * 6 + COLUMN // 8).astype(np.uint8)  # 30 touching classes
WHITE, BLACK, RED, BLUE = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255)


def stored(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def grey(values):
    return Image.fromarray(np.asarray(values, np.uint8))


def palette(index, colors, kind="PNG", **options):
    image = grey(index)
    image.putpalette([channel for color in colors for channel in color])
    return stored(image, kind, **options)


def jpeg(image, quality, kind="PNG"):
    """A JPEG that was saved anew without loss."""
    return stored(Image.open(stored(image, "JPEG", quality=quality)), kind)


def smooth():
    hard = grey(DISC * 255)
    brushed = hard.resize((88, 80), 0).filter(ImageFilter.GaussianBlur(2))
    return {
        "down and up": hard.resize((22, 20), 2).resize((44, 40), 2),
        "enlarged": hard.resize((88, 80), Image.Resampling.BILINEAR),
        "reduced": hard.resize((22, 20), Image.Resampling.BOX),
        "brushed": brushed,
        "16 bits": Image.fromarray(np.array(brushed, np.uint16) * 257),
        "three channels": brushed.convert("RGB"),
    }


@pytest.mark.parametrize("image", smooth().values(), ids=smooth())
def test_smooth_masks_are_cut_at_half(image):
    mask = read_mask(stored(image))
    values = np.array(image) >> (8 if image.mode == "I;16" else 0)
    values = values[..., 0] if image.mode == "RGB" else values
    np.testing.assert_array_equal(mask.values, np.where(values < 128, 0, 255))
    assert [r.what for r in mask.remarks] == [
        "smooth masks are cut at half: 128 and more is inside"
    ]
    np.testing.assert_array_equal(read_mask(image).values, mask.values)


@pytest.mark.parametrize("quality", [30, 75, 95, 99])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_what_a_jpeg_left_of_a_mask_is_that_mask(quality, kind):
    """Saved anew without loss, or not at all."""
    hard = grey(np.kron(DISC, np.ones((4, 4))) * 255)
    file = stored(hard, kind, quality=quality)
    mask = read_mask(jpeg(hard, quality, kind) if kind != "JPEG" else file)
    assert set(np.unique(mask.values)) == {0, 255}
    assert (mask.values == np.array(hard)).mean() > 0.99


@pytest.mark.parametrize(
    "values",
    [
        CELLS,
        CELLS * 8,  # of 0 to 232, two of them near white
        np.where(CELLS % 3, CELLS * 8, 255),
        np.where(DISC, 100, 0),
        np.where(DISC, 255, np.where(COLUMN > 30, 128, 0)),  # three levels
        np.where(CELLS % 7, 0, CELLS * 8 + 15),  # far from each other
        np.where((ROW % 4 < 2) & (COLUMN % 4 < 2), ROW // 4 * 11 + COLUMN // 4 + 1, 0),
        np.where(ROW * COLUMN % 13 == 1, ROW + COLUMN, 0),  # single pixels
        np.where(DISC, CELLS % 16, 255),  # many classes near 0, void around
    ],
)
def test_labels_stay_as_they_are(values):
    mask = read_mask(stored(grey(values)))
    np.testing.assert_array_equal(mask.values, np.asarray(values, np.uint8))
    assert mask.remarks == () and mask.values.dtype == np.int32


def test_a_smooth_mask_of_several_classes_is_refused():
    values = np.where(DISC, 255, np.where(COLUMN > 30, 128, 0))
    resized = grey(values).resize((70, 60), Image.Resampling.BILINEAR)
    for image in (resized, grey(CELLS * 8).resize((70, 61), Image.Resampling.BILINEAR)):
        with pytest.raises(BadRecord, match=r"has \d+ values, and \d+ of them only in"):
            read_mask(stored(image))
    photo = Image.effect_noise((64, 64), 90)  # a grey picture is no mask
    with pytest.raises(BadRecord, match="it is a picture, or was smoothed"):
        read_mask(stored(photo))


def test_listed_values_are_meant():
    """A table that lists every value of a mask leaves no doubt."""
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (8, 1))
    with pytest.raises(BadRecord):
        read_mask(stored(grey(ramp)), listed={0})
    mask = read_mask(stored(grey(ramp)), listed=set(range(0, 256, 4)))
    np.testing.assert_array_equal(mask.values, ramp)


def test_a_jpeg_holds_no_ids():
    """Near 0 they would pass for noise. A table of 255 alone has no others."""
    file = stored(grey(np.where(DISC, 2, np.where(COLUMN > 38, 255, 0))), "JPEG")
    for listed in (masks.EVERY, {2}, {2, 255}):
        with pytest.raises(BadRecord, match="or is a JPEG, which changes them"):
            masks.read_ids(file, listed)
    values, _ = masks.read_ids(stored(grey(DISC * 255), "JPEG"), {255})
    np.testing.assert_array_equal(values, DISC * 255)


# Palettes.


@pytest.mark.parametrize(
    "colors, kind, options",
    [
        ([BLACK, WHITE], "PNG", {}),
        ([WHITE, BLACK], "PNG", {"bits": 1}),
        ([WHITE, BLACK], "TIFF", {}),
        ([RED, BLACK], "BMP", {}),
        ([RED, BLACK], "GIF", {}),
        ([RED, WHITE], "PNG", {"transparency": 1}),
        ([WHITE, RED], "PNG", {"transparency": 0}),
        ([RED, RED], "PNG", {"transparency": b"\xff\0"}),
        ([BLACK, BLACK], "PNG", {"transparency": 1}),
        ([BLACK, WHITE], "GIF", {}),
        ([WHITE, BLACK], "GIF", {}),
    ],
)
def test_a_palette_of_two_colours_is_never_inverted(colors, kind, options):
    """Black is the background, and so is what is transparent, in either order."""
    for inside in (0, 1):
        if (ground := colors[1 - inside]) == BLACK or 1 - inside == _clear(options):
            break
    else:
        raise AssertionError(ground)
    index = np.where(DISC, inside, 1 - inside)
    mask = read_mask(palette(index, colors, kind, **options))
    np.testing.assert_array_equal(mask.values > 0, DISC)
    assert mask.values.max() in (1, 255)


def _clear(options):
    clear = options.get("transparency")
    return clear.index(0) if isinstance(clear, bytes) else clear


def test_indices_of_a_palette_are_labels():
    index = np.where(DISC, 3, np.where(COLUMN > 30, 15, 0))
    colors = [BLACK, RED, RED, BLUE] + [WHITE] * 12
    np.testing.assert_array_equal(read_mask(palette(index, colors)).values, index)
    alone = DISC * 3  # the only class in sight
    np.testing.assert_array_equal(read_mask(palette(alone, colors)).values, alone)
    # White before black: the order of a program, so that colours are what counts.
    index = np.where(DISC, 0, np.where(COLUMN > 30, 2, 1))
    colors = [RED, BLACK, BLUE]
    mask = read_mask(palette(index, colors))
    np.testing.assert_array_equal(mask.values, np.array(colors, np.uint8)[index])
    greys = [(9, 9, 9), BLACK, (4, 4, 4)]
    mask = read_mask(palette(index, greys))
    np.testing.assert_array_equal(mask.values, np.array([9, 0, 4])[index])
    # Black 255 is void, as where a palette ends early: 0 is a class of its own.
    index[:3] = 255
    mask = read_mask(
        palette(np.where(index == 1, 2, index), [RED, BLUE, WHITE] + [BLACK] * 253)
    )
    assert set(np.unique(mask.values)) == {0, 2, 255}


@pytest.mark.parametrize("ground", [0, 7])
def test_a_label_that_its_palette_paints_black_is_said(ground):
    index = np.where(DISC, 2, np.where(COLUMN > 30, 1, ground))
    mask = read_mask(palette(index, [BLACK, RED] + [BLACK] * 6))
    np.testing.assert_array_equal(mask.values, index)
    assert (
        mask.remarks[0].what == "labels that a palette paints black are read as labels"
    )
    assert mask.remarks[0].detail.startswith("index 2")


@pytest.mark.parametrize("color", [0, 128, 255])
def test_a_palette_of_one_colour_has_its_labels_in_the_indices(color):
    values = np.kron([[0, 2], [5, 0]], np.ones((8, 8), np.uint8)).astype(np.uint8)
    image = Image.fromarray(values)
    image.putpalette([color] * 18)
    file = io.BytesIO()
    image.save(file, "PNG")
    mask = read_mask(file)
    np.testing.assert_array_equal(mask.values, values)
    assert "one colour" in mask.remarks[0].what


def test_a_palette_whose_labels_are_all_transparent_is_refused():
    """It was read as its opposite: the opaque pixels, black, for the object."""
    values = np.kron([[0, 3], [3, 0]], np.ones((8, 8), np.uint8)).astype(np.uint8)
    image = Image.fromarray(values)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    file = io.BytesIO()
    image.save(file, "PNG", transparency=3)
    with pytest.raises(BadRecord, match="colours in its transparent pixels only"):
        read_mask(file)


def test_a_smooth_mask_with_a_palette_is_cut_too():
    image = grey(DISC * 255).resize((88, 80), Image.Resampling.BICUBIC)
    for colours in (8, 64):
        few = image.quantize(colours, Image.Quantize.MEDIANCUT)
        assert few.mode == "P"
        found = read_mask(stored(few)).values
        assert set(np.unique(found)) == {0, 255}
        np.testing.assert_array_equal(found > 0, np.array(few.convert("L")) > 127)


# Transparency.


def rgba(inside, outside):
    return np.where(DISC[..., None], inside, outside).astype(np.uint8)


@pytest.mark.parametrize(
    "pixels",
    [
        rgba((255, 255, 255, 255), (0, 0, 0, 255)),
        rgba((255, 0, 0, 255), (255, 255, 255, 0)),
        rgba((255, 0, 0, 255), (90, 90, 90, 10)),
        rgba((255, 255, 255, 255), (255, 255, 255, 0)),
        rgba((0, 0, 0, 255), (0, 0, 0, 0)),
        rgba((0, 0, 0, 90), (0, 0, 0, 0)),  # a brush of a third
        rgba((7, 7, 7, 255), (9, 9, 9, 0)),
        rgba((0, 255), (0, 0)),
        rgba((255, 255), (255, 0)),
        rgba((3, 255), (8, 0)),
    ],
)
def test_what_is_transparent_is_background(pixels):
    image = Image.fromarray(pixels)
    for picture in (stored(image), image, stored(image, "TIFF")):
        values = read_mask(picture).values
        shown = values.any(-1) if values.ndim == 3 else values > 0
        np.testing.assert_array_equal(shown, DISC)
    if pixels.shape[-1] == 4:
        values = read_mask(pixels).values
        shown = values.any(-1) if values.ndim == 3 else values > 0
        np.testing.assert_array_equal(shown, DISC)


@pytest.mark.parametrize("mode, clear", [("L", 9), ("RGB", (9, 9, 9)), ("I;16", 9)])
def test_a_transparent_value_is_background(mode, clear):
    values = np.where(DISC, 4, 9).astype(np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(values)
    image = image.convert(mode) if mode == "RGB" else image
    mask = read_mask(stored(image, transparency=clear))
    np.testing.assert_array_equal(mask.values, np.where(DISC, 4, 0))


def test_smooth_alpha_is_cut_and_half_alpha_is_said():
    alpha = np.array(grey(DISC * 255).filter(ImageFilter.GaussianBlur(1)))
    mask = read_mask(np.dstack([np.zeros((*DISC.shape, 3), np.uint8), alpha]))
    np.testing.assert_array_equal(mask.values > 0, alpha > 127)
    for top, low in ((255, 100), (255, 127), (200, 99), (200, 100)):
        half = np.where(DISC, top, np.where(COLUMN > 30, low, 0)).astype(np.uint8)
        mask = read_mask(np.dstack([half * 0] * 3 + [half]))
        seen = half > 0 if 2 * low == top else DISC
        np.testing.assert_array_equal(mask.values > 0, seen)
    assert "half-transparent pixels" in mask.remarks[0].what


# Channels, bits and pages.


def test_equal_channels_are_labels():
    for values in (CELLS, DISC * 255):
        mask = read_mask(stored(grey(values).convert("RGB")))
        np.testing.assert_array_equal(mask.values, values)
        assert mask.pictured and not read_mask(stored(grey(values))).pictured
    one = np.array(grey(CELLS).convert("RGB"))
    one[0, 0] = RED
    np.testing.assert_array_equal(read_mask(stored(Image.fromarray(one))).values, one)
    cmyk = grey(DISC * 255).convert("CMYK")
    np.testing.assert_array_equal(read_mask(stored(cmyk, "TIFF")).values, DISC * 255)


@pytest.mark.parametrize("form", ["png", "tiff", "big-endian", "int32", "array"])
def test_labels_of_many_bits_are_exact(form):
    ids = CELLS.astype(np.uint16) * 1000 + 3
    mask = ids if form == "array" else {
        "png": lambda: stored(Image.fromarray(ids)),
        "tiff": lambda: stored(Image.fromarray(ids), "TIFF"),
        "big-endian": lambda: big_endian(ids),
        "int32": lambda: stored(Image.fromarray(ids.astype(np.int32)), "TIFF"),
    }[form]()  # fmt: skip
    np.testing.assert_array_equal(read_mask(mask).values, ids)


def big_endian(ids):
    """A TIFF of one strip, written by hand."""
    tags = [(256, ids.shape[1]), (257, ids.shape[0]), (258, 16), (259, 1), (262, 1),
            (273, 8), (277, 1), (278, ids.shape[0]), (279, ids.size * 2)]  # fmt: skip
    data = ids.astype(">u2").tobytes()
    head = b"MM\0*" + (8 + len(data)).to_bytes(4)
    lines = b"".join(
        tag.to_bytes(2) + (4).to_bytes(2) + (1).to_bytes(4) + value.to_bytes(4)
        for tag, value in tags
    )
    return io.BytesIO(head + data + len(tags).to_bytes(2) + lines + bytes(4))


def test_brightness_is_that_of_any_form():
    forms = [grey(DISC * 255), grey(DISC * 255).convert("CMYK")]
    forms += [
        Image.fromarray(DISC * white) for white in (True, *np.uint16([255, 65535]))
    ]
    forms += [Image.fromarray(rgba((255, 255, 255, 255), (255, 255, 255, 0)))]
    for image in forms:
        kind = "TIFF" if image.mode == "CMYK" else "PNG"
        np.testing.assert_array_equal(masks.read_grey(stored(image, kind)), DISC * 255)


def test_what_cannot_be_labels_is_refused():
    fractions = Image.fromarray(np.where(DISC, np.nan, 0.5).astype(np.float32))
    for given, said in (
        (stored(fractions, "TIFF"), "floating-point pixels; save it with whole"),
        (stored(Image.fromarray(np.full((4, 4), 70000, np.int32)), "TIFF"), "70000 to"),
        (np.full((4, 4), 1 << 40), "1099511627776, outside 0 to 65535"),
        (np.zeros((3, 5, 5), int), r"\(3, 5, 5\): labels \[h, w\], or colours"),
        (np.zeros((4, 4, 3), int) + [1, 2, 3], "int64: colours are uint8"),
    ):
        with pytest.raises(BadRecord, match=said):
            read_mask(given)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
@pytest.mark.parametrize("read", [read_mask, masks.read_grey, masks.read_colors])
def test_of_several_pages_none_is_read(kind, read):
    pages = [grey(np.roll(DISC, k, 1) * 255) for k in range(3)]
    options = {"save_all": True, "append_images": pages[1:]}
    options |= {"lossless": True} if kind == "WEBP" else {}
    with pytest.raises(BadRecord, match="has 3 pages, and one picture is wanted"):
        read(stored(pages[0], kind, **options))
    opened = Image.open(stored(pages[0], kind, **options))
    opened.seek(2)  # an open image stands at the page that was chosen
    np.testing.assert_array_equal(read_mask(opened).values > 0, np.roll(DISC, 2, 1))


def test_small_copies_of_a_picture_are_no_pages():
    """As in a pyramid: tag 254 says that they are reduced."""
    small = grey(DISC * 255).resize((22, 20), 0)
    small.encoderinfo = {"tiffinfo": {254: 1}}
    file = stored(grey(DISC * 255), "TIFF", save_all=True, append_images=[small])
    np.testing.assert_array_equal(read_mask(file).values, DISC * 255)


def test_a_mask_is_turned_as_its_own_tag_says():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for kind in ("PNG", "TIFF"):
        found = read_mask(stored(grey(CELLS), kind, exif=exif)).values
        np.testing.assert_array_equal(found, np.rot90(CELLS, -1))
