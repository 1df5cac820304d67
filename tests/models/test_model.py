"""The model's structure: what may influence what, and which settings change nothing."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seggpt_jax.canvas import query_half
from seggpt_jax.models import transformer
from seggpt_jax.models.seggpt import SIZES, SegGPT, SegGPTConfig, init_params
from seggpt_jax.trees import named_leaves
from tests.support.models import SMALL, inputs, random_params, small

# Unused cls position of the released table: dropped here.
PARAMETERS = {"l16": 370_723_203 - 1024}


@functools.partial(jax.jit, static_argnames=("model", "train", "query_only", "prompts"))
def paint(model, params, *args, rngs=None, **settings):
    return model.apply({"params": params}, *args, rngs=rngs, **settings)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_the_shapes_it_should(size):
    """Shapes only: nothing is computed, so ViT-L costs nothing."""
    model = SegGPT(SegGPTConfig.of(size))
    args = jax.eval_shape(lambda: inputs(model.config))
    params = jax.eval_shape(model.init, jax.random.key(0), *args)["params"]
    painting, _ = jax.eval_shape(model.apply, {"params": params}, *args)
    assert painting.shape == (2, 896, 448, 3)
    assert painting.dtype == jnp.float32
    width, depth, heads = SIZES[size]
    qkv = params["blocks"]["attn"]["qkv"]["kernel"]
    assert qkv.shape == (depth, width, 3, heads, 64)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == PARAMETERS.get(size, count)


def test_hidden_target_pixels_have_no_influence():
    """What lies under the mask token is never read; the rest is (figure 2)."""
    model = small()
    images, targets, hidden, kind = inputs()

    def f(targets):
        out, _ = model.apply({"params": params}, images, targets, hidden, kind)
        return (out * jnp.cos(jnp.arange(out.size).reshape(out.shape))).sum()

    params = random_params(model)
    grad = np.abs(jax.jit(jax.grad(f))(targets)).sum(-1)
    pixels = np.repeat(np.repeat(hidden, 4, 1), 4, 2)
    assert (grad[pixels] == 0).all()
    assert (grad[~pixels] > 0).all()


def test_gradient_reaches_every_parameter():
    _, grads = loss_and_grads(scan=False, remat="none")
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.abs(leaf).max() > 0, path


@functools.cache
def loss_and_grads(**settings):
    # The second tap ends blocks of their own: stacked ones are more than one there.
    model = small(depth=3, merge_after=0, taps=(0, 2), **settings)
    args = inputs()
    loss = lambda p: (model.apply({"params": p}, *args)[0] ** 2).mean()  # noqa: E731
    return jax.jit(jax.value_and_grad(loss))(random_params(model))


@pytest.mark.parametrize(
    ("scan", "remat"),
    [
        (True, "dots"),
        *(pytest.param(*how, marks=pytest.mark.slow)
          for how in [(True, "full"), (False, "dots")]),
    ],
)  # fmt: skip
def test_scan_and_remat_change_nothing(scan, remat):
    wanted, grads = loss_and_grads(scan=False, remat="none")
    value, other_grads = loss_and_grads(scan=scan, remat=remat)
    # The same sums in another order.
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(other_grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize(
    "canvas",
    [(40, 12), pytest.param((16, 8), marks=pytest.mark.slow)],
)
def test_any_canvas_of_patches_runs(canvas):
    """Position tables are interpolated; the parameters do not depend on the canvas."""
    model = small()
    params = random_params(model)
    rows, cols = canvas
    args = (
        jnp.ones((1, rows, cols, 3)),
        jnp.ones((1, rows, cols, 3)),
        jnp.asarray(query_half((rows // 4, cols // 4)))[None],
        jnp.zeros(1, jnp.int32),
    )
    painting, _ = paint(model, params, *args)
    assert painting.shape == (1, rows, cols, 3)
    assert np.isfinite(painting).all()


def test_kind_changes_the_painting():
    model = small()
    images, targets, hidden, _ = inputs()
    params = random_params(model)
    a, b = (
        paint(model, params, images, targets, hidden, jnp.full(2, k))[0] for k in (0, 1)
    )
    assert np.abs(a - b).max() > 1e-3


def test_rows_of_a_batch_do_not_mix():
    model = small()
    args, params = inputs(), random_params(small())
    together = paint(model, params, *args)[0]
    alone = paint(model, params, *(x[1:2] for x in args))[0]
    # Other matrix shapes, other order of sums.
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)


def test_drop_path_only_while_training():
    model = small(drop_path=0.5)
    args, params = inputs(), random_params(small())
    rngs = {"dropout": jax.random.key(0)}
    still = paint(model, params, *args)[0]
    moved = paint(model, params, *args, train=True, rngs=rngs)[0]
    again = paint(model, params, *args, train=True, rngs=rngs)[0]
    np.testing.assert_array_equal(moved, again)
    assert np.abs(still - moved).max() > 1e-3
    np.testing.assert_array_equal(still, paint(small(), params, *args)[0])


def test_drop_path_rises_linearly_over_the_depth():
    """Branches that only add a constant, 1 for attention and 10 for the MLP: what a
    block adds to a row tells which of them were kept, and by how much they are scaled
    up for it."""
    how = {"depth": 3, "merge_after": 0, "taps": (2,), "scan": False, "canvas": (8, 4)}
    model, rows = small(drop_path=0.6, **how), 500
    params = jax.tree.map(np.zeros_like, random_params(model))
    for layer, value in (("attn", "proj"), 1.0), (("mlp", "fc2"), 10.0):
        biases = params["blocks"][layer[0]][layer[1]]
        biases["bias"] = np.full_like(biases["bias"], value)
    args = inputs(model.config, batch=rows)
    rngs = {"dropout": jax.random.key(0)}
    out = jax.device_get(paint(model, params, *args, train=True, rngs=rngs)[1])
    x = out["merged"]
    for i, rate in enumerate([0.0, 0.3, 0.6]):
        before = out["embedded"] if i == 0 else x
        x = out[f"block_{i}"]
        added = (x - before)[:, 0, 0, 0] * (1 - rate)
        kinds = np.round(added).astype(int)
        np.testing.assert_allclose(added, kinds, atol=1e-4)  # float32 sums up to 30
        assert set(kinds.tolist()) <= {0, 1, 10, 11}
        # 500 rows or more: a standard deviation of 0.022 at most.
        kept = np.mean(kinds % 10 == 1), np.mean(kinds >= 10)
        np.testing.assert_allclose(kept, 1 - rate, atol=0.06)
        # The two branches of a block are drawn apart.
        assert np.mean(kinds == 11) == pytest.approx((1 - rate) ** 2, abs=0.07)
        x = out["merged"] if i == 0 else x


def test_bfloat16_computes_in_bfloat16_and_returns_float32():
    args, params = inputs(), random_params(small(), scale=0.1)
    half, out = paint(small(dtype="bfloat16"), params, *args)
    assert half.dtype == jnp.float32
    assert out["tapped"].dtype == jnp.bfloat16
    # 8 bits of mantissa through 4 blocks, outputs of size 0.1.
    np.testing.assert_allclose(half, paint(small(), params, *args)[0], atol=0.05)


def test_intermediates_are_named():
    model = small(scan=False)
    _, out = jax.eval_shape(
        functools.partial(paint, model), random_params(model), *inputs()
    )
    assert {"embedded", "merged", "tapped", *(f"block_{i}" for i in range(4))} <= set(
        out
    )


def test_query_only_paints_the_same_pixels():
    args, params = inputs(), random_params(small())
    whole = paint(small(), params, *args)[0]
    half = paint(small(), params, *args, query_only=True)[0]
    # The same sums, in matrices of another shape.
    np.testing.assert_allclose(half, whole[:, 16:], atol=1e-5)


def ensemble_inputs(prompts: int, same: bool):
    """One query under several prompts, as rows of the batch."""
    images, targets, _, _ = inputs(batch=prompts)
    half = images.shape[1] // 2
    pick = (lambda x: jnp.broadcast_to(x[:1], x.shape)) if same else (lambda x: x)
    query = jnp.broadcast_to(images[:1, half:], images[:, half:].shape)
    images = jnp.concatenate([pick(images[:, :half]), query], 1)
    hidden = jnp.broadcast_to(
        jnp.asarray(query_half(SMALL.grid)), (prompts, *SMALL.grid)
    )
    return images, pick(targets), hidden, jnp.zeros(prompts, jnp.int32)


def test_ensemble_of_one_prompt_many_times_is_that_prompt():
    model, params = small(), random_params(small())
    args = ensemble_inputs(3, same=True)
    together = paint(model, params, *args, prompts=3)[0]
    alone = paint(model, params, *(x[:1] for x in args))[0]
    for row in together:
        np.testing.assert_allclose(row, alone[0], atol=1e-5)


def test_ensemble_rows_agree_and_order_does_not_matter():
    """docs/parity.md: all rows agree on the query half but its first pixel row."""
    model, params = small(), random_params(small())
    args = ensemble_inputs(3, same=False)
    painting = paint(model, params, *args, prompts=3)[0]
    query = painting[:, 17:]
    np.testing.assert_allclose(query[0], query[1], atol=1e-5)
    assert np.abs(painting[0, 16] - painting[1, 16]).max() > 1e-4
    swapped = paint(model, params, *(x[::-1] for x in args), prompts=3)[0]
    np.testing.assert_allclose(swapped[0, 17:], query[0], atol=1e-5)
    single = paint(model, params, *(x[:1] for x in args))[0]
    assert np.abs(single[0, 17:] - query[0]).max() > 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"canvas": (30, 16)}, "multiple of 8"),
        ({"canvas": (32, 18)}, "columns of 4"),
        ({"heads": 5}, "not a multiple of heads 5"),
        ({"taps": (3, 1)}, "must rise"),
        ({"taps": (1, 4)}, "within the 4 blocks"),
        ({"merge_after": 2}, "not come before merge_after"),
        ({"dtype": "float64"}, "one of float32, bfloat16"),
        ({"attention": "magic"}, "one of auto, xla"),
        ({"remat": "some"}, "one of none, dots, full"),
        ({"drop_path": 1.0}, r"in \[0, 1\)"),
    ],
)
def test_bad_settings_name_the_setting(settings, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **settings)


def test_remat_computes_more_of_a_block_again():
    """Nothing, then attention, then the products of linear layers too."""
    params = jax.tree.map(lambda x: x[:1], random_params(small())["blocks"])
    x, rates = jnp.ones((1, 8, 4, SMALL.width)), jnp.zeros(1)
    products = []
    for remat in ("none", "dots", "full"):
        how = dict(impl="xla", prompts=1, one_way=False, remat=remat, scan=False)

        def loss(p, how=how):
            return transformer.run_blocks(p, x, rates, None, **how)[0].sum()

        text = str(jax.make_jaxpr(jax.grad(loss))(params))
        products.append(text.count("dot_general["))
    assert products[0] < products[1] < products[2]


def test_initial_parameters():
    """Xavier: uniform up to the root of 6 over inputs plus outputs of a product; q, k
    and v are products of their own, and a convolution has nine inputs for each."""
    c = SMALL
    drawn = jax.jit(init_params, static_argnums=0)(small(), jax.random.key(0))
    found = named_leaves(drawn)
    fans = {
        "patch_embed": 3 * c.patch**2 + c.width,
        "blocks/attn/qkv": 2 * c.width,
        "blocks/attn/proj": 2 * c.width,
        "blocks/mlp/fc1": 5 * c.width,
        "blocks/mlp/fc2": 5 * c.width,
        "decoder/embed": 2 * c.width + c.patch**2 * c.decoder_width,
        "decoder/conv": 2 * 9 * c.decoder_width,
        "decoder/head": c.decoder_width + 3,
    }
    assert {f"{name}/kernel" for name in fans} == {n for n in found if "kernel" in n}
    for name, fan in fans.items():
        largest = abs(np.asarray(found[f"{name}/kernel"])).max()
        assert 0.8 < largest / np.sqrt(6 / fan) <= 1, name
    for name, leaf in found.items():
        if name.endswith("tokens") or name in ("mask_token", "pos_embed"):
            assert 0.012 < np.std(leaf) < 0.028, name  # 0.02, of 24 values or more
        elif not name.endswith("kernel"):
            assert (np.asarray(leaf) == name.endswith("scale")).all(), name
    assert abs(np.asarray(found["pos_embed"])).max() <= 0.04  # two deviations


def test_norms_add_a_millionth_to_the_variance():
    """Painter's eps: an input of deviation 0.001 has as much variance."""
    x = 1e-3 * jnp.asarray([[1.0, -1.0, 1.0, -1.0]])
    found = transformer.layer_norm(transformer.init_norm(4), x)
    np.testing.assert_allclose(found, x * 1e3 / np.sqrt(2), rtol=1e-5)


