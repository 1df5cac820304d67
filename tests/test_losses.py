"""The painting loss: what it counts, and how it weighs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seggpt_jax.losses import (
    counted_pixels,
    foreground_weights,
    painting_loss,
    pixel_loss,
)


def arrays(seed=0, batch=3):
    rng = np.random.default_rng(seed)
    painting, targets = rng.normal(size=(2, batch, 8, 4, 3)).astype(np.float32)
    return (
        painting,
        targets,
        rng.random((batch, 4, 2)) < 0.5,
        rng.random((batch, 8, 4)) < 0.7,
    )


def test_equals_a_plain_loop():
    painting, targets, hidden, valid = arrays()
    total = count = 0.0
    for b, y, x, c in np.ndindex(painting.shape):
        if hidden[b, y // 2, x // 2] and valid[b, y, x]:
            error = abs(float(painting[b, y, x, c]) - float(targets[b, y, x, c]))
            total += error**2 / 0.02 if error < 0.01 else error - 0.005
            count += 1
    # float32 sums against float64.
    np.testing.assert_allclose(
        painting_loss(painting, targets, hidden, valid), total / count, rtol=1e-5
    )


def test_only_hidden_valid_pixels_have_gradient():
    painting, targets, hidden, valid = arrays()
    grad = jax.grad(painting_loss)(jnp.asarray(painting), targets, hidden, valid)
    counted = np.repeat(np.repeat(hidden, 2, 1), 2, 2) & valid
    assert (np.abs(grad).max(-1)[counted] > 0).all()
    assert (np.asarray(grad)[~counted] == 0).all()


def test_is_a_mean_over_the_batch_not_over_rows():
    """Rows with few counted pixels weigh less: one global sum over one global count."""
    painting, targets, hidden, valid = arrays()
    hidden[0], valid[0] = False, True
    hidden[0, 0, 0] = True
    whole = painting_loss(painting, targets, hidden, valid)
    counts = [(np.repeat(np.repeat(h, 2, 0), 2, 1) & v).sum()
              for h, v in zip(hidden, valid, strict=True)]  # fmt: skip
    rows = [painting_loss(*(x[i : i + 1] for x in (painting, targets, hidden, valid)))
            for i in range(3)]  # fmt: skip
    np.testing.assert_allclose(whole, np.average(rows, weights=counts), rtol=1e-5)
    assert abs(float(whole) - np.mean(rows)) > 1e-3


def test_valid_per_channel_or_per_pixel():
    painting, targets, hidden, valid = arrays()
    per_channel = np.broadcast_to(valid[..., None], painting.shape)
    np.testing.assert_allclose(
        painting_loss(painting, targets, hidden, valid),
        painting_loss(painting, targets, hidden, per_channel),
        rtol=1e-6,
    )


def test_nothing_counted_is_zero_with_zero_gradient():
    painting, targets, hidden, valid = arrays()
    value, grad = jax.value_and_grad(painting_loss)(
        jnp.asarray(painting), targets, hidden, np.zeros_like(valid)
    )
    assert value == 0 and (grad == 0).all()


def test_losses_and_unknown_loss():
    a, b = jnp.array([0.0, 0.0]), jnp.array([0.005, 3.0])
    np.testing.assert_allclose(pixel_loss(a, b), [0.00125, 2.995], rtol=1e-5)
    np.testing.assert_allclose(pixel_loss(a, b, loss="l2"), [2.5e-5, 9.0], rtol=1e-5)
    with pytest.raises(ValueError, match="'l1' is not one of smooth_l1, l2"):
        pixel_loss(a, b, loss="l1")


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9, 0.0])
def test_foreground_weights_balance_up_to_the_limit(share):
    rng = np.random.default_rng(0)
    foreground = jnp.asarray(rng.random((2, 40, 40)) < share)
    counted = counted_pixels(
        jnp.ones((2, 5, 5), bool), jnp.ones((2, 40, 40), bool), (2, 40, 40, 3)
    )
    weights = foreground_weights(foreground, counted, 12.0)
    painted = float((weights * foreground[..., None]).sum())
    ground = float((weights * ~foreground[..., None]).sum())
    if share in (0.2, 0.5):
        np.testing.assert_allclose(
            max(painted, ground) / min(painted, ground), 1, atol=0.15
        )
    assert weights.min() == 1 and weights.max() <= 12
    if share == 0.02:
        assert weights.max() == 12


def test_each_pair_is_balanced_by_its_own_counts():
    counted = jnp.ones((2, 10, 10, 3))
    foreground = jnp.zeros((2, 10, 10), bool).at[0, :5].set(True).at[1, 0].set(True)
    weights = foreground_weights(foreground, counted, 100.0)
    assert weights[0].max() == 1 and weights[1, 0].min() == weights[1].max() == 9
