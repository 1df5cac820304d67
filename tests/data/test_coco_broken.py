"""Annotations in COCO's formats as real programs write them, and as none should: what
is wrong costs its own object, is named, and never ends the process."""

import copy
import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from seggpt_jax.data.dataset import Dataset, Raw
from seggpt_jax.data.sample import IGNORE, BadRecord
from seggpt_jax.data.sources import make_layout
from tests.support.layouts import photo, raw, save, write_json

SIZE = (40, 60)
GOOD = [[10, 10, 30, 10, 30, 30, 10, 30]]  # the box that objects of class 1 fill
OTHER = [[40, 20, 55, 20, 55, 35, 40, 35]]
RLE = {"size": [*SIZE], "counts": [410, 20] + [20, 20] * 19 + [1190]}
OWN = np.s_[10:30, 10:30]
OTHERS = np.s_[20:35, 40:55]
NAN, INF = math.nan, math.inf


def document(count=2):
    """Images with an object of class 1 and one of class 2 each."""
    data = {"images": [], "annotations": [], "categories": []}
    for k in range(1, count + 1):
        image = {"id": k, "file_name": f"{k}.png", "height": SIZE[0], "width": SIZE[1]}
        data["images"].append(image)
        for label, parts, box in (
            (1, GOOD, [10, 10, 20, 20]),
            (2, OTHER, [40, 20, 15, 15]),
        ):
            note = {
                "id": 10 * k + label, "image_id": k, "category_id": label, "iscrowd": 0,
                "segmentation": copy.deepcopy(parts), "bbox": box, "area": 1,
            }  # fmt: skip
            data["annotations"].append(note)
    data["categories"] = [{"id": 1, "name": "fish"}, {"id": 2, "name": "crab"}]
    return data


@pytest.fixture
def opened(tmp_path):
    """Opens the document after a change of it."""
    for k in (1, 2):
        photo(tmp_path / f"train/{k}.png", k, SIZE)

    def opens(change, **settings):
        data = document()
        change(data)
        write_json(tmp_path / "annotations/train.json", data)
        return raw("coco_json", tmp_path, "train", **settings)

    return opens


def first(**fields):
    """A change of the first object of the first image."""
    return lambda data: data["annotations"][0].update(fields)


def flaw(source):
    """What is wrong, where there is one such thing only."""
    (one,) = source.store.catalog.flaws
    return f"{one.id} {one.reason}"


# Masks.


@pytest.mark.parametrize(
    "mask, message",
    [
        ([[NAN, 10, 30, 10, 30, 30]], "coordinate nan; numbers of -60 to 120"),
        ([[10, INF, 30, 10, 30, 30]], "coordinate inf; numbers of -40 to 80"),
        ([[10, -INF, INF, 10, 30, 30]], "coordinate"),
        ([[10, 10, 4e12, 10, 30, 30]], "coordinate 4000000000000.0"),
        ([[10, 10, 10**400, 10, 30, 30]], "coordinate 1000"),
        ([[10, 10, None, 10, 30, 30]], "coordinate None"),
        ([["10", "10", "30", "10", "30", "30"]], "coordinate '10'"),
        ([[[10, 10], [30, 10], [30, 30]]], "has a part"),
        ([10, 10, 30, 10, 30, 30], "has a part 10; polygons .* or RLE are wanted"),
        ([[10, 10, 30, 10, 30, 30, 5]], "a part of 7 numbers"),
        ([[10, 10, 30, 30]], "no part of three points or more"),
        ("GOOD", "segmentation 'GOOD'; polygons"),
        (7, "segmentation 7"),
        (
            {"size": [60, 40], "counts": RLE["counts"]},
            r"size \[60, 40\]; .* \[40, 60\]",
        ),
        ({"size": [40, 60], "counts": [410, 20]}, "RLE of 430 pixels"),
        ({"size": [40, 60], "counts": [-2400, 4800]}, "RLE counts"),
        ({"size": [40, 60], "counts": [2400.5]}, "RLE counts"),
        ({"size": [40, 60], "counts": "garbage!"}, "RLE"),
        ({"size": [40, 60], "counts": "oooooooooooo"}, "no RLE"),
        ({"size": [40, 60], "counts": "é"}, "no RLE"),
        ({"size": [40, 60], "counts": None}, "RLE counts None"),
        ({"size": [40, 60]}, "RLE counts None"),
        ({"counts": RLE["counts"]}, "RLE of size None"),
    ],
)
@pytest.mark.parametrize("kind", ["category", "instance"])
def test_the_box_of_a_wrong_mask_is_ignored(opened, mask, message, kind):
    source = opened(first(segmentation=mask), kind=kind)
    segments = source[0].segments
    assert (segments[OWN] == IGNORE).all() and (segments == IGNORE).sum() == 400
    assert (segments[OTHERS] == 2).all() and (source[1].segments[OWN] == 1).all()
    assert source.store.catalog.flaws[0].fault
    where = "train.json annotation 11 of 1.png"
    assert re.fullmatch(f"{where} .*{message}.*: its box is ignored", flaw(source))


