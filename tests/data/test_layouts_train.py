"""Sets that the paper trains on, in the trees of their owners
(tests/support/miniatures.py): the labels that the pixels of their masks become, and
files that are not as one would wish."""

import shutil

import numpy as np
import pytest
from PIL import Image

from seggpt_jax.data.dataset import Dataset, Raw
from seggpt_jax.data.sample import IGNORE, BadRecord
from seggpt_jax.data.sources import isaid, make_layout
from tests.support import miniatures
from tests.support.layouts import (
    agrees,
    faults,
    labels,
    mask,
    photo,
    raw,
    save,
    shown,
    stripes,
    write_lines,
)

SIZE = (48, 64)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return miniatures.write_all(tmp_path_factory.mktemp("data"))


def open_one(data, kind, split="train", **settings):
    source = raw(kind, data / kind, split, **settings)
    agrees(source)
    return source


# Two folders of pictures. Values: what the masks of tests/support/miniatures.py hold.


@pytest.mark.parametrize(
    "kind, ids, expected, names",
    [
        # 0 is unlabelled (github.com/CSAILVision/sceneparsing, README).
        (
            "ade20k",
            ["ADE_00000000"],
            [IGNORE, 1, 150],
            {1: "wall", 35: "rock", 150: "flag"},
        ),
        # 0 is void, 7, 26 and 33 are of the 19 (github.com/mcordts/cityscapesScripts).
        (
            "cityscapes",
            ["aachen/aachen_000000_000000"],
            [IGNORE, 7, 26, 33],
            {7: "road", 26: "car", 33: "bicycle"},
        ),
        # Values are labels.txt less one (github.com/nightrome/cocostuff, README).
        ("coco_stuff", ["000000000000"], [1, 182, IGNORE], {1: "person", 182: "wood"}),
        ("lip", ["0_77"], [0, 2, 13, 19], {1: "hat", 14: "left-arm", 19: "right-shoe"}),
        # 0 no data, 1 background (github.com/Junjue-Wang/LoveDA, issue 25).
        ("loveda", ["Rural/0"], [IGNORE, 0, 2, 7], {2: "building", 7: "agriculture"}),
        ("voc", ["2007_000000"], [0, 1, 20, IGNORE], {1: "aeroplane", 20: "tvmonitor"}),
    ],
)
def test_values_become_labels(data, kind, ids, expected, names):
    source = open_one(data, kind)
    assert [*shown(source)][: len(ids)] == ids
    assert labels(source[0], len(expected)) == expected
    assert names.items() <= source.class_names.items()
    known = {k for k in expected if k not in (0, IGNORE)}
    assert {k: [*v] for k, v in source.by_class.items()} == {
        label: [*range(len(source))] for label in known
    }


def test_numbers_of_classes(data):
    counts = {
        "ade20k": 150, "chase_db1": 1, "cityscapes": 19, "coco_stuff": 171, "isaid": 15,
        "lip": 19, "loveda": 6, "voc": 20,
    }  # fmt: skip
    for kind, count in counts.items():
        names = raw(kind, data / kind, "train").class_names
        assert len(names) == count == len(set(names.values())), kind
        assert not {0, IGNORE} & names.keys() and "" not in names.values()


def test_all_folders_of_a_split_are_listed(data):
    rural, urban = (
        [f"{area}/{n}" for n in numbers]
        for area, numbers in (("Rural", (0, 1)), ("Urban", (2, 3)))
    )
    assert [*shown(open_one(data, "loveda"))] == rural + urban
    cities = {name.split("/")[0] for name in shown(open_one(data, "cityscapes"))}
    assert cities == {"aachen", "zürich"}


def test_splits(data):
    assert len(open_one(data, "ade20k", "val")) == 3
    with pytest.raises(ValueError, match="Val/Rural/images_png: no such file or"):
        raw("loveda", data / "loveda", "val")


