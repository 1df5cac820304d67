"""The evaluator of the training pairs themselves."""

import numpy as np
import pytest

from seggpt_jax import canvas, colors
from seggpt_jax.evaluators.pairs import Evaluator
from tests.support import blocks


def make_pairs(count: int = 3, size: int = 8):
    """Pairs whose query target shows two colours, with some pixels ignored."""
    rng = np.random.default_rng(0)
    pairs = []
    for record in range(count):
        palette = colors.random_palette(rng, 2, 200.0)
        segments = rng.integers(0, 3, (2 * size, size))
        target, painted = colors.paint(segments, [1, 2], palette)
        images = rng.integers(0, 256, (2 * size, size, 3), np.uint8)
        pairs.append(
            {
                "images": images,
                "targets": target,
                "foreground": painted,
                "valid": rng.random((2 * size, size)) < 0.9,
                "kind": np.int32(0),
                "record": np.int64(record),
            }
        )
    return pairs


def evaluator(pairs, paint, batch_size=2):
    engine = blocks.engine((8, 8), predict=lambda p, i, t, q, k: paint(np.asarray(q)))
    return Evaluator(
        engine,
        name="memorised",
        dataset=lambda: pairs,
        count=len(pairs),
        batch_size=batch_size,
    )


def truth_of(pairs):
    """Looks a query's truth up by its pixels."""
    known = {}
    for pair in pairs:
        query, truth = (canvas.split(pair[k])[1] for k in ("images", "targets"))
        known[colors.normalize(query).tobytes()] = colors.normalize(truth)
    return lambda queries: np.stack([known[query.tobytes()] for query in queries])


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_truth_scores_one_and_black_scores_nothing(batch_size):
    pairs = make_pairs()
    perfect = evaluator(pairs, truth_of(pairs), batch_size)
    assert dict(perfect.run(None)) == {"memorised/episode_miou": 1.0}
    black = colors.normalize(np.zeros((8, 8, 3), np.uint8))
    blind = evaluator(pairs, lambda q: np.broadcast_to(black, q.shape), batch_size)
    assert dict(blind.run(None)) == {"memorised/episode_miou": 0.0}
    (row,) = blind.rows(None, [1])
    assert row.caption == "record 1   IoU 0.00" and len(row.cells) == 6
    assert sorted(blind.ranked()) == list(range(len(pairs)))


def test_the_model_is_given_the_upper_half_as_the_prompt():
    pairs, given = make_pairs(1), []
    pairs[0]["kind"] = np.int32(1)
    engine = blocks.engine(
        (8, 8), predict=lambda p, *shown: given.extend(shown) or shown[2]
    )
    one = Evaluator(engine, name="m", dataset=lambda: pairs, count=1, batch_size=1)
    dict(one.run(None))
    halves = [canvas.split(pairs[0][name]) for name in ("images", "targets")]
    shown = halves[0][0], halves[1][0], halves[0][1]
    for ours, wanted in zip(given, shown, strict=False):
        found = colors.denormalize(np.asarray(ours)).reshape(wanted.shape)
        np.testing.assert_array_equal(found.round(), wanted)
    assert given[3].tolist() == [1]


def test_ignored_pixels_do_not_count():
    pairs = make_pairs(1)
    truth = truth_of(pairs)

    def wrong_where_ignored(queries):
        painting = truth(queries).copy()
        painting[0][~canvas.split(pairs[0]["valid"][..., None])[1][..., 0]] = -9.0
        return painting

    scores = dict(evaluator(pairs, wrong_where_ignored).run(None))
    assert scores == {"memorised/episode_miou": 1.0}


def test_only_the_colours_of_the_query_are_told_apart():
    """The prompt's other colour is nearer to what is painted, but nobody asked for it
    in the query."""
    (pair,) = make_pairs(1)
    target, painted = pair["targets"], pair["foreground"]
    target[:] = 255
    target[:8, :4] = 200
    painted[:] = True
    grey = colors.normalize(np.full((8, 8, 3), 205, np.uint8))
    one = evaluator([pair], lambda q: np.broadcast_to(grey, q.shape), 1)
    assert dict(one.run(None)) == {"memorised/episode_miou": 1.0}


def test_settings_must_be_positive():
    with pytest.raises(ValueError, match="count is 0, must be at least 1"):
        evaluator([], truth_of([]))