@pytest.mark.parametrize("mask", [None, [], [[]], [None], {}, ""])
def test_an_object_without_a_mask_is_unknown(opened, mask):
    """It is neither its class nor background, which is no fault of the file."""
    source = opened(first(segmentation=mask))
    assert (source[0].segments[OWN] == IGNORE).all()
    assert source[0].classes == (2,) and [*source.by_class[1]] == [1]
    assert not source.store.catalog.flaws[0].fault
    alone = opened(lambda d: d["annotations"][0].pop("segmentation"))
    assert (alone[0].segments[OWN] == IGNORE).all()


@pytest.mark.parametrize(
    "box", [None, [], [10, 10], [NAN, 0, 9, 9], [0, 0, -5, 5], "box", [90, 90, 9, 9],
            [0, 0, None, 1], [1e308, 0, 1e308, 1], [10**400, 0, 1, 1]],
)  # fmt: skip
def test_without_a_box_the_object_alone_is_left_out(opened, box):
    source = opened(first(segmentation=[], bbox=box))
    assert (source[0].segments[OWN] == 0).all() and source[0].classes == (2,)
    assert "left out, as its place is unknown" in flaw(source)


def test_a_box_is_cut_at_the_image_and_lies_below_objects(opened):
    source = opened(first(segmentation=[], bbox=[39.5, -1e30, 1e9, 2e30]))
    segments = source[0].segments
    assert (segments[OTHERS] == 2).all() and (segments[:20, 39:] == IGNORE).all()
    assert (segments[:, :39] == 0).all()


@pytest.mark.parametrize("stray", [[], None, [5, 5], [50, 5, 55, 8]])
@pytest.mark.parametrize("last", [True, False])
def test_a_stray_part_costs_itself_only(opened, stray, last):
    parts = [*GOOD, stray] if last else [stray, *GOOD]
    source = opened(first(segmentation=parts))
    assert (source[0].segments[OWN] == 1).all() and (
        source[0].segments == 1
    ).sum() == 400
    if stray:
        assert "parts of less than three points" in flaw(source)


def test_both_codes_of_run_lengths(opened):
    from pycocotools import mask as rle

    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = rng.random(SIZE) < rng.random() ** 3
        truth[0, 0] = True
        packed = rle.encode(np.asfortranarray(truth, np.uint8))["counts"].decode()
        flat = np.concatenate([[0], truth.ravel(order="F"), [2]])
        runs = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat[1:])) + 1]))
        runs = [0, *runs.tolist()]
        for counts in (packed, runs):
            mask = {"size": [*SIZE], "counts": counts}
            source = opened(first(segmentation=mask, category_id=2))
            shown = source[0].segments == 2
            shown[OTHERS] = truth[OTHERS]
            np.testing.assert_array_equal(shown, truth)
            assert not source.store.catalog.flaws


def test_a_very_long_outline_is_refused(opened):
    """It would take all memory: pycocotools walks along it."""
    points = np.tile([[-50, -30], [110, 70]], (50_000, 1)).ravel().tolist()
    source = opened(first(segmentation=[points]))
    assert "an outline of" in flaw(source) and (source[0].segments[OWN] == IGNORE).all()


# Ids, classes and flags.


@pytest.mark.parametrize("value", [None, 9, "fish", NAN, [1], True])
def test_an_object_of_unknown_class_is_ignored(opened, value):
    source = opened(first(category_id=value))
    assert (source[0].segments[OWN] == IGNORE).all()
    assert "the file lists 1, 2: its mask is ignored" in flaw(source)


