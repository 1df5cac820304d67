"""COCO's formats (cocodataset.org/#format-data) and those of one's own data."""

import io
import json
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from seggpt_jax.data.dataset import Dataset
from seggpt_jax.data.sample import IGNORE, INSTANCE, BadRecord
from seggpt_jax.data.sources import make_layout
from seggpt_jax.data.sources.coco_panoptic import read_segments
from tests.support import miniatures
from tests.support.layouts import (
    agrees,
    labels,
    mask,
    photo,
    raw,
    shown,
    stripes,
    write_json,
)

SIZE = (48, 64)


@pytest.fixture
def instances(tmp_path):
    """The miniature, with its JSON to be changed: `change(data)`."""
    root = tmp_path / "coco"
    miniatures.coco_instance(root, SIZE, 3)
    path = root / "annotations/instances_train2017.json"

    def change(how):
        data = json.loads(path.read_text())
        how(data)
        write_json(path, data)

    return root, change


def test_objects_are_labels_and_crowds_are_ignored(instances):
    root, _ = instances
    source = raw("coco_instance", root, "train")
    agrees(source)
    assert source.kind == INSTANCE and not source.same_image_only
    assert source.class_names == {1: "person", 90: "toothbrush"}
    # An object to the left and one to the right, a crowd over the middle below them.
    assert labels(source[0], 9) == [1, 1, 1, 1, IGNORE, 2, 2, 2, 0]
    assert source[0].classes == (1, 2)
    assert {k: [*v] for k, v in source.by_class.items()} == {
        1: [0, 1, 2],
        90: [0, 1, 2],
    }

    one = Dataset(source.store, "coco", classes=["toothbrush"])
    assert labels(one[0], 9) == [0, 0, 0, 0, IGNORE, 2, 2, 2, 0]
    other = Dataset(source.store, "coco", exclude_classes=["toothbrush"])
    assert labels(other[0], 9) == [1, 1, 1, 1, IGNORE, IGNORE, IGNORE, IGNORE, 0]


def test_what_makes_no_record(instances):
    """Images without a file, without objects, with crowds only, or a bad polygon."""
    root, change = instances

    def how(data):
        for k in range(3, 8):
            data["images"].append(miniatures._coco_image(k, SIZE))
            if k > 3:
                photo(root / f"train2017/{k:012}.jpg", k, SIZE)
        crowd = {**data["annotations"][2], "id": 100, "image_id": 6}
        boxes = {**data["annotations"][0], "id": 101, "image_id": 7, "segmentation": []}
        wrong = {**data["annotations"][0], "id": 102, "image_id": 8, "category_id": 5}
        lost = {**data["annotations"][0], "id": 103, "image_id": 77}
        data["annotations"] += [crowd, boxes, wrong, lost]

    change(how)
    source = raw("coco_instance", root, "train")
    agrees(source)
    assert len(source) == 3
    lost, *skipped = source.store.catalog.skipped
    assert lost.id == "instances_train2017.json image 77" and lost.fault
    faults = {s.id[:12].lstrip("0"): s.fault for s in skipped}
    assert faults == {"3": True, "4": False, "5": False, "6": False, "7": True}
    reasons = " ".join(s.reason for s in source.store.catalog.skipped)
    assert "is not in" in reasons and "has no object" in reasons
    box, unlisted = source.store.catalog.flaws
    assert not box.fault and "annotation 101 of" in box.id and "no mask" in box.reason
    assert unlisted.fault and "category_id 5; the file lists 1, 90" in unlisted.reason


def test_small_objects_lie_over_large_ones(instances):
    root, change = instances

    def how(data):
        first, second = data["annotations"][:2]
        first["segmentation"] = miniatures._box(SIZE, 0.4, 0.1, 0.6, 0.9)
        second["segmentation"] = miniatures._box(SIZE, 0, 0, 1, 1)

    change(how)
    assert labels(raw("coco_instance", root, "train")[0], 5) == [2, 2, 1, 2, 2]
    settings = {
        "annotations": "annotations/instances_train2017.json", "images": "train2017"
    }  # fmt: skip
    source = raw("coco_json", root, "any", **settings)
    agrees(source)
    assert source.kind == 0 and labels(source[0], 5) == [90, 90, 1, 90, 90]


