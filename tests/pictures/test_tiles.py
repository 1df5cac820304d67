"""Tiles cover an image, and blend without a trace of where they meet."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seggpt_jax.colors import Memberships, decode, spread_palette
from seggpt_jax.pictures import tiles


@settings(max_examples=60, deadline=None)
@given(
    h=st.integers(1, 90), w=st.integers(1, 90), side=st.integers(1, 40),
    overlap=st.floats(0, 0.9),
)  # fmt: skip
def test_tiles_cover_the_image_and_overlap(h, w, side, overlap):
    boxes = tiles.cut((h, w), side, overlap)
    seen = np.zeros((h, w), int)
    for box in boxes:
        assert (box.bottom - box.top, box.right - box.left) == (
            min(side, h),
            min(side, w),
        )
        seen[box.top : box.bottom, box.left : box.right] += 1
    assert seen.all()
    rows = sorted({box.top for box in boxes})
    shared = [side - (b - a) for a, b in zip(rows, rows[1:], strict=False)]
    # Tiles begin at whole pixels.
    assert all(share >= int(side * overlap) - 1 for share in shared)


def test_of_equal_shares_the_first_label_has_the_pixel():
    """As the nearest colour by `colors.decode`: halfway, it is background."""
    palette = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0]])
    painting = np.array([[[100, 0, 0], [100, 100, 0], [150, 0, 0]]], np.float32)
    shares = Memberships(painting, palette)
    assert shares.leading.tolist() == [0, 1]
    labels, _ = tiles.blend([shares], tiles.cut((1, 3), 0, 0.0), (1, 3))
    np.testing.assert_array_equal(labels, [[0, 0, 1]])
    np.testing.assert_array_equal(labels, decode(painting, palette))


def test_side_zero_takes_the_image_whole():
    assert tiles.cut((30, 20), 0, 0.5) == [tiles.Box(0, 0, 30, 20)]


PALETTE = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]])


def painted(labels: np.ndarray) -> Memberships:
    return Memberships(np.float32(PALETTE[labels]), PALETTE)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 9), seed=st.integers(0, 99))
def test_shares_sum_to_one_and_the_nearest_colour_leads(count, seed):
    rng = np.random.default_rng(seed)
    palette = spread_palette(count)
    painting = rng.uniform(0, 255, (5, 4, 3)).astype(np.float32)
    shares = Memberships(painting, palette)
    each = np.stack([shares[k] for k in range(count)], -1)
    np.testing.assert_allclose(each.sum(-1), 1, rtol=1e-5)
    nearest = decode(painting, palette)
    np.testing.assert_array_equal(each.argmax(-1), nearest)
    np.testing.assert_array_equal(shares.leading, np.unique(nearest))


def test_shares_fall_with_the_squared_distance():
    shares = Memberships(
        np.full((1, 1, 3), (60, 0, 10)), np.array([[0] * 3, [255, 0, 0]])
    )
    assert shares[0][0, 0] == pytest.approx((1 / 70**2) / (1 / 70**2 + 1 / 205**2))


@pytest.mark.parametrize("side", [0, 16, 24])
def test_tiles_of_one_labelling_join_to_it(side):
    """What every tile says right is right in the whole, seams included."""
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 3, (6, 5)), np.ones((8, 8), int))
    boxes = tiles.cut(labels.shape, side, 0.25)
    maps = [painted(labels[b.top : b.bottom, b.left : b.right]) for b in boxes]
    found, confidence = tiles.blend(maps, boxes, labels.shape)
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_allclose(confidence, 1, atol=1e-5)


def test_disagreeing_tiles_meet_in_a_slope():
    """Confidence changes little from pixel to pixel: there is no seam."""
    boxes = tiles.cut((32, 48), 32, 0.5)
    assert len(boxes) == 2
    grounds = np.float32([[[60, 0, 0]]]), np.float32([[[180, 0, 0]]])
    palette = PALETTE[:2]
    maps = [Memberships(np.tile(g, (8, 8, 1)), palette) for g in grounds]
    found, confidence = tiles.blend(maps, boxes, (32, 48))
    assert found[:, 0].max() == 0 and found[:, -1].min() == 1
    assert np.abs(np.diff(confidence, axis=1)).max() < 0.06
