"""Sets of the parts of objects, as Matcher's code reads them (github.com/aim-uofa/
Matcher, matcher/data/), and PerMIS as INSID3's does (github.com/visinf/INSID3,
datasets/permis.py)."""

import pickle
import shutil

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from seggpt_jax.data.sample import INSTANCE
from tests.support.layouts import (
    SIZE,
    agrees,
    faults,
    labels,
    photo,
    raw,
    shown,
    stripes,
    write_json,
)

VOC = "Pascal-Part/VOCdevkit/VOC2010"


class Attack:
    def __reduce__(self):
        return print, ("run",)


def coded(values, one=1, size=SIZE):
    """The stripes of a value as RLE of JSON."""
    found = rle.encode(np.asfortranarray(stripes(values, size) == one, np.uint8))
    return {"size": list(size), "counts": found["counts"].decode()}


def anew(kind, root):
    """The first fold after a change in place."""
    shutil.rmtree(root / ".seggpt", ignore_errors=True)
    return raw(kind, root, "val", fold=0)


def voc_object(kind, box, **parts):
    left, top, right, bottom = box
    return {
        "name": kind,
        "bndbox": {"xmin": left, "ymin": top, "xmax": right, "ymax": bottom},
        "parts": [{"name": name, "mask": masks} for name, masks in parts.items()],
    }


@pytest.fixture
def pascal(tmp_path):
    """Two birds and a cat in the first image, a bird in the second."""
    root = tmp_path / VOC
    both, one = (0, 1, 1, 0), (0, 0, 1, 0)
    notes = {
        "a": [
            voc_object("bird", (4, 2, 24, 24), WING=[coded(one), coded((0, 1, 0, 0))]),
            voc_object("cat", (0, 0, 32, 24), FACE=[coded(both)]),
            voc_object("bird", (0, 0, 8, 24), TAIL=[coded((1, 0, 0, 0))]),
        ],
        "b": [voc_object("bird", (8, 0, 32, 24), WING=[coded(one)])],
    }
    for number, (name, objects) in enumerate(notes.items()):
        photo(root / f"JPEGImages/{name}.jpg", number)
        path = root / f"Annotations_Part_json_merged_part_classes/{name}.json"
        write_json(path, {"filename": name, "object": objects})

    def halves(*val, train=("z",)):
        return {"train": [*train], "val": [*val]}

    lists = {
        "animals": {"object": {
            "bird": {"part": {"WING": halves("b", "a", "b"), "TAIL": halves("a"),
                              "BEAK": halves("a", train=())}},
            "cat": {"part": {"FACE": halves("a")}},
        }},
        "vehicles": {"object": {
            "aeroplane": {"part": {"TAIL": halves("a"), "BODY": halves("c")}},
            "bus": {"part": {"DOOR": halves("a")}},
        }},
    }  # fmt: skip
    write_json(root / "all_obj_part_to_image.json", lists)
    return tmp_path


def test_pascal_part(pascal):
    """Objects are cut out by their boxes; the masks of a part are one."""
    source = raw("pascal_part", pascal, "val", fold=0)
    agrees(source)
    assert shown(source) == {
        "b#0 bird+WING": ["bird+WING"], "a#0 bird+WING": ["bird+WING"],
        "a#2 bird+TAIL": ["bird+TAIL"], "a#1 cat+FACE": ["cat+FACE"],
    }  # fmt: skip
    assert source.class_names == {1: "bird+WING", 2: "bird+TAIL", 3: "cat+FACE"}
    both = source[1]
    assert both.segments.shape == (22, 20) and labels(both, 5) == [0, 1, 1, 1, 1]
    whole = np.asarray(Image.open(pascal / VOC / "JPEGImages/a.jpg").convert("RGB"))
    np.testing.assert_array_equal(both.image, whole[2:24, 4:24])
    assert labels(source[2], 2) == [2, 2] and labels(source[3], 4) == [0, 3, 3, 0]
    assert source.origins[1] == source.origins[2] != source.origins[0]
    facts = source.store.catalog.facts
    assert facts["episodes"] == 3 + 1 + 1 + 1  # those of the part without train, too
    assert facts["pools"] == {
        "1": [["b", ["b#0 bird+WING"]], ["a", ["a#0 bird+WING", None]],
              ["b", ["b#0 bird+WING"]]],
        "2": [["a", [None, "a#2 bird+TAIL"]]],
        "3": [["a", ["a#1 cat+FACE"]]],
    }  # fmt: skip