def test_names_of_many_kinds(tmp_path):
    """Blanks, accents, upper-case endings, hidden files, files without a partner."""
    images, masks = tmp_path / "train_images", tmp_path / "train_segmentations"
    for name in ("très petit", "b", "c"):
        photo(images / f"{name}.JPG")
        mask(masks / f"{name}.PNG", (0, 3))
    (images / "._b.jpg").write_bytes(b"no picture")
    (images / "Thumbs.db").write_bytes(b"no picture")
    (masks / "c.PNG").unlink()
    source = raw("lip", tmp_path, "train")
    agrees(source)
    assert shown(source) == {"b": ["glove"], "très petit": ["glove"]}
    assert [s.id for s in source.store.catalog.skipped] == ["c"]


def test_sides_of_lip_are_those_of_kept_classes(data):
    pairs = {14: 15, 16: 17, 18: 19}
    sides = pairs | {right: left for left, right in pairs.items()}
    assert raw("lip", data / "lip", "train")[0].sides == sides
    store = Raw(make_layout("lip", {}), data / "lip", "train")
    kept = Dataset(store, "lip", classes=["right-shoe", "face"])
    assert kept[0].sides == {} == raw("loveda", data / "loveda", "train")[0].sides


def test_images_and_masks_of_many_modes(tmp_path):
    """Grey, CMYK and palette images; masks of 16 bits, with a palette, and empty."""
    images, masks = tmp_path / "train_images", tmp_path / "train_segmentations"
    for k, mode in enumerate(("L", "CMYK", "P", "RGB")):
        photo(images / f"{k}.{'png' if mode == 'P' else 'jpg'}", k, mode=mode)
    deep = Image.fromarray(stripes((0, 300, 19)).astype(np.uint16))
    save(masks / "0.png", deep)
    mask(masks / "1.png", (0, 2, 19), "P")
    mask(masks / "2.png", (0,))
    mask(masks / "3.png", (255, 2))
    source = raw("lip", tmp_path, "train")
    agrees(source)
    assert labels(source[0], 3) == [0, 0, 19]  # 300 is no class
    assert labels(source[1], 3) == [0, 2, 19]
    assert source[2].classes == ()
    colors = np.zeros((24, 32, 3), np.uint8) + np.array([9, 0, 0], np.uint8)
    save(masks / "3.png", Image.fromarray(colors))
    with pytest.raises(BadRecord, match=r"3\.png has colours instead of class ids"):
        source[3]
    photo(images / "2.png", size=(7, 8))
    with pytest.raises(BadRecord, match=r"2\.png is 8 x 7, but its mask .*2\.png"):
        source[2]


def test_coco_stuff_in_other_places_and_with_others_files(data, tmp_path):
    """Below annotations/, and beside the files that mmsegmentation leaves there."""
    for k in range(2):
        photo(tmp_path / f"images/train2017/{k:012}.jpg", k)
        mask(tmp_path / f"annotations/train2017/{k:012}.png", (0, 11))
        mask(tmp_path / f"annotations/train2017/{k:012}_labelTrainIds.png", (0, 1))
    source = raw("coco_stuff", tmp_path, "train")
    assert shown(source) == {f"{k:012}": ["person"] for k in range(2)}
    assert IGNORE in source[0].segments  # 11 is a name that COCO dropped
    assert source.store.catalog.skipped == []


def test_voc_prefers_its_own_masks_to_validate_and_sbds_to_train(tmp_path):
    """github.com/open-mmlab/mmsegmentation builds SBD's masks for VOC's images too."""
    voc = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("own", "both", "sbd", "held_out", "no_mask"):
        photo(voc / "JPEGImages" / f"{name}.jpg")
    for name in ("own", "both", "held_out"):
        mask(voc / "SegmentationClass" / f"{name}.png", (0, 1, 255), "P")
    for name in ("both", "sbd", "held_out"):
        mask(voc / "SegmentationClassAug" / f"{name}.png", (0, 2))
    write_lines(voc / "ImageSets/Segmentation/val.txt", "held_out ", "")
    train = raw("voc", tmp_path, "train")
    agrees(train)
    assert shown(train) == {
        "both": ["bicycle"],
        "own": ["aeroplane"],
        "sbd": ["bicycle"],
    }
    assert train.store.catalog.skipped == []
    assert shown(raw("voc", tmp_path, "val")) == {"held_out": ["aeroplane"]}
    (voc / "ImageSets/Segmentation/val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a UTF-8 text file"):
        raw("voc", tmp_path, "train")


