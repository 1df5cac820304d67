"""Canvas and colours: inverses, and the same result for NumPy and JAX arrays."""

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from seggpt_jax import canvas, colors

RGB = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6).map(
    lambda shape: (*shape[:2], 3)))  # fmt: skip


def test_split_undoes_stitch():
    a, b = np.random.default_rng(0).normal(size=(2, 2, 4, 3, 3))
    for xp in (np, jnp):
        top, bottom = canvas.split(canvas.stitch(xp.asarray(a), xp.asarray(b)))
        np.testing.assert_allclose(top, a, rtol=1e-6)
        np.testing.assert_allclose(bottom, b, rtol=1e-6)


def test_unpatchify_undoes_patchify():
    image = np.arange(2 * 8 * 12 * 3.0).reshape(2, 8, 12, 3)
    tokens = canvas.patchify(image, 4)
    assert tokens.shape == (2, 2, 3, 48)
    np.testing.assert_array_equal(canvas.unpatchify(tokens, 4), image)
    np.testing.assert_array_equal(tokens[0, 1, 2], image[0, 4:8, 8:12].ravel())
    np.testing.assert_array_equal(canvas.patchify(jnp.asarray(image), 4), tokens)


def test_query_half_and_pixels():
    half = canvas.query_half((4, 2))
    assert half.tolist() == [[False] * 2] * 2 + [[True] * 2] * 2
    pixels = canvas.to_pixels(half[None], 3)[0]
    assert pixels.shape == (12, 6)
    assert pixels[:6].sum() == 0 and pixels[6:].all()


@given(RGB)
@settings(max_examples=30, deadline=None)
def test_denormalize_undoes_normalize(rgb):
    # float32 of 255 levels.
    np.testing.assert_allclose(
        colors.denormalize(colors.normalize(rgb)), rgb, atol=1e-3
    )
    same = np.resize(rgb, (4, 4, 3))  # every shape would be compiled
    np.testing.assert_allclose(
        colors.normalize(jnp.asarray(same)), colors.normalize(same), atol=1e-5
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 8]))
@settings(max_examples=30, deadline=None)
def test_decode_undoes_paint(seed, count):
    rng = np.random.default_rng(seed)
    labels = rng.choice(1000, count, replace=False) + 1
    segments = rng.choice([0, 255, 2000, *labels], (9, 7))
    palette = colors.random_palette(rng, count, 60.0)
    target, painted = colors.paint(segments, labels.tolist(), palette)
    np.testing.assert_array_equal(painted, np.isin(segments, labels))
    index = colors.decode(
        target.astype(np.float32), np.concatenate([[colors.BLACK], palette])
    )
    expected = np.zeros(segments.shape, int)
    for place, label in enumerate(labels, start=1):
        expected[segments == label] = place
    np.testing.assert_array_equal(index, expected)
    on_device = colors.decode(
        jnp.asarray(target, jnp.float32),
        jnp.concatenate([jnp.zeros((1, 3), jnp.uint8), palette]),
    )
    np.testing.assert_array_equal(on_device, index)


@given(st.integers(0, 2**32 - 1), st.integers(1, 10))
@settings(max_examples=50, deadline=None)
def test_palettes_keep_their_distance(seed, count):
    palette = colors.random_palette(np.random.default_rng(seed), count, 100.0)
    known = np.concatenate([[colors.BLACK], palette]).astype(int)
    gaps = np.abs(known[:, None] - known[None]).sum(-1)
    assert gaps[~np.eye(count + 1, dtype=bool)].min() >= 100


def test_colours_are_uniform_over_rgb():
    drawn = colors.random_palette(np.random.default_rng(1), 500, 0.0, ())
    shares = np.quantile(drawn, [0.1, 0.5, 0.9], axis=0) / 255
    np.testing.assert_allclose(shares.T, [[0.1, 0.5, 0.9]] * 3, atol=0.05)
    assert abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.1


def test_palette_of_too_many_colours_ends():
    palette = colors.random_palette(np.random.default_rng(0), 50, 700.0)
    assert palette.shape == (50, 3)


@pytest.mark.parametrize("batch", [1, 3])
def test_decode_of_a_batch(batch):
    rng = np.random.default_rng(0)
    painting = rng.random((batch, 5, 4, 3)) * 255
    palette = rng.integers(0, 256, (batch, 6, 3))
    rows = [colors.decode(p, c) for p, c in zip(painting, palette, strict=True)]
    np.testing.assert_array_equal(colors.decode(painting, palette), rows)
