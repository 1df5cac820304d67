"""Folders of results: no file of two owners, and ids that stay when images join."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from seggpt_jax.results import folder
from seggpt_jax.results.categories import categories
from seggpt_jax.results.folder import Folder
from seggpt_jax.results.forms import FORMS, Shown
from seggpt_jax.results.objects import find
from tests.results.blobs import result

CLASSES = categories([1, 2], "category", {1: "cat", 2: "dog"})
BOTH = [[1, 1, 0, 2], [1, 0, 0, 2], [0, 0, 1, 1]]


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("x.png", "x_colors.png", "y.png", "coco.png", "more/x.jpg"):
        Image.new("RGB", (4, 3)).save(tmp_path / name)
    return tmp_path


def fill(photos, forms, names, segments=BOTH, split=False):
    """What a run does with a folder, but that the answer is known."""
    found = {name: photos / f"{name}.png" for name in names}
    filled = Folder(photos / "out", forms, found)
    (photos / "out").mkdir(exist_ok=True)
    filled.claim()
    for name in filled.todo:
        one = result(segments)
        image = np.zeros((3, 4, 3), np.uint8)
        shown = Shown(f"{name}.png", image, one, find(one, split), CLASSES)
        filled.write(name, shown)
    filled.join(CLASSES, as_results=False)
    return filled


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_second_run_keeps_what_was_there_and_its_ids(photos):
    forms, out = ["coco-json", "csv", "yolo"], photos / "out"
    fill(photos, forms, ["y"])
    first = json.loads((out / "coco.json").read_text())
    fill(photos, forms, ["coco", "x"], split=True)
    second = json.loads((out / "coco.json").read_text())
    assert second["images"][:1] == first["images"]
    assert second["annotations"][:2] == first["annotations"]
    assert [(x["id"], x["file_name"]) for x in second["images"]] == [
        (1, "y.png"), (2, "coco.png"), (3, "x.png")
    ]  # fmt: skip
    assert [x["id"] for x in second["annotations"]] == list(range(1, 9))
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [row["image"] for row in rows]
    assert names == ["y.png"] * 2 + ["coco.png"] * 3 + ["x.png"] * 3
    assert rows[0] == {
        "image": "y.png", "label": "1", "name": "cat", "part": "", "area": "5",
        "left": "0", "top": "0", "width": "4", "height": "3", "score": "1.000000",
    }  # fmt: skip
    # One is done anew, with fewer objects, and one's own part is gone.
    for name in ("y.coco.json", "coco.coco.json", "y.csv", "coco.csv"):
        (out / name).unlink()
    fill(photos, forms, ["coco"], segments=np.eye(3, 4, dtype=int) * 2)
    third = json.loads((out / "coco.json").read_text())
    assert third["images"] == second["images"]
    ids = {x["id"]: x["category_id"] for x in third["annotations"]}
    assert ids == {1: 1, 2: 2, 3: 2, 6: 1, 7: 1, 8: 2}
    with (out / "results.csv").open() as file:
        names = [row["image"] for row in csv.DictReader(file)]
    assert names == ["y.png"] * 2 + ["coco.png"] + ["x.png"] * 3
    fill(photos, forms, ["z"])  # new ids are above all, though some are free
    fourth = json.loads((out / "coco.json").read_text())
    assert [x["id"] for x in fourth["annotations"]] == [1, 2, 3, 6, 7, 8, 9, 10]


def test_an_input_that_has_changed_is_done_anew(photos):
    out = photos / "out"
    fill(photos, ["segments", "csv"], ["x", "y"])
    Image.new("RGB", (4, 3), "red").save(photos / "x.png", compress_level=0)
    # Stopped before it is done: what it had must not pass for its results.
    stopped = Folder(out, ["segments"], {n: photos / f"{n}.png" for n in ("x", "y")})
    assert stopped.todo == ["x"] and (out / "x.png").exists()
    stopped.claim()
    assert not (out / "x.png").exists() and not (out / "x.csv").exists()
    new = fill(
        photos, ["segments", "csv"], ["x", "y"], segments=np.eye(3, 4, dtype=int)
    )
    assert new.todo == ["x"]
    assert (out / "results.csv").read_text().count("x.png,1,cat,,3,") == 1
    assert fill(photos, ["segments", "csv"], ["x", "y"]).todo == []
    inputs = json.loads((out / "inputs.json").read_text())
    for each in inputs.values():
        del each["size"]  # as an older version wrote it
    (out / "inputs.json").write_text(json.dumps(inputs))
    assert fill(photos, ["segments", "csv"], ["x", "y"]).todo == []


def test_an_image_without_objects_is_in_every_list(photos):
    fill(photos, ["coco-json", "csv", "yolo"], ["x"], segments=np.zeros((3, 4)))
    out = photos / "out"
    joined = json.loads((out / "coco.json").read_text())
    assert len(joined["images"]) == 1 and joined["annotations"] == []
    assert (out / "x.txt").read_text() == ""
    assert (out / "classes.txt").read_text() == "cat\ndog\n"
    assert (out / "results.csv").read_text().splitlines()[1] == "x.png" + "," * 9


@pytest.mark.parametrize(
    ("forms", "names", "said"),
    [
        (["segments", "colors"], ["x", "x_colors"],
         r"x_colors.png would hold the colors of \S+x.png and the segments of \S+"
         r"x_colors.png: use two runs and two --out"),
        (["colors", "segments"], ["x_colors", "x"], "x_colors.png would hold"),
        (["yolo"], ["classes"], "classes.txt would hold the yolo of all images and"),
        (["csv"], ["results"], "results.csv would hold the csv of all images and"),
    ],
)  # fmt: skip
def test_two_results_of_one_name_are_refused_before_anything(
    photos, forms, names, said
):
    with pytest.raises(ValueError, match=said):
        fill(photos, forms, names)
    assert not (photos / "out").exists()
    if names[0] in ("x", "x_colors"):  # one after the other is no better
        fill(photos, forms, names[:1])
        before = content(photos / "out")
        with pytest.raises(ValueError, match="x_colors.png would hold"):
            fill(photos, forms, names[1:])
        assert content(photos / "out") == before
    else:
        fill(photos, ["segments"], names)


def test_names_that_differ_only_in_case_meet_where_the_disk_ignores_it(
    photos, monkeypatch
):
    fill(photos, ["segments"], ["x", "X"])  # two files here
    for file in (photos / "out").iterdir():
        file.unlink()
    monkeypatch.setattr(folder, "_ignores_case", lambda out: True)
    with pytest.raises(ValueError, match="X.png would hold the segments of"):
        fill(photos, ["segments"], ["x", "X"])
    assert not list((photos / "out").iterdir())


def test_a_disk_that_tells_cases_apart_is_known(tmp_path):
    (tmp_path / "Out").mkdir()
    assert not folder._ignores_case(tmp_path / "Out/new")
    (tmp_path / "oUT").symlink_to("Out")  # as if both names were one
    assert folder._ignores_case(tmp_path / "Out/new")


def test_names_that_only_could_meet_are_no_fault(photos):
    fill(photos, ["segments", "overlay"], ["x", "x_colors"])
    fill(photos, ["segments"], ["x", "y"])
    with pytest.raises(ValueError, match="x_colors.png would hold"):
        fill(photos, ["colors"], ["x"])


def test_the_results_of_another_input_are_not_its_own(photos):
    fill(photos, ["segments"], ["x"])
    before = content(photos / "out")
    other = {"x": photos / "more/x.jpg"}
    said = r"out/x is the name of the results of \S+x.png, and would be that of \S+more"
    with pytest.raises(ValueError, match=said):
        Folder(photos / "out", ["segments"], other)
    assert content(photos / "out") == before


@pytest.mark.parametrize("name", ["x.png", "coco.json"])
def test_files_of_others_are_not_taken_for_results(photos, name):
    (photos / "out").mkdir()
    (photos / "out" / name).write_text("mine")
    said = rf"{name} is there, and no earlier run wrote it: choose another --out"
    with pytest.raises(ValueError, match=said):
        fill(photos, ["segments", "coco-json"], ["x"])
    assert content(photos / "out") == {name: b"mine"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("inputs.json", "{"),
        ("inputs.json", '{"x": 1}'),
        ("coco.json", '{"images": [], "annotations": ['),
        ("coco.json", '{"images": 1}'),
        ("results.csv", "image,label\n"),
        ("results.csv", ""),
        ("x.coco.json", "[]"),
    ],
)
def test_damaged_lists_are_named_and_stay(photos, name, text):
    fill(photos, ["coco-json", "csv"], ["x"])
    (photos / "out" / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name} is damaged"):
        fill(photos, ["coco-json", "csv"], ["x", "y"])
    assert (photos / "out" / name).read_text() == text


def test_every_form_has_a_suffix_of_its_own():
    suffixes = [form.suffix for form in FORMS.values()]
    assert len(set(suffixes)) == len(suffixes)
