"""Episodes of parts and of personal objects, drawn as the code of Matcher and INSID3
does it: names, and NumPy's global generator."""

import pickle

import numpy as np
import pytest

from seggpt_jax.data.prepare import prepare
from seggpt_jax.data.prepared import Prepared
from seggpt_jax.data.sources import make_layout, open_sources
from seggpt_jax.evaluators.episodes import Episodes
from seggpt_jax.evaluators.fewshot import Evaluator
from seggpt_jax.evaluators.hsnet import HsnetEpisodes, episodes_of
from tests.data.test_layouts_parts import coded, masks_of, permis, voc_object
from tests.evaluators.test_hsnet import SIZE, drawn
from tests.support import blocks
from tests.support.layouts import mask, photo, raw, write_json


@pytest.fixture
def pascal(tmp_path):
    """Birds with wings, tails or neither, and cats with faces; an image of no bird is
    listed as one. In lists and files the order is no one's."""
    rng = np.random.default_rng(0)
    root, listed, objects = tmp_path / "VOC2010", {"WING": [], "TAIL": []}, {}
    cats = []
    for number in range(14):
        name = f"2008_{number:06}"
        photo(root / f"JPEGImages/{name}.jpg", number)
        objects[name] = []
        for _ in range(1 + number % 3):
            kind = "cat" if number > 9 else "bird"
            chosen = ["FACE"] if kind == "cat" else ["WING", "TAIL"][: number % 4]
            box = (0, 0, int(rng.integers(16, 33)), 24)
            parts = {p: [coded((1, 0))] for p in chosen if rng.random() < 0.7}
            objects[name].append(voc_object(kind, box, **parts))
        for part in ("WING", "TAIL", "FACE"):
            if any(part in {p["name"] for p in o["parts"]} for o in objects[name]):
                (cats if part == "FACE" else listed[part]).append(name)
        path = root / f"Annotations_Part_json_merged_part_classes/{name}.json"
        write_json(path, {"object": objects[name]})
    listed["TAIL"] += [cats[0], listed["TAIL"][1]]
    lists = {part: rng.permutation(names).tolist() for part, names in listed.items()}
    every = {
        "bird": {"part": {p: {"train": ["x"], "val": v} for p, v in lists.items()}},
        "cat": {"part": {"FACE": {"train": ["x"], "val": cats},
                         "EAR": {"train": [], "val": cats}}},
    }  # fmt: skip
    document = {"animals": {"object": every}}
    write_json(root / "all_obj_part_to_image.json", document)
    return raw("pascal_part", tmp_path, "val", fold=0), every, objects


def view(every, objects, kind, part, taken):
    """An image and the number of its object, as they draw both."""
    while True:
        image = np.random.choice(every[kind]["part"][part]["val"], 1, replace=False)[0]
        if image in taken:
            continue
        own = [k for k, o in enumerate(objects[image]) if o["name"] == kind]
        if not own:
            continue
        chosen = np.random.choice(own, 1, replace=False)[0]
        if part in [p["name"] for p in objects[image][chosen]["parts"]]:
            return str(image), int(chosen)


@pytest.mark.parametrize("shots", [1, 2])
def test_pascal_part(pascal, shots):
    """Classes in turn; an image is drawn anew where its object has not the part."""
    source, every, objects = pascal
    classes = [("bird", "WING"), ("bird", "TAIL"), ("cat", "FACE")]
    np.random.seed(0)
    expected = []
    for number in range(40):
        kind, part = classes[number % 3]
        views = []
        while len(views) <= shots:
            views.append(view(every, objects, kind, part, [name for name, _ in views]))
        query, *prompts = [f"{name}#{k} {kind}+{part}" for name, k in views]
        expected.append((number % 3 + 1, query, prompts))
    found, episodes = drawn(source, "pascal_part", shots, 40)
    assert found == expected
    right, wrong = episodes.draw(0)
    assert right.truth.any() and right.targets.any() and wrong.targets.any()
    for number in range(40):
        right, wrong = episodes.draw(number)
        asked = source.by_class[right.class_ids[0]]
        shown = {source.record_id(int(i)).split("#")[0] for i in asked}
        names = [source.record_id(i).split("#")[0] for i in wrong.records]
        assert names[0] in shown and not {*names[1:]} & shown


def test_every_view_is_of_its_own_image_without_a_protocol_too(pascal):
    source, *_ = pascal
    episodes = Episodes(source, SIZE, shots=2, min_pixels=1)
    for number in range(30):
        right, _ = episodes.draw(number)
        assert len({source.record_id(i).split("#")[0] for i in right.records}) == 3


@pytest.fixture
def paco(tmp_path):
    """Six classes in a fold; some objects have a box without a pixel."""
    rng = np.random.default_rng(1)
    for number in range(20):
        photo(tmp_path / f"coco/val2017/{number}.jpg", number)
    images, notes = {}, {number: [] for number in range(20)}
    for category in range(0, 24, 4):
        own = rng.permutation(20)[:8].tolist()
        images[category] = [{n: f"val2017/{n}.jpg"} for n in (*own, own[0])]
        for number in own:
            for thing in range(int(rng.integers(1, 4))):
                width = 0.6 if rng.random() < 0.2 else 20.0
                notes[number].append({
                    "category_id": category, "obj_ann_id": 10 * number + thing,
                    "obj_bbox": [3.0, 0.0, width, 24.0], "segmentation": coded((1, 0)),
                })  # fmt: skip
    (tmp_path / "paco").mkdir()
    every = {"cid2img": {c: [] for c in range(24)}, "img2anno": {}}
    data = {"train": every, "val": {"cid2img": images, "img2anno": notes}}
    for half, content in data.items():
        path = tmp_path / f"paco/paco_part_{half}.pkl"
        path.write_bytes(pickle.dumps(content))
    return tmp_path, images, notes