@pytest.mark.parametrize("value", [None, 0, "0", False, 0.0, "missing"])
def test_no_crowd_in_any_form(opened, value):
    def change(data):
        data["annotations"][0]["iscrowd"] = value
        if value == "missing":
            del data["annotations"][0]["iscrowd"]

    source = opened(change)
    assert (source[0].segments[OWN] == 1).all() and not source.store.catalog.flaws


@pytest.mark.parametrize("value", [1, "1", True, 1.0])
def test_a_crowd_in_any_form(opened, value):
    assert (opened(first(iscrowd=value))[0].segments[OWN] == IGNORE).all()


def test_a_crowd_of_neither_value(opened):
    source = opened(first(iscrowd="yes"))
    assert (source[0].segments[OWN] == IGNORE).all() and "0 or 1" in flaw(source)


def test_texts_of_numbers_are_numbers(opened):
    """Mixed with numbers, in every place."""

    def change(data):
        data["images"][0].update(id="1", width="60", height=40.0)
        data["annotations"][2].update(image_id="2", category_id="1")
        data["categories"][1]["id"] = "2"

    source = opened(change)
    assert source.class_names == {1: "fish", 2: "crab"} and len(source) == 2
    for sample in source:
        assert (sample.segments[OWN] == 1).all() and (
            sample.segments[OTHERS] == 2
        ).all()
    assert not source.store.catalog.flaws


def test_ids_of_images_may_be_words(opened):
    def change(data):
        data["images"][0]["id"] = "one"
        for note in data["annotations"][:2]:
            note["image_id"] = "one"
        data["annotations"].append({**data["annotations"][0], "image_id": "none such"})
        data["annotations"].append({**data["annotations"][0], "image_id": None})
        data["annotations"].append(5)

    source = opened(change)
    assert [source.record_id(i) for i in range(2)] == ["2.png", "1.png"]
    assert (source[1].segments[OWN] == 1).all()
    skipped = [s.id for s in source.store.catalog.skipped]
    assert skipped == ["train.json image none such"]
    assert [f.reason[:19] for f in source.store.catalog.flaws] == [
        "has image_id None, ", "has 5 in place of f",
    ]  # fmt: skip


def test_names_that_come_twice_have_their_ids_behind_them(opened):
    def change(data):
        data["categories"][1]["name"] = "fish"

    source = opened(change)
    assert source.class_names == {1: "fish (id 1)", 2: "fish (id 2)"}
    path = source.store.root / "annotations/train.json"
    data = json.loads(path.read_text())
    data["categories"][1].update(id=1, name="crab")
    write_json(path, data)
    with pytest.raises(ValueError, match="category id 1 is 'fish' and 'crab'; give"):
        raw("coco_json", source.store.root, "train")


@pytest.mark.parametrize(
    "category, message",
    [
        ({"id": None, "name": "x"}, "category entry 3 has id None; an id is a whole"),
        ({"id": 70000, "name": "x"}, "category entry 3 has id 70000; an id is a"),
        ({"id": 3}, "category 3 has no name"),
        ({"id": 3, "name": "\ud800"}, "category 3 has no name"),
        (None, "category entry 3 has None in place of fields; an id is"),
    ],
)
def test_classes_that_cannot_be_used(opened, category, message):
    with pytest.raises(ValueError, match=f"train.json: {message}"):
        opened(lambda data: data["categories"].append(category))


# Images.


@pytest.mark.parametrize(
    "size", [(None, None), (-1, -1), (0, 40), ("a", 3), (10**6,) * 2]
)
def test_a_size_that_cannot_be_is_that_of_the_file(opened, size):
    source = opened(lambda d: d["images"][0].update(width=size[0], height=size[1]))
    assert (source[0].segments[OWN] == 1).all()
    assert "has no possible size" in flaw(source)


@pytest.mark.parametrize("turn", [6, 9])  # 9 means nothing, as everywhere
def test_a_size_of_a_turned_file_is_not_guessed(opened, tmp_path, turn):
    turned = Image.open(tmp_path / "train/1.png").convert("RGB")
    turned.getexif()[0x0112] = turn
    turned.save(tmp_path / "train/1.jpg", exif=turned.getexif())

    def change(data):
        data["images"][0].update(file_name="1.jpg", width=None)

    source = opened(change)
    if turn == 9:
        assert not source.store.catalog.skipped
        return
    (skipped,) = source.store.catalog.skipped
    assert "is turned by its EXIF tag: give its width and height" in skipped.reason


