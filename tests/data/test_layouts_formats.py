"""JSONs and tables out of form: COCO's, with its masks, and those of Hugging Face."""

import json
import os
import re

import numpy as np
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from PIL import Image

from seggpt_jax.data.dataset import Dataset
from seggpt_jax.data.sample import IGNORE, INSTANCE, BadRecord
from tests.support import miniatures
from tests.support.layouts import (
    SIZE,
    agrees,
    faults,
    mask,
    photo,
    raw,
    shown,
    stripes,
    write_json,
)

H, W = 48, 64
OWN = {"annotations": "annotations/instances_train2017.json", "images": "train2017"}

# COCO's JSON.


@pytest.fixture
def coco(tmp_path):
    """The miniature of instances, its JSON changed by `how(data)`."""

    def make(how):
        root = tmp_path / "coco"
        miniatures.coco_instance(root, (H, W), 2)
        path = root / "annotations/instances_train2017.json"
        data = json.loads(path.read_text())
        how(data)
        write_json(path, data)
        return root

    return make


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
    (flaw,) = source.store.catalog.flaws
    assert flaw.id == "instances_train2017.json annotation 1 of 000000000000.jpg"
    assert flaw.fault == (segmentation != [[]]) and "its box is ignored" in flaw.reason
    assert source[0].segments[0, 0] == IGNORE and [*source.by_class[1]] == [1]
    agrees(source)


def test_objects_smaller_than_a_pixel_are_not_listed(coco):
    """COCO has some: what the catalog lists is what the pixels show."""
    tiny = [[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]]
    root = coco(lambda d: d["annotations"][0].update(segmentation=tiny))
    for kind in ("category", "instance"):
        source = raw("coco_json", root, "any", kind=kind, **OWN)
        agrees(source)
        assert [*source.by_class[1]] == [1] and [*source.by_class[90]] == [0, 1]


@pytest.mark.parametrize(
    "category", [{"id": 1}, {"id": "a", "name": "x"}, {"id": -1, "name": "x"}]
)
def test_categories_out_of_form(coco, category):
    def how(data):
        data["categories"][0] = category
        for note in data["annotations"]:
            if note["category_id"] == 1:
                note["category_id"] = category["id"]

    root = coco(how)
    with pytest.raises(ValueError, match=r"instances_train2017\.json: "):
        raw("coco_json", root, "any", **OWN)


def test_images_listed_twice_or_without_a_size(coco):
    """The size of an image without objects does not matter; iSAID's JSONs lack it."""

    def how(data):
        again = {**data["images"][0], "id": 50}
        note = {**data["annotations"][0], "id": 900, "image_id": 50}
        data["images"] += [again, {"id": 51, "file_name": "000000000001.jpg"}]
        data["annotations"].append(note)

    source = raw("coco_instance", coco(how), "train")
    agrees(source)
    assert len(source) == 2 and not faults(source)
    flaws = [flaw.reason for flaw in source.store.catalog.flaws]
    assert flaws == ["is image 1 and image 50: it has the objects of both"]


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


def table(folder, masks, name="train-00000-of-00001.parquet", below="data"):
    rows = len(masks)
    path = photo(folder / "image.jpg")
    columns = {
        "image": [{"bytes": path.read_bytes(), "path": None}] * rows,
        "label": pyarrow.array(
            [None if m is None else {"bytes": m, "path": None} for m in masks],
            pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}),
        ),
    }
    (folder / below).mkdir(exist_ok=True)
    # In groups of two rows: a row is looked up in its group.
    pyarrow.parquet.write_table(
        pyarrow.table(columns), folder / below / name, row_group_size=2
    )


def test_a_digest_tells_changed_rows(tmp_path):
    """Of the same number and of the same classes."""
    digests = []
    for rows in (1, 4):
        values = np.zeros(SIZE, np.uint8)
        values[:rows] = 1
        Image.fromarray(values).save(tmp_path / "m.png")
        table(tmp_path, [(tmp_path / "m.png").read_bytes()])
        digests.append(raw("hf_dataset", tmp_path, "train", ids={"a": 1}).digest)
    assert digests[0] != digests[1]


def test_hugging_face_rows_without_a_mask(tmp_path):
    good = mask(tmp_path / "m.png", (0, 1), "P").read_bytes()
    color = photo(tmp_path / "c.png").read_bytes()
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


FOUR = [f"train-{k:05}-of-00004.parquet" for k in range(4)]


