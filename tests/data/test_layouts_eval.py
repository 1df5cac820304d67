"""Sets that are only evaluated on, in the trees that owners and HSNet describe."""

import json
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from seggpt_jax.data.dataset import Dataset, Raw
from seggpt_jax.data.prepare import prepare
from seggpt_jax.data.prepared import Prepared
from seggpt_jax.data.sample import IGNORE, INSTANCE, BadRecord
from seggpt_jax.data.sources import coco20i, make_layout, voc
from tests.support.layouts import (
    agrees,
    labels,
    mask,
    photo,
    raw,
    save,
    shown,
    write_json,
    write_lines,
)

# FSS-1000. Tree: github.com/HKUSTCV/FSS-1000, readme.md; lists: HSNet, data/fss.py.


@pytest.fixture
def fss(tmp_path):
    for name in ("abacus", "abe's_flyingfish", "zucchini"):
        for k in (1, 2, 10):
            photo(tmp_path / f"fewshot_data/fewshot_data/{name}/{k}.jpg", k)
            path = tmp_path / f"fewshot_data/fewshot_data/{name}/{k}.png"
            mask(path, (0, 127, 128, 255), "RGB")
    return tmp_path


def test_fss1000(fss):
    write_lines(fss / "splits/test.txt", "zucchini", "abacus")
    source = raw("fss1000", fss, "test")
    agrees(source)
    assert source.class_names == {1: "abacus", 2: "zucchini"}
    assert [*shown(source)] == [
        f"{c}/{k}" for c in ("abacus", "zucchini") for k in (1, 10, 2)
    ]
    assert source[3].segments[0, ::8].tolist() == [0, 0, 2, 2]  # 128 or more
    assert len(raw("fss1000", fss, "all")) == 9
    with pytest.raises(ValueError, match=r"splits/trn\.txt: no such file"):
        raw("fss1000", fss, "train")
    (fss / "splits/test.txt").unlink()
    # The owners' list has no line end after its last name.
    (fss / "fss_test_set.txt").write_text("abe's_flyingfish")
    assert [*raw("fss1000", fss, "test").class_names.values()] == ["abe's_flyingfish"]


def test_fss1000s_odd_files(fss):
    """A mask larger than its image, a third file, a class that the list alone has."""
    folder = fss / "fewshot_data/fewshot_data/abacus"
    mask(folder / "1.png", (0, 255), size=(48, 64))
    shutil.copy(folder / "2.jpg", folder / "2.jpeg")
    write_lines(fss / "splits/val.txt", "abacus", "unicorn")
    source = raw("fss1000", fss, "val")
    agrees(source)
    assert len(source) == 3
    assert source[0].segments[:, :16].max() == 0 < source[0].segments[:, 16:].min()
    (skipped,) = source.store.catalog.skipped
    assert skipped.id == "unicorn" and "has no image with a mask" in skipped.reason


def test_more_than_254_classes_step_over_the_ignored_label(tmp_path):
    for k in range(260):
        photo(tmp_path / f"{k:03}/1.jpg", 0, (2, 2))
        mask(tmp_path / f"{k:03}/1.png", (255,), size=(2, 2))
    source = raw("fss1000", tmp_path, "all")
    assert IGNORE not in source.class_names and len(source.by_class) == 260
    assert source[254].classes == (256,) and source.class_names[256] == "254"


def test_real_fss1000(data_dir, tmp_path):
    root = shutil.copytree(data_dir / "fss1000-sample", tmp_path / "fss")
    source = raw("fss1000", root, "all")
    agrees(source)
    assert {n: len(source.by_class[k]) for k, n in source.class_names.items()} == {
        "african_elephant": 5, "eiffel_tower": 5
    }  # fmt: skip
    for index, name in enumerate(shown(source)):
        theirs = np.asarray(
            Image.open(root / "fewshot_data" / f"{name}.png").convert("L")
        )
        np.testing.assert_array_equal(source[index].segments > 0, theirs > 127)


# PASCAL-5i and COCO-20i: github.com/juhongm999/hsnet, README.md and data/.