def test_swapped_sizes_are_an_error_of_the_record(opened):
    source = opened(lambda d: d["images"][0].update(width=40, height=60))
    with pytest.raises(
        BadRecord, match=r"1\.png is 60 x 40, but .*image 1 in the JSON"
    ):
        source[0]


@pytest.mark.parametrize("name", ["./{}", "././{}", "sub/../{}", "{here}/train/{}"])
def test_paths_that_mean_the_same(opened, name, tmp_path):
    def change(data):
        for image in data["images"]:
            image["file_name"] = name.format(image["file_name"], here=tmp_path)

    assert len(opened(change)) == 2


def test_paths_of_windows(opened, tmp_path):
    photo(tmp_path / "train/sub/1.png", 1, SIZE)
    source = opened(lambda d: d["images"][0].update(file_name="sub\\1.png"))
    assert source.record_id(0) == "sub/1.png"


@pytest.mark.parametrize(
    "name, file",
    [
        ("../../label-studio/data/media/upload/3/0a1b2c3d-a.png", "0a1b2c3d-a.png"),
        ("/data/upload/3/0a1b2c3d-a%20b.png", "0a1b2c3d-a b.png"),
        ("/data/local-files/?d=pets/a%20b.png", "pets/a b.png"),
        ("s3://bucket/photos/pets/a.png", "pets/a.png"),
        ("C:\\photos\\pets\\a.png", "pets/a.png"),
        ("https://host/photos/pets/a.png?key=c/d.png", "photos/pets/a.png"),
        ("a%20b.png", "a b.png"),
    ],
)  # fmt: skip
def test_addresses_and_paths_of_elsewhere_are_found_by_their_ends(
    name, file, opened, tmp_path
):
    """As Label Studio's converter (sdk 2.1) and other programs write them."""
    photo(tmp_path / "train" / file, 5, SIZE)
    source = opened(lambda d: d["images"][0].update(file_name=name))
    found = {source.store.catalog.entry(k).image for k in range(len(source))}
    assert found == {f"train/{file}", "train/2.png"}


def test_an_end_that_two_images_have_is_of_neither(opened, tmp_path):
    def change(data):
        for image, folder in zip(data["images"], "ab", strict=True):
            image["file_name"] = f"/pics/{folder}/upload/0a1b2c3d-1.png"

    photo(tmp_path / "train/upload/0a1b2c3d-1.png", 5, SIZE)
    with pytest.raises(ValueError, match="shows no class|make no record"):
        opened(change)


@pytest.mark.parametrize(
    "name", ["images/1.png", "..\\4\\1.png", "1.PNG", "C:\\a\\1.png", "/a/%31.png"]
)
def test_a_wrong_path_names_the_file_that_is_there(opened, name):
    source = opened(lambda d: d["images"][0].update(file_name=name))
    (skipped,) = source.store.catalog.skipped
    assert "; is 1.png meant? file_name is the path below that folder" in skipped.reason


@pytest.mark.parametrize("name", [None, 5, "", ["1.png"], "\ud800.png"])
def test_an_image_without_a_name(opened, name):
    source = opened(lambda d: d["images"][0].update(file_name=name))
    reasons = [s.reason for s in source.store.catalog.skipped]
    assert len(source) == 1 and "file_name" in reasons[0]


def test_an_image_that_is_listed_twice(opened):
    """With ids of its own it has the objects of both; sharing an id, neither is
    known."""
    source = opened(lambda d: d["images"][1].update(file_name="1.png"))
    assert len(source) == 1 and "has the objects of both" in flaw(source)
    source = opened(
        lambda d: d["images"].append({**d["images"][0], "file_name": "3.png"})
    )
    assert [source.record_id(0)] == ["2.png"]
    assert {s.id for s in source.store.catalog.skipped} >= {"1.png", "3.png"}
    source = opened(
        lambda d: d["images"].append({**d["images"][0], "id": 3, "width": 9})
    )
    assert (source[0].segments[OWN] == 1).all()
    assert "another size" in source.store.catalog.skipped[0].reason