def test_classes_may_be_kept_and_hidden(data):
    store = open_one(data, "voc").store
    kept = Dataset(store, "voc", classes=["aeroplane"])
    assert kept.class_names == {1: "aeroplane"} and [*kept.by_class] == [1]
    assert labels(kept[0], 4) == [0, 1, 0, IGNORE]
    hidden = Dataset(store, "voc", exclude_classes=[1])
    assert labels(hidden[0], 4) == [0, IGNORE, 20, IGNORE]
    assert 1 not in hidden.class_names and [*hidden.by_class] == [20]
    for settings, message in [
        (
            {"classes": ["plane"]},
            "classes: voc has no 'plane'; did you mean 'aeroplane'",
        ),
        ({"classes": "cat"}, "must be a list of names"),
        ({"classes": ["cat"]}, "classes: split 'train' of voc has no image of cat"),
        ({"classes": [1], "exclude_classes": [1]}, "both have aeroplane"),
    ]:
        with pytest.raises(ValueError, match=message):
            Dataset(store, "voc", **settings)


# Vessels. Trees: as the converters of github.com/open-mmlab/mmsegmentation read them.


@pytest.mark.parametrize("kind", ["chase_db1", "drive", "hrf", "stare"])
def test_vessels(data, kind):
    """GIF, 1-bit PNG, TIFF and packed PPM; .jpg and .JPG."""
    source = open_one(data, kind)
    assert source.class_names == {1: "retinal vessel"}
    assert len(source) == {"hrf": 9}.get(kind, 3)
    for sample in source:
        assert labels(sample, 2) == [0, 1] and sample.segments.shape == SIZE


def test_customary_divisions(tmp_path):
    for k in range(1, 15):
        for side in "LR":
            photo(tmp_path / f"chase/Image_{k:02}{side}.jpg", size=(2, 2))
            for observer in ("1stHO", "2ndHO"):
                mask(
                    tmp_path / f"chase/Image_{k:02}{side}_{observer}.png",
                    (255,),
                    "1",
                    (2, 2),
                )
    train, test = (raw("chase_db1", tmp_path / "chase", s) for s in ("train", "test"))
    assert [*shown(train)][-1] == "Image_10R" and [*shown(test)][0] == "Image_11L"
    assert (len(train), len(test)) == (20, 8)
    for k in range(1, 16):
        for kind, suffix in (("dr", ".JPG"), ("g", ".jpg"), ("h", ".jpg")):
            photo(tmp_path / f"HRF/images/{k:02}_{kind}{suffix}", size=(2, 2))
            mask(tmp_path / f"HRF/manual1/{k:02}_{kind}.tif", (255,), size=(2, 2))
    train, test = (raw("hrf", tmp_path, s) for s in ("train", "test"))
    assert (len(train), len(test)) == (15, 30)
    assert {name[:2] for name in shown(train)} == {f"{k:02}" for k in range(1, 6)}
    # By number: a missing image moves no other from test to training.
    for side in "LR":
        (tmp_path / f"chase/Image_05{side}.jpg").unlink()
    for folder, suffix in (("images", "jpg"), ("manual1", "tif")):
        (tmp_path / f"HRF/{folder}/03_h.{suffix}").unlink()
    train = raw("chase_db1", tmp_path / "chase", "train")
    assert max(shown(train)) == "Image_10R"
    assert {*faults(train)} == {"Image_05L", "Image_05R"}
    names = [*shown(raw("hrf", tmp_path, "train"))]
    assert [n for n in names if "h" in n] == ["01_h", "02_h", "04_h", "05_h"]


def test_test_masks_that_are_not_given_out(data, tmp_path):
    root = shutil.copytree(data / "drive", tmp_path / "drive")
    photo(root / "DRIVE/test/images/01_test.tif")
    with pytest.raises(ValueError, match="test/1st_manual: no such file or folder"):
        raw("drive", root, "test")


# iSAID. Colours and tiles: github.com/CAPTAIN-WHU/iSAID_Devkit and mmsegmentation.


