"""The sets that peers report SegGPT on: trees as INSID3 prepares and reads them
(github.com/visinf/INSID3, docs/data.md and datasets/)."""

import numpy as np
import pytest

from seggpt_jax.data.sample import IGNORE
from tests.support.layouts import (
    agrees,
    faults,
    labels,
    mask,
    photo,
    raw,
    shown,
    write_lines,
)


def test_isaid5i(tmp_path):
    """Ids of classes as values, the lists in the folder or beside it."""
    for name, values in (("P0_0", (0, 6, 255)), ("P1_0", (7, 6, 15))):
        photo(tmp_path / f"iSAID_patches/val/images/{name}.png")
        folder = tmp_path / "iSAID_patches/val/semantic_png"
        mask(folder / f"{name}_instance_color_RGB.png", values)
    path = tmp_path / "splits/val/fold1.txt"
    write_lines(path, "P1_0__07", "P0_0__06", "P1_0__06", "P9_0__08")
    source = raw("isaid5i", tmp_path, "val", fold=1)
    agrees(source)
    assert shown(source) == {
        "P1_0__07": ["bridge"],
        "P0_0__06": ["ground track field"],
        "P1_0__06": ["ground track field"],
    }
    assert labels(source[0], 3) == [7, 0, 0] and labels(source[1], 3) == [0, 6, IGNORE]
    assert [*source.class_names] == [6, 7, 8, 9, 10]
    assert [item.id for item in source.lost] == ["P9_0__08"]
    path.rename(tmp_path / "iSAID_patches/fold.txt")
    write_lines(tmp_path / "iSAID_patches/splits/val/fold0.txt", "P1_0__07")
    with pytest.raises(ValueError, match="is of bridge, which is no class of fold 0"):
        raw("isaid5i", tmp_path, "val", fold=0)
    with pytest.raises(ValueError, match="fold: 3 must be 0, 1 or 2"):
        raw("isaid5i", tmp_path, "val", fold=3)


def test_isic2018(tmp_path):
    images = tmp_path / "ISIC/ISIC2018_Task1-2_Training_Input"
    masks = tmp_path / "ISIC/ISIC2018_Task1_Training_GroundTruth"
    for kind, name in ((1, "b"), (1, "a"), (2, "c"), (3, "d"), (3, "e")):
        photo(images / f"{kind}/ISIC_{name}.jpg")
        if name != "e":
            mask(masks / f"ISIC_{name}_segmentation.png", (0, 127, 128, 255))
    mask(masks / "ISIC_f_segmentation.png", (0, 255))
    (images / "ATTRIBUTION.txt").write_text("")
    source = raw("isic2018", tmp_path, "all")
    agrees(source)
    assert shown(source) == {
        "1/ISIC_a": ["lesion 1"], "1/ISIC_b": ["lesion 1"], "2/ISIC_c": ["lesion 2"],
        "3/ISIC_d": ["lesion 3"],
    }  # fmt: skip
    assert labels(source[3], 4) == [0, 0, 3, 3]
    assert faults(source) == {"3/ISIC_e": "has no mask", "ISIC_f": "has no image"}
    (images / "2").rename(images / "rest")
    with pytest.raises(ValueError, match=r"Input/2: no such .* ISIC_Split.py"):
        raw("isic2018", tmp_path, "all")


@pytest.mark.parametrize("folder", ["", "Lung Segmentation/", "LungSegmentation/"])
def test_chest_xray(tmp_path, folder):
    """Shenzhen's masks end in _mask; some images have none."""
    for image, target in (
        ("CHNCXR_0001_0", "CHNCXR_0001_0_mask"),
        ("MCUCXR_0001_0", "MCUCXR_0001_0"),
        ("CHNCXR_0002_0", ""),
        ("", "CHNCXR_0003_0_mask"),
    ):
        if image:
            photo(tmp_path / f"{folder}CXR_png/{image}.png", mode="L")
        if target:
            mask(tmp_path / f"{folder}masks/{target}.png", (0, 127, 128, 255))
    source = raw("chest_xray", tmp_path, "all")
    agrees(source)
    assert shown(source) == {"CHNCXR_0001_0": ["lung"], "MCUCXR_0001_0": ["lung"]}
    assert labels(source[0], 4) == [0, 0, 1, 1]
    assert faults(source) == {"CHNCXR_0003_0": "has no image"}


def test_suim(tmp_path):
    """A record for every class that an image shows; black masks make none."""
    names = ("FV", "HD", "PF", "RI", "RO", "SR", "WR")
    for image, seen in (("a", ("HD", "WR")), ("b", ("WR",))):
        photo(tmp_path / f"SUIM/images/{image}.jpg")
        for name in names:
            values = (0, 127, 255, 255) if name in seen else (0,)
            mask(tmp_path / f"SUIM/masks/{name}/{image}.bmp", values)
    source = raw("suim", tmp_path, "all")
    agrees(source)
    assert shown(source) == {
        "HD/a": ["human divers"],
        "WR/a": ["wrecks and ruins"],
        "WR/b": ["wrecks and ruins"],
    }
    assert labels(source[0], 4) == [0, 0, 2, 2]
    assert np.unique(source[2].segments).tolist() == [0, 7] and not source.lost
