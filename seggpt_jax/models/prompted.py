"""The forward pass in two parts, prompts and query: the same function, at less cost.

For p prompts the plain model runs p whole canvases and repeats much of its work. Here
every part is computed once (docs/speed.md):

* Before the merge the target stream reads no pixel of the query, whose target is
  hidden. So this stream depends on the prompts alone: `encode` and `join` compute it
  once for all queries.
* In a feature ensemble (paper, "Context Ensemble") the query's tokens are the same for
  every prompt. So they are kept once, beside the p prompts.
* The query's attention to its own keys is the same for every prompt, too. `heads`, for
  CPUs, computes it once, and the rest for each prompt; the softmaxes are merged.
* The painting is read from the query's rows. So the last block and the decoder compute
  only these rows.

Tokens are `[b, p + 1, h, w, d]`: the halves of p prompts, then the query's half.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from seggpt_jax.canvas import patchify
from seggpt_jax.models import transformer
from seggpt_jax.models.attention import (
    attend,
    attend_summed,
    gives_sums,
    relative_positions,
)
from seggpt_jax.models.kernels import equal_parts, merge_keys
from seggpt_jax.models.seggpt import SegGPTConfig, added_tokens, decode


class PromptTokens(NamedTuple):
    """Prompts, each encoded by itself, on a grid of h x w patches.

    image: the embedded images. target: the target stream after the first block, on the
    prompt's half. drawn: the output of the first block's attention on the query's half,
    with this prompt alone, before the ensemble. kind: as given.
    """

    image: Float[Array, "b p h w d"]
    target: Float[Array, "b p h w d"]
    drawn: Float[Array, "b p h w d"]
    kind: Int[Array, " b"]


_TOKENS = 1600  # of an MLP at once on a CPU: two halves at 448 pixels
PER_PROMPT = ("image", "target", "drawn")  # the fields with an axis of prompts


class EncodedPrompts(NamedTuple):
    """Prompts joined into one ensemble, ready for queries.

    image: the embedded images. target: the target stream at the merge, first of every
    prompt, last of the query's hidden target. weight: each prompt's weight in the
    feature ensemble; the weights sum to 1. kind: as given.
    """

    image: Float[Array, "b p h w d"]
    target: Float[Array, "b p+1 h w d"]
    weight: Float[Array, "b p"]
    kind: Int[Array, " b"]


def encode(p, c: SegGPTConfig, images, targets, kind) -> PromptTokens:
    """Encodes prompts `[b, p, H, W, 3]`, ImageNet-normalised, of kind `[b]`.

    In the first block a prompt's half reads its own canvas only, not the other prompts.
    So these tokens can be kept while other prompts come and go (video memories).
    """
    image = _patches(p, images, c)
    above, below = _added(p, image, kind)
    target = _patches(p, targets, c) + above[1][:, None]
    x = jnp.concatenate([target, _hidden(p, below, c)], axis=1)
    block = _block(p, 0)
    # On the query's half the ensemble averages the attention's output before the
    # residual, so the block stops here. `join` takes the mean and does the rest.
    y, drawn = _attention(block, x, c)
    target = _finish(block, target, y, c)
    return PromptTokens(
        image + above[0][:, None], target, drawn.reshape(target.shape), kind
    )


def join(p, c: SegGPTConfig, prompts: PromptTokens, weight) -> EncodedPrompts:
    """Joins encoded prompts into an ensemble with weights `[b, p]`. The paper's weights
    are 1 / p; a prompt of weight 0 has no effect."""
    b, _, h, w, d = prompts.target.shape
    block = _block(p, 0)
    below = _added(p, prompts.target, prompts.kind)[1]
    drawn = _mean(prompts.drawn, weight).reshape(b, 1, h, w, c.heads, d // c.heads)
    # The rest of the first block for the query's half, which all prompts share.
    query = _finish(block, _hidden(p, below, c), drawn, c)
    x = jnp.concatenate([prompts.target, query], axis=1)

    def step(x, index):
        return _ensemble_block(_block(p, index), x, c, weight), None

    x, _ = jax.lax.scan(step, x, np.arange(1, c.merge_after + 1))
    return EncodedPrompts(prompts.image, x, weight, prompts.kind)


def paint(
    p, c: SegGPTConfig, prompts: EncodedPrompts, queries
) -> Float[Array, "b H W 3"]:
    """Paints queries `[b, H, W, 3]` by prompts of as many rows, or of one for all."""
    b = queries.shape[0]  # not len: a symbolic size is no number
    prompts = jax.tree.map(lambda x: jnp.broadcast_to(x, (b, *x.shape[1:])), prompts)
    query = _patches(p, queries[:, None], c)
    _, below = _added(p, query, prompts.kind)
    x = jnp.concatenate([prompts.image, query + below[0][:, None]], axis=1)
    # One loop over the blocks, so that one block is compiled. Before the merge only the
    # image stream runs here; the merge is its mean with the encoded target stream. The
    # last tap's block is apart: it computes the painted rows alone, unless it is the
    # merge, which needs all rows.
    last, tapped = c.taps[-1], len(c.taps)
    apart = last > c.merge_after
    layers = np.arange(last if apart else last + 1)
    rows = jnp.zeros((tapped, *jax.eval_shape(_painted_rows, x).shape), x.dtype)

    def step(carry, layer):
        (x, rows), (index, tap) = carry, layer
        x = _ensemble_block(_block(p, index), x, c, prompts.weight)
        x = jnp.where(index == c.merge_after, (x + prompts.target) * 0.5, x)
        # Written after each block; what stays is written by the tap.
        rows = jax.lax.dynamic_update_index_in_dim(rows, _painted_rows(x), tap, 0)
        return (x, rows), None

    taps = np.searchsorted(c.taps, layers)  # the next one, or the block itself
    (x, rows), _ = jax.lax.scan(step, (x, rows), (layers, taps))
    if apart:
        rows = rows.at[-1].set(_last_block(_block(p, last), x, c, prompts.weight))
    features = transformer.layer_norm(p["norm"], rows)
    return decode(p["decoder"], jnp.concatenate([*features], -1), c.patch, halo=1)


def _patches(p, images: Float[Array, "b p H W 3"], c: SegGPTConfig):
    b, count, h, w, _ = images.shape
    x = patchify(images.reshape(b * count, h, w, 3).astype(c.dtype), c.patch)
    x = transformer.linear(p["patch_embed"], x)
    return x.reshape(b, count, *x.shape[1:])


def _added(p, tokens, kind):
    """`added_tokens` of the prompt's half and of the query's half, each `[2, b, h, w,
    d]`: the image stream's, then the target stream's."""
    _, _, h, w, _ = tokens.shape
    added = added_tokens(p, (2 * h, w), kind).astype(tokens.dtype)
    return added[:, :, :h], added[:, :, h:]


def _hidden(p, below, c: SegGPTConfig) -> Float[Array, "b 1 h w d"]:
    """The query's half of the target stream, all of it hidden."""
    token = jnp.broadcast_to(p["mask_token"].astype(c.dtype), below[1].shape)
    return (token + below[1])[:, None]


