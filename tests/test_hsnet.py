"""HSNet's episodes, against its own way: names, and NumPy's global generator."""

import numpy as np
import pytest

from seggpt_jax.evaluators.fewshot import Evaluator
from seggpt_jax.evaluators.hsnet import HsnetEpisodes
from tests.layouts import mask, photo, raw, write_lines
from tests.test_layouts_eval import write_pickle

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


@pytest.fixture
def pascal(tmp_path):
    lines = []
    for k in range(24):
        photo(tmp_path / f"VOC2012/JPEGImages/{k:04}.jpg", k)
        both = ((1, 0, 2), (3, 0, 3), (2, 0, 0))[k % 3]
        mask(tmp_path / f"VOC2012/SegmentationClassAug/{k:04}.png", both)
        lines += [f"{k:04}__{label:02}" for label in sorted({*both} - {0})]
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


def test_the_evaluator_takes_them(pascal):
    source, _ = pascal

    def answer(params, images, targets, queries, kind):
        return targets[:, 0]

    settings = {"name": "few", "source": source, "size": SIZE, "min_pixels": 1}
    evaluator = Evaluator(
        answer, **settings, episodes=12, batch_size=5, protocol="pascal5i"
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
            Evaluator(answer, **settings, **given)
