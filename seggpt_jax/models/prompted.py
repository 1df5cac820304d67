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

One-way models save more (`one_way`). Every function here takes the form of its model.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from seggpt_jax.models import halves, one_way, transformer
from seggpt_jax.models.attention import attend, gives_sums
from seggpt_jax.models.seggpt import SegGPTConfig, decode


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


# Of both forms. Every field but `kind` has an axis of prompts, the fourth from the end.
AnyTokens = PromptTokens | one_way.PromptTokens
AnyPrompts = EncodedPrompts | one_way.EncodedPrompts
AXIS = -4


def count(prompts: AnyTokens) -> int:
    """Number of prompts."""
    return prompts[0].shape[AXIS]


def map_prompts(function: Callable, *prompts: AnyTokens) -> Any:
    """The first of several sets of prompts, with `function` of all sets' arrays in
    place of every array that has an axis of prompts."""
    names = [name for name in prompts[0]._fields if name != "kind"]
    arrays = {n: function(*(getattr(each, n) for each in prompts)) for n in names}
    return prompts[0]._replace(**arrays)


def encode(p, c: SegGPTConfig, images, targets, kind) -> AnyTokens:
    """Encodes prompts `[b, p, H, W, 3]`, ImageNet-normalised, of kind `[b]`.

    In the first block a prompt's half reads its own canvas only, not the other prompts.
    So these tokens can be kept while other prompts come and go (video memories).
    """
    if c.one_way:
        return one_way.encode(p, c, images, targets, kind)
    image = halves.patches(p, images, c)
    above, below = halves.added(p, c, image.shape[2:4], kind)
    target = halves.patches(p, targets, c) + above[1][:, None]
    x = jnp.concatenate([target, halves.hidden(p, below, c)], axis=1)
    block = halves.block_params(p, 0)
    # On the query's half the ensemble averages the attention's output before the
    # residual, so the block stops here. `join` takes the mean and does the rest.
    y, drawn = _attention(block, x, c)
    target = halves.finish(block, target, y, c)
    return PromptTokens(
        image + above[0][:, None], target, drawn.reshape(target.shape), kind
    )


def join(p, c: SegGPTConfig, prompts: AnyTokens, weight) -> AnyPrompts:
    """Joins encoded prompts into an ensemble with weights `[b, p]`. The paper's weights
    are 1 / p; a prompt of weight 0 has no effect but above the seam."""
    if isinstance(prompts, one_way.PromptTokens):
        return one_way.join(p, c, prompts, weight)
    b, _, h, w, d = prompts.target.shape
    block = halves.block_params(p, 0)
    below = halves.added(p, c, (h, w), prompts.kind)[1]
    drawn = halves.mean(prompts.drawn, weight)
    drawn = drawn.reshape(b, 1, h, w, c.heads, d // c.heads)
    # The rest of the first block for the query's half, which all prompts share.
    query = halves.finish(block, halves.hidden(p, below, c), drawn, c)
    x = jnp.concatenate([prompts.target, query], axis=1)

    def step(x, index):
        return _ensemble_block(halves.block_params(p, index), x, c, weight), None

    x, _ = jax.lax.scan(step, x, np.arange(1, c.merge_after + 1))
    return EncodedPrompts(prompts.image, x, weight, prompts.kind)


def paint(p, c: SegGPTConfig, prompts: AnyPrompts, queries) -> Float[Array, "b H W 3"]:
    """Paints queries `[b, H, W, 3]` by prompts of as many rows, or of one for all."""
    if isinstance(prompts, one_way.EncodedPrompts):
        return one_way.paint(p, c, prompts, queries)
    b = queries.shape[0]  # not len: a symbolic size is no number
    shown: EncodedPrompts = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (b, *x.shape[1:])), prompts
    )
    query = halves.patches(p, queries[:, None], c)
    _, below = halves.added(p, c, query.shape[2:4], shown.kind)
    x = jnp.concatenate([shown.image, query + below[0][:, None]], axis=1)
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
        block = halves.block_params(p, index)
        x = _ensemble_block(block, x, c, shown.weight)
        x = jnp.where(index == c.merge_after, (x + shown.target) * 0.5, x)
        # Written after each block; what stays is written by the tap.
        rows = jax.lax.dynamic_update_index_in_dim(rows, _painted_rows(x), tap, 0)
        return (x, rows), None

    taps = np.searchsorted(c.taps, layers)  # the next one, or the block itself
    (x, rows), _ = jax.lax.scan(step, (x, rows), (layers, taps))
    if apart:
        block = halves.block_params(p, last)
        rows = rows.at[-1].set(_last_block(block, x, c, shown.weight))
    features = transformer.layer_norm(p["norm"], rows)
    return decode(p["decoder"], jnp.concatenate([*features], -1), c.patch, halo=1)


