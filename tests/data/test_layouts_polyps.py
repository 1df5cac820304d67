"""Polyps, in the trees of polyp.grand-challenge.org, Kvasir-SEG and PraNet."""

import pytest

from seggpt_jax.data.sample import BadRecord
from tests.support.layouts import (
    SIZE,
    agrees,
    mask,
    photo,
    raw,
    stripes,
)


@pytest.mark.parametrize(
    "kind, image, target",
    [
        (
            "cvc_clinicdb",
            "CVC-ClinicDB/Original/{}.tif",
            "CVC-ClinicDB/Ground Truth/{}.tif",
        ),
        ("cvc_clinicdb", "PNG/Original/{}.png", "PNG/Ground Truth/{}.png"),
        ("cvc_clinicdb", "CVC-ClinicDB/images/{}.png", "CVC-ClinicDB/masks/{}.png"),
        ("kvasir_seg", "Kvasir-SEG/images/cju{}.jpg", "Kvasir-SEG/masks/cju{}.jpg"),
        ("kvasir_seg", "images/polyp{}.JPG", "masks/polyp{}.JPG"),
        ("etis_larib", "ETIS-LaribPolypDB/{}.tif", "Ground Truth/p{}.tif"),
        (
            "etis_larib",
            "ETIS-LaribPolypDB/ETIS-LaribPolypDB/{}.tif",
            "ETIS-LaribPolypDB/Ground Truth/p{}.tif",
        ),
        (
            "etis_larib",
            "ETIS-LaribPolypDB/images/{}.png",
            "ETIS-LaribPolypDB/masks/{}.png",
        ),
    ],
)
def test_polyps(tmp_path, kind, image, target):
    """JPEG masks are noisy: grey above the middle is polyp."""
    for k in (1, 2, 10):
        photo(tmp_path / image.format(k), k)
        mask(tmp_path / target.format(k), (0, 255), "RGB" if k == 2 else "L")
    (tmp_path / "kavsir_bboxes.json").write_text("{}")
    source = raw(kind, tmp_path, "all")
    agrees(source)
    assert len(source) == 3 and source.class_names == {1: "polyp"}
    for sample in source:
        wrong = (sample.segments != stripes((0, 1))).mean()
        assert wrong < (0.1 if target.endswith((".jpg", ".JPG")) else 1e-9)
    with pytest.raises(ValueError, match="split: 'test' must be one of all"):
        raw(kind, tmp_path, "test")


def test_a_mask_of_another_size_names_both_files(tmp_path):
    photo(tmp_path / "images/a.jpg", size=(9, 9))
    mask(tmp_path / "masks/a.jpg", (0, 255))
    source = raw("kvasir_seg", tmp_path, "all")
    size = f"{SIZE[1]} x {SIZE[0]}"
    with pytest.raises(
        BadRecord, match=rf"images/a.jpg is 9 x 9.*masks/a.jpg is {size}"
    ):
        source[0]
