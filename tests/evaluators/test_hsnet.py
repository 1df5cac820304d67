"""HSNet's episodes, against its own way: names, and NumPy's global generator."""

import numpy as np
import pytest

from seggpt_jax.evaluators.episodes import Episodes
from seggpt_jax.evaluators.fewshot import Evaluator
from seggpt_jax.evaluators.hsnet import HsnetEpisodes
from tests.data.test_layouts_eval import write_pickle
from tests.support import blocks
from tests.support.layouts import (
    mask,
    photo,
    raw,
    stripes,
    write_json,
    write_lines,
)

SIZE = (24, 32)


def drawn(source, protocol, shots, count):
    """Episodes as names of the records."""
    episodes = HsnetEpisodes(
        source, SIZE, shots=shots, protocol=protocol, count=count, min_pixels=1
    )
    names = [source.store.catalog[i][0] for i in range(len(source))]
    return [
        (d.label, names[d.query], [names[i] for i in d.prompts]) for d in episodes.draws
    ], episodes


@pytest.fixture
def fss(tmp_path):
    for name in ("abacus", "bell", "cup"):
        for k in range(1, 11):
            photo(tmp_path / f"{name}/{k}.jpg", k)
            mask(tmp_path / f"{name}/{k}.png", (0, 255))
    return raw("fss1000", tmp_path, "all")


@pytest.mark.parametrize("shots", [1, 5])
def test_fss1000(fss, shots):
    """Every image is a query once; prompts are numbers of 1 to 10 but the query's."""
    np.random.seed(0)
    classes = ("abacus", "bell", "cup")
    metadata = sorted(f"{c}/{k}.jpg" for c in classes for k in range(1, 11))
    expected = []
    for query in metadata:
        folder, supports = query.split("/")[0], []
        while len(supports) < shots:
            number = np.random.choice(range(1, 11), 1, replace=False)[0]
            if (support := f"{folder}/{number}.jpg") != query:
                supports.append(support.removesuffix(".jpg"))
        label = 1 + classes.index(folder)
        expected.append((label, query.removesuffix(".jpg"), supports))
    assert drawn(fss, "fss1000", shots, 30)[0] == expected


STRIPES = ((1, 0, 2, 255), (3, 0, 3, 255), (2, 0, 0, 255))