def _block(p, index):
    """The parameters of one block, taken out of the stack: a slice of several blocks
    would be a copy."""
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False),
        p["blocks"],
    )


def _ensemble_block(p, x, c: SegGPTConfig, weight):
    """One block; the query's tokens attend together with every prompt."""
    above, below = _attention(p, x, c)
    # The mean comes before the projection here, and after it in `transformer`. Both are
    # equal: the projection is affine, and the weights sum to 1.
    y = jnp.concatenate([above, _mean(below, weight)], axis=1)
    return _finish(p, x, y, c)


def _painted_rows(x):
    """The rows that the decoder reads, `[b, 1 + h, w, d]`: the query's, and one more
    above them for the 3x3 convolution. That row is the first prompt's last row, as in
    the released script."""
    return jnp.concatenate([x[:, 0, -1:], x[:, -1]], axis=1)


def _last_block(p, x, c: SegGPTConfig, weight):
    """`_painted_rows` after one more block, which computes no other rows."""
    rows = _painted_rows(x)
    above, below = _attention(p, x, c, above=1)
    y = jnp.concatenate([above[:, :1], _mean(below, weight)], axis=2)
    return _finish(p, rows[:, None], y, c)[:, 0]


def _mean(x: Float[Array, "b p *rest"], weight) -> Float[Array, "b 1 *rest"]:
    """The feature ensemble: a weighted mean over prompts."""
    weight = weight.reshape(*weight.shape, *(1,) * (x.ndim - 2))
    # In float32: in half precision the weights would not sum to 1.
    return (x * weight).sum(1, keepdims=True).astype(x.dtype)


