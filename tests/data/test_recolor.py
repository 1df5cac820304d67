import numpy as np
import pytest

from seggpt_jax.colors import spread_palette
from seggpt_jax.data.recolor import Recolor
from seggpt_jax.data.sample import CATEGORY, IGNORE, Sample


def sample(labels, seed) -> Sample:
    """All of `labels`, background and ignore in random places."""
    rng = np.random.default_rng(seed)
    values = [0, IGNORE, *labels]
    segments = rng.choice(values, (24, 48)).astype(np.int32)
    segments[0, : len(values)] = values
    image = np.zeros((24, 48, 3), np.uint8)
    return Sample(image, segments, CATEGORY, tuple(labels))


def test_one_colour_map_for_both_and_a_fresh_one_each_time():
    rng = np.random.default_rng(0)
    prompt, query = sample([1, 2, 3, 4], 0), sample([2, 3, 4, 5], 1)
    maps = set()
    for _ in range(100):
        out = Recolor()(prompt, query, rng)
        maps.add((out.labels, out.palette.tobytes()))
        lookup = dict(zip(out.labels, out.palette, strict=True))
        for side, target, painted in (
            (prompt, out.prompt, out.prompt_painted),
            (query, out.query, out.query_painted),
        ):
            assert target.dtype == np.uint8 and target.shape == (24, 48, 3)
            np.testing.assert_array_equal(painted, np.isin(side.segments, out.labels))
            assert not target[~painted].any()  # background, ignore, others: black
            for label, color in lookup.items():
                at = side.segments == label
                np.testing.assert_array_equal(target[at], np.tile(color, (at.sum(), 1)))
    assert len(maps) == 100


def test_fixed_colours_are_the_labels_own():
    rng = np.random.default_rng(0)
    known, backgrounds = {}, set()
    for seed in range(30):
        side = sample([1 + seed % 3, 4, 300], seed)
        out = Recolor(fixed=True)(side, side, rng)
        for label, color in zip(out.labels, out.palette.tolist(), strict=True):
            assert color == spread_palette(label)[-1].tolist()
            assert known.setdefault(label, color) == color and sum(color) >= 120
        backgrounds.add(out.background.tobytes())
        gaps = abs(out.palette.astype(int) - out.background).sum(-1)
        assert gaps.min() >= 120
    assert len(known) == 5 == len(set(map(tuple, known.values())))
    assert len(backgrounds) == 30


def test_asks_only_for_the_prompts_labels_and_for_one_that_is_shared():
    rng = np.random.default_rng(1)
    prompt, query = sample([1, 2, 3, 300], 0), sample([3, 9], 1)
    counts = []
    for _ in range(400):
        labels = Recolor()(prompt, query, rng).labels
        assert len(set(labels)) == len(labels) and set(labels) <= {1, 2, 3, 300}
        assert 3 in labels
        counts.append(len(labels))
    shares = np.bincount(counts, minlength=5)[1:] / 400
    # Uniform over 1 to 4: four standard deviations of a share.
    np.testing.assert_allclose(shares, 0.25, atol=0.09)
    apart = Recolor()(prompt, sample([8, 9], 1), rng)  # nothing shared
    assert apart.labels and not apart.query_painted.any()


def test_every_shared_label_is_asked_for_as_often():
    rng, asked = np.random.default_rng(4), np.zeros(5)
    for _ in range(600):
        (label,) = Recolor(max_colors=1)(
            sample([1, 2, 3, 4], 0), sample([2, 3, 4, 5], 1), rng
        ).labels
        asked[label] += 1
    # Four standard deviations of a share.
    np.testing.assert_allclose(asked / 600, [0, 0, 1 / 3, 1 / 3, 1 / 3], atol=0.08)


def test_number_of_colours_is_bounded():
    rng = np.random.default_rng(2)
    many = sample(range(1, 40), 0)
    counts = {len(Recolor(max_colors=3)(many, many, rng).labels) for _ in range(60)}
    assert counts == {1, 2, 3}
    every = Recolor(max_colors=3, all_prob=1.0)
    assert {len(every(many, many, rng).labels) for _ in range(20)} == {3}
    few = sample([4, 5], 0)
    assert set(every(few, few, rng).labels) == {4, 5}


def test_colours_are_apart_from_each_other_black_and_the_background():
    rng = np.random.default_rng(3)
    many = sample(range(1, 40), 0)
    recolor = Recolor()
    for _ in range(100):
        out = recolor(many, many, rng)
        used = np.vstack([out.palette, out.background, np.zeros(3)]).astype(int)
        gaps = abs(used[:, None] - used).sum(-1)
        assert gaps[~np.eye(len(used), dtype=bool)].min() >= recolor.min_distance


@pytest.mark.parametrize(
    "setting, value",
    [
        ("max_colors", 0),
        ("max_colors", 10**30),
        ("all_prob", 1.5),
        ("min_distance", -1.0),
        ("min_distance", 800.0),
    ],
)
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        Recolor(**{setting: value})


def test_a_prompt_without_labels_is_refused():
    with pytest.raises(ValueError, match="no label"):
        Recolor()(sample([], 0), sample([1], 1), np.random.default_rng(0))
