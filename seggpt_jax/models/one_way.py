"""`prompted` for one-way models, whose prompts do not depend on the query.

A prompt is computed by itself, through all blocks, before any query is known. The query
needs no more of it than its keys and values in every block, and the row of tokens above
the seam, which the decoder's convolution reads. So painting runs the query's tokens
alone; a further prompt costs it attention to that prompt's keys, and no linear layer.

Keys and values are `[l, b, p, n, t, k]`, t the tokens of half a canvas. One prompt of
ViT-L at 448 takes 173 MB of them in float32.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from seggpt_jax.models import halves, transformer
from seggpt_jax.models.attention import attend, gives_sums
from seggpt_jax.models.seggpt import SegGPTConfig, decode


class PromptTokens(NamedTuple):
    """Prompts, each encoded by itself.

    keys, values: of every block up to the last tap; of the image stream up to the
    merge. target_keys, target_values: of the target stream up to the merge. seam: the
    last row of tokens at every tap. kind: as given.
    """

    keys: Float[Array, "l b p n t k"]
    values: Float[Array, "l b p n t k"]
    target_keys: Float[Array, "m b p n t k"]
    target_values: Float[Array, "m b p n t k"]
    seam: Float[Array, "taps b p 1 w d"]
    kind: Int[Array, " b"]


class EncodedPrompts(NamedTuple):
    """Prompts joined into one ensemble, ready for queries.

    keys, values: as of `PromptTokens`. target: the query's hidden target at the merge.
    seam: of the first prompt. weight: each prompt's weight in the feature ensemble; the
    weights sum to 1. kind: as given.
    """

    keys: Float[Array, "l b p n t k"]
    values: Float[Array, "l b p n t k"]
    target: Float[Array, "b 1 h w d"]
    seam: Float[Array, "taps b 1 w d"]
    weight: Float[Array, "b p"]
    kind: Int[Array, " b"]


def encode(p, c: SegGPTConfig, images, targets, kind) -> PromptTokens:
    """Encodes prompts `[b, p, H, W, 3]`, ImageNet-normalised, of kind `[b]`."""
    image, target = halves.patches(p, images, c), halves.patches(p, targets, c)
    _, count, h, w, _ = image.shape
    above, _ = halves.added(p, c, (h, w), kind)
    whole = functools.partial(attend, impl=c.attention)

    def step(x, index):
        block = halves.block_params(p, index)
        q, k, v = halves.project_qkv(block, x)
        rel_h, rel_w = halves.positions(block, x)
        y = halves.each(whole, q, k, v, rel_h[:h, :h], rel_w)
        x = halves.finish(block, x, halves.tokens_first(y, w), c)
        return x, (k, v, x[:, :, -1:])

    # Both streams run side by side up to the merge.
    streams = image + above[0][:, None], target + above[1][:, None]
    x, merge, last = jnp.concatenate(streams, axis=1), c.merge_after, c.taps[-1]
    x, early = jax.lax.scan(step, x, np.arange(merge + 1))
    x = (x[:, :count] + x[:, count:]) * 0.5
    seam = x[None, :, :, -1:]
    _, late = jax.lax.scan(step, x, np.arange(merge + 1, last + 1))
    keys, values = (
        jnp.concatenate([first[:, :, :count], rest])
        for first, rest in zip(early[:2], late[:2], strict=True)
    )
    target_keys, target_values = (first[:, :, count:] for first in early[:2])
    rows = jnp.concatenate([seam, late[2]])[np.subtract(c.taps, merge)]
    return PromptTokens(keys, values, target_keys, target_values, rows, kind)


def join(p, c: SegGPTConfig, prompts: PromptTokens, weight) -> EncodedPrompts:
    """Joins encoded prompts into an ensemble with weights `[b, p]`, and takes the
    query's hidden target up to the merge by them."""
    w = prompts.seam.shape[-2]
    h = prompts.keys.shape[-2] // w
    _, below = halves.added(p, c, (h, w), prompts.kind)

    def step(x, layer):
        index, keys, values = layer
        return _block(halves.block_params(p, index), x, keys, values, weight, c), None

    layers = np.arange(c.merge_after + 1), prompts.target_keys, prompts.target_values
    target, _ = jax.lax.scan(step, halves.hidden(p, below, c), layers)
    return EncodedPrompts(
        prompts.keys, prompts.values, target, prompts.seam[:, :, 0], weight,
        prompts.kind,
    )  # fmt: skip


def paint(
    p, c: SegGPTConfig, prompts: EncodedPrompts, queries
) -> Float[Array, "b H W 3"]:
    """Paints queries `[b, H, W, 3]` by prompts of as many rows, or of one for all."""
    b = queries.shape[0]  # not len: a symbolic size is no number

    def rows_of(x, axis=0):
        return jnp.broadcast_to(x, (*x.shape[:axis], b, *x.shape[axis + 1 :]))

    kind, weight, target = map(rows_of, (prompts.kind, prompts.weight, prompts.target))
    query = halves.patches(p, queries[:, None], c)
    _, _, h, w, _ = query.shape
    _, below = halves.added(p, c, (h, w), kind)
    x = query + below[0][:, None]
    layers = np.arange(c.taps[-1] + 1)
    tapped = jnp.zeros((len(c.taps), b, h, w, c.width), x.dtype)

    def step(carry, layer):
        (x, tapped), (index, tap, keys, values) = carry, layer
        block = halves.block_params(p, index)
        # Keys and values of one set of prompts are repeated for one block at a time.
        x = _block(block, x, rows_of(keys), rows_of(values), weight, c)
        x = jnp.where(index == c.merge_after, (x + target) * 0.5, x)
        # Written after each block; what stays is written by the tap.
        tapped = jax.lax.dynamic_update_index_in_dim(tapped, x[:, 0], tap, 0)
        return (x, tapped), None

    taps = np.searchsorted(c.taps, layers)  # the next one, or the block itself
    each = layers, taps, prompts.keys, prompts.values
    (_, tapped), _ = jax.lax.scan(step, (x, tapped), each)
    rows = jnp.concatenate([rows_of(prompts.seam, 1), tapped], axis=2)
    features = transformer.layer_norm(p["norm"], rows)
    return decode(p["decoder"], jnp.concatenate([*features], -1), c.patch, halo=1)


def _block(p, x: Float[Array, "b 1 h w d"], keys, values, weight, c: SegGPTConfig):
    """One block of the query's tokens, by the keys and values of every prompt
    `[b, p, n, t, k]`."""
    q, k, v = halves.project_qkv(p, x)
    rel_h, rel_w = halves.positions(p, x)
    _, _, h, w, _ = x.shape
    if keys.shape[1] > 1 and gives_sums(c.attention, c.dtype):
        y = halves.attend_shared(q, k, v, keys, values, rel_h[h:], rel_w)
    else:
        q, k, v = (jnp.broadcast_to(z, keys.shape) for z in (q, k, v))
        keys, values = (
            jnp.concatenate(both, axis=3) for both in ((keys, k), (values, v))
        )
        whole = functools.partial(attend, impl=c.attention)
        y = halves.each(whole, q, keys, values, rel_h[h:], rel_w)
    return halves.finish(p, x, halves.mean(halves.tokens_first(y, w), weight), c)