def _ensemble_block(p, x, c: SegGPTConfig, weight):
    """One block; the query's tokens attend together with every prompt."""
    above, below = _attention(p, x, c)
    # The mean comes before the projection here, and after it in `transformer`. Both are
    # equal: the projection is affine, and the weights sum to 1.
    y = jnp.concatenate([above, halves.mean(below, weight)], axis=1)
    return halves.finish(p, x, y, c)


def _painted_rows(x):
    """The rows that the decoder reads, `[b, 1 + h, w, d]`: the query's, and one more
    above them for the 3x3 convolution. That row is the first prompt's last row, as in
    the released script."""
    return jnp.concatenate([x[:, 0, -1:], x[:, -1]], axis=1)


def _last_block(p, x, c: SegGPTConfig, weight):
    """`_painted_rows` after one more block, which computes no other rows."""
    rows = _painted_rows(x)
    above, below = _attention(p, x, c, above=1)
    y = jnp.concatenate([above[:, :1], halves.mean(below, weight)], axis=2)
    return halves.finish(p, rows[:, None], y, c)[:, 0]


def _attention(p, x: Float[Array, "b n h w d"], c: SegGPTConfig, above=None):
    """Attention on p canvases, each a prompt above the query.

    Returns the heads' outputs for the last `above` rows of every prompt (all rows by
    default), `[b, p, above, w, n, k]`, and for the query with each prompt,
    `[b, p, h, w, n, k]`.
    """
    _, total, h, w, _ = x.shape
    # Queries alone are left out: the keys stay those of the whole canvas.
    skip = h - (h if above is None else above)
    rel_h, rel_w = halves.positions(p, x)
    rel_h = rel_h[skip:]
    q, k, v = halves.project_qkv(p, x)
    queries, query = q[:, :-1, :, skip * w :], q[:, -1:]
    keys, values = _canvases(k), _canvases(v)
    whole = functools.partial(attend, impl=c.attention)
    if total > 2 and gives_sums(c.attention, x.dtype):
        above = halves.each(whole, queries, keys, values, rel_h[: h - skip], rel_w)
        own, others = (k[:, -1:], v[:, -1:]), (k[:, :-1], v[:, :-1])
        below = halves.attend_shared(query, *own, *others, rel_h[h - skip :], rel_w)
    else:
        q = jnp.concatenate([queries, jnp.broadcast_to(query, k[:, :-1].shape)], axis=3)
        y = halves.each(whole, q, keys, values, rel_h, rel_w)
        above, below = jnp.split(y, [(h - skip) * w], axis=3)
    return halves.tokens_first(above, w), halves.tokens_first(below, w)


def _canvases(z: Float[Array, "b count n t k"]) -> Float[Array, "b p n 2*t k"]:
    """Keys or values of every prompt, then those of the query."""
    query = jnp.broadcast_to(z[:, -1:], z[:, :-1].shape)
    return jnp.concatenate([z[:, :-1], query], axis=3)