def test_faults_of_pascal_part_are_named(pascal):
    root = pascal / VOC
    notes = root / "Annotations_Part_json_merged_part_classes"
    with pytest.raises(ValueError, match="fold: 4 must be 0, 1, 2 or 3"):
        raw("pascal_part", pascal, "val", fold=4)
    with pytest.raises(ValueError, match="image.json: not Matcher's list .* of person"):
        raw("pascal_part", pascal, "val", fold=2)
    # Of the vehicles, one image is missing; the aeroplane's tail is no class.
    with pytest.raises(ValueError, match=r"c#aeroplane\+BODY is listed in all_"):
        raw("pascal_part", pascal, "val", fold=3)
    wrong = [voc_object("bird", (8, 0, 32, 24), WING=[coded((1, 0), size=(9, 9))])]
    write_json(notes / "b.json", {"object": wrong})
    source = anew("pascal_part", pascal)
    (fault,) = faults(source).values()
    assert "b.json has an RLE of size [9, 9]; its image has [24, 32]" in fault
    assert [item.id for item in source.lost] == ["b#bird+WING"]
    # A box without pixels gives no record, and is drawn anew.
    flat = [voc_object("bird", (8, 5, 32, 5), WING=[coded((1, 0))])]
    write_json(notes / "b.json", {"object": flat})
    source = anew("pascal_part", pascal)
    assert source.store.catalog.facts["pools"]["1"][0] == ["b", [None]]
    assert not faults(source) and [f.id for f in source.store.catalog.flaws] == [
        "b#bird+WING"
    ]
    for text, message in (
        ("[", "b.json: not a JSON file"),
        ('{"object": [{}]}', "b.json cannot be read"),
        ('{"object": [{"name": "bird", "bndbox": {"xmin": "x", "ymin": 0, "xmax": 1, '
         '"ymax": 1}, "parts": []}]}', "b.json has a box ['x', 0, 1, 1]; numbers are"),
        ('{"object": [{"name": "bird", "bndbox": {"xmin": 9, "ymin": 0, "xmax": 1, '
         '"ymax": 1}, "parts": []}]}', "has a box [9, 0, 1, 1] that ends before it"),
    ):  # fmt: skip
        (notes / "b.json").write_text(text)
        (fault,) = faults(anew("pascal_part", pascal)).values()
        assert message in fault
    (notes / "b.json").unlink()
    (fault,) = faults(anew("pascal_part", pascal)).values()
    assert "b.json" in fault


def paco(root, **changes):
    """Classes 20 to 27 in train's order; those of the first fold are 23 and 27."""
    order = [23, 20, 21, 22, 27, 24, 25, 26]
    names = {5: "a", 6: "b", 7: "c"}
    for number, name in names.items():
        photo(root / f"PACO-Part/coco/val2017/{name}.jpg", number)
    images = {
        27: [{7: "x/y/val2017/c.jpg"}, {5: "val2017/a.jpg"}],
        23: [{n: f"val2017/{names[n]}.jpg"} for n in (5, 6, 5)],
    }

    def note(category, number, box, segmentation):
        return {"category_id": category, "obj_ann_id": number, "obj_bbox": box,
                "segmentation": segmentation}  # fmt: skip

    polygon = [[8, 0, 16, 0, 16, 24, 8, 24]]
    notes = {
        5: [note(23, 1, [4.7, 2.2, 20.1, 40.0], polygon),
            note(27, 1, [4.7, 2.2, 20.1, 40.0], coded((1, 0))),
            note(23, 2, [8.0, 0.0, 0.5, 24.0], polygon),
            note(23, 1, [0, 0, 1, 1], coded((0, 0, 1, 0)))],
        6: [note(23, 9, [0.0, 0.0, 32.0, 24.0],
                 rle.encode(np.asfortranarray(stripes((0, 1)), np.uint8)))],
        7: [note(27, 3, [0.0, 0.0, 32.0, 24.0], coded((0, 1)))],
    }  # fmt: skip
    (root / "PACO-Part/paco").mkdir(exist_ok=True)
    data = {"train": {"cid2img": {c: [] for c in order}, "img2anno": {}},
            "val": {"cid2img": images, "img2anno": notes}} | changes  # fmt: skip
    for half, content in data.items():
        path = root / f"PACO-Part/paco/paco_part_{half}.pkl"
        path.write_bytes(pickle.dumps(content))
    return data


def test_paco_part(tmp_path):
    """A record is an object; its box is that of its first part. Images count once."""
    paco(tmp_path)
    source = raw("paco_part", tmp_path, "val", fold=0)
    agrees(source)
    first, second, last = "val2017/a.jpg", "val2017/b.jpg", "val2017/c.jpg"
    assert shown(source) == {
        f"{first}#1 part 23": ["part 23"], f"{second}#9 part 23": ["part 23"],
        f"{last}#3 part 27": ["part 27"], f"{first}#1 part 27": ["part 27"],
    }  # fmt: skip
    assert source[0].segments.shape == (22, 20)  # of rows 2 to 24, columns 4 to 24
    assert labels(source[0], 5) == [0, 1, 1, 1, 1]
    assert labels(source[1], 2) == [0, 1] and labels(source[3], 5)[:3] == [2, 2, 2]
    assert source.store.catalog.facts == {"episodes": 2500, "pools": {
        "1": [[first, [f"{first}#1 part 23", None]], [second, [f"{second}#9 part 23"]]],
        "2": [[last, [f"{last}#3 part 27"]], [first, [f"{first}#1 part 27"]]],
    }}  # fmt: skip
    with pytest.raises(ValueError, match="no class of fold 0 with more than 2 images"):
        raw("paco_part", tmp_path, "val", fold=0, shots=2)
    with pytest.raises(ValueError, match="no class of fold 1"):
        raw("paco_part", tmp_path, "val", fold=1)
    with pytest.raises(ValueError, match="shots: 0 must be at least 1"):
        raw("paco_part", tmp_path, "val", fold=0, shots=0)