def _finish(p, x: Float[Array, "b n h w d"], y, c: SegGPTConfig):
    """A block after its attention, whose heads gave y `[b, n, h, w, heads, k]`.

    On a CPU few halves are computed at a time: the MLP's hidden layer of 9 halves is
    116 MB at ViT-L and leaves the cache.
    """

    def finish(x, y):
        x = x + transformer.project(p["attn"], y)
        return x + transformer.mlp(p, x)

    b, n, h, w, _ = x.shape
    on_cpu = gives_sums(c.attention, c.dtype)
    cut = equal_parts(n, b * h * w, _TOKENS) if on_cpu else 1
    if cut == 1:
        return finish(x, y)
    # Rows of the batch stay together: on a mesh each device has some of them.
    x, y = (z.swapaxes(0, 1).reshape(cut, -1, *z.shape[2:]) for z in (x, y))
    x = jax.lax.map(lambda part: finish(*part), (x, y))
    return x.reshape(n, b, *x.shape[2:]).swapaxes(0, 1)


def _attention(p, x: Float[Array, "b n h w d"], c: SegGPTConfig, above=None):
    """Attention on p canvases, each a prompt above the query.

    Returns the heads' outputs for the last `above` rows of every prompt (all rows by
    default), `[b, p, above, w, n, k]`, and for the query with each prompt,
    `[b, p, h, w, n, k]`.
    """
    b, count, h, w, d = x.shape
    # Queries alone are left out: the keys stay those of the whole canvas.
    skip = h - (h if above is None else above)
    attn = p["attn"]
    rel_h = relative_positions(attn["rel_pos_h"].astype(x.dtype), 2 * h)[skip:]
    rel_w = relative_positions(attn["rel_pos_w"].astype(x.dtype), w)

    normed = transformer.layer_norm(p["norm1"], x).reshape(b * count, h, w, d)
    q, k, v = transformer.project_qkv(attn, normed).reshape(
        3, b, count, c.heads, h * w, -1
    )
    queries, query = q[:, :-1, :, skip * w :], q[:, -1:]
    keys, values = _canvases(k), _canvases(v)
    whole = functools.partial(attend, impl=c.attention)
    if count > 2 and gives_sums(c.attention, x.dtype):
        above = _each(whole, queries, keys, values, rel_h[: h - skip], rel_w)
        below = _shared(query, k, v, rel_h[h - skip :], rel_w)
    else:
        q = jnp.concatenate([queries, jnp.broadcast_to(query, k[:, :-1].shape)], axis=3)
        y = _each(whole, q, keys, values, rel_h, rel_w)
        above, below = jnp.split(y, [(h - skip) * w], axis=3)
    shape = b, count - 1, -1, w, c.heads, d // c.heads
    return tuple(z.swapaxes(2, 3).reshape(shape) for z in (above, below))


def _shared(query, k, v, rel_h, rel_w):
    """The query's attention with each of several prompts. Its attention to its own keys
    is the same with all of them: it is computed once, and merged with the rest."""
    h = len(rel_h)
    own = _each(attend_summed, query, k[:, -1:], v[:, -1:], rel_h[:, h:], rel_w)
    queries = jnp.broadcast_to(query, k[:, :-1].shape)
    rest = _each(attend_summed, queries, k[:, :-1], v[:, :-1], rel_h[:, :h], rel_w)
    return merge_keys(*own, *rest)


def _canvases(z: Float[Array, "b count n t k"]) -> Float[Array, "b p n 2*t k"]:
    """Keys or values of every prompt, then those of the query."""
    query = jnp.broadcast_to(z[:, -1:], z[:, :-1].shape)
    return jnp.concatenate([z[:, :-1], query], axis=3)


def _each(attention, q, k, v, rel_h, rel_w):
    """Attention of each prompt by itself: prompts are rows of the batch there."""
    b, count = q.shape[:2]
    q, k, v = (z.reshape(b * count, *z.shape[2:]) for z in (q, k, v))
    y = attention(q, k, v, rel_h, rel_w)
    return jax.tree.map(lambda z: z.reshape(b, count, *z.shape[1:]), y)
