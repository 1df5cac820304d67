"""Files that are missing, hidden, late, damaged or listed twice, whatever the set: each
is left out by name, or an error names it."""

import gzip
import shutil

import numpy as np
import pytest
from PIL import Image

from seggpt_jax.data.dataset import Dataset
from seggpt_jax.data.sample import IGNORE, BadRecord
from tests.support import miniatures
from tests.support.layouts import (
    agrees,
    faults,
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
    assert not (tmp_path / "cache").exists()  # nor is a folder made for it


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
    """macOS leaves `._NAME` beside each NAME on foreign disks, and __MACOSX with the
    same names in archives; Windows leaves Thumbs.db."""
    root = copied(kind)
    for path in [p for p in root.rglob("*") if p.is_file()]:
        (path.parent / "__MACOSX").mkdir(exist_ok=True)
        for name in (f"._{path.name}", f"__MACOSX/{path.name}", "Thumbs.db"):
            (path.parent / name).write_bytes(b"Mac OS X")
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
    path.write_bytes(b"no picture")
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
    assert [*faults(source)] == ["a.png"]


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
    with pytest.raises(ValueError, match=f"{name}: .*{{split}}"):
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


@pytest.mark.parametrize("place", ["image", "mask"])
def test_pointers_of_git_lfs_are_named(tmp_path, place):
    """In all places of a file: a cloned repository without its large files."""
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    for k in range(3):
        photo(tmp_path / f"images/x/{k}.png")
        mask(tmp_path / f"masks/x/{k}.png", (0, 1))
    for path in (tmp_path / f"{place}s/x").iterdir():
        path.write_bytes(text)
    if place == "image":
        with pytest.raises(BadRecord, match=r"images/x/0\.png is a pointer of Git LFS"):
            raw("png_folders", tmp_path, "x", ids={"a": 1})[0]
        return
    wanted = r"of 3 records 3 have masks that cannot be read, and 0 .* 3 records whose "
    wanted += (
        r"mask cannot be read: 0 .*masks/x/0\.png is a pointer of Git LFS, not the "
    )
    with pytest.raises(ValueError, match=wanted + "file; run `git lfs pull`"):
        raw("png_folders", tmp_path, "x", ids={"a": 1})
    mask(tmp_path / "masks/x/1.png", (0, 1))
    source = raw("png_folders", tmp_path, "x", ids={"a": 1, "b": 2})
    with pytest.raises(
        ValueError, match="no image of b; .* 2 records whose mask cannot"
    ):
        Dataset(source.store, "x", classes=["b"])


def test_masks_that_show_nothing_say_so(tmp_path):
    """Void or background throughout: no setting of classes is the cause."""
    for k, value in enumerate((0, IGNORE, 7)):
        photo(tmp_path / f"images/x/{k}.png")
        mask(tmp_path / f"masks/x/{k}.png", (value,))
    with pytest.raises(
        ValueError, match="of 3 records 0 have .*, and 3 have no class, o"
    ):
        raw("png_folders", tmp_path, "x", ids={"a": 1})


@pytest.mark.parametrize(
    "name",
    ["images/training/a/abbey/ADE_train_1_seg.png", "ADE20K/index_ade20k.pkl",
     "images/ADE/training/ADE_train_1.json"],
)  # fmt: skip
def test_the_full_ade20k_is_named(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
    with pytest.raises(
        ValueError, match="this is the full ADE20K.*SceneParse150 is wan"
    ):
        raw("ade20k", tmp_path, "train")


def test_maps_of_stuff_alone_are_named(tmp_path):
    photo(tmp_path / "train2017/1.jpg")
    mask(tmp_path / "annotations/stuff_train2017_pixelmaps/1.png", (0, 92))
    with pytest.raises(
        ValueError, match="stuff_train2017_pixelmaps has maps of stuff a"
    ):
        raw("coco_stuff", tmp_path, "train")


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


# Files that a copy left empty, frames without masks, lists of other places.


def davis(root, *lines):
    for name in ("bear/00000", "bear/00001"):
        photo(root / f"JPEGImages/480p/{name}.jpg")
        mask(root / f"Annotations/480p/{name}.png", (0, 1))
    write_lines(root / "ImageSets/2017/val.txt", *lines)
    return root


def test_an_empty_mask_is_no_frame_without_one(tmp_path):
    """Of a frame without a mask all is ignored: no score would show the loss."""
    root = davis(tmp_path, "bear")
    (root / "Annotations/480p/bear/00001.png").write_bytes(b"")
    source = raw("davis2017", root, "val")
    with pytest.raises(BadRecord, match="bear/00001.png is an empty file; copy it"):
        source[1]
    assert [item.id for item in source.lost] == ["bear/00001"]


def test_a_frame_of_training_without_its_mask_is_named(tmp_path):
    for kind, split in (("mose", "train"), ("mose", "valid")):
        root = tmp_path / split
        for k in range(2):
            photo(root / split / f"JPEGImages/bear/{k:05}.jpg", k)
        mask(root / split / "Annotations/bear/00000.png", (0, 1))
        flaws = raw(kind, root, split).store.catalog.flaws
        named = [f"{flaw.id} {flaw.reason.split(' in ')[0]}" for flaw in flaws]
        assert named == ["bear/00001 has no mask"] * (split == "train")


@pytest.mark.parametrize(
    "line, message",
    [
        ("..", r"val.txt: '\.\.' is no name of a folder"),
        ("../x/00000.jpg ../y/x/00000.png", None),
        (r"a\b", r"val.txt: 'a\\\\b' is no name of a folder"),
        ("a\x00b", "val.txt line 2: has a zero byte"),
    ],
)
def test_lists_that_lead_elsewhere(tmp_path, line, message):
    root = davis(tmp_path, "bear", line)
    if message is None:  # a path of DAVIS 2016, of which only the video counts
        assert "x" in faults(raw("davis2017", root, "val"))
        return
    with pytest.raises(ValueError, match=message):
        raw("davis2017", root, "val")


def test_an_empty_list_is_named(tmp_path):
    root = davis(tmp_path)
    (root / "ImageSets/2017/val.txt").write_text("\n")
    with pytest.raises(ValueError, match="val.txt: is empty; it lists the videos"):
        raw("davis2017", root, "val")


def test_a_list_that_names_no_image_of_voc(tmp_path):
    voc(tmp_path, ("z",), ("a",))
    with pytest.raises(ValueError, match="no mask of split 'val'; .*val.txt lists .*"):
        raw("voc", tmp_path, "val")


@pytest.mark.parametrize(
    "objects, message",
    [
        ([], "video 'bear' has no table of objects"),
        ({"x": {}}, "object 'x' of video 'bear' must be a number"),
        ({"1": 3}, "object 1 of video 'bear' has 3 in place of fields"),
        ({"1": {"category": 3}}, "object 1 of video 'bear' has category 3, and text"),
        ({"1": {"frames": 3}}, "object 1 of video 'bear' has frames 3, and a list of"),
        ({"1": {"frames": [3]}}, "object 1 of video 'bear' has frames .3., and a list"),
    ],
)
def test_objects_of_youtube_vos_out_of_form(tmp_path, objects, message):
    photo(tmp_path / "train/JPEGImages/bear/00000.jpg")
    mask(tmp_path / "train/Annotations/bear/00000.png", (0, 1))
    meta = {"videos": {"bear": {"objects": objects}}}
    write_json(tmp_path / "train/meta.json", meta)
    with pytest.raises(ValueError, match=f"meta.json: {message}"):
        raw("youtube_vos", tmp_path, "train")


def test_a_scaled_mask_is_said(tmp_path):
    photo(tmp_path / "cat/1.jpg")
    mask(tmp_path / "cat/1.png", (0, 255), size=(30, 20))
    source = raw("fss1000", tmp_path, "all")
    _, remarks = source.inspect(source.store[0])
    assert [remark.detail for _, remark in remarks] == ["20 x 30 becomes 32 x 24"]


def test_an_error_leaves_no_folder(tmp_path):
    root = davis(tmp_path, "..")
    with pytest.raises(ValueError, match="no name of a folder"):
        raw("davis2017", root, "val")
    assert not (root / ".seggpt").exists()
    write_lines(root / "ImageSets/2017/val.txt", "bear")
    raw("davis2017", root, "val")
    assert (root / ".seggpt").is_dir()
