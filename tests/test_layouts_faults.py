"""Files that are missing, hidden, late, damaged or listed twice, whatever the set: each
is left out by name, or an error names it."""

import gzip
import json
import os
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from seggpt_jax.data.dataset import Dataset
from seggpt_jax.data.sample import IGNORE, INSTANCE, BadRecord
from tests import miniatures
from tests.layouts import (
    SIZE,
    agrees,
    mask,
    photo,
    raw,
    save,
    shown,
    stripes,
    write_json,
    write_lines,
)

KINDS = sorted(miniatures.SETS)
PICTURES = (".jpg", ".png", ".tif", ".gif", ".ppm.gz")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Nothing is written outside of the test's folder, even for roots not there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return miniatures.write_all(tmp_path_factory.mktemp("sets"), count=2)


@pytest.fixture
def copied(sets, tmp_path):
    return lambda kind: shutil.copytree(sets / kind, tmp_path / kind)


def faults(source) -> dict[str, str]:
    return {s.id: s.reason for s in source.store.catalog.skipped if s.fault}


# All sets.


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_folder_is_named(copied, kind, tmp_path):
    """Every folder at the top in turn, and the root itself."""
    root = copied(kind)
    for folder in [p for p in root.iterdir() if p.is_dir()]:
        folder.rename(tmp_path / "away")
        with pytest.raises(ValueError, match=rf"{root}.*docs/data\.md"):
            raw(kind, root, "train")
        (tmp_path / "away").rename(folder)
    with pytest.raises(ValueError, match="elsewhere.*no such file or folder"):
        raw(kind, tmp_path / "elsewhere", "train")


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_split_lists_the_choices(sets, kind):
    with pytest.raises(ValueError, match="split: 'trian' must be one of train"):
        raw(kind, sets / kind, "trian")


@pytest.mark.parametrize("kind", KINDS)
def test_a_late_file_makes_its_record(copied, kind, tmp_path):
    """A set opened before its last archive was unpacked is not left at that."""
    root = copied(kind)
    images = [
        path
        for path in sorted(root.rglob("*"))
        if path.name.lower().endswith(PICTURES)
        and not {"masks", "1stHO", "ah"} & {*path.stem.replace(".", "_").split("_")}
        and not any(w in str(path) for w in ("annotation", "mask", "gtFine", "maps"))
        and path.parent.name not in ("SegmentationClassAug", "manual1", "1st_manual")
    ]
    late = [path for path in images if "val" not in str(path)][-1]
    whole = len(raw(kind, root, "train"))
    late.rename(tmp_path / "away")
    assert len(raw(kind, root, "train")) < whole
    (tmp_path / "away").rename(late)
    source = raw(kind, root, "train")
    agrees(source)
    assert len(source) == whole and not source.store.catalog.skipped


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_files_are_not_meant(copied, kind):
    """macOS leaves `._NAME` beside each NAME on foreign disks and in archives."""
    root = copied(kind)
    for path in [p for p in root.rglob("*") if p.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"Mac OS X")
    source = raw(kind, root, "train")
    agrees(source)
    assert not source.store.catalog.skipped and not source.store.catalog.unreadable


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_masks_are_named(copied, kind):
    """Opening goes on; reading the record raises an error with the file's name."""
    root = copied(kind)
    ends = {"coco_instance": "000000000000.jpg", "paco": "000000000000.jpg"}
    endings = (
        "_labelIds.png", "_1stHO.png", "manual1.gif", ".ah.ppm.gz", "color_RGB.png"
    )  # fmt: skip
    words = ("annotations", "segment", "Segment", "masks", "manual1", "stuffthing")
    path = next(
        p
        for p in sorted(root.rglob("*"))
        if p.name.endswith(ends.get(kind, endings))
        or (kind not in ends and p.is_file() and p.suffix in (".png", ".tif"))
        and any(word in str(p.relative_to(root)) for word in words)
        and "validation" not in str(p)
    )
    path.write_bytes(path.read_bytes()[:40])
    source = raw(kind, root, "train")
    catalog = source.store.catalog
    if kind == "isaid":  # the sizes of masks are needed to list tiles
        assert "P0000" in faults(source)
        return
    # Where a JSON lists the classes, only reading tells.
    bad = [catalog.entry(i) for i in range(len(source))]
    index = next(
        i for i, e in enumerate(bad) if path.name in (e.mask or e.image).split("/")[-1]
    )
    with pytest.raises(BadRecord, match=path.name):
        source[index]
    listed = [s.id for s in catalog.unreadable]
    assert listed == ([] if "coco_" in kind and "stuff" not in kind else listed[:1])


# Two folders of pictures.


