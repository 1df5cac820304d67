"""Attention with decomposed relative positions (MViTv2) over a grid of tokens.

`attend` is a pure function of arrays. Its `xla` body is the definition; any other
implementation is tested against it, forward and backward.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seggpt_jax.models.resample import linear_matrix

IMPLEMENTATIONS = ("xla",)


def relative_positions(
    table: Float[Array, "length k"], size: int
) -> Float[Array, "size size k"]:
    """Embedding of every (query, key) distance along one axis of `size` tokens.

    A table made for another size is interpolated linearly, as the released code does.
    """
    length = 2 * size - 1
    if table.shape[0] != length:
        table = jnp.asarray(linear_matrix(table.shape[0], length), table.dtype) @ table
    distance = np.arange(size)[:, None] - np.arange(size)[None, :] + size - 1
    return table[distance]


def attend(
    q: Float[Array, "b n q k"],
    k: Float[Array, "b n t k"],
    v: Float[Array, "b n t k"],
    rel_h: Float[Array, "qh h k"],
    rel_w: Float[Array, "qw w k"],
    *,
    impl: str = "xla",
) -> Float[Array, "b n q k"]:
    """softmax(q k / sqrt(width) + q rel_h + q rel_w) v, softmax in float32.

    Tokens run row by row: queries over a grid of `qh * qw`, keys over `h * w`. Only the
    q k term is scaled; the positional terms use q as it is (docs/parity.md).
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(
            f"attention {impl!r} is not one of {', '.join(IMPLEMENTATIONS)}"
        )
    return _attend_xla(q, k, v, rel_h, rel_w)


def _attend_xla(q, k, v, rel_h, rel_w):
    b, n, _, width = q.shape
    (qh, h, _), (qw, w, _) = rel_h.shape, rel_w.shape
    f32 = {"preferred_element_type": jnp.float32}
    logits = jnp.einsum("bnqk,bntk->bnqt", q * width**-0.5, k, **f32)
    grid = q.reshape(b, n, qh, qw, width)
    by_row = jnp.einsum("bnijk,ihk->bnijh", grid, rel_h, **f32)
    by_col = jnp.einsum("bnijk,jwk->bnijw", grid, rel_w, **f32)
    logits = logits.reshape(b, n, qh, qw, h, w)
    logits = logits + by_row[..., :, None] + by_col[..., None, :]
    weights = jax.nn.softmax(logits.reshape(b, n, qh * qw, h * w), axis=-1)
    return jnp.einsum("bnqt,bntk->bnqk", weights.astype(v.dtype), v)