def test_run_lengths_as_lists_and_as_strings(instances):
    """Both of COCO's codes of the same mask, and many objects."""
    root, change = instances

    def how(data):
        from pycocotools import mask as rle

        truth = np.asfortranarray(stripes((0, 1), SIZE), np.uint8)
        packed = rle.encode(truth)
        plain = {"size": [*SIZE], "counts": [SIZE[0] * SIZE[1] // 2] * 2}
        packed = {"size": [*SIZE], "counts": packed["counts"].decode()}
        data["annotations"][0]["segmentation"] = plain
        data["annotations"][3]["segmentation"] = packed
        data["annotations"] = data["annotations"][0:1] + data["annotations"][3:4] * 1
        many = {**data["annotations"][0], "image_id": 3}
        data["annotations"] += [{**many, "id": 200 + k} for k in range(300)]

    change(how)
    source = raw("coco_instance", root, "train")
    agrees(source)
    np.testing.assert_array_equal(source[0].segments, source[1].segments)
    np.testing.assert_array_equal(source[0].segments, stripes((0, 1), SIZE))
    assert source[2].segments.max() == 301  # 300 objects, 255 left out


def test_reserved_and_large_category_ids(instances):
    root, change = instances

    def how(data):
        data["categories"] = [{"id": 0, "name": "a"}, {"id": 255, "name": "b"}]
        for note in data["annotations"]:
            note["category_id"] = 0 if note["category_id"] == 1 else 255

    change(how)
    settings = {
        "annotations": "annotations/instances_train2017.json", "images": "train2017"
    }  # fmt: skip
    source = raw("coco_json", root, "x", **settings)
    agrees(source)
    assert source.class_names == {1: "a", 2: "b"} and source[0].classes == (1, 2)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"images": []}', '{"annotations": [1]}']
)
def test_a_file_that_is_no_coco_json(instances, text):
    root, _ = instances
    (root / "annotations/instances_train2017.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"instances_train2017\.json: (not a JSON|not COCO|lists no)"
    ):
        raw("coco_instance", root, "train")


def test_an_image_of_another_size_than_the_json_says(instances):
    root, _ = instances
    photo(root / "train2017/000000000001.jpg", size=(9, 9))
    with pytest.raises(BadRecord, match=r"000000000001\.jpg is 9 x 9"):
        raw("coco_instance", root, "train")[1]


def test_kinds_are_checked():
    with pytest.raises(
        ValueError, match="kind: 'objects' must be category or instance"
    ):
        make_layout("coco_json", {"kind": "objects"})


def test_paco_has_records_of_objects_and_of_their_parts(tmp_path):
    """Format: github.com/facebookresearch/paco, docs/PACO_DATASET.md: no `iscrowd`."""
    miniatures.paco(tmp_path, SIZE, 2)
    source = raw("paco", tmp_path, "train")
    agrees(source)
    name = "train2017/{:012}.jpg#{}"
    assert shown(source) == {
        name.format(0, "objects"): ["dog"], name.format(0, "parts"): ["dog:ear"],
        name.format(1, "objects"): ["dog"], name.format(1, "parts"): ["dog:ear"],
    }  # fmt: skip
    assert labels(source[0], 9) == [378, 378, 378, 378, 0, 0, 0, 0, 0]
    assert labels(source[1], 9) == [0, 0, 0, 0, 0, 2100, 2100, 2100, 0]


# Panoptic.


def test_panoptic_segments_void_and_crowds(tmp_path):
    root = tmp_path / "coco"
    miniatures.coco_panoptic(root, SIZE, 3)
    source = raw("coco_panoptic", root, "train")
    agrees(source)
    assert source.class_names == {1: "person", 200: "rug-merged"}
    assert labels(source[0], 4) == [IGNORE, 1, 200, 200]

    path = root / "annotations/panoptic_train2017.json"
    data = json.loads(path.read_text())
    data["annotations"][0]["segments_info"][0]["iscrowd"] = 1
    del data["annotations"][1]["segments_info"][1]
    (root / "annotations/panoptic_train2017/000000000002.png").unlink()
    write_json(path, data)
    # As detectron2 has it: the masks beside the annotations' folder.
    shutil.move(root / "annotations/panoptic_train2017", root / "panoptic_train2017")
    source = raw("coco_panoptic", root, "train")
    assert labels(source[0], 4) == [IGNORE, IGNORE, 200, 200]
    assert source[0].classes == (200,) and [*source.by_class[200]] == [0]
    with pytest.raises(BadRecord, match="segments .* annotation does not list: 257"):
        source[1]
    (skipped,) = source.store.catalog.skipped
    assert "has no mask: 000000000002.png is not in" in skipped.reason
    write_json(path, {"annotations": []})
    with pytest.raises(ValueError, match="not COCO's format: it lacks images, categ"):
        raw("coco_panoptic", root, "train")