def test_norms_of_half_precision_have_statistics_in_float32():
    """A mean of 100 rounded to 8 bits would be off by a part of the deviation."""
    x = jnp.asarray(100 + 4 * np.random.default_rng(0).normal(size=(8, 256)))
    x = x.astype(jnp.bfloat16)
    found = transformer.layer_norm(transformer.init_norm(256), x)
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float64), exact, atol=0.02)


def test_gelu_and_its_gradient_are_exact():
    x = np.linspace(-9, 9, 1001)
    below = np.asarray([0.5 * math.erfc(-each / math.sqrt(2)) for each in x])
    slope = below + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    for dtype, atol in ((jnp.float32, 2e-6), (jnp.bfloat16, 0.04)):
        given = jnp.asarray(x, dtype)
        found = transformer.gelu(given)
        grads = jax.grad(lambda x: transformer.gelu(x).astype(jnp.float32).sum())(given)
        assert found.dtype == grads.dtype == dtype
        # float32 rounds 1 + erf, bfloat16 numbers up to 9 to 8 bits.
        np.testing.assert_allclose(np.asarray(found, np.float64), x * below, atol=atol)
        np.testing.assert_allclose(np.asarray(grads, np.float64), slope, atol=atol)


@pytest.mark.parametrize(
    "size, taps",
    [("ti16", (2, 5, 8, 11)), ("l16", (5, 11, 17, 23)), ("g16", (9, 19, 29, 39))],
)
def test_taps_are_at_the_quarters_of_the_depth(size, taps):
    """Of the released ViT-L blocks 5, 11, 17 and 23; it merges after block 2."""
    config = SegGPTConfig.of(size)
    assert config.taps == taps and config.merge_after == 2


def test_unknown_size_and_setting():
    with pytest.raises(ValueError, match="b16, g16, l16, s16, ti16"):
        SegGPTConfig.of("xl16")
    with pytest.raises(
        ValueError, match="model.widht is unknown; did you mean 'width'"
    ):
        SegGPTConfig.of("l16", widht=3)
