"""Implementations of `attention.attend`, which states their contract.

The logit of query i and key j, on a grid of keys of h rows and w columns, is

    q_i k_j / sqrt(width) + by_row[i, row of j] + by_col[i, column of j]

The last two terms are the bias of decomposed relative positions (MViTv2, arXiv
2112.01526): products of q_i with the embeddings of h row distances and w column
distances. So q and k can carry the bias (`widen`): q gets h + w more features, the
terms; k gets one-hots of its row and its column. Any fused kernel without a bias then
computes the same function.
"""

import jax
import jax.numpy as jnp
import numpy as np

_LANES = 128  # splash wants whole blocks of so many tokens
_ONE_BLOCK = 2048  # keys that fit a TPU core's memory at once
_CACHED = 1_300_000  # logits at once on a CPU: 5 MB, the fastest measured for ViT-L
_NEVER = -3e4  # a logit whose weight after softmax is 0, in bfloat16 too


def attend_xla(q, k, v, rel_h, rel_w):
    """The definition."""
    weights = jax.nn.softmax(_logits(q, k, rel_h, rel_w), axis=-1)
    return jnp.einsum("bnqt,bntk->bnqk", weights.astype(v.dtype), v)


def attend_heads(q, k, v, rel_h, rel_w):
    """One head of one row of the batch at a time, for CPUs: its logits stay in the
    cache."""
    return attend_heads_summed(q, k, v, rel_h, rel_w)[0]


def attend_heads_summed(q, k, v, rel_h, rel_w):
    """`attend_heads`, and the logarithm of every query's sum of exponentials `[b, n,
    q]`, by which parts of the keys are merged (`merge_keys`).

    The softmax is divided by its sum after the product with v, which has far fewer
    numbers than the logits.
    """
    blocks = equal_parts(len(rel_h), len(rel_w) * k.shape[2], _CACHED)
    rel = rel_h.reshape(blocks, -1, *rel_h.shape[1:])

    def one(head):
        q, k, v = head

        def some(queries):
            q, rel_h = queries
            logits = _logits(q[None, None], k[None, None], rel_h, rel_w)[0, 0]
            # Without it XLA adds the bias inside one kernel with the product and the
            # softmax, and this kernel takes a fifth longer (docs/speed.md).
            logits = jax.lax.optimization_barrier(logits)
            # The maximum cancels in the quotient, so it needs no gradient.
            top = jax.lax.stop_gradient(logits.max(-1))
            weights = jnp.exp(logits - top[:, None])
            total = weights.sum(-1)
            y = jnp.matmul(
                weights.astype(v.dtype), v, preferred_element_type=jnp.float32
            )
            return (y / total[:, None]).astype(v.dtype), top + jnp.log(total)

        queries = q.reshape(blocks, -1, q.shape[-1]), rel
        return jax.lax.map(some, queries)

    heads = tuple(x.reshape(-1, *x.shape[2:]) for x in (q, k, v))
    y, total = jax.lax.map(one, heads)
    return y.reshape(q.shape), total.reshape(q.shape[:3])


def merge_keys(y, total, other, others_total):
    """Attention to all keys from attention to two parts of them: each part's output
    `[..., q, k]` and logarithm of the sum of exponentials `[..., q]`."""
    share = jax.nn.sigmoid(others_total - total)[..., None]  # the other part's weight
    return (y + (other - y) * share).astype(y.dtype)


