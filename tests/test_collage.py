"""Collages: what is pasted was cut out, and nothing asked for hides in sight."""

import pickle

import numpy as np
import pytest

from seggpt_jax.data.augment import View
from seggpt_jax.data.context import Context
from seggpt_jax.data.sample import BACKGROUND, CATEGORY, IGNORE, INSTANCE, Sample
from seggpt_jax.data.sources import open_sources
from seggpt_jax.data.sources.collage import FIRST_ID, Collage
from tests.folders import write

NAMES = {1: "red", 2: "green", 3: "blue", 4: "white"}
COLORS = {1: (200, 20, 20), 2: (20, 200, 20), 3: (20, 20, 200), 4: (190, 190, 190)}
GREY = (90, 90, 90)


class Squares:
    """Record k shows a square of class 1 + k % 4, and a speck of it elsewhere."""

    def __init__(self, name="squares", same_image_only=False, length=12):
        self.name, self.same_image_only, self.length = name, same_image_only, length
        self.class_names, self.kind = NAMES, CATEGORY
        self.by_class = {c: range(c - 1, length, 4) for c in NAMES}

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        segments = np.zeros((60, 80), np.int32)
        label = 1 + index % 4
        segments[10:40, 20:50] = segments[55:57, 70:72] = label
        image = np.full((60, 80, 3), GREY, np.uint8)
        image[segments == label] = COLORS[label]
        return Sample(image, segments, CATEGORY, (label,))


def names_of(collage, sample):
    return [collage.class_names[c] for c in sample.classes]


def looks_like(pixels, color):
    """Up to brightness, which varies by a fifth, and blended edges."""
    middle = np.median(pixels, axis=0)
    return np.allclose(middle / middle.max(), np.divide(color, max(color)), atol=0.1)


@pytest.fixture
def collage():
    return Collage([Squares()], size=(64, 96), length=400, seed=3)


def test_families_and_names(collage):
    assert {task: len(ids) for task, ids in collage.families.items()} == {
        "category": 4, "thing": 12,
    }  # fmt: skip
    assert min(collage.class_names) == FIRST_ID > IGNORE
    assert sorted(collage.class_names.values())[:5] == [
        "category: blue", "category: green", "category: red", "category: white",
        "thing: squares 0 red",
    ]  # fmt: skip


def test_scenes_show_what_they_are_listed_for(collage):
    for class_id, indices in collage.by_class.items():
        color = COLORS[
            next(c for c, n in NAMES.items() if n in collage.class_names[class_id])
        ]
        shown = 0
        for index in list(indices)[:6]:
            sample = collage[index]
            assert sample.image.shape == (64, 96, 3) and sample.kind == CATEGORY
            if class_id in sample.classes:  # else another thing lies over it
                shown += 1
                assert looks_like(sample.image[sample.segments == class_id], color)
        assert shown >= 5
    listed = np.concatenate([list(i) for i in collage.by_class.values()])
    assert set(listed) == set(range(len(collage)))


def test_what_is_asked_for_is_nowhere_else_in_sight(collage):
    seen = 0
    for index in range(0, 60, 2):  # scenes of categories
        sample = collage[index]
        rest = sample.image[sample.segments == BACKGROUND].astype(int)
        for name in names_of(collage, sample):
            color = np.array(COLORS[next(c for c, n in NAMES.items() if n in name)])
            gains = rest.max(1, keepdims=True) / color.max()
            alike = (abs(rest - color * gains).max(1) < 12) & (rest.max(1) > 140)
            assert alike.mean() < 0.02  # soft edges alone
            seen += 1
    assert seen > 50


def test_grounds_hide_what_they_show_of_the_asked():
    collage = Collage([Squares(length=8)], size=(64, 64), length=400)
    assert any((collage[i].segments == IGNORE).mean() > 0.05 for i in range(0, 40, 2))


def test_only_the_largest_region_is_cut(collage):
    cut = collage._cut(*collage._things[0])
    assert cut.width == cut.height and np.asarray(cut)[..., 3].min() == 255


def test_scenes_are_functions_of_seed_and_index(collage):
    again = pickle.loads(pickle.dumps(collage))
    for index in (0, 1, 399, -1):
        one, other = collage[index], again[index]
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.segments, other.segments)
    assert (collage[0].image != collage[32].image).any()
    other = Collage([Squares()], size=(64, 96), length=400, seed=4)
    assert (collage[1].image != other[1].image).any()
    with pytest.raises(IndexError):
        collage[400]


def test_regions_without_a_meaning_are_things_only():
    collage = Collage([Squares("regions", same_image_only=True)], size=(64, 64))
    assert set(collage.families) == {"thing"}
    assert collage[0].classes and collage[1].classes


def test_classes_of_one_name_are_one_category():
    both = Collage([Squares("a"), Squares("b")], size=(64, 64))
    assert {t: len(i) for t, i in both.families.items()} == {"category": 4, "thing": 24}


def test_pairs_share_what_is_asked(collage):
    context = Context(View(size=(64, 64), flip=0.0), same_image=0.0, mix_prob=0.0)
    for index in range(12):
        pair = context(collage, index, np.random.default_rng(index))
        assert pair["foreground"][:64].any() and pair["foreground"][64:].any()


def test_by_config_and_without_what_is_missing(tmp_path, caplog):
    write(tmp_path / "pets", ["train\ta.png\ta_mask.png\t9\t6\t1,2"] * 3)
    member = {"type": "indexed", "folder": "pets", "split": "train"}
    spec = {"type": "collage", "of": member, "size": (32, 48), "length": 50}
    (source,) = open_sources({"pasted": spec}, tmp_path).values()
    assert source.name == "pasted" and source[3].image.shape == (32, 48, 3)
    hidden = spec | {"of": member | {"exclude_classes": ["dog"]}}
    (source,) = open_sources({"pasted": hidden}, tmp_path).values()
    assert not any("dog" in name for name in source.class_names.values())
    lost = spec | {"of": member | {"folder": "lost"}}
    with pytest.raises(ValueError, match=r"data is missing for: .*pasted.*lost"):
        open_sources({"pasted": lost}, tmp_path)
    kept = open_sources({"pasted": lost, "pets": member}, tmp_path, skip_missing=True)
    assert [*kept] == ["pets"] and "left out: pasted" in caplog.text


@pytest.mark.parametrize(
    "change, message",
    [
        ({"seed": -1}, "seed: -1 must be 0 or more"),
        ({"length": 1}, "length: 1 must be 2 or more"),
        ({"size": (31, 64)}, "size: .* both at least 32"),
        ({"sources": []}, "type 'collage' has no 'sources'"),
        ({"of": {"type": "indexd"}}, r"sources.x.of.type .* mean 'indexed'"),
    ],
)
def test_wrong_settings(tmp_path, change, message):
    write(tmp_path / "pets")
    member = {"type": "indexed", "folder": "pets", "split": "train"}
    with pytest.raises(ValueError, match=message):
        open_sources({"x": {"type": "collage", "of": member} | change}, tmp_path)


def test_without_a_source_or_with_objects():
    with pytest.raises(ValueError, match="sources.x: .* needs the setting 'of'"):
        open_sources({"x": {"type": "collage"}})
    objects = Squares()
    objects.object_names, objects.kind = {}, INSTANCE
    with pytest.raises(ValueError, match="squares labels objects, not classes"):
        Collage([objects])
