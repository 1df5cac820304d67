"""Attention with decomposed relative positions (MViTv2) over a grid of tokens.

`attend` is a pure function of arrays. Its `xla` body is the definition; any other
implementation is tested against it, forward and backward.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seggpt_jax.models.resample import linear_matrix


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
    return IMPLEMENTATIONS[impl](q, k, v, rel_h, rel_w)


def _logits(q, k, rel_h, rel_w):
    """`[b, n, q, t]`, in float32."""
    b, n, queries, width = q.shape
    (qh, h, _), (qw, w, _) = rel_h.shape, rel_w.shape
    f32 = {"preferred_element_type": jnp.float32}
    logits = jnp.einsum("bnqk,bntk->bnqt", q * width**-0.5, k, **f32)
    grid = q.reshape(b, n, qh, qw, width)
    by_row = jnp.einsum("bnijk,ihk->bnijh", grid, rel_h, **f32)
    by_col = jnp.einsum("bnijk,jwk->bnijw", grid, rel_w, **f32)
    logits = logits.reshape(b, n, qh, qw, h, w)
    logits = logits + by_row[..., :, None] + by_col[..., None, :]
    return logits.reshape(b, n, queries, h * w)


def _attend_xla(q, k, v, rel_h, rel_w):
    weights = jax.nn.softmax(_logits(q, k, rel_h, rel_w), axis=-1)
    return jnp.einsum("bnqt,bntk->bnqk", weights.astype(v.dtype), v)


def _attend_heads(q, k, v, rel_h, rel_w):
    """One head of one row at a time, for CPUs: its logits stay in the cache, and the
    weights are normalised after they are applied, on far fewer numbers."""

    def one(head):
        q, k, v = head
        logits = _logits(q[None, None], k[None, None], rel_h, rel_w)[0, 0]
        top = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
        weights = jnp.exp(logits - top)
        total = weights.sum(-1, keepdims=True)
        y = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
        return (y / total).astype(v.dtype)

    heads = tuple(x.reshape(-1, *x.shape[2:]) for x in (q, k, v))
    return jax.lax.map(one, heads).reshape(q.shape)


IMPLEMENTATIONS = {"xla": _attend_xla, "heads": _attend_heads}