def test_files_of_one_name(tmp_path):
    """a.jpg and a.png, of which only one can be image a: the other is named."""
    for name in ("a.jpg", "a.png", "b.jpg"):
        photo(tmp_path / "images/x" / name)
    for name in ("a.png", "b.png"):
        mask(tmp_path / "masks/x" / name, (0, 1))
    source = raw("png_folders", tmp_path, "x", ids={"a": 1})
    assert shown(source) == {"a": ["a"], "b": ["a"]}
    assert "a" in " ".join(faults(source))


def test_values_of_sixteen_and_of_one_bit(tmp_path):
    photo(tmp_path / "images/x/deep one.tif", 0)
    photo(tmp_path / "images/x/flat.jpg", 1)
    deep = Image.fromarray(stripes((0, 300, 65535, 255)).astype(np.uint16))
    save(tmp_path / "masks/x/deep one.png", deep)
    mask(tmp_path / "masks/x/flat.png", (0, 255), "1")
    ids = {"road": 300, "sky": 65535, "white": 255}
    source = raw("png_folders", tmp_path, "x", ids=ids)
    agrees(source)
    # 255 is reserved: the class of this value gets the first label above all.
    assert source.class_names == {300: "road", 65535: "sky", 65536: "white"}
    assert source[0].segments[0, ::8].tolist() == [0, 300, 65535, 65536]
    assert source[1].segments[0, ::16].tolist() == [0, 65536]


@pytest.mark.parametrize(
    "kind, settings",
    [
        ("png_folders", {"ids": {"a": 1}, "images": "images/{splt}"}),
        ("png_folders", {"ids": {"a": 1}, "masks": "masks/{"}),
        ("coco_json", {"images": "{}"}),
        ("coco_panoptic", {"masks": "{spilt}2017"}),
    ],
)
def test_wrong_braces_in_a_folders_name(tmp_path, kind, settings):
    """The setting that has them is named."""
    name = next(name for name in settings if name != "ids")
    with pytest.raises(ValueError, match=name):
        raw(kind, tmp_path, "train", **settings)


def test_folders_in_folders_are_watched(tmp_path):
    """As `test_a_late_file_makes_its_record`, two levels below the root."""
    for name in ("x/y/z/a", "x/y/z/b"):
        photo(tmp_path / f"images/{name}.jpg")
        mask(tmp_path / f"masks/{name}.png", (0, 1))
    late = tmp_path / "masks/x/y/z/b.png"
    late.rename(tmp_path / "away")
    assert len(raw("png_folders", tmp_path, "x", ids={"a": 1})) == 1
    (tmp_path / "away").rename(late)
    assert len(raw("png_folders", tmp_path, "x", ids={"a": 1})) == 2


def test_lip_beside_what_macos_packs(tmp_path):
    """Archives packed there hold __MACOSX, a tree of the same names."""
    photo(tmp_path / "train_images/1_2.jpg")
    mask(tmp_path / "train_segmentations/1_2.png", (0, 1))
    for name in ("train_images/._1_2.jpg", "train_segmentations/._1_2.png"):
        path = tmp_path / "__MACOSX" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"Mac OS X")
    assert shown(raw("lip", tmp_path, "train")) == {"1_2": ["hat"]}


# VOC.


def voc(root, held_out, masks):
    for name in ("a", "b", "c"):
        photo(root / "VOC2012/JPEGImages" / f"{name}.jpg")
    for name in masks:
        mask(root / "VOC2012/SegmentationClassAug" / f"{name}.png", (0, 1))
    write_lines(root / "VOC2012/ImageSets/Segmentation/val.txt", *held_out)


def test_voc_names_validation_images_without_a_mask(tmp_path):
    voc(tmp_path, ("a", "b"), ("a", "c"))
    source = raw("voc", tmp_path, "val")
    assert shown(source) == {"a": ["aeroplane"]} and [*faults(source)] == ["b"]


def test_voc_sees_masks_of_its_own_that_come_later(tmp_path):
    voc(tmp_path, ("a",), ("a", "b"))
    assert len(raw("voc", tmp_path, "train")) == 1
    mask(tmp_path / "VOC2012/SegmentationClass/c.png", (0, 2))
    assert shown(raw("voc", tmp_path, "train")) == {
        "b": ["aeroplane"],
        "c": ["bicycle"],
    }


# Vessels.