def test_pascal5i(tmp_path):
    for k, values in enumerate(((0, 1, 255), (6, 1), (16, 0))):
        photo(tmp_path / f"VOC2012/JPEGImages/2007_{k:06}.jpg", k)
        mask(tmp_path / f"VOC2012/SegmentationClassAug/2007_{k:06}.png", values, "P")
    lists = tmp_path / "splits/pascal"
    write_lines(lists / "val/fold0.txt", "2007_000001__01", "2007_000000__01")
    for fold, line in enumerate(
        ("2007_000000__01", "2007_000001__06", "9__12", "2007_000002__16")
    ):
        # As some copies of the lists: no line end after the last one.
        write_lines(lists / f"trn/fold{fold}.txt").write_text(line)
    val = raw("pascal5i", tmp_path, "val", fold=0)
    agrees(val)
    assert [*shown(val)] == ["2007_000001__01", "2007_000000__01"]  # the list's order
    assert [*val.class_names] == [1, 2, 3, 4, 5]
    assert set(np.unique(val[1].segments)) == {0, 1, IGNORE}
    train = raw("pascal5i", tmp_path, "train", fold=0)
    assert set(np.unique(train[0].segments)) == {0, 6}  # 1 is held out
    assert train[0].beside == (1,)
    assert shown(train) == {
        "2007_000001__06": ["bus"],
        "2007_000002__16": ["pottedplant"],
    }
    assert [s.id for s in train.store.catalog.skipped] == ["9__12"]
    assert [*train.class_names] == [*range(6, 21)]
    with pytest.raises(ValueError, match="fold: 4 must be 0, 1, 2 or 3"):
        raw("pascal5i", tmp_path, "val", fold=4)
    with pytest.raises(ValueError, match="setting pascal5i.fold is missing"):
        raw("pascal5i", tmp_path, "val")
    write_lines(lists / "val/fold0.txt", "2007_000001 1")
    with pytest.raises(ValueError, match="must be such as 2007_000033__01"):
        raw("pascal5i", tmp_path, "val", fold=0)
    write_lines(lists / "val/fold0.txt", "2007_000001__06")
    with pytest.raises(ValueError, match="is of bus, which is no class of split 'val'"):
        raw("pascal5i", tmp_path, "val", fold=0)


def both_in_one(root):
    """A mask of 1 above, 2 below and a stripe of 255, listed for 1 and for 2 in the
    trees of both types. Returns its values."""
    values = np.full((24, 32), 1, np.uint8)
    values[12:], values[:, 28:] = 2, IGNORE
    for image, target in (
        ("val2014/a.jpg", "annotations/val2014/a.png"),
        ("VOC2012/JPEGImages/a.jpg", "VOC2012/SegmentationClassAug/a.png"),
    ):
        photo(root / image)
        save(root / target, Image.fromarray(values))
    for fold in (0, 1):
        lists = {k: ["val2014/a.jpg"] if k == fold else [] for k in range(80)}
        write_pickle(root / f"splits/coco/val/fold{fold}.pkl", lists)
    write_lines(root / "splits/pascal/val/fold0.txt", "a__01", "a__02")
    return values


@pytest.mark.parametrize(
    "kind, fold, index, label",
    [("pascal5i", 0, 0, 1), ("pascal5i", 0, 1, 2), ("coco20i", 0, 0, 1),
     ("coco20i", 1, 0, 2)],
)  # fmt: skip
def test_a_record_of_one_class_shows_no_other(tmp_path, kind, fold, index, label):
    """In the owners' tree and prepared."""
    values = both_in_one(tmp_path)
    layout = make_layout(kind, {"fold": fold})
    prepare(layout, tmp_path, tmp_path / "out", ["val"])
    for store in (
        Raw(layout, tmp_path, "val"),
        Prepared(layout, tmp_path / "out", "val"),
    ):
        sample = Dataset(store, kind)[index]
        assert sample.classes == (label,) and sample.beside == (3 - label,)
        expected = np.where(np.isin(values, (label, IGNORE)), values, 0)
        np.testing.assert_array_equal(sample.segments, expected)
    mask = store[index].mask  # as prepared before records said their class
    with pytest.raises(BadRecord, match="which class it stands for.* prepare the set"):
        layout.decode(mask, "")


def test_a_class_that_its_mask_does_not_show_is_said(tmp_path):
    both_in_one(tmp_path)
    source = raw("pascal5i", tmp_path, "val", fold=0)
    record = source.store[0]
    assert source.inspect(record)[1] == []
    _, remarks = source.inspect(record._replace(annotation="5"))
    assert [r.detail for _, r in remarks] == [f"class 5 of {record.id}"]


