"""HEIC, the photographs of phones: read with the extra `heic`, named without it."""

import io

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from seggpt_jax.data.decode import read_rgb
from seggpt_jax.data.sample import BadRecord
from seggpt_jax.pictures import images
from seggpt_jax.pictures.listing import kinds, look_into

ROWS, COLUMNS = np.mgrid[:48, :64]
PIXELS = np.stack([4 * ROWS, 3 * COLUMNS, 2 * (ROWS + COLUMNS)], -1).astype(np.uint8)
# YCbCr rounds; chroma is stored at full size here.
NEAR = {"atol": 4, "rtol": 0}


def heic(pixels=PIXELS, **how) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    image.save(file, "HEIF", quality=100, chroma=444, **how)
    return file.getvalue()


@pytest.fixture
def not_installed(monkeypatch):
    monkeypatch.delitem(Image.OPEN, "HEIF")
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])


def test_a_photograph_of_a_phone(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(heic())
    found = look_into(tmp_path)
    assert (found.pictures, found.others) == ([tmp_path / "IMG_1.HEIC"], [])
    shown = images.read_image(found.pictures[0]), read_rgb(io.BytesIO(heic()))
    for image in shown:
        np.testing.assert_allclose(image.pixels, PIXELS, **NEAR)


def test_the_exif_tag_of_orientation_is_not_followed():
    """The file itself tells how it is turned, and is decoded so. Its tag says the same
    once more (ISO/IEC 23008-12), or is wrong."""
    tags = Image.Exif()
    tags[0x112] = 6
    shown = read_rgb(io.BytesIO(heic(exif=tags)))
    assert shown.orientation == 1
    np.testing.assert_allclose(shown.pixels, PIXELS, **NEAR)


def test_what_is_transparent_is_white():
    alpha = np.where(COLUMNS < 32, 0, 255).astype(np.uint8)
    shown = read_rgb(io.BytesIO(heic(np.dstack([PIXELS, alpha])))).pixels
    assert (shown[:, :31] >= 251).all()
    np.testing.assert_allclose(shown[:, 33:], PIXELS[:, 33:], **NEAR)


def test_ten_bits():
    file = io.BytesIO()
    deep = PIXELS.astype(np.uint16) << 8
    pillow_heif.encode(
        "RGB;16", (64, 48), deep.tobytes(), file, quality=100, chroma=444
    )
    assert pillow_heif.open_heif(file.getvalue()).info["bit_depth"] > 8
    np.testing.assert_allclose(read_rgb(file).pixels, PIXELS, **NEAR)


def test_several_pictures_are_refused():
    second = Image.fromarray(PIXELS[::-1].copy())
    file = io.BytesIO(heic(save_all=True, append_images=[second]))
    with pytest.raises(BadRecord, match="has 2 pages, and one picture is wanted"):
        read_rgb(file)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_damaged_file_is_named(tmp_path, share):
    whole, path = heic(), tmp_path / "a.heic"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"a\.heic cannot be read: .*replace"):
        images.read_image(path)


@pytest.mark.usefixtures("not_installed")
def test_without_the_extra_it_is_named(tmp_path):
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(heic())
    remedy = r"IMG_1\.HEIC is HEIC: pip install 'seggpt_jax\[heic\]' to read it"
    with pytest.raises(ValueError, match=remedy):
        images.read_image(path)
    with pytest.raises(BadRecord, match="^is HEIC: pip install"):
        read_rgb(io.BytesIO(heic()))
    found = look_into(tmp_path)
    assert kinds(found.others) == "1 .heic (pip install 'seggpt_jax[heic]')"
