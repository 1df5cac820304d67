"""One-way attention: prompts never look at the query."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seggpt_jax.canvas import query_half
from seggpt_jax.models import transformer
from tests.support.models import SMALL, inputs, random_params, small

ONE_WAY = SMALL.replace(one_way=True)


@functools.partial(jax.jit, static_argnames=("model", "prompts"))
def paint(model, params, *args, prompts=1):
    return model.apply({"params": params}, *args, prompts=prompts)


def masked_attention(p, x):
    """The definition with a mask, token by token, in NumPy: a logit of the prompt's half
    to the query's is minus infinity."""
    b, h, w, d = x.shape
    _, _, heads, k = p["qkv"]["kernel"].shape
    kernel, bias = (np.asarray(p["qkv"][n], np.float64) for n in ("kernel", "bias"))
    q, key, v = np.einsum("bhwd,dsnk->sbhwnk", x, kernel) + bias[:, None, None, None]
    tables = [np.asarray(p[n], np.float64) for n in ("rel_pos_h", "rel_pos_w")]
    places = [(i, j) for i in range(h) for j in range(w)]
    y = np.zeros((b, h, w, heads, k))
    for i, j in places:
        mine = q[:, i, j]
        logits = []
        for row, col in places:
            seen = i >= h // 2 or row < h // 2
            positions = tables[0][i - row + h - 1] + tables[1][j - col + w - 1]
            logit = (mine * key[:, row, col]).sum(-1) / k**0.5 + mine @ positions
            logits.append(logit if seen else np.full_like(logit, -np.inf))
        weights = np.exp(np.array(logits) - np.max(logits, 0))
        weights /= weights.sum(0)
        values = np.array([v[:, row, col] for row, col in places])
        y[:, i, j] = (weights[..., None] * values).sum(0)
    out = np.einsum("bhwnk,nkd->bhwd", y, np.asarray(p["proj"]["kernel"], np.float64))
    return out + np.asarray(p["proj"]["bias"])


@pytest.mark.parametrize("impl", ["xla", "heads"])
def test_attention_is_that_of_a_mask(impl):
    params = random_params(small())["blocks"]["attn"]
    p = jax.tree.map(lambda leaf: leaf[0], params)
    x = np.random.default_rng(0).normal(size=(2, *SMALL.grid, SMALL.width))
    found = transformer.attention(p, jnp.asarray(x, jnp.float32), impl, one_way=True)
    # float32 sums in another order, on values up to 3.
    np.testing.assert_allclose(found, masked_attention(p, x), atol=1e-5)


def test_prompts_are_the_same_for_any_query():
    """In every block, before the merge and after it, while the query's own tokens
    change; and a two-way model's prompts do change."""
    images, targets, hidden, kind = inputs()
    half = SMALL.half[0]
    others = images.at[:, half:].multiply(-1), targets.at[:, half:].multiply(-1)
    elsewhere = hidden.at[:, SMALL.grid[0] // 2 :].set(~hidden[:, SMALL.grid[0] // 2 :])
    for one_way in (True, False):
        model = small(one_way=one_way, scan=False)
        params = random_params(model)
        _, before = paint(model, params, images, targets, hidden, kind)
        _, after = paint(model, params, *others, elsewhere, kind)
        for name in ("block_0", "block_1", "merged", "block_2", "block_3", "tapped"):
            above, below = (
                np.abs(a - b).max() for a, b in zip(
                    *(np.split(out[name], 2, axis=1) for out in (before, after)),
                    strict=True,
                )
            )  # fmt: skip
            assert (above == 0) == one_way, name
            assert below > 1e-3, name


def test_no_gradient_flows_from_a_prompt_to_the_query():
    """And some does from the query to the prompt."""
    model = small(one_way=True, depth=2, merge_after=0, taps=(1,), scan=False)
    images, targets, _, kind = inputs()
    hidden = jnp.broadcast_to(jnp.asarray(query_half(SMALL.grid)), (2, *SMALL.grid))
    params, half, rows = random_params(model), SMALL.half[0], SMALL.grid[0] // 2

    @jax.jit
    def gradients(images):
        def of(side):
            def tokens(images):
                out = model.apply({"params": params}, images, targets, hidden, kind)[1]
                return jnp.split(out["tapped"], [rows], axis=1)[side][0, 0, 0].sum()

            return jax.grad(tokens)(images)[0]

        return of(0), of(1)

    prompt, query = (np.abs(x).max((1, 2)) for x in gradients(images))
    assert (prompt[half:] == 0).all() and (prompt[:half] > 0).any()
    assert (query > 0).any() and (query[:half] > 0).any()