def test_a_hidden_class_beside_that_of_a_record_is_ignored(tmp_path):
    """As everywhere: it is not learned as background."""
    values = both_in_one(tmp_path)
    store = Raw(make_layout("pascal5i", {"fold": 0}), tmp_path, "val")
    sample = Dataset(store, "x", exclude_classes=["bicycle"])[0]
    np.testing.assert_array_equal(sample.segments, np.where(values == 1, 1, IGNORE))
    assert sample.classes == (1,) and sample.beside == ()


def write_pickle(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(data))


def test_coco20i(tmp_path):
    names = [f"val2014/COCO_val2014_{k:012}.jpg" for k in range(3)]
    for k, (name, values) in enumerate(zip(names, ((0, 2), (2, 6), (6,)), strict=True)):
        photo(tmp_path / name, k)
        mask((tmp_path / "annotations" / name).with_suffix(".png"), values)
    path = tmp_path / "splits/coco/val/fold1.pkl"
    # Class 1 is bicycle, 5 bus; NumPy's numbers as keys, empty lists, a name too many.
    lists = {
        np.int64(1): [names[1], names[0]],
        5: names[1:],
        9: [],
        13: ["val2014/no.jpg"],
    }
    write_pickle(path, lists)
    source = raw("coco20i", tmp_path, "val", fold=1)
    agrees(source)
    assert [*source.class_names][:3] == [2, 6, 10] and len(source.class_names) == 20
    assert [*shown(source)] == [
        f"{names[1]}#2", f"{names[0]}#2", f"{names[1]}#6", f"{names[2]}#6"
    ]  # fmt: skip
    assert [*source.by_class[2]] == [0, 1] and [*source.by_class[6]] == [2, 3]
    assert [s.id for s in source.store.catalog.skipped] == ["val2014/no.jpg#14"]
    assert set(np.unique(source[2].segments)) == {0, 6}
    assert [source[k].beside for k in range(4)] == [(6,), (), (2,), ()]
    assert len(coco20i.NAMES) == 80 and coco20i.NAMES[80] == "toothbrush"


class Attack:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    "data", [Attack(), [1], {0: 3}, b"no pickle", b"\x80\x02K\x01)}\x92."]
)
def test_pickles_of_anything_else_are_refused_unrun(tmp_path, data, capsys):
    path = tmp_path / "fold0.pkl"
    path.write_bytes(data) if isinstance(data, bytes) else write_pickle(path, data)
    why = "it holds a builtins.print" if isinstance(data, Attack) else "it is damaged"
    with pytest.raises(ValueError, match=f"not HSNet's lists of a fold .{why}"):
        coco20i.read_lists(path)
    assert "run" not in capsys.readouterr().out


# LVIS v1. Format: github.com/lvis-dataset/lvis-api.


def test_lvis_has_a_record_for_each_class(tmp_path):
    """Objects of two classes lie over each other; val has images of train2017."""
    base = "http://images.cocodataset.org"
    images = [
        {"id": n, "height": 24, "width": 32, "coco_url": f"{base}/{folder}/{n:012}.jpg"}
        for n, folder in ((9, "train2017"), (7, "val2017"))
    ]
    for image in images:
        photo(tmp_path / "/".join(image["coco_url"].split("/")[-2:]))

    def box(number, image, category, x0, x1):
        polygon = [x0, 0, x1, 0, x1, 24, x0, 24]
        return {
            "id": number, "image_id": image, "category_id": category, "area": 1.0,
            "segmentation": [polygon], "bbox": [x0, 0, x1 - x0, 24],
        }  # fmt: skip

    data = {
        "images": images,
        "categories": [{"id": 1, "name": "cup"}, {"id": 255, "name": "table"}],
        "annotations": [
            box(1, 9, 255, 0, 32),
            box(2, 9, 1, 0, 8),
            box(3, 9, 1, 16, 24),
            box(4, 7, 1, 0, 8),
        ],
    }
    write_json(tmp_path / "annotations/lvis_v1_val.json", data)
    source = raw("lvis", tmp_path, "val")
    agrees(source)
    assert shown(source) == {
        "val2017/000000000007.jpg#cup": ["cup"],
        "train2017/000000000009.jpg#table": ["table"],
        "train2017/000000000009.jpg#cup": ["cup"],
    }
    assert source[1].segments.min() == 2  # 255 is reserved
    assert source[2].segments[0, ::8].tolist() == [1, 0, 1, 0]


