"""Targets by class: of label maps with names, and of COCO files."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from seggpt_jax.prompts.annotations import Annotations
from seggpt_jax.prompts.classes import by_class

NAMES = {1: "cat", 2: "dog", 7: "owl"}
LABELS = np.array([[0, 1, 1], [2, 2, 255], [7, 0, 1]], np.uint8)


def polygon(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


@pytest.fixture
def coco(tmp_path):
    """Two pictures of 6 x 4: a dog on a cat and a crowd of cats; two cats."""
    (tmp_path / "set" / "more").mkdir(parents=True)
    for name in ("a.jpg", "more/b.jpg", "c.jpg", "empty.jpg"):
        Image.new("RGB", (6, 4)).save(tmp_path / "set" / name)
    boxes = [
        (5, 20, (0, 0, 4, 4), 0),  # cat
        (5, 30, (1, 1, 3, 2), 0),  # dog
        (5, 20, (5, 0, 6, 4), 1),
        (8, 20, (0, 0, 2, 2), 0),
        (8, 20, (4, 2, 6, 4), 0),
    ]
    notes = []
    for number, (image, category, box, crowd) in enumerate(boxes, 1):
        shape = polygon(*box)
        if crowd:
            mask = np.zeros((4, 6), np.uint8, order="F")
            mask[box[1] : box[3], box[0] : box[2]] = 1
            shape = coco_mask.encode(mask)
            shape["counts"] = shape["counts"].decode()
        note = {"id": number, "image_id": image, "category_id": category}
        notes.append(note | {"segmentation": shape, "iscrowd": crowd})
    size = {"width": 6, "height": 4}
    images = [
        {"id": 5, "file_name": "a.jpg", **size},
        {"id": 8, "file_name": "more/b.jpg", **size},
        {"id": 9, "file_name": "empty.jpg", **size},
        {"id": 10, "file_name": "other/b.jpg", **size},
    ]
    categories = [{"id": 30, "name": "dog"}, {"id": 20, "name": "cat"}]
    content = {"images": images, "annotations": notes, "categories": categories}
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    return path


CAT_UNDER_DOG = np.array([[20, 20, 20, 20, 0, 0], [20, 30, 30, 20, 0, 0],
                          [20, 20, 20, 20, 0, 0], [20, 20, 20, 20, 0, 0]])  # fmt: skip


def shown(coco, *names):
    return [str(coco.parent / "set" / name) for name in names]


def test_a_coco_file_is_the_target_of_its_images(coco):
    pictures = shown(coco, "a.jpg", "more/b.jpg")
    targets, names = by_class(pictures, [coco, str(coco)], "category", {}, ())
    np.testing.assert_array_equal(targets[0], CAT_UNDER_DOG)
    assert np.unique(targets[1]).tolist() == [0, 20]
    assert names == {20: "cat", 30: "dog"}
    (target,), _ = by_class(pictures[:1], [coco], "category", {}, ["dog"])
    np.testing.assert_array_equal(target, np.where(CAT_UNDER_DOG == 30, 30, 0))


def test_objects_are_numbered_through_all_pictures(coco):
    pictures = shown(coco, "a.jpg", "more/b.jpg", "a.jpg")
    targets, names = by_class(pictures, [coco] * 3, "instance", {}, ())
    dog = CAT_UNDER_DOG == 30
    np.testing.assert_array_equal(targets[0], np.where(dog, 2, CAT_UNDER_DOG // 20))
    assert targets[1][0, 0] == 3 and targets[1][3, 5] == 4
    assert targets[2][0, 0] == 5 and targets[2][1, 1] == 6
    assert names == {1: "cat", 2: "dog", 3: "cat", 4: "cat", 5: "cat", 6: "dog"}


def test_labels_are_chosen_by_name(tmp_path):
    Image.fromarray(LABELS).save(tmp_path / "labels.png")
    for target in (LABELS, str(tmp_path / "labels.png")):
        (found,), names = by_class(["x"], [target], "category", NAMES, ["owl", "cat"])
        np.testing.assert_array_equal(
            found, np.where(np.isin(LABELS, [1, 7]), LABELS, 0)
        )
        assert names == NAMES
        (same,), _ = by_class(["x"], [target], "category", NAMES, ())
        assert same is target


def test_objects_of_one_class_are_chosen_together():
    names = {1: "cat", 2: "dog", 7: "cat"}
    (found,), _ = by_class(["x"], [LABELS], "instance", names, ["cat"])
    np.testing.assert_array_equal(found, np.where(np.isin(LABELS, [1, 7]), LABELS, 0))


def test_images_of_a_folder_are_those_with_objects(coco):
    folder, file = coco.parent / "set", Annotations(coco)
    assert file.files(folder, [20, 30]) == [folder / "a.jpg", folder / "more/b.jpg"]
    assert file.files(folder, [30]) == [folder / "a.jpg"]


@pytest.mark.parametrize(
    ("name", "classes", "said"),
    [
        ("c.jpg", (), "set/c.jpg is not in .*coco.json"),
        ("empty.jpg", (), "empty.jpg has no object of cat, dog in .*coco.json"),
        ("more/b.jpg", ["dog"], "b.jpg has no object of dog in"),
        ("a.jpg", ["dgo"], "class 'dgo' is not one of .*coco.json; did you mean 'dog'"),
    ],
)
def test_what_a_coco_file_has_not_is_named(coco, name, classes, said):
    with pytest.raises(ValueError, match=said):
        by_class(shown(coco, name), [coco], "category", {}, classes)


def test_targets_that_do_not_fit_are_named(coco, tmp_path):
    picture = shown(coco, "a.jpg")
    with pytest.raises(
        ValueError, match="prompt image 1 is no file: .*coco.json finds"
    ):
        by_class([np.zeros((4, 6, 3), np.uint8)], [coco], "category", {}, ())
    with pytest.raises(
        ValueError, match="label 20 is 'pig', and in .* 'cat': examples"
    ):
        by_class(picture, [coco], "category", {20: "pig"}, ())
    with pytest.raises(
        ValueError, match="classes cat are chosen by name, and no names"
    ):
        by_class(["x"], [LABELS], "category", {}, ["cat"])
    with pytest.raises(ValueError, match="prompt target 1 shows no pig"):
        by_class(["x"], [LABELS], "category", {9: "pig"}, ["pig"])
    painting = np.dstack([LABELS, LABELS * 3, LABELS])
    with pytest.raises(ValueError, match="prompt target 1 is a painting: only labels"):
        by_class(["x"], [painting], "category", NAMES, ["cat"])
    Image.new("RGB", (7, 4)).save(picture[0])
    with pytest.raises(ValueError, match="a.jpg is 7 x 4, and 6 x 4 in .*coco.json"):
        by_class(picture, [coco], "category", {}, ())
    content = json.loads(coco.read_text())
    del content["annotations"][0]["segmentation"]
    coco.write_text(json.dumps(content))
    Image.new("RGB", (6, 4)).save(picture[0])
    with pytest.raises(ValueError, match="coco.json annotation 1 has no mask"):
        by_class(picture, [coco], "category", {}, ())
    (dogs,), _ = by_class(picture, [coco], "category", {}, ["dog"])
    assert (dogs == 30).sum() == 2


def test_a_mask_of_0_and_255_shows_the_class_that_label_1_is():
    binary = np.uint8(255 * (LABELS > 0))
    targets, _ = by_class(["x"], [binary], "category", {1: "cat"}, ["cat"])
    np.testing.assert_array_equal(targets[0], LABELS > 0)
    # Beside other classes 255 may be ignored.
    with pytest.raises(ValueError, match="prompt target 1 shows no cat"):
        by_class(["x"], [binary], "category", {1: "cat", 2: "dog"}, ["cat"])


def test_crowds_are_no_objects_and_are_said(coco):
    content = json.loads(coco.read_text())
    for note in content["annotations"]:
        note["iscrowd"] |= note["image_id"] == 8
    coco.write_text(json.dumps(content))
    folder = coco.parent / "set"
    assert Annotations(coco).files(folder, [20]) == [folder / "a.jpg"]
    with pytest.raises(ValueError, match="b.jpg has no object of .* but crowds; CVAT"):
        by_class(shown(coco, "more/b.jpg"), [coco], "category", {}, ())