@pytest.mark.parametrize(
    "names, message",
    [
        (FOUR[:1], "lacks 3 of its 4 files: " + ", ".join(FOUR[1:])),
        (FOUR[:2] + FOUR[3:], f"lacks 1 of its 4 files: {FOUR[2]};"),
        (FOUR[3:], f"lacks 3 of its 4 files: {FOUR[0]}, "),
        # Older versions of `datasets` add a digest.
        (["train-00001-of-00002-9f3a.parquet"], "lacks 1 .*train-00000-of-00002.parq"),
        ([*FOUR, "train-00000-of-00001.parquet"], "files of several copies"),
        (["train-0-of-1.parquet", "train-0-of-1-a.parquet"], "files of several copies"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("folder", ["data", "train", "."])
def test_parts_of_a_parquet_split_are_refused(tmp_path, names, message, folder):
    good = mask(tmp_path / "m.png", (0, 1), "P").read_bytes()
    for name in names:
        table(tmp_path, [good], name, folder)
    where = f"{tmp_path / folder}: split 'train' (lacks|has)"
    with pytest.raises(ValueError, match=where) as caught:
        raw("hf_dataset", tmp_path, "train", ids={"a": 1})
    assert re.search(message, str(caught.value))


def test_all_parts_of_a_parquet_split_and_of_no_other(tmp_path):
    """A split whose name begins alike is another one."""
    good = mask(tmp_path / "m.png", (0, 1), "P").read_bytes()
    for name in (*FOUR, "train-hard-00000-of-00002.parquet"):
        table(tmp_path, [good, good], name)
    source = raw("hf_dataset", tmp_path, "train", ids={"a": 1})
    assert [*shown(source)] == [f"data/{name}#{k}" for name in FOUR for k in range(2)]
    with pytest.raises(ValueError, match="train-hard-00001-of-00002.parquet; copy"):
        raw("hf_dataset", tmp_path, "train-hard", ids={"a": 1})


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1no parquetPAR1"])
def test_damaged_parquet_is_named(tmp_path, content):
    path = tmp_path / "data/train-00000-of-00001.parquet"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train-00000-of-00001\.parquet"):
        raw("hf_dataset", tmp_path, "train", ids={"a": 1})


def test_columns_that_hold_no_pictures(tmp_path):
    """A set for another task, or a column twice."""
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/train-00000-of-00001.parquet"
    for columns, names, message in (
        ([[b"x"], [3]], ["image", "label"], "column 'label' is int64, not the feature"),
        ([[b"x"], ["x"]], ["image", "label"], "column 'label' is string"),
        ([[[b"x"]], [b"x"]], ["image", "label"], "column 'image' is list<"),
        ([[b"x"], [b"x"], [b"y"]], ["image", "label", "label"], "two columns 'label'"),
    ):
        made = pyarrow.Table.from_arrays([*map(pyarrow.array, columns)], names)
        pyarrow.parquet.write_table(made, path)
        with pytest.raises(ValueError, match=f"{path.name}:? ?.*{message}"):
            raw("hf_dataset", tmp_path, "train", ids={"a": 1})


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_files_of_damaged_bytes(tmp_path, form):
    """Wherever they are: an error that names the file, or another value. Damaged Arrow
    ended the process."""
    table(tmp_path, [mask(tmp_path / "m.png", (0, 1)).read_bytes()] * 3)
    path = tmp_path / "data/train-00000-of-00001.parquet"
    if form == "arrow":
        columns = pyarrow.parquet.read_table(path)
        write_json(tmp_path / "state.json", {"_data_files": [{"filename": "x.arrow"}]})
        path.unlink()
        path = tmp_path / "x.arrow"
        with pyarrow.ipc.new_stream(path, columns.schema) as stream:
            stream.write_table(columns)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for number in range(60):
        content = bytearray(whole)
        for at in rng.integers(len(whole), size=rng.integers(1, 30)):
            content[at] = rng.integers(256)
        if number % 4 == 0:
            del content[rng.integers(len(content)) :]
        new = tmp_path / "new"  # what is mapped into memory must not shrink
        new.write_bytes(content)
        os.replace(new, path)
        os.utime(path, (0, number + 1))
        try:
            source = raw("hf_dataset", tmp_path, "train", ids={"a": 1})
            for index in range(len(source)):
                source[index]
        except ValueError as error:  # a BadRecord is one
            assert path.name in str(error) or str(tmp_path) in str(error)
            refused += 1
    assert refused > 20


def test_hugging_face_files_that_are_replaced(tmp_path):
    """By others in the same place: not what was read before is given."""
    for values, classes in (((0, 1), (1,)), ((0, 2), (2,))):
        table(tmp_path, [mask(tmp_path / "m.png", values).read_bytes()])
        path = tmp_path / "data/train-00000-of-00001.parquet"
        os.utime(path, (0, classes[0]))
        source = raw("hf_dataset", tmp_path, "train", ids={"a": 1, "b": 2})
        assert source[0].classes == classes
        agrees(source)


@pytest.mark.parametrize("text", ["{", "[]", '{"_data_files": 3}', '{"x": 1}'])
def test_a_state_out_of_form(tmp_path, text):
    path = write_json(tmp_path / "train/state.json", {})
    path.write_text(text)
    with pytest.raises(ValueError, match=r"state\.json: not the state"):
        raw("hf_dataset", tmp_path, "train", ids={"a": 1})


def test_a_state_that_lists_a_part_of_its_files(tmp_path):
    """As for Parquet: files that count themselves must all be there."""
    names = [f"data-0000{k}-of-00003.arrow" for k in (0, 2)]
    files = [{"filename": name} for name in names]
    write_json(tmp_path / "train/state.json", {"_data_files": files})
    message = r"state\.json: lists 2 of 3 files, without data-00001-of-00003; save"
    with pytest.raises(ValueError, match=message):
        raw("hf_dataset", tmp_path, "train", ids={"a": 1})
