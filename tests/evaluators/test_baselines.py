"""Answers without a model, where they are known."""

import dataclasses

import numpy as np
import pytest

from seggpt_jax.data.sample import CATEGORY
from seggpt_jax.evaluators import baselines
from seggpt_jax.evaluators.common import Episode
from seggpt_jax.metrics import episode_iou

PALETTE = np.array([[0, 0, 0], [250, 10, 20], [10, 250, 250]], np.uint8)


def episode(labels, query_labels, seed=0, noise=0):
    """Class j has its own grey, 80 j, wherever it is, with noise."""
    rng = np.random.default_rng(seed)

    def photograph(labels):
        jitter = rng.integers(-noise, noise + 1, (*labels.shape, 3))
        return np.clip(40 + 80 * labels[..., None] + jitter, 0, 255).astype(np.uint8)

    return Episode(
        images=np.stack([photograph(x) for x in labels]),
        targets=PALETTE[np.stack(labels)],
        query=photograph(query_labels),
        truth=query_labels.astype(np.int32),
        ignore=np.zeros(query_labels.shape, bool),
        palette=PALETTE,
        kind=CATEGORY,
        class_ids=(1, 2),
        source="greys",
        records=tuple(range(len(labels) + 1)),
    )


def maps(seed, count, shape=(12, 15)):
    return list(np.random.default_rng(seed).integers(0, 3, (count, *shape)))


def test_prompt_labels_undo_painting():
    labels = maps(0, 3)
    drawn = episode(labels, labels[0])
    np.testing.assert_array_equal(baselines.prompt_labels(drawn, 2), labels[:2])


def test_copy_is_right_where_prompt_and_query_are_the_same():
    (labels,) = maps(1, 1)
    pred = baselines.copy(episode([labels], labels), 1)
    assert pred.dtype == np.int32 and episode_iou(pred, labels) == 1


def test_copy_votes_and_ties_go_to_the_first_label():
    one = lambda label: np.full((1, 1), label)  # noqa: E731
    drawn = episode([one(2), one(1), one(1)], one(0))
    assert baselines.copy(drawn, 1) == 2
    assert baselines.copy(drawn, 2) == 1  # 2 against 1: the lower label
    assert baselines.copy(drawn, 3) == 1
    assert baselines.copy(episode([one(2), one(0)], one(0)), 2) == 0


@pytest.mark.parametrize("noise", [0, 35])
def test_color_answers_what_colours_tell(noise):
    labels, query = maps(2, 1, (40, 50)), maps(3, 1, (40, 50))[0]
    pred = baselines.color(
        episode(labels, query, noise=noise), 1, np.random.default_rng(0)
    )
    # Ranges of +-35 around greys 80 apart never meet.
    np.testing.assert_array_equal(pred, query)


def test_color_agrees_with_an_exhaustive_search():
    rng = np.random.default_rng(5)
    drawn = episode(maps(4, 2, (9, 8)), maps(5, 1, (9, 8))[0])
    drawn = dataclasses.replace(
        drawn,
        images=rng.integers(0, 256, drawn.images.shape, np.uint8),
        query=rng.integers(0, 256, drawn.query.shape, np.uint8),
    )
    seen = drawn.images.reshape(-1, 3).astype(int)
    labels = baselines.prompt_labels(drawn, 2).reshape(-1)
    gaps = ((drawn.query.reshape(-1, 1, 3).astype(int) - seen) ** 2).sum(-1)
    ordered = np.sort(gaps, axis=1)
    clear = ordered[:, 4] < ordered[:, 5]  # which five is then no matter of taste
    near = labels[np.argsort(gaps, axis=1)[:, :5]]
    expected = [np.bincount(row, minlength=3).argmax() for row in near]
    pred = baselines.color(drawn, 2, rng).reshape(-1)
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(pred[clear], np.array(expected)[clear])


def test_color_uses_all_shots_and_works_on_few_pixels():
    background, object_ = np.zeros((2, 1), int), np.ones((2, 1), int)
    drawn = episode([background, object_, object_, object_], object_)
    rng = np.random.default_rng(0)
    assert not baselines.color(drawn, 1, rng).any()  # has seen no object, 2 pixels
    assert baselines.color(drawn, 4, rng).all()
