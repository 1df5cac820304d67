"""Image and mask files: every form that is read, and every error."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from seggpt_jax.data import decode
from seggpt_jax.data.sample import BadRecord
from tests.fuzz import png
from tests.support.folders import SIZE, indexed, mask_values, one, picture, write


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_image_modes_become_rgb(tmp_path, mode):
    name = "b.tif" if mode == "CMYK" else "b.png"
    load = one(tmp_path / "x", name, "a_mask.png", check_files=False)
    image = picture(mode)
    expected = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "x" / name)
    loaded = load().image
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, expected)


def test_what_is_transparent_in_an_image_is_white(tmp_path):
    load = one(tmp_path / "x", "b.png", "a_mask.png", check_files=False)
    alpha = np.linspace(0, 255, 54).reshape(SIZE).astype(np.uint8)
    rgb = np.asarray(picture())
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "x" / "b.png")
    share = alpha[..., None] / 255
    np.testing.assert_allclose(load().image, rgb * share + 255 * (1 - share), atol=0.5)
    few = picture("P")
    few.save(tmp_path / "x" / "b.png", transparency=int(np.asarray(few)[0, 0]))
    assert (load().image[0, 0] == 255).all()
    kept = np.asarray(few) != np.asarray(few)[0, 0]
    expected = np.asarray(few.convert("RGB"))
    np.testing.assert_array_equal(load().image[kept], expected[kept])


DEEP = np.arange(54, dtype=np.uint16).reshape(SIZE) * 1200


@pytest.mark.parametrize("bits", [16, 12, 11, 10, 8])
@pytest.mark.parametrize("form", ["png", "tiff", "int16", "int32"])
def test_the_upper_8_of_so_many_bits_are_kept(tmp_path, form, bits):
    """One rule for a set, and one line in the log where it looks wrong."""
    name = "b.png" if form == "png" else "b.tif"
    load = one(tmp_path / "x", name, "a_mask.png", check_files=False, bits=bits)
    values = DEEP >> (16 - bits)
    signed = form == "int32" or (form == "int16" and bits < 16)
    image = Image.fromarray(values.astype(np.int32) if signed else values)
    image.save(tmp_path / "x" / name)
    np.testing.assert_array_equal(load().image[..., 1], DEEP >> 8)


@pytest.mark.parametrize("bits", [16, 11, 8])
@pytest.mark.parametrize("name", ["b.png", "b.tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_three_channels_have_all_their_bits(tmp_path, name, bits, channels):
    """OpenCV writes them; Pillow reads one byte of each value."""
    load = one(tmp_path / "x", name, "a_mask.png", check_files=False, bits=bits)
    rgb = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], -1)
    opaque = np.full((*SIZE, channels - 3), 65535, np.uint16)
    written = np.dstack([rgb[..., ::-1] >> (16 - bits), opaque])
    assert cv2.imwrite(str(tmp_path / "x" / name), written)
    np.testing.assert_array_equal(load().image, rgb >> 8)


def test_bits_that_look_wrong_are_said_once(tmp_path, caplog):
    root = write(tmp_path / "x", [f"train\tb.png\ta_mask.png\t9\t6\t{k}" for k in "12"])
    Image.fromarray(DEEP >> 4).save(root / "b.png")
    source = indexed(root, "train")
    assert source[0].image.max() == source[1].image.max() == (DEEP.max() >> 4) >> 8
    (line,) = [line for line in caplog.messages if "a_mask" not in line]
    assert "look nearly black when read as 16 bits: set bits" in line
    assert "b.png (index.tsv line 2): the largest value is 3975 of 65535" in line
    with pytest.raises(BadRecord, match="b.png .* values of 0 to 3975, and bits = 10"):
        indexed(root, "train", bits=10)[0]
    with pytest.raises(ValueError, match="bits = 7: must be a whole number of 8 to 16"):
        indexed(root, "train", bits=7)


@pytest.mark.parametrize("form", ["palette", "gif", "tif", "16 bits", "1 bit"])
def test_mask_forms(tmp_path, form):
    name = {"gif": "b.gif", "tif": "b.tif"}.get(form, "b.png")
    table = "id\tname\timages\n1\tdog\t1\n300\tcat\t1\n"
    load = one(tmp_path / "x", "a.png", name, table, check_files=False)
    values = mask_values().astype(np.uint16)
    if form == "16 bits":
        values[values == 2] = 300
    if form == "1 bit":
        values = np.where(values == 1, 255, 0)
    image = Image.fromarray(values if form == "16 bits" else values.astype(np.uint8))
    if form == "palette":
        image.putpalette(bytes(range(255, -1, -1)) * 3)
    image.convert("1" if form == "1 bit" else image.mode).save(tmp_path / "x" / name)
    expected = np.where(np.isin(values, (1, 255, 300)), values, 0)
    np.testing.assert_array_equal(load().segments, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("upright", [True, False])
def test_orientation_is_followed_if_the_mask_fits(tmp_path, orientation, upright):
    load = one(tmp_path / "x", "b.png", "a_mask.png", check_files=False)
    turns = orientation >= 5
    stored = picture(size=SIZE[::-1] if turns and upright else SIZE)
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(tmp_path / "x" / "b.png", exif=exif)
    pixels = np.asarray(stored)
    if turns and not upright:
        expected = pixels  # drawn on the pixels as stored
    else:  # EXIF 2.3 table 6: where the zeroth row and column are
        expected = {
            1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
            5: pixels.swapaxes(0, 1), 6: pixels[::-1].swapaxes(0, 1),
            7: pixels[::-1, ::-1].swapaxes(0, 1), 8: pixels.swapaxes(0, 1)[::-1],
        }[orientation]  # fmt: skip
    np.testing.assert_array_equal(load().image, expected)


def header_only_png(width, height):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    fields = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", fields)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def encoded(image, form, **settings):
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


GREY = Image.fromarray(mask_values())
BITS_4 = header_only_png(9, 6).replace(b"\x08\x00\x00\x00\x00", b"\x04\x00\x00\x00\x00")
IHDR_4 = struct.pack(">IIBBBBB", 9, 6, 4, 0, 0, 0, 0)
BITS_4 = BITS_4[:29] + struct.pack(">I", zlib.crc32(b"IHDR" + IHDR_4)) + BITS_4[33:]


@pytest.mark.parametrize(
    "role, content, message",
    [
        ("image", encoded(picture(size=(60, 90)), "JPEG")[:1500], "cannot be read"),
        ("image", encoded(picture(size=(60, 90)), "PNG")[:5000], "cannot be read"),
        ("mask", encoded(GREY, "PNG")[:50], "cannot be read"),
        ("image", b"", "is an empty file; copy it again"),
        ("mask", b"", "is an empty file; copy it again"),
        ("mask", b"text", "cannot be read"),
        ("image", header_only_png(0, 6), "no pixels|cannot be read"),
        ("mask", header_only_png(9, 0), "no pixels|cannot be read"),
        ("image", header_only_png(9000, 9000), "9000 x 9000 pixels, more than"),
        ("mask", header_only_png(11000, 11000), "11000 x 11000|121000000 pixels"),
        ("mask", header_only_png(60000, 60000), "3600000000 pixels"),
        (
            "image",
            encoded(picture(size=(9, 6)), "PNG"),
            "is 6 x 9, but its mask .*9 x 6",
        ),
        ("mask", encoded(picture(), "PNG"), "has colours instead of class ids"),
        ("mask", encoded(GREY, "JPEG"), "or is a JPEG, which changes them"),
        ("mask", BITS_4, "2 or 4 bits of grey"),
        (
            "mask",
            encoded(Image.fromarray(mask_values() - np.int32(1)), "TIFF"),
            "outside",
        ),
        ("image", encoded(picture("F"), "TIFF"), "floating-point"),
    ],
)
def test_bad_records_name_the_file(tmp_path, role, content, message):
    names = {"image": "a.png", "mask": "a_mask.png", role: "bad.bin"}
    load = one(tmp_path / "x", *names.values(), check_files=False)
    (tmp_path / "x" / "bad.bin").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(BadRecord, match=message) as error:
            load()
    assert str(error.value).startswith(
        f"{tmp_path / 'x' / 'bad.bin'} (index.tsv line 2)"
    )
    assert "\n" not in str(error.value)


def test_file_gone_after_opening(tmp_path):
    root = write(tmp_path / "pets")
    source = indexed(root, "train")
    (root / "a.png").unlink()
    with pytest.raises(BadRecord, match=r"a.png .*cannot be read"):
        source[0]
    with pytest.raises(IndexError):
        source[2]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow on damaged EXIF and TIFF
def test_damaged_bytes_give_a_sample_or_a_bad_record(tmp_path):
    """Cut and flipped bytes never surface as anything but `BadRecord`."""
    rng = np.random.default_rng(0)
    one(tmp_path / "x", "b.bin", "c.bin")
    source = indexed(tmp_path / "x", "train", check_files=False)
    originals = [
        [encoded(picture(), form) for form in ("PNG", "JPEG", "BMP", "GIF", "WEBP")],
        [encoded(GREY, form) for form in ("PNG", "GIF", "BMP")],
    ]
    outcomes = set()
    for trial in range(400):
        for name, choices in zip(("b.bin", "c.bin"), originals, strict=True):
            data = bytearray(choices[rng.integers(len(choices))])
            if trial % 2 == (name == "b.bin"):
                data[rng.integers(len(data))] = rng.integers(256)
                data = data[: rng.integers(len(data) // 2, len(data) + 1)]
            (tmp_path / "x" / name).write_bytes(data)
        try:
            outcomes.add(source[0].image.shape)
        except BadRecord:
            outcomes.add("bad")
    assert outcomes == {(*SIZE, 3), "bad"}


def test_a_flipped_bit_of_a_png_is_refused(tmp_path):
    """Pillow reads pixels without their checksum: a mask had another label."""
    content = bytearray(png.write(np.arange(54).reshape(*SIZE, 1), 8, png.GREY))
    content[-13] ^= 1  # of the checksum of the pixels
    for role in ("a.png", "a_mask.png"):
        load = one(tmp_path / role, "a.png", "a_mask.png", check_files=False)
        (tmp_path / role / role).write_bytes(content)
        with pytest.raises(BadRecord, match=f"{role} .*cannot be read: .*checksum"):
            load()


def read_bytes(content, bits=16):
    return decode.read_rgb(io.BytesIO(content), bits).pixels


@pytest.mark.parametrize("depth", [2, 4, 8])
def test_the_transparent_grey_of_few_bits_is_white(depth):
    values = np.arange(54).reshape(*SIZE, 1) % (1 << depth)
    clear = png.write(values, depth, png.GREY, clear=bytes([0, 2]))
    right = np.where(values == 2, 255, values * 255 // ((1 << depth) - 1))
    np.testing.assert_array_equal(read_bytes(clear), np.repeat(right, 3, -1))


@pytest.mark.parametrize("bits", [16, 12])
def test_the_transparent_colour_of_16_bits_is_white(bits):
    """All 16 bits of a colour count, not the upper 8 that are kept."""
    values = np.arange(162).reshape(*SIZE, 3) * 25
    values[0, 0], values[0, 1] = (256, 257, 258), (256, 257, 259)
    content = png.write(values, 16, png.RGB, clear=struct.pack(">3H", 256, 257, 258))
    right = values >> (bits - 8)
    right[0, 0] = 255
    np.testing.assert_array_equal(read_bytes(content, bits), right)


def tiff(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "content, bits, said",
    [
        (tiff(DEEP, photometric="miniswhite"), 16, "WhiteIsZero"),
        (tiff(np.stack([DEEP] * 3), photometric="rgb", planarconfig="separate"), 16,
         "PlanarConfiguration 2"),
        (png.write(np.stack([DEEP >> 4] * 2, -1), 16, png.GREY_ALPHA), 12,
         "grey and alpha of 16 bits"),
    ],
)  # fmt: skip
def test_forms_that_pillow_reads_wrongly_are_refused(content, bits, said):
    with pytest.raises(BadRecord, match=said):
        read_bytes(content, bits)
    # The server's pictures, and those of many users, are open already.
    with Image.open(io.BytesIO(content)) as image, pytest.raises(BadRecord):
        decode.read_rgb(image, bits)
