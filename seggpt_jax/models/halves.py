"""Parts of the forward pass on halves of canvases, for `prompted` and `one_way`.

Tokens are `[b, n, h, w, d]`: n halves, of prompts or of a query.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from seggpt_jax.canvas import patchify
from seggpt_jax.models import transformer
from seggpt_jax.models.attention import attend_summed, gives_sums, relative_positions
from seggpt_jax.models.kernels import equal_parts, merge_keys
from seggpt_jax.models.seggpt import SegGPTConfig, added_tokens

_TOKENS = 1600  # of an MLP at once on a CPU: two halves at 448 pixels


def patches(p, images: Float[Array, "b n H W 3"], c: SegGPTConfig):
    """Embedded images or targets `[b, n, h, w, d]`."""
    b, count, h, w, _ = images.shape
    x = patchify(images.reshape(b * count, h, w, 3).astype(c.dtype), c.patch)
    x = transformer.linear(p["patch_embed"], x)
    return x.reshape(b, count, *x.shape[1:])


def added(p, c: SegGPTConfig, grid, kind):
    """`added_tokens` of the prompt's half and of the query's half, each `[2, b, h, w,
    d]`: the image stream's, then the target stream's. grid: h and w."""
    h, w = grid
    tokens = added_tokens(p, (2 * h, w), kind).astype(c.dtype)
    return tokens[:, :, :h], tokens[:, :, h:]


def hidden(p, below, c: SegGPTConfig) -> Float[Array, "b 1 h w d"]:
    """The query's half of the target stream, all of it hidden. below: what is `added`
    to the query's half."""
    token = jnp.broadcast_to(p["mask_token"].astype(c.dtype), below[1].shape)
    return (token + below[1])[:, None]


def block_params(p, index):
    """The parameters of one block, taken out of the stack: a slice of several blocks
    would be a copy."""
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False),
        p["blocks"],
    )


def mean(x: Float[Array, "b p *rest"], weight) -> Float[Array, "b 1 *rest"]:
    """The feature ensemble: a weighted mean over prompts."""
    weight = weight.reshape(*weight.shape, *(1,) * (x.ndim - 2))
    # In float32: in half precision the weights would not sum to 1.
    return (x * weight).sum(1, keepdims=True).astype(x.dtype)


def project_qkv(p, x: Float[Array, "b n h w d"]) -> Float[Array, "3 b n heads t k"]:
    """Queries, keys and values of a block."""
    b, count, h, w, _ = x.shape
    normed = transformer.layer_norm(p["norm1"], x).reshape(b * count, h, w, -1)
    qkv = transformer.project_qkv(p["attn"], normed)
    return qkv.reshape(3, b, count, *qkv.shape[2:])


def positions(p, x: Float[Array, "b n h w d"]):
    """Relative positions on a canvas of two such halves: `[2h, 2h, k]`, `[w, w, k]`."""
    attn, h, w = p["attn"], *x.shape[2:4]
    return (
        relative_positions(attn["rel_pos_h"].astype(x.dtype), 2 * h),
        relative_positions(attn["rel_pos_w"].astype(x.dtype), w),
    )


def each(attention, q, k, v, rel_h, rel_w):
    """Attention of each half by itself: halves are rows of the batch there."""
    b, count = q.shape[:2]
    q, k, v = (z.reshape(b * count, *z.shape[2:]) for z in (q, k, v))
    y = attention(q, k, v, rel_h, rel_w)
    return jax.tree.map(lambda z: z.reshape(b, count, *z.shape[1:]), y)


def attend_shared(q, k, v, keys, values, rel_h, rel_w):
    """The attention of the query, q, k and v `[b, 1, heads, t, k]`, with each of
    several prompts' keys and values. Its attention to its own keys is the same with all
    of them: it is computed once, and merged with the rest."""
    h = len(rel_h)
    own = each(attend_summed, q, k, v, rel_h[:, h:], rel_w)
    queries = jnp.broadcast_to(q, keys.shape)
    rest = each(attend_summed, queries, keys, values, rel_h[:, :h], rel_w)
    return merge_keys(*own, *rest)


def tokens_first(y: Float[Array, "b n heads t k"], w: int):
    """Attention's output as `finish` takes it, `[b, n, h, w, heads, k]`."""
    b, count, heads, _, k = y.shape
    return y.swapaxes(2, 3).reshape(b, count, -1, w, heads, k)


def finish(p, x: Float[Array, "b n h w d"], y, c: SegGPTConfig):
    """A block after its attention, whose heads gave y `[b, n, h, w, heads, k]`.

    On a CPU few halves are computed at a time: the MLP's hidden layer of 9 halves is
    116 MB at ViT-L and leaves the cache.
    """

    def both(x, y):
        x = x + transformer.project(p["attn"], y)
        return x + transformer.mlp(p, x)

    b, n, h, w, _ = x.shape
    on_cpu = gives_sums(c.attention, c.dtype)
    cut = equal_parts(n, b * h * w, _TOKENS) if on_cpu else 1
    if cut == 1:
        return both(x, y)
    # Rows of the batch stay together: on a mesh each device has some of them.
    x, y = (z.swapaxes(0, 1).reshape(cut, -1, *z.shape[2:]) for z in (x, y))
    x = jax.lax.map(lambda part: both(*part), (x, y))
    return x.reshape(n, b, *x.shape[2:]).swapaxes(0, 1)
