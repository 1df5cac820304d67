"""The painting loss: Painter's smooth-L1 (paper, "In-Context Coloring"), and L2 and
weights for training from scratch."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from seggpt_jax.canvas import to_pixels

Array = jax.Array | np.ndarray
LOSSES = ("smooth_l1", "l2")


def pixel_loss(painting, targets, *, loss: str = "smooth_l1", beta: float = 0.01):
    """Loss per channel value `[b, H, W, 3]`, not averaged. A regression of colours:
    there are no class scores."""
    # Painter's beta is 0.01 on normalised colours, 0.6 of 255 levels: nearly L1.
    error = jnp.abs(painting - targets)
    if loss == "l2":
        return jnp.square(error)
    if loss != "smooth_l1":
        raise ValueError(f"loss {loss!r} is not one of {', '.join(LOSSES)}")
    quadratic = jnp.square(error) * (0.5 / beta)
    return jnp.where(error < beta, quadratic, error - 0.5 * beta)


def counted_pixels(
    hidden: Bool[Array, "b h w"], valid: Array, shape: tuple[int, ...]
) -> Float[Array, "b H W c"]:
    """1 on the channel values that the loss counts: hidden patches, valid pixels.

    valid: per pixel `[b, H, W]` or per channel `[b, H, W, 3]`, bool or weights.
    """
    mask = to_pixels(hidden, shape[1] // hidden.shape[1])[..., None]
    valid = valid[..., None] if valid.ndim == 3 else valid
    return jnp.broadcast_to(mask.astype(jnp.float32) * valid, shape)


def painting_loss(
    painting: Float[Array, "b H W 3"],
    targets: Float[Array, "b H W 3"],
    hidden: Bool[Array, "b h w"],
    valid: Array,
    *,
    loss: str = "smooth_l1",
    beta: float = 0.01,
    total: Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """Mean loss over hidden, valid values: one global sum over one global count.

    It is never a mean of per-sample or per-device means: then a pair with few counted
    pixels would weigh as much as a pair with many. A batch that counts nothing has loss
    0 (the released code gives nan).

    valid: as `counted_pixels` takes it. total: the count to divide by, where these rows
    are only a part of a batch; the losses of the parts then add up to the batch's.
    """
    counted = counted_pixels(hidden, valid, painting.shape)
    each = pixel_loss(painting, targets, loss=loss, beta=beta)
    total = counted.sum() if total is None else total
    return (each * counted).sum() / jnp.maximum(total, 1)


def foreground_weights(foreground, counted, max_weight: float):
    """Weights per channel value, `[b, H, W, 3]`, that balance object and background.

    foreground: painted pixels, bool `[b, H, W]`. counted: as from `counted_pixels`.

    Painted values weigh (background count / painted count), at least 1 and at most
    `max_weight`. Each pair has its own ratio, so that small objects count as much as
    large ones. Without the weights a small model trained from scratch paints everything
    black (docs/training.md).
    """
    foreground = foreground[..., None]
    painted = (counted * foreground).sum((1, 2, 3), keepdims=True)  # [b, 1, 1, 1]
    total = counted.sum((1, 2, 3), keepdims=True)
    balance = (total - painted) / jnp.maximum(painted, 1)
    weight = jnp.clip(balance, 1, max_weight)
    return counted * jnp.where(foreground, weight, 1)