def test_a_missing_image_moves_no_other_from_test_to_training(tmp_path):
    """The customary divisions go by number: persons 1 to 10, pictures 1 to 5."""
    chase, hrf = tmp_path / "chase", tmp_path / "hrf"
    for k in range(1, 15):
        for side in "LR":
            mask(chase / f"Image_{k:02}{side}_1stHO.png", (0, 255), "1", (2, 2))
            if k != 5:
                photo(chase / f"Image_{k:02}{side}.jpg", size=(2, 2))
    for k in range(1, 16):
        if k != 3:
            photo(hrf / f"images/{k:02}_h.jpg", size=(2, 2))
            mask(hrf / f"manual1/{k:02}_h.tif", (0, 255), size=(2, 2))
    source = raw("chase_db1", chase, "train")
    assert max(shown(source)) == "Image_10R"
    assert {*faults(source)} == {"Image_05L", "Image_05R"}
    assert [*shown(raw("hrf", hrf, "train"))] == ["01_h", "02_h", "04_h", "05_h"]


def test_stare_packed_and_unpacked_and_torn(tmp_path):
    """`gunzip --keep` leaves both; one mask is packed by half."""
    for k in (1, 2):
        photo(tmp_path / f"stare-images/im{k:04}.ppm")
        path = mask(tmp_path / f"labels-ah/im{k:04}.ah.ppm", (0, 255), "RGB")
        packed = gzip.compress(path.read_bytes())
        path.with_name(f"{path.name}.gz").write_bytes(packed)
    path.unlink()
    path.with_name(f"{path.name}.gz").write_bytes(packed[: len(packed) // 2])
    photo(tmp_path / "stare-images/im0003.ppm")  # one of the 380 without vessels
    source = raw("stare", tmp_path, "train")
    assert len(source) == 2 and source[0].classes == (1,)
    with pytest.raises(BadRecord, match=r"im0002\.ah\.ppm\.gz cannot be read"):
        source[1]
    assert [s.id for s in source.store.catalog.unreadable] == ["im0002"]


# iSAID.


@pytest.mark.parametrize("size", [(60, 80), (30, 40)])
def test_isaid_of_another_size_than_its_image(tmp_path, size):
    """Tiles of a larger or smaller image must not pass for those of the mask."""
    colors = np.zeros((40, 60, 3), np.uint8)
    colors[...] = (0, 0, 63)
    root = tmp_path / "train"
    for name in ("P0001", "P0002"):
        path = root / f"Semantic_masks/images/{name}_instance_color_RGB.png"
        save(path, Image.fromarray(colors))
    photo(root / "images/images/P0001.png", size=size)
    photo(root / "images/images/P0002.png", size=(40, 60))
    source = raw("isaid", tmp_path, "train", tile=20, overlap=0)
    assert {name.split("_")[0] for name in shown(source)} == {"P0002"}
    agrees(source)
    assert f"{size[1]} x {size[0]}" in faults(source)["P0001"]
    assert "60 x 40" in faults(source)["P0001"]


# COCO's JSON.


@pytest.fixture
def coco(copied):
    """The miniature of instances, its JSON changed by `how(data)`."""

    def make(how):
        root = copied("coco_instance")
        path = root / "annotations/instances_train2017.json"
        data = json.loads(path.read_text())
        how(data)
        write_json(path, data)
        return root

    return make


H, W = 48, 64
SHORT = {"size": [H, W], "counts": [H * W // 4, H * W // 4]}
OTHER = {"size": [H // 2, W // 2], "counts": [H * W // 8, H * W // 8]}


@pytest.mark.parametrize(
    "segmentation",
    [[[1, 2]], [[]], [[1, 2, 3, 4]], 3, "x", {"counts": [1]}, OTHER, SHORT],
    ids=["point", "hollow", "box", "number", "word", "no size", "other size", "short"],
)
def test_masks_out_of_form_are_named(coco, segmentation):
    """Of another size than the image's, and those that the tools of COCO refuse: never
    a wrong mask, and never an error without the file."""
    root = coco(lambda d: d["annotations"][0].update(segmentation=segmentation))
    source = raw("coco_instance", root, "train")
    assert len(source) == 1 and [*faults(source)] == ["000000000000.jpg"]
    agrees(source)


def test_objects_smaller_than_a_pixel_are_not_listed(coco):
    """COCO has some: what the index lists is what the pixels show."""
    tiny = [[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]]
    root = coco(lambda d: d["annotations"][0].update(segmentation=tiny))
    settings = {
        "annotations": "annotations/instances_train2017.json", "images": "train2017"
    }  # fmt: skip
    for kind in ("category", "instance"):
        source = raw("coco_json", root, "any", kind=kind, **settings)
        agrees(source)
        assert [*source.by_class[1]] == [1] and [*source.by_class[90]] == [0, 1]


@pytest.mark.parametrize(
    "category", [{"id": 1}, {"id": "1", "name": "x"}, {"id": -1, "name": "x"}]
)
def test_categories_out_of_form(coco, category):
    def how(data):
        data["categories"][0] = category
        for note in data["annotations"]:
            if note["category_id"] == 1:
                note["category_id"] = category["id"]

    root = coco(how)
    with pytest.raises(ValueError, match=r"instances_train2017\.json: "):
        raw("coco_instance", root, "train")


def test_images_listed_twice_or_without_a_size(coco):
    """The size of an image without objects does not matter; iSAID's JSONs lack it."""

    def how(data):
        again = {**data["images"][0], "id": 50}
        note = {**data["annotations"][0], "id": 900, "image_id": 50}
        data["images"] += [again, {"id": 51, "file_name": "000000000001.jpg"}]
        data["annotations"].append(note)

    source = raw("coco_instance", coco(how), "train")
    agrees(source)
    assert len(source) == 2
    assert faults(source) == {"000000000000.jpg": "is listed twice"}


def test_kept_classes_of_many_instances(coco):
    """More objects than labels below 255; those of hidden classes become ignored."""

    def how(data):
        data["annotations"] = [
            {
                **data["annotations"][0],
                "id": k + 1,
                "category_id": (1, 90)[k % 2],
                "segmentation": {
                    "size": [H, W], "counts": [5 * k, 5, H * W - 5 * k - 5]
                },
            }
            for k in range(300)
        ]  # fmt: skip

    source = raw("coco_instance", coco(how), "train")
    assert source.kind == INSTANCE and len(source[0].classes) == 300
    assert IGNORE not in source[0].classes
    kept = Dataset(source.store, "x", classes=["person"])[0].segments
    hidden = Dataset(source.store, "x", exclude_classes=["toothbrush"])[0].segments
    order = source[0].segments.ravel(order="F")[2:1500:5]
    people, brushes = (np.isin(source[0].segments, order[k::2]) for k in (0, 1))
    assert (kept[people] == source[0].segments[people]).all()
    assert not kept[brushes].any() and (hidden[brushes] == IGNORE).all()
    np.testing.assert_array_equal(kept[~brushes], hidden[~brushes])


# Hugging Face.


def table(folder, masks, name="train-00000-of-00001.parquet"):
    rows = len(masks)
    path = photo(folder / "image.jpg")
    columns = {
        "image": [{"bytes": path.read_bytes(), "path": None}] * rows,
        "label": pyarrow.array(
            [None if m is None else {"bytes": m, "path": None} for m in masks],
            pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}),
        ),
    }
    (folder / "data").mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "data" / name)


def test_hugging_face_rows_without_a_mask(tmp_path):
    good = mask(tmp_path / "m.png", (0, 1), "P").read_bytes()
    color = mask(tmp_path / "c.png", (0, 1), "RGB").read_bytes()
    table(tmp_path, [good, None, color, b"torn", good])
    source = raw("hf_dataset", tmp_path, "train", ids={"a": 1})
    name = "data/train-00000-of-00001.parquet#{}"
    assert [s.id for s in source.store.catalog.unreadable] == [
        name.format(k) for k in (1, 2, 3)
    ]
    assert [*source.by_class[1]] == [0, 4]
    np.testing.assert_array_equal(source[4].segments, stripes((0, 1), SIZE))
    for row, text in ((1, "holds no picture"), (2, "has colours"), (3, "cannot be")):
        with pytest.raises(BadRecord, match=f"{name.format(row)} .*{text}"):
            source[row]


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1no parquetPAR1"])
def test_damaged_parquet_is_named(tmp_path, content):
    path = tmp_path / "data/train-00000-of-00001.parquet"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train-00000-of-00001\.parquet"):
        raw("hf_dataset", tmp_path, "train", ids={"a": 1})


def test_hugging_face_files_that_are_replaced(tmp_path):
    """By others in the same place: not what was read before is given."""
    for values, classes in (((0, 1), (1,)), ((0, 2), (2,))):
        table(tmp_path, [mask(tmp_path / "m.png", values).read_bytes()])
        path = tmp_path / "data/train-00000-of-00001.parquet"
        os.utime(path, (len(classes), classes[0]))
        source = raw("hf_dataset", tmp_path, "train", ids={"a": 1, "b": 2})
        assert source[0].classes == classes
        agrees(source)


@pytest.mark.parametrize("text", ["{", "[]", '{"_data_files": 3}', '{"x": 1}'])
def test_a_state_out_of_form(tmp_path, text):
    path = write_json(tmp_path / "train/state.json", {})
    path.write_text(text)
    with pytest.raises(ValueError, match=r"state\.json: not the state"):
        raw("hf_dataset", tmp_path, "train", ids={"a": 1})