def equal_parts(count: int, size: int, most: int) -> int:
    """The least number of equal parts of `count` things of one size that are not
    larger than `most`."""
    cuts = (n for n in range(1, count) if count % n == 0)
    return next((n for n in cuts if count // n * size <= most), count)


def attend_cudnn(q, k, v, rel_h, rel_w, implementation="cudnn"):
    """cuDNN's fused kernel over widened q and k, for NVIDIA GPUs and half precision.

    cuDNN needs q, k and v of one width, a multiple of 8: 152 for ViT-L, whose widened
    q has 64 + 56 + 28 = 148 features.
    """
    width = v.shape[-1]
    most = widened(width, rel_h.shape[1], rel_w.shape[1])
    q, k = widen(q, k, rel_h, rel_w)
    q, k, v = (_pad(x, -1, most).swapaxes(1, 2) for x in (q, k, v))
    y = jax.nn.dot_product_attention(q, k, v, scale=1.0, implementation=implementation)
    return y.swapaxes(1, 2)[..., :width]


def attend_cudnn_bias(q, k, v, rel_h, rel_w, implementation="cudnn"):
    """cuDNN's fused kernel with the whole bias `[b, n, q, t]` in memory, for NVIDIA
    GPUs and half precision: narrower products than `attend_cudnn`, more memory."""
    b, n, queries, _ = q.shape
    by_row, by_col = _positional(q, rel_h, rel_w)
    bias = (by_row[..., :, None] + by_col[..., None, :]).reshape(b, n, queries, -1)
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    return jax.nn.dot_product_attention(
        q, k, v, bias.astype(q.dtype), implementation=implementation
    ).swapaxes(1, 2)


def attend_splash(q, k, v, rel_h, rel_w, interpret=False):
    """jax's splash kernel over widened q and k, for TPUs.

    Queries and keys are padded to whole blocks. One more feature of q and k, 1 and
    `_NEVER`, gives the padded keys no weight.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as splash,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_mask as masks,
    )

    (_, heads, queries, _), tokens = q.shape, k.shape[2]
    q, k = widen(q, k, rel_h, rel_w)
    rows = queries + -queries % _LANES
    keys = tokens + -tokens % _LANES
    block = keys if keys <= _ONE_BLOCK else _LANES
    q = _pad(jnp.concatenate([q, jnp.ones_like(q[..., :1])], -1), 2, rows)
    k = _pad(_pad(k, -1, k.shape[-1] + 1), 2, keys)
    k = k.at[:, :, tokens:, -1].set(_NEVER)
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([masks.FullMask((rows, keys))] * heads),
        block_sizes=splash.BlockSizes(
            block_q=_LANES, block_kv=block, block_kv_compute=block,
            block_q_dkv=_LANES, block_kv_dkv=block, block_kv_dkv_compute=block,
            use_fused_bwd_kernel=True,
        ),
        head_shards=1, q_seq_shards=1, interpret=interpret,
    )  # fmt: skip
    return jax.vmap(kernel)(q, k, _pad(v, 2, keys))[:, :, :queries]


def widened(width: int, h: int, w: int) -> int:
    """Features of a head as cuDNN gets it in `attend_cudnn`, on a grid of h by w."""
    return width + h + w + -(width + h + w) % 8


def widen(q, k, rel_h, rel_w):
    """q and k with h + w more features: their plain product is the whole logit."""
    b, n, queries, width = q.shape
    h, w = rel_h.shape[1], rel_w.shape[1]
    by_row, by_col = (
        x.reshape(b, n, queries, -1).astype(q.dtype)
        for x in _positional(q, rel_h, rel_w)
    )
    row, col = np.divmod(np.arange(h * w), w)
    place = np.concatenate([np.eye(h)[row], np.eye(w)[col]], axis=1)
    place = jnp.broadcast_to(jnp.asarray(place, k.dtype), (*k.shape[:3], h + w))
    q = jnp.concatenate([q * width**-0.5, by_row, by_col], axis=-1)
    return q, jnp.concatenate([k, place], axis=-1)


def _logits(q, k, rel_h, rel_w):
    """`[b, n, q, t]`, in float32."""
    b, n, queries, width = q.shape
    logits = jnp.einsum(
        "bnqk,bntk->bnqt", q * width**-0.5, k, preferred_element_type=jnp.float32
    )
    by_row, by_col = _positional(q, rel_h, rel_w)
    logits = logits.reshape(*by_row.shape[:4], by_row.shape[-1], by_col.shape[-1])
    # [b, n, qh, qw, h, w] + [..., h, 1] + [..., 1, w]
    logits = logits + by_row[..., :, None] + by_col[..., None, :]
    return logits.reshape(b, n, queries, -1)


def _positional(q, rel_h, rel_w):
    """`by_row` `[b, n, qh, qw, h]` and `by_col` `[b, n, qh, qw, w]`, in float32.

    h + w terms for a query, where a table of all pairs of places would have h * w. They
    use q unscaled, as the released code does.
    """
    grid = q.reshape(*q.shape[:2], len(rel_h), len(rel_w), q.shape[-1])
    f32 = {"preferred_element_type": jnp.float32}
    by_row = jnp.einsum("bnijk,ihk->bnijh", grid, rel_h, **f32)
    return by_row, jnp.einsum("bnijk,jwk->bnijw", grid, rel_w, **f32)


def _pad(x, axis: int, size: int):
    """Zeros at the end of an axis, up to a size."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, widths)
