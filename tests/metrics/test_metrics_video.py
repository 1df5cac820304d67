"""J and F: by hand, and against another way to say the same rules."""

import math

import numpy as np
import pytest
from skimage import morphology

from seggpt_jax.metrics import VideoScores, contour_accuracy, region_similarity
from seggpt_jax.metrics.video import contour


def disc(center, radius, size=(60, 90)):
    y, x = np.ogrid[: size[0], : size[1]]
    return (y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2


def by_dilation(pred, truth, radius):
    """The official code's way: contours dilated by a disc (scikit-image's)."""

    def edges(mask):
        found = np.zeros_like(mask)
        h, w = mask.shape
        for y in range(h):
            for x in range(w):
                down, right = min(y + 1, h - 1), min(x + 1, w - 1)
                others = mask[y, right], mask[down, x], mask[down, right]
                found[y, x] = any(mask[y, x] != other for other in others)
        return found

    ours, theirs = edges(pred), edges(truth)
    if not ours.any() or not theirs.any():
        return float(not ours.any() and not theirs.any())
    ball = morphology.disk(radius)
    precision = (ours & morphology.dilation(theirs, ball)).sum() / ours.sum()
    recall = (theirs & morphology.dilation(ours, ball)).sum() / theirs.sum()
    both = precision + recall
    return 2 * precision * recall / both if both else 0.0


@pytest.mark.parametrize("seed", range(12))
def test_f_is_that_of_dilated_contours(seed):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(20, 70, 2))
    center = rng.uniform(0, size)
    pred = disc(center, rng.uniform(2, 25), size)
    truth = disc(center + rng.normal(0, 3, 2), rng.uniform(2, 25), size)
    if seed % 3 == 0:  # noise: contours everywhere
        pred ^= rng.random(size) < 0.05
    radius = math.ceil(0.008 * math.hypot(*size))
    assert contour_accuracy(pred, truth) == pytest.approx(
        by_dilation(pred, truth, radius)
    )
    wide = contour_accuracy(pred, truth, tolerance=4)
    assert wide == pytest.approx(by_dilation(pred, truth, 4))
    assert contour_accuracy(truth, pred) == pytest.approx(contour_accuracy(pred, truth))


def test_the_tolerance_at_davis_sizes():
    """8 px at 854 x 480 (the official code): a line moved by as many pixels
    is on the contour, by one more it is not."""
    for width, pixels in ((854, 8), (910, 9)):
        truth = np.zeros((480, width), bool)
        truth[100:300, 100:400] = True
        for shift, expected in ((pixels, 1.0), (pixels + 1, None)):
            moved = np.roll(truth, shift, 0)
            value = contour_accuracy(moved, truth)
            assert value == expected if expected else value < 1


def test_contours_by_hand():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:3] = True
    assert contour(mask).astype(int).tolist() == [
        [1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]
    ]  # fmt: skip
    assert not contour(np.ones((3, 3), bool)).any()  # the frame is no contour


@pytest.mark.parametrize(
    "pred, truth, j, f",
    [
        ("empty", "empty", 1, 1),
        ("full", "full", 1, 1),
        ("empty", "pixel", 0, 0),
        ("pixel", "empty", 0, 0),
        ("pixel", "pixel", 1, 1),
        ("full", "empty", 0, 1),  # neither has a contour
        ("full", "pixel", 1 / 600, 0),
    ],
)
def test_adversarial_masks(pred, truth, j, f):
    pixel = np.zeros((20, 30), bool)
    pixel[7, 11] = True
    masks = {"empty": pixel & False, "full": pixel | True, "pixel": pixel}
    assert region_similarity(masks[pred], masks[truth]) == pytest.approx(j)
    assert contour_accuracy(masks[pred], masks[truth]) == pytest.approx(f)
    everywhere = np.ones((20, 30), bool)
    assert region_similarity(masks[pred], masks[truth], everywhere) == 1
    assert contour_accuracy(masks[pred], masks[truth], everywhere) == 1


def test_ignored_pixels_belong_to_neither():
    pred, truth, ignore = np.zeros((3, 6, 6), bool)
    pred[:, :3], truth[:, 2:], ignore[:, :2] = True, True, True
    assert region_similarity(pred, truth) == pytest.approx(6 / 36)
    assert region_similarity(pred, truth, ignore) == pytest.approx(6 / 24)
    with pytest.raises(ValueError, match="pred is int64"):
        region_similarity(pred.astype(int), truth)


def test_means_are_over_objects_and_not_over_videos_or_frames():
    scores = VideoScores()
    for video, number, values in (
        ("a", 1, [0.2, 0.4]), ("a", 2, [1.0]), ("b", 1, [0.0] * 7)
    ):  # fmt: skip
        for value in values:
            scores.update(video, number, value, value / 2)
    expected = (0.3 + 1.0 + 0.0) / 3
    assert scores.compute() == pytest.approx(
        {"j": expected, "f": expected / 2, "jf": expected * 0.75}
    )
    assert all(math.isnan(value) for value in VideoScores().compute().values())


def test_g_of_youtube_vos_and_merging():
    """(75.1 + 80.2 + 67.4 + 75.9) / 4 = 74.65, as in SegGPT's table; a video's frames
    may come in two parts."""
    one, two = VideoScores(), VideoScores()
    for part in (one, two):
        part.update("a", "1", 0.751, 0.802, "seen")
        part.update("b", "1", 0.674, 0.759, "unseen")
    scores = one.merge(two).compute()
    assert scores["g"] == pytest.approx(0.7465)
    assert scores["j_seen"] == pytest.approx(0.751)
    assert scores["f_unseen"] == pytest.approx(0.759)
    assert two.merge(one).compute() == scores
    # Another seen object: a group counts as much as the other, whatever its size.
    two.update("c", "1", 0.351, 0.402, "seen")
    scores = two.compute()
    assert scores["g"] == pytest.approx((0.551 + 0.602 + 0.674 + 0.759) / 4)