# Whole files.


def test_a_split_of_crowds_says_so(opened):
    def change(data):
        for note in data["annotations"]:
            note["iscrowd"] = 1

    with pytest.raises(
        ValueError, match=r"2 files .*: 1\.png has no object but crowds"
    ):
        opened(change)


def test_a_file_of_boxes_says_so(opened):
    def change(data):
        for note in data["annotations"]:
            del note["segmentation"]

    with pytest.raises(ValueError, match="annotation 11 of 1.png has no mask: its box"):
        opened(change)


@pytest.mark.parametrize(
    "data, message",
    [
        ([{"image_id": 1, "score": 0.5}], "results, which are predictions"),
        ([{"annotations": [], "data": {}}], "Label Studio's own JSON"),
        ({"shapes": [], "imagePath": "a.png"}, "labelme's JSON of one image"),
        ({"a.png123": {"regions": []}}, "VIA's own JSON"),
        ({"videos": {}}, "a set of videos"),
        ({**document(), "annotations": [{"segments_info": []}]}, "type coco_panoptic"),
        ({**document(), "annotations": [{"caption": "a"}]}, "captions"),
        ({**document(), "annotations": {}}, "it lacks annotations"),
        (5, "it lacks images, annotations, categories and looks like a single value"),
    ],
)
def test_other_formats_are_named(tmp_path, data, message):
    photo(tmp_path / "train/1.png", 1, SIZE)
    write_json(tmp_path / "annotations/train.json", data)
    with pytest.raises(ValueError, match=f"train.json: not COCO's format: .*{message}"):
        raw("coco_json", tmp_path, "train")


# Anything at all.

JUNK = (
    None, True, False, 0, -1, 1, 2, 1.5, NAN, INF, -INF, 1e12, -1e300, 10**30, "", "1",
    "x", "\ud800", "../../x.png", "\0", [], [[]], [1], [[1, 2]], {}, {"size": [40, 60]},
    [[NAN] * 6], [[INF, 1, 2, 3, 4, 5]], [[1e18] * 8], [[-1e9, 0, 1e9, 0, 1e9, 9]],
    [["a"] * 6], [[None] * 6], [[True] * 6], [{}], [[[1, 2], [3, 4], [5, 6]]],
    {"size": [60, 40], "counts": [2400]}, {"size": [40, 60], "counts": "0" * 9},
    {"size": [40, 60], "counts": [2**40]}, {"size": None, "counts": "PP"},
    {"size": [1e9, 1e9], "counts": "PPYo0"}, {"size": [40, 60], "counts": {"a": 1}},
    [0, 0, NAN, 5], [0, 0, 1e308, 1e308], [5, 5, -5, -5], [[0, 0, 60, 40]],
)  # fmt: skip
BYTES = 'NaN Infinity -Infinity 1e999 null [ ] { } , : " \\ 0 \xff \\ud800'.split(" ")


def damaged(rng, data):
    """The text of a document with some values replaced, removed, doubled or swapped;
    and sometimes with damaged bytes."""
    for _ in range(rng.integers(1, 5)):
        spots = [*_spots(data)]
        (where, key), (other, name) = (
            spots[k] for k in rng.integers(len(spots), size=2)
        )
        way = rng.integers(8)
        if way < 5:
            where[key] = copy.deepcopy(JUNK[rng.integers(len(JUNK))])
        elif way == 5:
            del where[key]
        elif way == 6:
            where[key] = copy.deepcopy(other[name])
        elif isinstance(where, list):
            where.append(copy.deepcopy(where[key]))
    text = json.dumps(data).encode()
    if rng.random() < 0.15:
        at, stop = sorted(rng.integers(len(text), size=2))
        stop = min(stop, at + 9)
        text = (
            text[:at] + BYTES[rng.integers(len(BYTES))].encode("latin1") + text[stop:]
        )
    return text


def _spots(data):
    """Every place (container, key) of a document."""
    for key in [*data] if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], (dict, list)):
            yield from _spots(data[key])