def test_another_seed_draws_other_prompts(fss):
    given = dict(shots=1, protocol="fss1000", count=30)
    first, again, other = (
        HsnetEpisodes(fss, SIZE, seed=seed, **given).draws for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.fixture
def pascal(tmp_path):
    lines = []
    for k in range(24):
        photo(tmp_path / f"VOC2012/JPEGImages/{k:04}.jpg", k)
        both = STRIPES[k % 3]
        mask(tmp_path / f"VOC2012/SegmentationClassAug/{k:04}.png", both)
        lines += [f"{k:04}__{label:02}" for label in sorted({*both} - {0, 255})]
    order = np.random.default_rng(0).permutation(len(lines))
    lines = [lines[k] for k in order]
    write_lines(tmp_path / "splits/pascal/val/fold0.txt", *lines)
    return raw("pascal5i", tmp_path, "val", fold=0), lines


@pytest.mark.parametrize("shots", [1, 5])
def test_pascal5i(pascal, shots):
    """The list is walked modulo its length; prompts are drawn from its lines."""
    source, lines = pascal
    np.random.seed(0)
    classwise: dict = {}
    for line in lines:
        classwise.setdefault(line.split("__")[1], []).append(line)
    expected = []
    for index in range(60):
        query, supports = lines[index % len(lines)], []
        members = classwise[query.split("__")[1]]
        while len(supports) < shots:
            support = np.random.choice(members, 1, replace=False)[0]
            if support != query:
                supports.append(str(support))
        expected.append((int(query.split("__")[1]), query, supports))
    found, episodes = drawn(source, "pascal5i", shots, 60)
    assert found == expected
    right, wrong = episodes.draw(3)
    assert right.records == (episodes.draws[3].query, *episodes.draws[3].prompts)
    assert right.class_ids == (expected[3][0],) and right.images.shape[0] == shots
    assert {tuple(c) for c in right.targets.reshape(-1, 3)} == {(0, 0, 0), (255,) * 3}
    np.testing.assert_array_equal(right.query, wrong.query)
    np.testing.assert_array_equal(right.ignore, stripes((0, 0, 0, 1), SIZE))


def test_wrong_prompts_do_not_show_the_class_unpainted(pascal):
    """A record stands for one class; its image may show the asked class as well."""
    source, _ = pascal
    _, episodes = drawn(source, "pascal5i", 2, 24)
    asked = set()
    for number in range(24):
        right, wrong = episodes.draw(number)
        asked |= {*right.class_ids}
        for record in wrong.records[1:]:
            image = int(source.record_id(record).partition("__")[0])
            assert not {*right.class_ids} & {*STRIPES[image % 3]}
    assert asked == {1, 2, 3}


@pytest.mark.parametrize("protocol", ["insid3", ""])
def test_wrong_prompts_are_of_other_images(tmp_path, protocol):
    """A record is one class of an image, and its mask shows no other: what the image
    shows is told by its other records."""
    names = ("FV", "HD", "PF", "RI", "RO", "SR", "WR")
    shown = {
        f"d_{k}": {names[place % 7] for place in (k, k % 2, k + 3)} for k in range(14)
    }
    for k, (image, own) in enumerate(shown.items()):
        photo(tmp_path / f"images/{image}.jpg", k)
        for name in names:
            values = (0, 255) if name in own else (0,)
            mask(tmp_path / f"masks/{name}/{image}.bmp", values)
    source = raw("suim", tmp_path, "all")
    settings = {"protocol": protocol, "count": 40} if protocol else {}
    kind = HsnetEpisodes if protocol else Episodes
    episodes, alone = kind(source, SIZE, shots=2, min_pixels=1, **settings), set()
    for number in range(40):
        right, wrong = episodes.draw(number)
        asked = names[right.class_ids[0] - 1]
        views = [source.record_id(record).split("/") for record in right.records]
        assert {label for label, _ in views} == {asked}
        assert protocol or len({image for _, image in views}) == 3
        for record in wrong.records[1:]:
            label, image = source.record_id(record).split("/")
            assert label != asked and asked not in shown[image]
            alone.add(image)
    assert len(alone) > 7


@pytest.mark.parametrize("shots", [1, 5])
def test_coco20i(tmp_path, shots):
    """A class, a query and prompts are drawn, each from a permutation of all."""
    lists: dict = {}
    for k in range(30):
        name = f"val2014/COCO_val2014_{k:012}.jpg"
        photo(tmp_path / name, k)
        label = (1, 5, 9)[k % 3]
        mask((tmp_path / "annotations" / name).with_suffix(".png"), (0, label + 1))
        lists.setdefault(label, []).append(name)
    write_pickle(tmp_path / "splits/coco/val/fold1.pkl", lists)
    source = raw("coco20i", tmp_path, "val", fold=1)
    np.random.seed(0)
    expected = []
    for _ in range(40):
        label = np.random.choice([1, 5, 9], 1, replace=False)[0]
        query = np.random.choice(lists[label], 1, replace=False)[0]
        supports = []
        while len(supports) < shots:
            support = np.random.choice(lists[label], 1, replace=False)[0]
            if support != query:
                supports.append(f"{support}#{label + 1}")
        expected.append((int(label) + 1, f"{query}#{label + 1}", supports))
    assert drawn(source, "coco20i", shots, 40)[0] == expected


@pytest.fixture
def lvis(tmp_path):
    """24 classes on 1 to 5 images each; one is 255, whose label moves behind all."""
    rng = np.random.default_rng(0)
    images = [
        {"id": n, "height": 24, "width": 32,
         "coco_url": f"http://images.cocodataset.org/val2017/{n:012}.jpg"}
        for n in range(1, 9)
    ]  # fmt: skip
    for image in images:
        photo(tmp_path / "val2017" / f"{image['id']:012}.jpg", image["id"])
    notes, members = [], {}
    for category in [*range(1, 12), 255, *range(302, 314)]:
        count = 3 if category == 255 else 1 + category % 5
        members[category] = sorted((rng.permutation(8)[:count] + 1).tolist())
        for image in members[category]:
            for left in rng.permutation(4)[: 1 + image % 2].tolist():
                x = 8 * left
                notes.append({
                    "id": len(notes) + 1, "image_id": image, "category_id": category,
                    "segmentation": [[x, 0, x + 8, 0, x + 8, 24, x, 24]],
                    "area": 192.0, "bbox": [x, 0, 8, 24],
                })  # fmt: skip
    order = rng.permutation(len(notes)).tolist()
    data = {
        "images": images[::-1],
        "categories": [{"id": c, "name": f"thing {c}"} for c in members],
        "annotations": [notes[k] for k in order],
    }
    write_json(tmp_path / "annotations/lvis_v1_val.json", data)
    return tmp_path, members


@pytest.mark.parametrize("shots, fold", [(1, 0), (1, 9), (2, 0)])
def test_lvis92i(lvis, shots, fold):
    """Classes are walked modulo their number; a query and prompts are drawn."""
    root, members = lvis
    source = raw("lvis92i", root, "val", fold=fold, shots=shots)
    known = [c for c in members if len(members[c]) > shots]
    own = [known[fold + 10 * v] for v in range(len(known) // 10)]
    assert [*source.class_names.values()] == [f"thing {c}" for c in own]
    np.random.seed(0)
    expected = []
    for number in range(50):
        names = [
            f"val2017/{image:012}.jpg#thing {own[number % len(own)]}"
            for image in members[own[number % len(own)]]
        ]
        query = np.random.choice(names, 1, replace=False)[0]
        supports: list = []
        while len(supports) < shots:
            support = np.random.choice(names, 1, replace=False)[0]
            if support != query:
                supports.append(str(support))
        label = [*source.class_names][number % len(own)]
        expected.append((label, str(query), supports))
    others = [raw("fss1000", more_classes(root), "all")]
    episodes = HsnetEpisodes(
        source, SIZE, shots=shots, protocol="lvis92i", count=50, min_pixels=1,
        wrong_sources=others,
    )  # fmt: skip
    found = [
        (d.label, source.record_id(d.query), [source.record_id(p) for p in d.prompts])
        for d in episodes.draws
    ]
    assert found == expected
    right, _ = episodes.draw(0)
    assert right.truth.any() and right.targets.any()


def more_classes(root):
    for k in range(4):
        photo(root / f"fss/other/{k}.jpg", k)
        mask(root / f"fss/other/{k}.png", (0, 255))
    return root / "fss"


def test_the_folds_of_lvis92i_are_made_for_a_number_of_shots(lvis):
    root, _ = lvis
    source = raw("lvis92i", root, "val", fold=0)
    more = {"wrong_sources": [raw("fss1000", more_classes(root), "all")]}
    message = "shots is {}: source 'lvis92i' has folds for shots={}"
    settings = {"protocol": "lvis92i", "count": 3, **more}
    with pytest.raises(ValueError, match=message.format(2, 1) + " and 1 class with"):
        HsnetEpisodes(source, SIZE, shots=2, **settings)
    source = raw("lvis92i", root, "val", fold=0, shots=2)
    with pytest.raises(ValueError, match=message.format(1, 2)):
        HsnetEpisodes(source, SIZE, shots=1, **settings)


def test_the_evaluator_takes_them(pascal):
    source, _ = pascal

    def answer(params, images, targets, queries, kind):
        return targets[:, 0]

    settings = {"name": "few", "source": source, "min_pixels": 1}
    engine = blocks.engine(SIZE, predict=answer)
    evaluator = Evaluator(
        engine, **settings, episodes=12, batch_size=5, protocol="pascal5i"
    )
    scores = dict(evaluator.run(None))
    # The answer copies the prompt's mask, as the baseline does.
    assert scores["few/1shot/miou"] == scores["few/1shot/copy/miou"] > 0.3
    for change, message in [
        ({"protocol": "pascal"}, "protocol is 'pascal'; did you mean 'pascal5i'"),
        ({"shots": (1, 5)}, "a protocol takes one number"),
        ({"max_classes": 2}, "max_classes must be 1"),
    ]:
        given = {"episodes": 3, "batch_size": 1, "protocol": "pascal5i"} | change
        with pytest.raises(ValueError, match=message):
            Evaluator(engine, **settings, **given)


@pytest.mark.parametrize("shots", [1, 3])
def test_sets_without_lists(tmp_path, shots):
    """INSID3's way (datasets/isic.py): the classes in turn, a query and its prompts
    drawn from the names of the class."""
    images = tmp_path / "ISIC2018_Task1-2_Training_Input"
    masks = tmp_path / "ISIC2018_Task1_Training_GroundTruth"
    members = {kind: [f"{kind}{k}" for k in range(4 + kind)] for kind in (1, 2, 3)}
    for kind, names in members.items():
        for name in names:
            photo(images / f"{kind}/{name}.jpg")
            mask(masks / f"{name}_segmentation.png", (0, 255))
    source = raw("isic2018", tmp_path, "all")
    np.random.seed(0)
    expected = []
    for number in range(20):
        kind = number % 3 + 1
        own = [f"{kind}/{name}" for name in members[kind]]
        query = np.random.choice(own, 1, replace=False)[0]
        supports = []
        while len(supports) < shots:
            support = np.random.choice(own, 1, replace=False)[0]
            if support != query:
                supports.append(support)
        expected.append((kind, query, supports))
    assert drawn(source, "insid3", shots, 20)[0] == expected