def test_faults_of_paco_part_are_named(tmp_path, capsys):
    notes = paco(tmp_path)["val"]["img2anno"]
    val = paco(tmp_path)["val"]
    notes[6][0]["segmentation"] = [[0, 0, 1, float("nan"), 1, 1]]
    notes[7][0]["category_id"] = 23
    paco(tmp_path, val=val | {"img2anno": notes})
    source = raw("paco_part", tmp_path, "val", fold=0)
    found = faults(source)
    assert found.keys() == {"val2017/b.jpg#23", "val2017/c.jpg#27"}
    assert "image 6 has a coordinate nan" in found["val2017/b.jpg#23"]
    assert "image 7 has no object of the class" in found["val2017/c.jpg#27"]
    assert len(source.lost) == 2
    for content, why in (
        (Attack(), "it holds a builtins.print, not plain data"),
        ({"cid2img": {}}, "it is damaged"),
        ({"cid2img": {1: [{}]}, "img2anno": {}}, "it is damaged"),
    ):
        paco(tmp_path, train=content)
        message = rf"train.pkl: not Matcher's annotations of PACO-Part \({why}"
        with pytest.raises(ValueError, match=message):
            raw("paco_part", tmp_path, "val", fold=0)
    assert "run" not in capsys.readouterr().out


def test_a_mask_without_pixels_is_drawn_as_it_is(tmp_path):
    """A thin polygon has none. Matcher's code draws such a part like any other."""
    data = paco(tmp_path)["val"]
    data["img2anno"][6][0]["segmentation"] = [[3, 3, 9, 3, 6, 3]]
    paco(tmp_path, val=data)
    source = raw("paco_part", tmp_path, "val", fold=0)
    assert not source.lost and len(source.by_class[1]) == 2
    assert source[1].classes == () and source[1].segments.shape == SIZE
    ((_, remark),) = source.inspect(source.store[1])[1]
    assert "masks do not show the class" in remark.what
    data["img2anno"][6][0]["segmentation"] = []
    paco(tmp_path, val=data)
    (item,) = raw("paco_part", tmp_path, "val", fold=0).lost
    assert "image 6 has no mask" in item.reason


def permis(root, folder, masks, frames=(0, 1, 2)):
    for number in frames:
        photo(root / f"PerMIRS/{folder}/{number}.jpg", number)
    np.save(root / f"PerMIRS/{folder}/masks.npz", masks, allow_pickle=True)


def masks_of(*values):
    return [{9: stripes(one) > 0} for one in values]


def test_permis(tmp_path):
    permis(tmp_path, "10", masks_of((0, 1), (1, 0), (0, 0)))
    permis(tmp_path, "4", masks_of((0, 1, 0, 0), (1, 0), (0, 1)))
    source = raw("permis", tmp_path, "all")
    agrees(source)
    names = [f"{folder}/{frame}" for folder in (4, 10) for frame in range(3)]
    assert [source.record_id(i) for i in range(6)] == names
    assert labels(source[0], 4) == [0, 1, 0, 0] and labels(source[1], 2) == [1, 0]
    assert source[5].classes == () and source.same_image_only
    assert source.kind == INSTANCE and source.origins.tolist() == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    "masks, why",
    [
        (masks_of((0, 1), (1, 0)), r"holds object \(2,\), not a dict for each frame"),
        (np.zeros((3, 24, 32)), r"holds float64 \(3, 24, 32\), not a dict"),
        ([{1: np.zeros(3)}] * 3, r"has a mask float64 \(3,\); bool \[h, w\] is wanted"),
        ([{}] * 3, "is damaged; make it anew"),
        ([Attack(), {}, {}], "it holds a builtins.print, not plain data; make it anew"),
    ],
)
def test_faults_of_permis_are_named(tmp_path, masks, why, capsys):
    permis(tmp_path, "1", masks_of((0, 1), (1, 0), (1, 0)), frames=(0, 2))
    permis(tmp_path, "2", masks)
    (tmp_path / "PerMIRS/3").mkdir()
    source = raw("permis", tmp_path, "all")
    found = {item.id: item.reason for item in source.lost}
    assert {"1/1", *(f"3/{n}" for n in range(3)), "2/0"} <= found.keys()
    assert found["1/1"] == found["3/0"] == "has no image"
    with pytest.raises(ValueError, match=f"2/masks.npz.npy {why}"):
        source[2]
    assert "run" not in capsys.readouterr().out
