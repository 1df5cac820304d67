"""Whatever a user has is read, or refused in one line."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from seggpt_jax.pictures import images

RAMP = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
RGB = np.stack([RAMP, 255 - RAMP, RAMP // 2], -1)
ALPHA = RAMP / 255  # of `with_alpha`, as shares


def saved(tmp_path, image, name="x.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def with_alpha(picture):
    return np.concatenate([picture, RAMP[..., None]], -1)


def palette_image():
    image = Image.fromarray((RAMP // 10) % 3)
    image.putpalette([9, 8, 7, 200, 0, 0, 0, 0, 200])
    return image


def test_images_of_every_mode_become_rgb(tmp_path):
    deep = Image.fromarray(RAMP.astype(np.uint16) << 8)
    rgba = Image.fromarray(with_alpha(RGB))
    on_white = RGB * ALPHA[..., None] + 255 * (1 - ALPHA[..., None])
    grey = np.repeat(RAMP[..., None], 3, -1)
    colours = np.array([[9, 8, 7], [200, 0, 0], [0, 0, 200]], np.uint8)
    for image, wanted in (
        (Image.fromarray(RGB), RGB), (Image.fromarray(RAMP), grey), (rgba, on_white),
        (deep, grey), (palette_image(), colours[(RAMP // 10) % 3]),
        (Image.fromarray(RAMP > 90), grey // 255 * 0 + (grey > 90) * np.uint8(255)),
    ):  # fmt: skip
        for picture in (image, saved(tmp_path, image), str(saved(tmp_path, image))):
            found = images.read_rgb(picture)
            np.testing.assert_allclose(found, wanted, atol=0.5 if image is rgba else 0)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (RGB, RGB),
        (RAMP, np.repeat(RAMP[..., None], 3, -1)),
        (RAMP[..., None], np.repeat(RAMP[..., None], 3, -1)),
        (np.concatenate([RGB, np.full((4, 6, 1), 255, np.uint8)], -1), RGB),
        (RGB.astype(np.uint16) << 8, RGB),
        (RAMP > 99, np.repeat((RAMP > 99)[..., None], 3, -1) * np.uint8(255)),
    ],
)
def test_arrays_become_rgb(values, wanted):
    np.testing.assert_array_equal(images.read_rgb(values), wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_honoured(tmp_path, orientation):
    """A picture that a camera stored turned is read upright."""
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Pillow's transpositions
    upright = Image.fromarray(RGB)
    inverse = {4: 2, 2: 4}
    stored = upright
    if orientation > 1:
        turn = turns[orientation]
        stored = upright.transpose(Image.Transpose(inverse.get(turn, turn)))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = saved(tmp_path, stored, exif=exif)
    np.testing.assert_array_equal(images.read_rgb(path), RGB)


@pytest.mark.parametrize(
    ("read", "given", "said"),
    [
        (images.read_rgb, np.zeros((2, 2, 5), np.uint8), r"it \(2, 2, 5\): an array"),
        (images.read_rgb, np.zeros((0, 2), np.uint8), r"it \(0, 2\)"),
        (images.read_rgb, np.uint8(3), r"it \(\): an array"),
        (images.read_rgb, np.zeros((1, 2, 3, 4, 5), np.uint8), "wanted$"),
        (images.read_rgb, np.zeros((2, 2)), "it is float64: an array of uint8"),
        (images.read_mask, np.zeros((2, 2)), "it is float64: labels are integers"),
        (images.read_mask, np.full((2, 2), -1), "it has values of -1 to -1, outside 0"),
        (images.read_mask, np.zeros((2, 0), int), r"it \(2, 0\): labels"),
    ],
)
def test_what_cannot_be_used_is_named(read, given, said):
    with pytest.raises(ValueError, match=said):
        read(given, "it")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none.png does not exist"):
        images.read_rgb(tmp_path / "none.png")


def bomb() -> bytes:
    """A small file that says it has 60,000 x 60,000 pixels, and has none."""

    def chunk(name: bytes, content: bytes) -> bytes:
        size, check = len(content), zlib.crc32(name + content)
        return struct.pack(">I", size) + name + content + struct.pack(">I", check)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("read", [images.read_rgb, images.read_mask])
def test_a_decompression_bomb_is_refused(tmp_path, read):
    (tmp_path / "bomb.png").write_bytes(bomb())
    with pytest.raises(ValueError, match="bomb.png .*(pixels|bomb)") as caught:
        read(tmp_path / "bomb.png")
    assert "\n" not in str(caught.value)


def _files():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Software] = "a camera"
    exif[ExifTags.Base.XResolution] = 72.5
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, "JPEG", exif=exif)
    found = [stream.getvalue()] * 3
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP"):
        stream = io.BytesIO()
        Image.fromarray(RGB).save(stream, kind)
        found.append(stream.getvalue())
    return found


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=300),
        st.tuples(st.sampled_from(_files()), st.integers(0, 400)).map(
            lambda x: x[0][: x[1]]
        ),
        st.tuples(
            st.sampled_from(_files()), st.lists(st.tuples(st.integers(0, 400),
                                                          st.integers(0, 255)))
        ).map(lambda x: _flip(*x)),
    )
)  # fmt: skip
# Pillow warns of what it can read all the same.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("read", [images.read_rgb, images.read_mask])
def test_damaged_files_end_in_one_line(tmp_path_factory, read, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.png"
    path.write_bytes(content)
    try:
        values = read(path)
    except ValueError as error:
        assert "fuzz.png" in str(error) and "\n" not in str(error)
    else:
        assert getattr(values, "values", values).ndim in (2, 3)


def _flip(content: bytes, changes) -> bytes:
    content = bytearray(content)
    for at, value in changes:
        content[at % len(content)] = value
    return bytes(content)


def test_colours_of_a_painting_leave_blends_out():
    painted = np.zeros((60, 60, 3), np.uint8)
    painted[:30, :30] = (255, 255, 255)
    painted[:30, 30:50] = (250, 10, 10)
    painted[:30, 50] = (128, 5, 5)  # an edge of the red one, many pixels long
    painted[40:48] = np.arange(8 * 60 * 3).reshape(8, 60, 3) % 90  # as JPEG leaves
    painted[59, 0] = (0, 255, 0)  # one pixel
    found = images.colors_of(painted)
    assert found.tolist()[:2] == [[255, 255, 255], [250, 10, 10]]
    assert [0, 255, 0] not in found.tolist()
    # Where nothing was blended every colour counts, however near or rare.
    exact = np.zeros((60, 60, 3), np.uint8)
    exact[:9], exact[9, 9] = (64, 0, 0), (128, 0, 0)
    assert images.colors_of(exact).tolist() == [[64, 0, 0], [128, 0, 0]]
    assert len(images.colors_of(np.zeros((5, 5, 3), np.uint8))) == 0


def test_a_painting_of_many_classes_keeps_them_all():
    """As of street scenes: near colours and small objects are classes too."""
    classes = np.array([[k, 255 - k, 3 * k % 256] for k in range(0, 250, 5)], np.uint8)
    target = np.repeat(np.repeat(classes.reshape(5, 10, 3), 20, 0), 20, 1)
    target[:3, :3] = (9, 9, 9)
    assert images.exact_colors(target)[1]
    found = {tuple(color) for color in images.colors_of(target).tolist()}
    assert found == {tuple(color) for color in [*classes.tolist(), [9, 9, 9]]}
    shape = target.shape[1] - 20, target.shape[0] - 10
    smooth = Image.fromarray(target).resize(shape, Image.Resampling.BILINEAR)
    assert not images.exact_colors(np.asarray(smooth))[1]
    assert len(images.colors_of(np.asarray(smooth))) < 40


def test_smooth_edges_are_nobodys_label():
    """As in the masks that the authors' examples come with."""
    target = np.zeros((100, 100, 3), np.uint8)
    target[20:60, 20:60] = 255
    target[19, 20:26] = np.arange(40, 250, 36)[:, None]  # grey, one pixel of each
    target[80, 80] = (200, 30, 30)  # small, and no blend
    assert images.colors_of(target).tolist() == [[255, 255, 255], [200, 30, 30]]
    target[80, 10:13] = 127, 127, 128  # as thin as an edge
    assert len(images.colors_of(target)) == 2
    target[80:82, 10:12] = 127  # a small object
    assert [127, 127, 127] in images.colors_of(target).tolist()
    target[90:95, 90:95] = 100  # no edge's any more
    assert [100, 100, 100] in images.colors_of(target).tolist()


