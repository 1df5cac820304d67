"""The procedural source: what it promises, on sampled scenes."""

import collections
import hashlib
import itertools
import pathlib
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

from seggpt_jax.data.sample import BACKGROUND, CATEGORY, IGNORE, INSTANCE, Source
from seggpt_jax.data.sources import shapes_draw, shapes_forms
from seggpt_jax.data.sources.shapes import (
    MIN_PRIMARY,
    SPLITS,
    TASKS,
    Shapes,
)
from seggpt_jax.data.sources.shapes_scene import AIM, CATEGORIES, Composer

CATEGORICAL = TASKS[:-1]
EVEN = dict.fromkeys(TASKS, 1)


def digest(source: Shapes, indices) -> str:
    sums = hashlib.sha256()
    for i in indices:
        sample = source[i]
        sums.update(sample.image.tobytes() + sample.segments.tobytes())
    return sums.hexdigest()


def test_a_sample_depends_on_seed_split_and_index_only():
    settings = {"seed": 7, "length": 500, "size": (48, 64)}
    here = digest(Shapes(**settings), range(0, 60, 7))
    assert here == digest(Shapes(**settings | {"length": 90}), range(0, 60, 7))
    assert here != digest(Shapes(**settings | {"seed": 8}), range(0, 60, 7))
    assert here != digest(Shapes(**settings | {"split": "heldout"}), range(0, 60, 7))
    code = (
        "from tests.data.test_shapes import *\n"
        f"print(digest(Shapes(**{settings}), range(0, 60, 7)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert run.stdout.strip() == here


def test_pickles_and_is_a_source():
    source: Source = Shapes(seed=3, length=100)
    again = pickle.loads(pickle.dumps(source))
    assert digest(again, range(5)) == digest(source, range(5))
    assert again.by_class == source.by_class
    assert len(pickle.dumps(Shapes(length=10**6))) < 1000


def test_takes_the_plain_data_of_a_config():
    source = Shapes(**{"name": "held", "split": "heldout", "size": [32, 40]})
    assert source.name == "held"
    assert source[0].image.shape == (32, 40, 3)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", CATEGORICAL)
def test_every_class_is_in_sight_where_by_class_says(split, task):
    source = Shapes(seed=1, length=100_000, split=split, tasks={task: 1})
    assert set(source.by_class) == set(source.families[task])
    for class_id, indices in source.by_class.items():
        for i in (indices[0], indices[-1])[: 1 if task == "object" else 2]:
            sample = source[i]
            share = (sample.segments == class_id).mean()
            assert share >= MIN_PRIMARY, (source.class_names[class_id], i, share)
            assert class_id in sample.classes
            assert source.primary_at(i) == class_id


@pytest.mark.parametrize("size", [(32, 64), (64, 32), (32, 32), (96, 96)])
def test_primary_is_in_sight_at_any_size(size):
    source = Shapes(seed=2, length=1000, size=size, tasks=EVEN)
    for i in range(0, 1000, 9):
        if (class_id := source.primary_at(i)) is not None:
            share = (source[i].segments == class_id).mean()
            assert share >= MIN_PRIMARY, (i, source.class_names[class_id], share)


@pytest.mark.parametrize("split", SPLITS)
def test_samples_have_the_form_of_the_contract(split):
    source = Shapes(seed=4, length=10_000, size=(40, 56), split=split, tasks=EVEN)
    for i in range(0, 600, 5):
        sample, task = source[i], source.task_at(i)
        assert sample.image.shape == (40, 56, 3) and sample.image.dtype == np.uint8
        assert sample.segments.shape == (40, 56) and sample.segments.dtype == np.int32
        seen = set(np.unique(sample.segments).tolist()) - {BACKGROUND, IGNORE}
        assert seen == set(sample.classes)
        if task == "instance":
            assert sample.kind == INSTANCE
            assert sample.classes == tuple(range(1, len(seen) + 1))
            assert 1 <= len(seen) <= 8
        else:
            assert sample.kind == CATEGORY
            assert seen <= set(source.families[task])
        if task == "part":
            assert sample.classes == (source.primary_at(i),)


def test_most_scenes_have_something_to_tell_apart():
    source = Shapes(seed=5, length=1000, tasks={"shape": 1, "instance": 1})
    counts = [len(source[i].classes) for i in range(200)]
    assert np.mean(np.array(counts) >= 2) > 0.95


def test_indices_partition_the_range_and_open_at_once():
    source = Shapes(length=997, tasks={"object": 3, "texture": 2, "instance": 1})
    whole = [source.indices_of(task) for task in source.tasks]
    assert sorted(itertools.chain(*whole)) == list(range(997))
    for task in ("object", "texture"):
        by_class = [source.by_class[c] for c in source.families[task]]
        assert sorted(itertools.chain(*by_class)) == list(source.indices_of(task))
        assert by_class[0][1:][0] == by_class[0][1]
    start = time.perf_counter()
    large = Shapes(length=10**12)
    last = [indices[-1] for indices in large.by_class.values()]
    assert time.perf_counter() - start < 0.5  # nothing is listed: it takes 1 ms
    assert 0.999 * 10**12 < min(last) and max(last) < 10**12


def test_a_class_without_samples_is_not_listed():
    source = Shapes(length=4, tasks={"shape": 1})
    assert list(source.by_class) == list(source.families["shape"][:4])
    assert all(list(indices) for indices in source.by_class.values())


def test_tasks_keep_their_proportions_at_every_scale():
    weights = {"shape": 2.5, "object": 1, "instance": 0.5}
    source = Shapes(length=10**6, tasks=weights)
    for start, count in [(0, 16), (5, 80), (123_457, 1600)]:
        seen = collections.Counter(source.task_at(start + i) for i in range(count))
        for task, weight in weights.items():
            # A window cuts at most one period of 8 at each end.
            assert abs(seen[task] - count * weight / 4) <= 2
    runs = [len(list(g)) for _, g in itertools.groupby(map(source.task_at, range(800)))]
    assert max(runs) <= 3


def test_categories_are_many_distinct_and_split():
    named = [category.name for category in CATEGORIES.values()]
    assert len(named) == len(set(named)) >= 250
    assert min(CATEGORIES) == 1 and IGNORE not in CATEGORIES
    train, heldout = Shapes(split="train"), Shapes(split="heldout")
    assert len(train.class_names) >= 200
    assert train.class_names.keys().isdisjoint(heldout.class_names)
    assert len({*train.class_names, *heldout.class_names}) == len(CATEGORIES)
    least = {"shape": 24, "texture": 18, "colour": 20, "part": 16, "object": 120}
    for task, count in least.items():
        held = len(heldout.families[task])
        both = held + len(train.families[task])
        assert both >= count and 0.2 <= held / both <= 0.3
        assert {CATEGORIES[c].task for c in train.families[task]} == {task}
    for category in CATEGORIES.values():
        if category.task == "object":
            colour, texture, shape = category.value
            assert {
                colour in shapes_draw.HELDOUT_COLOURS,
                texture in shapes_draw.HELDOUT_TEXTURES,
                shape in shapes_forms.HELDOUT_SHAPES,
            } == {category.heldout}


@pytest.mark.parametrize("task", TASKS)
def test_training_scenes_never_show_a_heldout_shape_or_texture(task):
    known = {id(outline): name for name, outline in shapes_forms.SHAPES.items()}
    source, used = Shapes(length=10_000, tasks={task: 1}), set()
    for i in range(100):  # of which one in four would show a texture held out
        composer = Composer(
            np.random.default_rng(i), task, "train", (64, 64), plain=False
        )
        for thing in composer.things(source.primary_at(i))[0]:
            for piece in thing.pieces:
                used |= {piece.texture, known.get(id(piece.outlines[0]))}
        used.add(composer.ground().texture)
    assert used.isdisjoint(shapes_draw.HELDOUT_TEXTURES | shapes_forms.HELDOUT_SHAPES)


@pytest.mark.parametrize("task", ["shape", "texture"])
def test_plain_scenes_show_upright_things_of_one_size(task):
    source = Shapes(length=10_000, tasks={task: 1}, plain=True)
    sizes, textures, contrasts = set(), set(), set()
    for i in range(100):
        composer = Composer(np.random.default_rng(i), task, "train", (64, 64), True)
        for thing in composer.things(source.primary_at(i))[0]:
            assert thing.angle == 0
            sizes.add(round(thing.size, 1))
            textures |= {piece.texture for piece in thing.pieces}
        contrasts.add(composer.ground().contrast)
    assert sizes == {0.5}
    if task == "shape":
        assert textures == {"flat"} and contrasts == {0.0}
    else:
        assert len(textures) > 5 and len(contrasts) > 5


def test_colour_misleads_in_the_shape_task():
    """Objects of one shape differ in colour between scenes as much as any two do."""
    source = Shapes(seed=6, length=10**6, noise=0, tasks={"shape": 1})
    colours: dict[int, list[np.ndarray]] = {}
    for class_id in source.families["shape"][:8]:
        for i in source.by_class[class_id][:12]:
            sample = source[i]
            mean = sample.image[sample.segments == class_id].mean(0)
            colours.setdefault(class_id, []).append(mean)
    within = np.mean([np.var(c, axis=0).sum() for c in colours.values()])
    overall = np.var(np.concatenate([np.stack(c) for c in colours.values()]), 0).sum()
    # 12 scenes give (1 - 1/12) of the variance on average; colour by class gives 0.
    assert within > 0.75 * overall


@pytest.mark.parametrize("task", TASKS)
def test_a_scene_is_the_same_at_any_size(task):
    small = Shapes(seed=9, length=1000, size=(64, 96), tasks={task: 1}, noise=0)
    large = Shapes(seed=9, length=1000, size=(192, 288), tasks={task: 1}, noise=0)
    for i in range(0, 40, 4):
        a, b = small[i], large[i]
        # Only outlines differ: about one pixel of 64 along every edge.
        same = a.segments == b.segments[1::3, 1::3]
        assert same.mean() > 0.9
        gap = np.abs(a.image.astype(int) - b.image[1::3, 1::3].astype(int)).mean()
        assert gap < 12


@pytest.mark.parametrize("name", shapes_forms.SHAPES)
def test_shapes_keep_their_area_when_turned(name):
    """A polygon that crosses itself or leaks at its seam would lose area."""
    outline = shapes_forms.SHAPES[name]
    ground = shapes_draw.Ground(np.zeros((2, 2, 3), np.uint8), "flat", 0.0, 0.1, 0.0)
    piece = shapes_draw.Piece((outline,), "flat", ((0, 1, 1), (0, 1, 1)))
    assert np.abs(outline).max() == pytest.approx(1, abs=1e-6)
    for angle in (-0.25, -0.1, 0.05, 0.2):
        thing = shapes_draw.Thing((piece,), 0.5, 0.5, 0.5, angle, 0.1, 0.0, (0.0, 0.0))
        rng = np.random.default_rng(0)
        light = shapes_draw.Light()
        image, slots = shapes_draw.render([thing], ground, light, (200, 200), 0, rng)
        share = (slots == 1).mean() / 0.25
        assert share == pytest.approx(shapes_draw.coverage(name)[name], rel=0.06)
        assert (image[slots == 1] == [255, 0, 0]).all()
        assert (image[slots == 0] == 0).all()


def test_light_changes_the_image_and_nothing_else():
    dark, flat = (Shapes(lighting=lighting) for lighting in (0.6, 0.0))
    changes = []
    for index in range(20):
        a, b = dark[index], flat[index]
        np.testing.assert_array_equal(a.segments, b.segments)
        assert a.classes == b.classes
        changes.append(a.image.mean() / b.image.mean())
    assert min(changes) < 0.8 and max(changes) - min(changes) > 0.3
    with pytest.raises(ValueError, match="lighting: 0.7 must be 0 to 0.6"):
        Shapes(lighting=0.7)


def test_textures_look_different_in_pairs():
    """No two textures agree, or are opposites, on more than 95 % of an object."""
    x = np.linspace(-1.4, 1.4, 40, dtype=np.float32)
    u, v = np.meshgrid(x, x)
    tones = {
        name: np.asarray(texture(u, v), np.float32)
        for name, texture in shapes_draw.TEXTURES.items()
    }
    for (a, x), (b, y) in itertools.combinations(tones.items(), 2):
        gap = np.abs(x - y).mean()
        assert 0.05 < gap < 0.95, (a, b)


def test_every_part_can_fill_its_share():
    for name in (*shapes_forms.SHAPES, *shapes_forms.COMPOSITES):
        for part, share in shapes_draw.coverage(name).items():
            assert share * 0.5**2 >= AIM, (name, part)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": {"shapes": 1}}, "has no 'shapes'; did you mean 'shape'"),
        ({"tasks": {"objekt": 1}}, "instance, object"),
        ({"tasks": {"shape": 0}}, "weight 0 of 'shape'"),
        ({"tasks": {"shape": 1, "part": -0.5}}, "weight -0.5 of 'part'"),
        ({"tasks": {}}, "tasks: empty"),
        ({"size": (16, 64)}, r"size: \(16, 64\) .* at least 32"),
        ({"size": (32, 65)}, "at most 2 times"),
        ({"size": (64, 64, 3)}, r"must be \(h, w\)"),
        ({"split": "test"}, "has no 'test'; choices: heldout, train"),
        ({"length": 0}, "length: 0"),
        ({"seed": -1}, "seed: -1"),
        ({"noise": 100}, "noise: 100"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Shapes(**settings)


def test_bad_lookups_are_named():
    source = Shapes(length=10, tasks={"shape": 1})
    with pytest.raises(ValueError, match="no 'object'; choices: shape"):
        source.indices_of("object")
    with pytest.raises(IndexError):
        source[10]