def test_panoptic_segments_are_labels_of_their_own(tmp_path):
    """Two of a class are told apart; crowds and void are ignored, and are what they
    are in the truth that panoptic quality is scored on."""
    miniatures.coco_panoptic(tmp_path, SIZE, 2)
    path = tmp_path / "annotations/panoptic_train2017.json"
    data = json.loads(path.read_text())
    data["annotations"][0]["segments_info"][0]["iscrowd"] = 1
    data["annotations"][1]["segments_info"][1]["category_id"] = 1
    write_json(path, data)
    source = raw("coco_panoptic_segments", tmp_path, "train")
    assert labels(source[0], 4) == [IGNORE, IGNORE, 2, 2]
    assert labels(source[1], 4) == [IGNORE, 1, 2, 2] and source[1].kind == INSTANCE
    assert source.object_names(1) == {1: "person", 2: "person"}
    encoded = source.store[0]
    ids, segments = read_segments(encoded.mask, encoded.annotation)
    assert ids[0, :: SIZE[1] // 4].tolist() == [0, 7, 257, 257]
    assert segments == [
        {"id": 7, "category_id": 1, "iscrowd": True},
        {"id": 257, "category_id": 200, "iscrowd": False},
    ]
    del data["annotations"][1]["segments_info"][1]
    write_json(path, data)
    source = raw("coco_panoptic_segments", tmp_path, "train")
    with pytest.raises(BadRecord, match="0001.png .*have other segments: 257"):
        source[1]


def test_real_panoptic(data_dir, tmp_path):
    root = shutil.copytree(data_dir / "coco-panoptic-sample", tmp_path / "coco")
    settings = {
        "images": "input_images", "annotations": "panoptic_examples.json",
        "masks": "panoptic_examples",
    }  # fmt: skip
    source = raw("coco_panoptic", root, "val", **settings)
    agrees(source)
    assert len(source.class_names) == 133
    for index, name in enumerate(shown(source)):
        theirs = np.array(Image.open(root / "semantic" / f"{name}.png")).astype(
            np.int32
        )
        theirs[theirs == 0] = IGNORE  # unlabelled, there background
        np.testing.assert_array_equal(source[index].segments, theirs)


def test_real_instances(data_dir, tmp_path):
    """Against the set's own semantic masks, drawn from the same polygons by another
    program: edges differ, and so where objects of like size overlap."""
    names = ("annotations", "val2017", "semantic")
    for name in names:
        shutil.copytree(data_dir / "coco-mini" / name, tmp_path / name)
    settings = {
        "annotations": "annotations/instances_{split}2017.json",
        "images": "{split}2017",
    }
    source = raw("coco_json", tmp_path, "val", **settings)
    wrong = []
    for index, name in enumerate(shown(source)):
        path = tmp_path / "semantic/val2017" / name.replace(".jpg", ".png")
        wrong.append((source[index].segments != np.asarray(Image.open(path))).mean())
    assert len(wrong) > 180 and np.mean(wrong) < 0.01 and max(wrong) < 0.1
    assert len(raw("coco_instance", tmp_path, "val")) == len(source)


# One's own.


def test_png_folders_in_the_manner_of_cityscapes(tmp_path):
    for city in ("a", "b"):
        photo(tmp_path / f"leftImg8bit/val/{city}/1_leftImg8bit.png")
        mask(tmp_path / f"gtFine/val/{city}/1_gtFine_labelIds.png", (7, 26, 255, 9))
        mask(tmp_path / f"gtFine/val/{city}/1_gtFine_color.png", (0, 1), "RGB")
    settings = {
        "images": "leftImg8bit/{split}", "masks": "gtFine/{split}",
        "image_suffix": "_leftImg8bit.png", "mask_suffix": "_gtFine_labelIds.png",
    }  # fmt: skip
    source = raw("png_folders", tmp_path, "val", ids={"road": 7, "car": 26}, **settings)
    agrees(source)
    assert shown(source) == {"a/1": ["road", "car"], "b/1": ["road", "car"]}
    assert labels(source[0], 4) == [7, 26, IGNORE, 0]
    zero = raw("png_folders", tmp_path, "val", ids={"x": 255, "y": 7}, **settings)
    assert labels(zero[0], 4) == [7, 0, 8, 0]


@pytest.mark.parametrize(
    "ids, message",
    [
        ({}, "ids: needs a class or more"),
        ({"a": -1}, "a is -1; must be a whole number of 0 to 65535"),
        ({"a": True}, "ids = {'a': True}: must be whole numbers by name"),
        ({"a": 1, "b": 1}, "ids: 1 is listed twice"),
    ],
)
def test_ids_are_checked(ids, message):
    with pytest.raises(ValueError, match=message):
        make_layout("png_folders", {"ids": ids})


def encoded(values, form="PNG"):
    file = io.BytesIO()
    Image.fromarray(np.asarray(values, np.uint8)).save(file, form)
    return file.getvalue()


def hf_table(count, embed=True):
    """Columns as the features Image of `datasets` are stored."""
    rng = np.random.default_rng(0)
    images = [encoded(rng.integers(0, 256, (24, 32, 3)), "JPEG") for _ in range(count)]
    masks = [encoded(stripes((0, k % 3, 255))) for k in range(count)]
    return pyarrow.table(
        {
            "image": [{"bytes": b, "path": None} for b in images],
            "label": [
                {"bytes": b if embed else None, "path": f"{k}.png"}
                for k, b in enumerate(masks)
            ],
        }
    ), masks


def test_hugging_face_arrow(tmp_path):
    """`save_to_disk`: streams of Arrow, whose names state.json has, in its order."""
    table, _ = hf_table(5)
    folder = tmp_path / "train"
    folder.mkdir()
    files = ["data-00001-of-00002.arrow", "data-00000-of-00002.arrow"]
    for name, part in zip(files, (table[:3], table[3:]), strict=True):
        with pyarrow.ipc.new_stream(folder / name, table.schema) as stream:
            stream.write_table(part)
    shutil.copy(folder / files[0], folder / "cache-1234.arrow")
    state = {"_data_files": [{"filename": name} for name in files]}
    write_json(folder / "state.json", state)
    ids = {"bread": 1, "rice": 2}
    source = raw("hf_dataset", tmp_path, "train", ids=ids)
    agrees(source)
    assert [s.classes for s in source] == [(), (1,), (2,), (), (1,)]
    assert [*shown(source)][0] == "train/data-00001-of-00002.arrow#0"
    alone = raw("hf_dataset", folder, "whatever", ids=ids)
    assert len(alone) == 5
    with pytest.raises(ValueError, match="has no column 'mask'; .*: image, label"):
        raw("hf_dataset", tmp_path, "train", ids=ids, mask="mask")
    with pytest.raises(ValueError, match="'val' has no files; looked for SPLIT/sta"):
        raw("hf_dataset", tmp_path, "val", ids=ids)
    for split, message in (("/train", "'/train' is a path"), ("t*n", "has no files")):
        with pytest.raises(ValueError, match=message):
            raw("hf_dataset", tmp_path, split, ids=ids)
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / files[0]).write_bytes(b"no arrow")
    with pytest.raises(ValueError, match="not a file of `datasets`"):
        raw("hf_dataset", damaged, "train", ids={"bread": 1})


@pytest.mark.parametrize("embed", [True, False])
def test_hugging_face_parquet(tmp_path, embed):
    """A hub's copy, in groups of rows; bytes inside, or files beside by path."""
    table, masks = hf_table(7, embed)
    (tmp_path / "data").mkdir()
    for number, part in enumerate((table[:5], table[5:])):
        path = tmp_path / "data" / f"train-{number:05}-of-00002-0f.parquet"
        pyarrow.parquet.write_table(part, path, row_group_size=2)
    for k, content in enumerate([] if embed else masks):
        (tmp_path / f"{k}.png").write_bytes(content)
    source = raw("hf_dataset", tmp_path, "train", ids={"bread": 1, "rice": 2})
    agrees(source)
    assert [s.classes for s in source] == [(), (1,), (2,), (), (1,), (2,), ()]
    assert source[6].image.shape == (24, 32, 3)


def test_every_layout_has_a_group_of_tests():
    """A new type is tested somewhere."""
    from pathlib import Path

    from seggpt_jax.data.sources import TYPES

    text = "".join(p.read_text() for p in Path(__file__).parents[1].rglob("test_*.py"))
    for kind in TYPES:
        assert f'"{kind}"' in text, kind