@pytest.mark.parametrize("shots", [1, 3])
def test_paco_part(paco, shots):
    """A class is drawn; prompts are of other images than the query; all is drawn anew
    where a crop is empty."""
    root, images, notes = paco
    source = raw("paco_part", root, "val", fold=0, shots=shots)
    classes = [*images]
    lists = {c: list(dict.fromkeys(n for i in images[c] for n in i)) for c in classes}

    def thing(number, category):
        own = {n["obj_ann_id"]: n["obj_bbox"][2] for n in notes[number]
               if n["category_id"] == category}  # fmt: skip
        chosen = int(np.random.choice([*own], 1, replace=False)[0])
        return own[chosen] > 1, f"val2017/{number}.jpg#{chosen} part {category}"

    np.random.seed(0)
    expected = []
    while len(expected) < 40:
        category = int(np.random.choice(classes, 1, replace=False)[0])
        query = np.random.choice(lists[category], 1, replace=False)[0]
        views = [thing(query, category)]
        while len(views) <= shots:
            prompt = np.random.choice(lists[category], 1, replace=False)[0]
            if prompt != query:
                views.append(thing(prompt, category))
        if all(full for full, _ in views):
            names = [name for _, name in views]
            expected.append((classes.index(category) + 1, names[0], names[1:]))
    assert drawn(source, "paco_part", shots, 40)[0] == expected
    with pytest.raises(ValueError, match="has folds for shots="):
        HsnetEpisodes(source, SIZE, shots=2, protocol="paco_part", count=3)


def test_permis(tmp_path):
    """The first frame of an object is the prompt of the two others."""
    for folder in ("3", "20", "1"):
        permis(tmp_path, folder, masks_of((0, 1), (1, 0), (0, 1)))
    source = raw("permis", tmp_path, "all")
    assert episodes_of("permis", source) == 6
    found, episodes = drawn(source, "permis", 1, 7)
    first = [(1, f"{f}/{k}", [f"{f}/0"]) for f in (1, 3, 20) for k in (1, 2)]
    assert found == [*first, first[0]]
    for number in range(6):
        right, wrong = episodes.draw(number)
        assert right.truth.any() and right.targets.any() and wrong.targets.any()
        own, other = (source.record_id(i).split("/")[0] for i in wrong.records)
        assert own != other
    with pytest.raises(ValueError, match="shots is 2: permis has one prompt"):
        HsnetEpisodes(source, SIZE, shots=2, protocol="permis", count=3)


def test_all_objects_of_permis_are_one_class(tmp_path):
    """INSID3 sums the areas of all episodes: a large object counts for more."""
    permis(tmp_path, "1", masks_of((1, 1), (0, 1, 1, 1), (0, 1, 1, 1)))
    permis(tmp_path, "2", masks_of((1, 1), (0, 0, 0, 1), (0, 0, 0, 1)))
    source = raw("permis", tmp_path, "all")

    def copy(params, images, targets, queries, kind):
        return targets[:, 0]

    evaluator = Evaluator(
        blocks.engine(SIZE, predict=copy), name="p", source=source, episodes=0,
        batch_size=3, protocol="permis",
    )  # fmt: skip
    scores = dict(evaluator.run(None))
    assert evaluator.count == 4
    assert scores["p/1shot/miou"] == pytest.approx((3 + 1) / (4 + 4))


def test_a_prepared_set_has_the_same_episodes(pascal):
    source, *_ = pascal
    out = source.store.root / "out/pascal_part"
    prepare(make_layout("pascal_part", {"fold": 0}), source.store.root, out, workers=0)
    spec = {"type": "pascal_part", "split": "val", "fold": 0}
    prepared = open_sources({"p": spec}, out.parent)["p"]
    assert isinstance(prepared.store, Prepared)
    first, again = (drawn(one, "pascal_part", 1, 12) for one in (source, prepared))
    assert first[1].draws == again[1].draws
    for number in range(12):
        for one, other in zip(
            first[1].draw(number), again[1].draw(number), strict=True
        ):
            np.testing.assert_array_equal(one.query, other.query)
            np.testing.assert_array_equal(one.truth, other.truth)
            np.testing.assert_array_equal(one.targets, other.targets)


@pytest.mark.parametrize("protocol", ["pascal_part", "paco_part", "permis"])
def test_a_protocol_of_objects_is_of_its_own_type(tmp_path, protocol):
    for number in range(4):
        photo(tmp_path / f"cup/{number}.jpg", number)
        mask(tmp_path / f"cup/{number}.png", (0, 255))
    source = raw("fss1000", tmp_path, "all")
    with pytest.raises(ValueError, match=f"protocol '{protocol}': source 'fss1000' is"):
        HsnetEpisodes(source, SIZE, protocol=protocol, count=3)
    assert episodes_of(protocol, source) == 4