def test_isaid_tiles(data):
    """Images of 1000 x 900: two tiles along, two down; the last ends with the image."""
    source = open_one(data, "isaid")
    boxes = [(0, 0), (104, 0), (0, 4), (104, 4)]
    assert [*shown(source)][:4] == [f"P0000_{x}_{y}" for x, y in boxes]
    assert len(source) == 12 and source[0].segments.shape == (896, 896)
    image = np.asarray(Image.open(data / "isaid/train/images/images/P0000.png"))
    for index, (x, y) in enumerate(boxes):
        sample = source[index]
        np.testing.assert_array_equal(sample.image, image[y : y + 896, x : x + 896])
        # Ships at columns 100 to 300, a harbour at 600 to 700.
        assert (sample.segments[:, max(0, 100 - x) : 300 - x] == 1).all()
        assert (sample.segments[:, 600 - x : 700 - x] == 15).all()
        assert sample.segments.sum() == (sample.segments == 1).sum() + 15 * 896 * 100
    assert source.class_names[1] == "ship" and source.class_names[15] == "harbor"


def test_isaid_of_other_sizes(data, tmp_path):
    """Settings, tiles without a class, small images, and an unknown colour."""
    half = raw("isaid", data / "isaid", "train", tile=500, overlap=0)
    agrees(half)
    assert [*shown(half)][:2] == ["P0000_0_0", "P0000_500_0"] and len(half) == 12
    few = raw("isaid", data / "isaid", "train", tile=100, overlap=0)
    assert {name.split("_")[1] for name in shown(few)} == {"100", "200", "600"}
    with pytest.raises(ValueError, match="tile=100, overlap=100: need 0 <= overlap"):
        raw("isaid", data / "isaid", "train", tile=100, overlap=100)
    colors = np.full((30, 40, 3), 9, np.uint8)
    colors[:, :20] = (0, 127, 255)
    root = tmp_path / "train"
    save(root / "Semantic_masks/P0001_instance_color_RGB.png", Image.fromarray(colors))
    photo(root / "images/P0001.png", size=(30, 40), mode="L")
    photo(root / "images/P0001_instance_id_RGB.png", size=(30, 40))
    small = raw("isaid", tmp_path, "train")
    agrees(small)
    assert shown(small) == {"P0001_0_0": ["plane"]}
    assert labels(small[0], 2) == [14, 0] and small[0].image.shape == (30, 40, 3)
    colors[:, :20] = (0, 0, 63)  # the mask is drawn anew, in the same process
    save(root / "Semantic_masks/P0001_instance_color_RGB.png", Image.fromarray(colors))
    assert labels(raw("isaid", tmp_path, "train")[0], 2) == [1, 0]


def test_isaid_as_its_devkit_wants_it(tmp_path):
    """Both kinds of masks beside the images, whole or already cut into patches
    (github.com/CAPTAIN-WHU/iSAID_Devkit, README.md)."""
    colors = np.zeros((30, 40, 3), np.uint8)
    colors[:, :20] = (0, 127, 255)
    names = ("P0002", "P0010_0_0_800_800")
    for name in names:
        photo(tmp_path / f"train/images/{name}.png", size=(30, 40))
        for kind in ("color", "id"):
            path = tmp_path / f"train/images/{name}_instance_{kind}_RGB.png"
            save(path, Image.fromarray(colors))
    source = raw("isaid", tmp_path, "train")
    agrees(source)
    assert shown(source) == {f"{name}_0_0": ["plane"] for name in names}
    assert labels(source[0], 2) == [14, 0] and not source.store.catalog.skipped
    for name in names:
        (tmp_path / f"train/images/{name}_instance_color_RGB.png").unlink()
    with pytest.raises(ValueError, match=r"no image has a mask\. Images: P0002, P0010"):
        raw("isaid", tmp_path, "train")


def test_tiles_cover_an_axis():
    for length in (1, 99, 100, 101, 150, 1000):
        for stride in (30, 100):
            found = isaid.starts(length, 100, stride)
            covered = {c for start in found for c in range(start, start + 100)}
            assert covered >= set(range(length))
            assert found[0] == 0 and (length <= 100 or found[-1] + 100 == length)
