"""What failures are grouped by, and what is counted of them."""

import numpy as np
import pytest

from benchmarks.failures import facts, summary
from seggpt_jax.data.sample import Sample
from seggpt_jax.evaluators.episodes import compose


def scene(rows: int, columns: int, grey: int) -> Sample:
    """A grey thing on black, in 32 x 32."""
    segments = np.zeros((32, 32), np.int32)
    segments[8 : 8 + rows, 8 : 8 + columns] = 1
    image = np.uint8(grey * (segments[..., None] > 0)).repeat(3, -1)
    return Sample(image, segments, 0, (1,))


def test_a_thing_is_told_by_its_size_and_its_colour():
    white = np.full((1, 3), 255, np.uint8)
    samples = scene(4, 16, 200), scene(8, 16, 150)
    episode = compose("set", [0, 1], samples, (1,), white)
    assert facts(episode, patch=8) == pytest.approx(
        {"area": 64 / 1024, "width": 0.5, "scale": 0.5, "colour": 150, "pieces": 1}
    )


def test_failures_are_told_apart():
    """One of two failures found nothing, and the other a wrong place."""
    episodes = [
        {"iou": 0.9, "low": 0.8, "found": 1.0, "wrong": 0.5},
        {"iou": 0.0, "low": 0.7, "found": 0.05, "wrong": 0.1},
        {"iou": 0.06, "low": 0.0, "found": 3.0},
        {"iou": 0.4, "low": 0.9, "found": 0.05},
    ]
    assert summary(episodes) == {
        "episodes": 4, "iou": 0.34, "wrong": 0.3, "failed": 0.5, "black": 0.5,
        "dim": 0.5,
    }  # fmt: skip
    assert summary(episodes[:1]) == {
        "episodes": 1, "iou": 0.9, "wrong": 0.5, "failed": 0.0
    }  # fmt: skip