def test_lvis92i_has_a_record_for_each_image_of_a_class(tmp_path):
    """The union of a class's objects; folds are counted over classes of two images or
    more, whether their files are there or not."""
    base = "http://images.cocodataset.org/val2017"
    images = [
        {"id": n, "height": 24, "width": 32, "coco_url": f"{base}/{n:012}.jpg"}
        for n in (9, 4, 6)
    ]
    for number in (4, 9):
        photo(tmp_path / f"val2017/{number:012}.jpg", number)
    notes = []
    for category in range(1, 25):  # the even ones have two images or three
        for image in (9, 4, 6)[: 3 if category == 2 else 2 - category % 2]:
            for left in (0, 16):
                x = [left, left + 8]
                notes.append({
                    "id": len(notes) + 1, "image_id": image, "category_id": category,
                    "segmentation": [[x[0], 0, x[1], 0, x[1], 24, x[0], 24]],
                    "area": 1.0, "bbox": [left, 0, 8, 24],
                })  # fmt: skip
    categories = [{"id": k, "name": f"c{k}"} for k in range(24, 0, -1)]
    data = {"images": images, "categories": categories, "annotations": notes}
    write_json(tmp_path / "annotations/lvis_v1_val.json", data)
    source = raw("lvis92i", tmp_path, "val", fold=0)
    agrees(source)
    # Of the twelve even classes fold 0 has the first; the last two are in no fold.
    assert source.class_names == {2: "c2"} and [*source.by_class[2]] == [0, 1]
    assert [*shown(source)] == [f"val2017/{n:012}.jpg#c2" for n in (4, 9)]
    assert source[0].segments[0, ::8].tolist() == [2, 0, 2, 0]
    (skipped,) = source.store.catalog.skipped
    assert skipped.id == "val2017/000000000006.jpg#c2" and "is not in" in skipped.reason
    assert raw("lvis92i", tmp_path, "val", fold=9).class_names == {20: "c20"}
    with pytest.raises(ValueError, match="split 'val' has no record"):
        raw("lvis92i", tmp_path, "val", fold=0, shots=2)  # one class has three images
    for settings, message in [
        ({"fold": 10}, "fold: 10 must be 0 to 9"),
        ({"fold": 0, "shots": 0}, "shots: 0 must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            raw("lvis92i", tmp_path, "val", **settings)


# Videos. Trees: davischallenge.org, github.com/henghuiding/MOSE-api, youtube-vos.org.


def test_davis(tmp_path):
    root = tmp_path / "DAVIS"
    for video, values in (("bear", (0, 1, 1)), ("dogs", (1, 2, 255))):
        for k in range(3):
            photo(root / f"JPEGImages/480p/{video}/{k:05}.jpg", k)
            mask(root / f"Annotations/480p/{video}/{k:05}.png", values, "P")
    write_lines(root / "ImageSets/2017/val.txt", "dogs", "bear")
    source = raw("davis2017", tmp_path, "val")
    agrees(source)
    assert source.videos == {"dogs": range(3), "bear": range(3, 6)}
    assert source[0].kind == INSTANCE and source.same_image_only
    assert source[0].classes == (1, 2) and IGNORE in source[0].segments
    assert source.class_names == {1: "object"} and len(source.by_class[1]) == 6

    # 2016: two paths a line, one object, and whatever is not black is it: the dark
    # colours of 2017's palette too.
    line = "/JPEGImages/480p/{0}/{1:05}.jpg /Annotations/480p/{0}/{1:05}.png"
    lines = [line.format("dogs", k) for k in range(3)]
    write_lines(root / "ImageSets/480p/val.txt", *lines)
    for k in range(3):
        mask(root / f"Annotations/480p/dogs/{k:05}.png", (0, 38, 1, 255), "RGB")
    source = raw("davis2016", tmp_path, "val")
    assert source.videos == {"dogs": range(3)}
    assert labels(source[1], 4) == [0, 1, 1, 1] and source[1].classes == (1,)
    with pytest.raises(ValueError, match="'test' must be one of train, val"):
        raw("davis2016", tmp_path, "test")
    torn = lines[0].partition("/480p/dogs/00000.png")[0]
    for last in (torn, torn.split()[0], f"{lines[0].split()[0]} {lines[1].split()[1]}"):
        write_lines(root / "ImageSets/480p/val.txt", *lines, last)
        with pytest.raises(ValueError, match=f"val.txt: '{last}' is no frame with its"):
            raw("davis2016", tmp_path, "val")


@pytest.mark.parametrize("split", ["test-dev", "test-challenge"])
def test_davis_to_be_sent_in(tmp_path, split):
    """These splits come with the masks of first frames only."""
    for k in range(3):
        photo(tmp_path / f"DAVIS/JPEGImages/480p/aerobatics/{k:05}.jpg", k)
    mask(tmp_path / "DAVIS/Annotations/480p/aerobatics/00000.png", (0, 1, 2), "P")
    write_lines(tmp_path / f"DAVIS/ImageSets/2017/{split}.txt", "aerobatics")
    source = raw("davis2017", tmp_path, split)
    assert source.videos == {"aerobatics": range(3)} and source.starts_only
    assert [source[k].classes for k in range(3)] == [(1, 2), (), ()]
    assert source.lost == []


def test_real_davis(data_dir, tmp_path):
    root = tmp_path / "DAVIS"
    shutil.copytree(data_dir / "davis2016-val" / "DAVIS-small", root)
    source = raw("davis2016", tmp_path, "val")
    assert len(source.videos) == 13 and len(source) == 13 * 24
    video = source.videos["camel"]
    path = root / "Annotations/480p/camel/00005.png"
    theirs = np.asarray(Image.open(path).convert("L"))
    np.testing.assert_array_equal(source[video[5]].segments, theirs > 127)


def test_youtube_vos_has_frames_without_masks(tmp_path):
    """The second object of a video appears in its third frame."""
    root = tmp_path / "valid"
    for k in range(4):
        photo(root / f"JPEGImages/003234408d/{5 * k:05}.jpg", k)
    mask(root / "Annotations/003234408d/00000.png", (0, 1), "P")
    mask(root / "Annotations/003234408d/00010.png", (3, 0), "P")
    photo(root / "JPEGImages/ff/00000.jpg")  # without any mask
    objects = {
        "1": {"category": "penguin", "frames": ["00000", "00005"]},
        "3": {"frames": ["00010", "00015"]},
    }
    videos = {"003234408d": {"objects": objects}, "ff": {"objects": {}}}
    write_json(root / "meta.json", {"videos": videos})
    source = raw("youtube_vos", tmp_path, "valid")
    assert source.videos == {"003234408d": range(4)}
    assert source.class_names == {1: "object", 2: "penguin"}
    assert shown(source) == {
        "003234408d/00000": ["penguin"], "003234408d/00005": [],
        "003234408d/00010": ["object"], "003234408d/00015": [],
    }  # fmt: skip
    assert (source[1].segments == IGNORE).all() and source[1].classes == ()
    assert source[2].classes == (3,)
    assert "ff" in source.store.catalog.skipped[0].id
    (root / "meta.json").write_text(json.dumps({"video": {}}))
    with pytest.raises(ValueError, match=r"meta\.json: not YouTube-VOS's format"):
        raw("youtube_vos", tmp_path, "valid")


def test_mose(tmp_path):
    for video in ("0a1b2c3d", ".hidden"):
        for k in range(2):
            photo(tmp_path / f"valid/JPEGImages/{video}/{k:05}.jpg", k)
    mask(tmp_path / "valid/Annotations/0a1b2c3d/00000.png", (0, 1, 5), "P")
    (tmp_path / "valid/JPEGImages/0a1b2c3d/._00000.jpg").write_bytes(b"no picture")
    source = raw("mose", tmp_path, "valid")
    assert source.videos == {"0a1b2c3d": range(2)}
    assert source[0].classes == (1, 5) and source[1].classes == ()


def test_the_names_of_voc_are_those_of_its_folds():
    assert [voc.NAMES[5 * fold + 1] for fold in range(4)] == [
        "aeroplane", "bus", "diningtable", "pottedplant"
    ]  # fmt: skip
