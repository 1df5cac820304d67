"""Queries that a prompt is tuned on: what they show, hide and leave out."""

import numpy as np
import pytest

from seggpt_jax import canvas, colors, tune
from seggpt_jax.data.augment import View
from seggpt_jax.data.context import ContextSettings, NothingToAsk
from seggpt_jax.data.queries import Queries, choose
from seggpt_jax.data.sample import CATEGORY, IGNORE, INSTANCE, Sample

STILL = View((1.0, 1.0), (1.0, 1.0), flip=0.0, jitter_prob=0.0)
PALETTE = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)


class Corners:
    """Record k is flat in the colour (k, k, k), with class 1 + k % 3 in the upper left
    quarter and an ignored quarter below."""

    name, class_names = "corners", {1: "a", 2: "b", 3: "c"}
    same_image_only = False
    by_class = {c: [k for k in range(9) if 1 + k % 3 == c] for c in (1, 2, 3)}

    def __init__(self, kind=CATEGORY):
        self.kind = kind

    def __len__(self):
        return 9

    def __getitem__(self, index):
        parts = [[1 + index % 3, 0], [IGNORE, 0]]
        segments = np.kron(parts, np.ones((16, 16))).astype(np.int32)
        image = np.full((32, 32, 3), index, np.uint8)
        return Sample(image, segments, self.kind, (1 + int(index) % 3,))


def make(view=STILL, **settings):
    return Queries(view, ContextSettings(**settings), (32, 32), 8)


@pytest.mark.parametrize("kind", [CATEGORY, INSTANCE])
def test_a_query_is_its_record_below_nothing(kind):
    task = choose(Corners(kind), (2, 3), PALETTE)
    assert task.records.tolist() == [1, 2, 4, 5, 7, 8]
    for place, record in enumerate(task.records):
        pair = make()(task, place, np.random.default_rng(0))
        assert pair["record"] == record and pair["kind"] == kind
        np.testing.assert_array_equal(pair["hidden"], canvas.query_half((8, 4)))
        segments, shown = Corners()[record].segments, np.zeros((64, 32), bool)
        shown[32:] = segments == 1 + record % 3
        np.testing.assert_array_equal(pair["foreground"], shown)
        target = shown[..., None] * PALETTE[record % 3 - 1]
        np.testing.assert_array_equal(pair["targets"], target)
        assert not pair["images"][:32].any() and (pair["images"][32:] == record).all()
        valid = np.concatenate([np.zeros((32, 32), bool), segments != IGNORE])
        np.testing.assert_array_equal(pair["valid"], valid)


def test_crops_are_drawn_until_one_shows_a_label():
    """Then the view is a crop; where none does, it is the whole image."""
    task = choose(Corners(), (1, 2, 3), np.eye(3, dtype=np.uint8))
    view = View((0.1, 0.1), (1.0, 1.0), flip=0.0, jitter_prob=0.0)
    shares = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        painted = make(view, tries=30, min_share=0.2)(task, 0, rng)["foreground"][32:]
        shares.append(painted.mean())
        whole = make(view, tries=1, min_share=1.0)(task, 0, rng)["foreground"][32:]
        assert whole.mean() == 0.25 or whole.all()
    assert min(shares) >= 0.2 and np.mean(np.array(shares) == 1) > 0.2


def test_labels_of_other_tasks_are_not_enough():
    """A crop that shows them alone would teach to paint nothing."""

    class Both(Corners):
        def __getitem__(self, index):
            segments = np.kron([[1, 0], [0, 2]], np.ones((16, 16))).astype(np.int32)
            return Sample(super().__getitem__(index).image, segments, CATEGORY, (1, 2))

    task = choose(Both(), (1,), PALETTE[:1])
    view = View((0.2, 0.2), (1.0, 1.0), flip=0.0, jitter_prob=0.0)
    for seed in range(20):
        pair = make(view, tries=30)(task, 0, np.random.default_rng(seed))
        assert pair["foreground"].any()


def test_a_record_that_shows_no_label_after_all():
    task = choose(Corners(), (2,), PALETTE[:1])
    task.records[:] = 0  # of class 1
    with pytest.raises(NothingToAsk, match=r"corners\[0\] shows no label"):
        make()(task, 0, np.random.default_rng(0))


def test_ignored_pixels_are_not_scored():
    """Painted all over, where a quarter shows the label and another is ignored."""
    task = choose(Corners(), (2,), PALETTE[:1])
    painting = np.broadcast_to(colors.normalize(PALETTE[:1]), (2, 32, 32, 3))
    counts = tune.score(lambda queries: painting, task, (32, 32), 2)
    shown, ground = [256, 768], [0, 512]  # intersection and union
    np.testing.assert_array_equal(counts, [[[shown, ground]]] * 3)