def segments_document():
    """The panoptic form: segment 7 on the left, 257 on the right."""
    data = document()
    data["annotations"] = [
        {
            "image_id": k, "file_name": f"{k}.png",
            "segments_info": [
                {"id": 7, "category_id": 1, "iscrowd": 0},
                {"id": 257, "category_id": 2, "iscrowd": 0},
            ],
        }
        for k in (1, 2)
    ]  # fmt: skip
    return data


KINDS = {
    "coco_json": ("annotations/train.json", document, {}),
    "lvis": ("annotations/lvis_v1_train.json", document, {"images": "train"}),
    "paco": ("annotations/paco_lvis_v1_train.json", document, {"images": "train"}),
    "coco_panoptic": ("train.json", segments_document, {
        "images": "train", "annotations": "train.json", "masks": "masks",
    }),
    "coco_panoptic_segments": ("train.json", segments_document, {
        "images": "train", "annotations": "train.json", "masks": "masks",
    }),
}  # fmt: skip


TRUTH = {"coco_json": np.zeros(SIZE, int), "coco_panoptic": np.ones(SIZE, int)}
TRUTH["coco_json"][OWN], TRUTH["coco_json"][OTHERS] = 1, 2
TRUTH["coco_panoptic"][:, 30:] = 2


def write_pictures(root):
    """Two images and their panoptic masks."""
    colors = np.zeros((*SIZE, 3), np.uint8)
    colors[:, :30], colors[:, 30:] = (7, 0, 0), (1, 1, 0)
    for k in (1, 2):
        photo(root / f"train/{k}.png", k, SIZE)
        save(root / f"masks/{k}.png", Image.fromarray(colors))


def intact(text, kind):
    """The images, "1" or "2", of which a damaged document says what it said before."""
    before = KINDS[kind][1]()
    try:
        now = json.loads(text)
    except ValueError:
        return set()
    if now["categories"] != before["categories"]:
        return set()

    def of(data, name, field, number):
        rows = (row for row in data[name] if isinstance(row, dict))
        own = [row for row in rows if str(number) in str(row.get(field))]
        return json.dumps(own)  # true is not 1

    return {
        str(k)
        for k in (1, 2)
        if all(
            of(now, *place, k) == of(before, *place, k)
            for place in (
                ("images", "id"), ("images", "file_name"), ("annotations", "image_id"),
                ("annotations", "file_name"),
            )
        )
    }  # fmt: skip


def outcome(root, kind, text):
    """Opens and reads a document: "refused" or "opened". Raises for anything else than
    a `ValueError` that names its file, and where an image is lost without a word."""
    name, _, settings = KINDS[kind]
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text)
    try:
        source = Dataset(Raw(make_layout(kind, settings), root, "train"), kind)
    except ValueError as error:
        assert str(root) in str(error), error
        return "refused"
    listed = {
        source.record_id(i).split("#")[0].split(".")[0] for i in range(len(source))
    }
    for index in range(len(source)):
        try:
            sample = source[index]
        except BadRecord as error:
            assert str(root) in str(error)
            continue
        labels = np.unique(sample.segments).tolist()
        assert sample.image.shape[:2] == sample.segments.shape == SIZE
        if sample.kind == 0:
            assert set(labels) <= {0, IGNORE, *source.class_names}
        if kind in TRUTH and source.record_id(index)[0] in intact(text, kind):
            np.testing.assert_array_equal(sample.segments, TRUTH[kind])
    catalog = source.store.catalog
    said = " ".join(f"{s.id} {s.reason}" for s in [*catalog.skipped, *catalog.flaws])
    for k in {"1", "2"} - listed:
        named = f"{k}.png" in said or f"image {k}" in said or "entry" in said
        assert named or f'"{k}.png"'.encode() not in text, (k, said)
    return "opened"


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_documents_are_refused_or_read(tmp_path, kind):
    """Nothing but a clear `ValueError` comes out, whatever the document."""
    write_pictures(tmp_path)
    _, make, _ = KINDS[kind]
    found = {"refused": 0, "opened": 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found[outcome(tmp_path, kind, damaged(rng, make()))] += 1
    assert min(found.values()) > 8, found


def test_exchanged_sizes_are_told_by_their_cause(opened):
    def change(data):
        data["images"][0].update(height=SIZE[1], width=SIZE[0])

    with pytest.raises(BadRecord, match="its width and height are exchanged"):
        opened(change)[0]
