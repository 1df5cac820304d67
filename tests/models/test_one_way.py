"""One-way attention: prompts never look at the query."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seggpt_jax import colors, predict
from seggpt_jax.canvas import query_half
from seggpt_jax.models import prompted, transformer
from seggpt_jax.models.seggpt import SegGPTConfig
from seggpt_jax.runs import sharding
from seggpt_jax.weights.build import abstract_params
from tests.support.models import (
    SMALL,
    applied,
    definition,
    episode,
    inputs,
    random_params,
    small,
)

# The same sums in another order, on outputs of scale 1.
EXACT = {"atol": 1e-5, "rtol": 0}


def masked_attention(p, x):
    """The definition with a mask, token by token, in NumPy: a logit of the prompt's
    half to the query's is minus infinity."""
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
        how = {"depth": 2, "merge_after": 0, "taps": (1,), "scan": False}
        model = small(one_way=one_way, **how)
        params = random_params(model)
        _, before = applied(model, 1, params, images, targets, hidden, kind)
        _, after = applied(model, 1, params, *others, elsewhere, kind)
        for name in ("block_0", "merged", "block_1", "tapped"):
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


@pytest.mark.parametrize(
    ("b", "p", "size", "geometry"),
    [
        (2, 1, (28, 36), {}),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [
            (2, 3, (16, 16), {"merge_after": 0, "taps": (1,)}),
            (1, 2, (20, 12), {"depth": 1, "merge_after": 0, "taps": (0,)}),
            (1, 8, (16, 16), {"merge_after": 2, "taps": (2, 3)}),
            (1, 3, (16, 16), {"attention": "xla"}),
        ]),
    ],
)  # fmt: skip
def test_prediction_equals_the_plain_model(b, p, size, geometry):
    """Also on canvases that the tables must be interpolated for, and wherever the
    model merges and taps."""
    model = small(one_way=True, **geometry)
    params, args = random_params(model), episode(b, p, size)
    found = jax.jit(functools.partial(whole, model))(params, *args)
    np.testing.assert_allclose(found, definition(model, params, *args), **EXACT)


def whole(model, params, images, targets, queries, kind, weight=None):
    if weight is None:
        weight = jnp.full(images.shape[:2], 1 / images.shape[1])
    tokens = prompted.encode(params, model.config, images, targets, kind)
    encoded = prompted.join(params, model.config, tokens, weight)
    return prompted.paint(params, model.config, encoded, queries)


def test_prompts_have_weights():
    """2/3 and 1/3 are a prompt given twice beside another; of weight 0 it has none. And
    one set of prompts serves several queries."""
    model = small(one_way=True)
    params, (images, targets, queries, kind) = random_params(model), episode(1, 3)
    queries = np.concatenate([queries, -queries])
    weight = np.float32([[2 / 3, 1 / 3, 0]])
    given = images, targets, queries, kind, weight
    found = jax.jit(functools.partial(whole, model))(params, *given)
    twice = (np.repeat(x[:, [0, 0, 1]], 2, 0) for x in (images, targets))
    wanted = definition(model, params, *twice, queries, np.repeat(kind, 2))
    np.testing.assert_allclose(found, wanted, **EXACT)


@pytest.mark.slow
def test_any_mesh_predicts_the_same():
    model, args = small(one_way=True), episode(4, 3)
    params = random_params(model)
    wanted = predict.make_predict_fn(model)(params, *args)
    mesh = sharding.make_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, sharding.place(params, mesh))
        rows = [sharding.put_rows(mesh, x) for x in args]
        found = predict.make_predict_fn(model)(placed, *rows)
    np.testing.assert_allclose(found, wanted, **EXACT)


@pytest.mark.slow
def test_bfloat16_is_close_to_float32():
    """8 bits: errors of a percent of the outputs' scale through 4 blocks."""
    model, args = small(one_way=True), episode(2, 2)
    params = random_params(model, scale=0.1)
    exact = definition(model, params, *args)
    fast = small(one_way=True, dtype="bfloat16")
    found = jax.jit(functools.partial(whole, fast))(params, *args)
    assert found.dtype == jnp.float32
    assert np.abs(found - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.slow
def test_a_video_remembers_frames_and_takes_corrections():
    """Against prediction with the same prompts: the first one, a corrected frame that
    stays, and the last frames with their decoded results."""
    model = small(one_way=True, depth=2, merge_after=0, taps=(1,))
    params, (images, targets, frames, _) = random_params(model), episode(4, 1)
    kind, palette = np.ones(1, np.int32), np.uint8([[0] * 3, [255, 0, 0], [9, 255, 9]])
    start, step = predict.make_track_fns(model, last=2)
    paint = predict.make_predict_fn(model)
    memory = start(params, images[:1], targets[:1], kind)
    first, last = [(images[0, 0], targets[0, 0])], []
    for number, frame in enumerate(frames):
        painting, memory = step(params, memory, frame[None], palette)
        shown = [*first, *last[-2:]]
        # All as often as gives 12 prompts: the same mean, and one program.
        shown = zip(*shown * (12 // len(shown)), strict=True)
        shown = (np.stack(x)[None] for x in shown)
        wanted = np.asarray(paint(params, *shown, frame[None], kind))
        np.testing.assert_allclose(painting, wanted, **EXACT)
        labels = colors.decode(colors.denormalize(wanted[0]), palette)
        last.append((frame, colors.normalize(palette[labels])))
        if number == 1:
            first.append((frame, targets[1, 0]))
            last[-1] = first[-1]
            right = [np.stack(x)[None] for x in zip(*first, strict=True)]
            memory = predict.make_keep_fn(model, last=2)(memory, params, *right, kind)


@pytest.mark.parametrize(("dtype", "mib"), [("float32", 165.8), ("bfloat16", 82.9)])
def test_the_memory_of_a_prompt_is_what_documents_say(dtype, mib):
    """ViT-L at 448: 784 keys and values of width 1024 in 24 blocks, and of the target
    stream in 3 more; 28 tokens above the seam at 4 taps."""
    config = SegGPTConfig.of("l16", one_way=True, dtype=dtype)
    model, shown = small(), jax.ShapeDtypeStruct((1, 8, 448, 448, 3), jnp.float32)
    params = abstract_params(type(model)(config))
    encode = functools.partial(prompted.encode, c=config)
    kind = jax.ShapeDtypeStruct((1,), jnp.int32)
    tokens = jax.eval_shape(encode, params, images=shown, targets=shown, kind=kind)
    values = 27 * 2 * 784 * 1024 + 4 * 28 * 1024
    own = sum(leaf.size for leaf in tokens[:-1])
    assert own == 8 * values
    size = own // 8 * jnp.dtype(dtype).itemsize / 2**20
    assert size == pytest.approx(mib, abs=0.05)
    # The axis by which memories of videos take and give prompts.
    assert {leaf.shape[prompted.AXIS] for leaf in tokens[:-1]} == {8}
    assert {leaf.dtype for leaf in tokens[:-1]} == {jnp.dtype(dtype)}