@settings(max_examples=30, deadline=None)
@given(
    labels=st.lists(st.integers(1, 400), min_size=1, max_size=20, unique=True),
    seed=st.integers(0, 9),
)
def test_label_files_round_trip(tmp_path_factory, labels, seed):
    path = tmp_path_factory.getbasetemp() / "labels.png"
    rng = np.random.default_rng(seed)
    segments = rng.choice([0, *labels], (9, 7)).astype(np.int32)
    palette = {label: (label % 256, 1, 2) for label in [0, *labels]}
    segments[segments > 255] *= int(rng.integers(2))  # shown, or in the palette only
    images.save_labels(path, segments, palette)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.array(image), segments)


@pytest.mark.parametrize("largest, mode", [(255, "P"), (256, "I;16")])
def test_label_files_have_16_bits_where_8_are_too_few(tmp_path, largest, mode):
    labels = np.array([[0, 1], [largest, 1]], np.int32)
    palette = {label: (label % 7, 9, 9) for label in (0, 1, largest)}
    images.save_labels(tmp_path / "x.png", labels, palette)
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == mode
        np.testing.assert_array_equal(np.array(image), labels)


def test_overlay_leaves_the_background_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (9, 8, 3), np.uint8)
    colors = np.zeros_like(image)
    colors[:4] = (255, 255, 255)
    colors[5:, :3] = (0, 0, 200)
    shown = images.overlay(image, colors)
    outside = ~colors.any(-1)
    np.testing.assert_array_equal(shown[outside], image[outside])
    # White would hide what it covers, so red stands for it.
    mixed = 0.4 * image[:3] + 0.6 * np.array((255, 64, 64))
    np.testing.assert_allclose(shown[:3], mixed, atol=0.5)
    blue = 0.4 * image[6:, :2] + 0.6 * np.array((0, 0, 200))
    np.testing.assert_allclose(shown[6:, :2], blue, atol=0.5)
    # A line along the border of each region, not along that of the image.
    assert not shown[3].any()
    assert (shown[5, :3] == 255).all() and (shown[5:, 2] == 255).all()
    assert (shown[6:, :2] != 255).any()
