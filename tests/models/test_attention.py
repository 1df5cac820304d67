"""The definition of attention, against a loop over tokens written down separately,
and every implementation against the definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from seggpt_jax.models import attention, kernels
from seggpt_jax.models.attention import relative_positions
from seggpt_jax.runs.sharding import make_mesh

attend = jax.jit(attention.attend, static_argnames="impl")

# Kernels for hardware that is not here: cuDNN's by jax's own body of the same function,
# the TPU's by the interpreter of its language.
RUNNABLE = {
    "heads": kernels.attend_heads,
    "cudnn": functools.partial(kernels.attend_cudnn, implementation="xla"),
    "cudnn_bias": functools.partial(kernels.attend_cudnn_bias, implementation="xla"),
    "splash": functools.partial(kernels.attend_splash, interpret=True),
}


def by_hand(q, k, v, table_h, table_w, grid):
    """One head, one token at a time, in float64."""
    rows, cols = grid
    out = np.zeros((rows * cols, v.shape[-1]))
    for i in range(rows * cols):
        logits = np.zeros(rows * cols)
        for j in range(rows * cols):
            dy, dx = i // cols - j // cols, i % cols - j % cols
            bias = q[i] @ table_h[dy + rows - 1] + q[i] @ table_w[dx + cols - 1]
            logits[j] = q[i] @ k[j] / np.sqrt(q.shape[-1]) + bias
        weights = np.exp(logits - logits.max())
        out[i] = weights / weights.sum() @ v
    return out


@pytest.mark.parametrize("grid", [(4, 2), (3, 5), (1, 1), (6, 3)])
def test_definition_equals_a_loop_over_tokens(grid):
    rng = np.random.default_rng(0)
    t, width, heads = grid[0] * grid[1], 5, 2
    q, k, v = rng.normal(size=(3, 2, heads, t, width))
    tables = [rng.normal(size=(2 * n - 1, width)) for n in grid]
    rel = [relative_positions(jnp.asarray(t, jnp.float32), n)
           for t, n in zip(tables, grid, strict=True)]  # fmt: skip
    f32 = [jnp.asarray(x, jnp.float32) for x in (q, k, v)]
    out = attend(*f32, *rel)
    for b in range(2):
        for n in range(heads):
            wanted = by_hand(q[b, n], k[b, n], v[b, n], *tables, grid)
            # float32 against float64, logits up to about 20.
            np.testing.assert_allclose(out[b, n], wanted, atol=1e-5)


@pytest.mark.parametrize("impl", [n for n in attention.IMPLEMENTATIONS if n != "xla"])
@pytest.mark.parametrize("rows", [0, 3])
def test_implementations_equal_the_definition_and_its_gradients(impl, rows):
    """Also where only the lower rows of the canvas ask."""
    rng = np.random.default_rng(4)
    h, w, width = 6, 3, 8
    q, k, v = (jnp.asarray(x, jnp.float32)
               for x in rng.normal(size=(3, 2, 2, h * w, width)))  # fmt: skip
    q = q[:, :, rows * w :]
    rel_h, rel_w = (
        relative_positions(
            jnp.asarray(rng.normal(size=(2 * n - 1, width)), jnp.float32), n
        )
        for n in (h, w)
    )
    args = q, k, v, rel_h[rows:], rel_w
    weight = jnp.asarray(rng.normal(size=q.shape), jnp.float32)

    def both(function):
        def loss(*args):
            out = function(*args)
            return (out * weight).sum(), out

        return jax.jit(jax.value_and_grad(loss, range(5), has_aux=True))(*args)

    (_, wanted), wanted_grads = both(kernels.attend_xla)
    (_, got), grads = both(RUNNABLE[impl])
    # float32 sums in another order, on values up to 3.
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    for ours, theirs in zip(grads, wanted_grads, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-5)


def test_blocks_of_queries_change_nothing(monkeypatch):
    """Heads whose logits do not fit the cache at once."""
    for logits, blocks in ((1, 6), (40, 3), (108, 1), (1000, 1)):
        assert kernels.equal_parts(6, 18, logits) == blocks
    whole = kernels.attend_heads(*random_heads())
    monkeypatch.setattr(kernels, "_CACHED", 2 * 3 * 18)  # two of six rows of three
    loops = jax.make_jaxpr(kernels.attend_heads)(*random_heads())
    assert "length=3" in str(loops)
    np.testing.assert_allclose(kernels.attend_heads(*random_heads()), whole, atol=1e-6)


def test_attention_to_parts_of_the_keys_is_merged():
    """Exactly also where one part has nearly all the weight."""
    q, k, v, rel_h, rel_w = random_heads()
    q = q.at[:, :, 0].multiply(40)
    whole = kernels.attend_xla(q, k, v, rel_h, rel_w)
    above, below = (
        attention.attend_summed(q, k[:, :, keys], v[:, :, keys], rel_h[:, rows], rel_w)
        for keys, rows in ((slice(6), slice(2)), (slice(6, None), slice(2, None)))
    )
    merged = kernels.merge_keys(*above, *below)
    np.testing.assert_allclose(merged, whole, atol=1e-5)
    np.testing.assert_allclose(kernels.merge_keys(*below, *above), whole, atol=1e-5)


def random_heads(h: int = 6, w: int = 3, width: int = 8):
    """q, k and v of two rows of two heads, and relative positions."""
    rng = np.random.default_rng(6)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    q, k, v = draw(3, 2, 2, h * w, width)
    tables = (draw(2 * n - 1, width) for n in (h, w))
    return q, k, v, *map(relative_positions, tables, (h, w))


def test_a_subset_of_query_rows_sees_all_keys():
    """The query half alone may attend to the whole canvas."""
    rng = np.random.default_rng(1)
    rows, cols, width = 6, 3, 4
    q, k, v = (jnp.asarray(x, jnp.float32)
               for x in rng.normal(size=(3, 1, 2, rows * cols, width)))  # fmt: skip
    rel_h = relative_positions(
        jnp.asarray(rng.normal(size=(11, width)), jnp.float32), rows
    )
    rel_w = relative_positions(
        jnp.asarray(rng.normal(size=(5, width)), jnp.float32), cols
    )
    whole = attend(q, k, v, rel_h, rel_w)
    half = attend(q[:, :, 9:], k, v, rel_h[3:], rel_w)
    np.testing.assert_allclose(half, whole[:, :, 9:], atol=1e-6)


def test_bfloat16_stays_close_to_float32():
    rng = np.random.default_rng(2)
    q, k, v = (jnp.asarray(x, jnp.float32) for x in rng.normal(size=(3, 1, 2, 8, 16)))
    rel = [0.1 * jnp.ones((4, 4, 16)), 0.1 * jnp.ones((2, 2, 16))]
    half = attend(*(x.astype(jnp.bfloat16) for x in (q, k, v, *rel)))
    assert half.dtype == jnp.bfloat16
    # 8 bits of mantissa on outputs of size 1.
    np.testing.assert_allclose(
        half.astype(jnp.float32), attend(q, k, v, *rel), atol=0.05
    )


def test_shift_of_all_logits_changes_nothing():
    """softmax is invariant to a constant along keys: equal relative rows drop out."""
    rng = np.random.default_rng(3)
    q, k, v = (jnp.asarray(x, jnp.float32) for x in rng.normal(size=(3, 1, 1, 8, 4)))
    zero = jnp.zeros((4, 4, 4)), jnp.zeros((2, 2, 4))
    constant = jnp.ones((4, 4, 4)), zero[1]
    np.testing.assert_allclose(
        attend(q, k, v, *constant), attend(q, k, v, *zero), atol=1e-6
    )


def test_auto_takes_the_fastest_of_the_backend_and_says_so_once(caplog):
    attention.choose.cache_clear()
    x, rel = jnp.zeros((1, 1, 4, 2)), jnp.zeros((2, 2, 2))
    with caplog.at_level("INFO", logger="absl"):
        for _ in range(2):
            attention.attend(x, x, x, rel, rel)
    assert [r.getMessage() for r in caplog.records] == [
        "attention on cpu: heads (the fastest measured)"
    ]
    assert attention.choose("unheard of") == "xla"


@pytest.mark.parametrize(
    "kind, dtype, width, impl",
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 64, "cudnn"),
        ("NVIDIA GH200 480GB", "bfloat16", 64, "cudnn"),
        ("NVIDIA H100 80GB HBM3", "float32", 64, "xla"),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 248, "cudnn"),  # 248 + 6 + 2 = 256
        ("NVIDIA H100 80GB HBM3", "bfloat16", 249, "xla"),
        # No backward pass of cuDNN for the widened heads of ViT-L.
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 64, "xla"),
        ("NVIDIA B200", "bfloat16", 64, "xla"),
    ],
)
def test_auto_takes_cudnn_where_it_can_go_backward(
    kind, dtype, width, impl, monkeypatch
):
    attention.choose.cache_clear()
    monkeypatch.setattr(attention, "device", lambda: ("gpu", kind))
    called = []

    def implementation(name):
        return lambda q, *_: called.append(name) or q

    monkeypatch.setattr(
        attention, "IMPLEMENTATIONS",
        {name: implementation(name) for name in attention.IMPLEMENTATIONS},
    )  # fmt: skip
    x, rel_h, rel_w = (
        jnp.zeros(shape, dtype)
        for shape in ((1, 1, 12, width), (6, 6, width), (2, 2, width))
    )
    attention.attend(x, x, x, rel_h, rel_w)
    assert called == [impl]


@pytest.mark.parametrize("impl", ["xla", "heads", "splash"])
@pytest.mark.parametrize(
    "sizes", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)]
)
def test_every_device_runs_its_own_rows_and_heads(impl, sizes, monkeypatch):
    monkeypatch.setattr(
        attention, "IMPLEMENTATIONS", {"xla": kernels.attend_xla} | RUNNABLE
    )
    monkeypatch.setattr(attention, "_NEEDS", {})
    rng = np.random.default_rng(5)
    q, k, v = rng.normal(size=(3, 8, 2, 8, 4)).astype(np.float32)
    rel = [rng.normal(size=(n, n, 4)).astype(np.float32) for n in (4, 2)]
    function = functools.partial(attention.attend, impl=impl)
    wanted = kernels.attend_xla(q, k, v, *rel)
    mesh = make_mesh(*sizes)
    with jax.set_mesh(mesh):
        cut = NamedSharding(mesh, P(("data", "fsdp"), "tensor"))
        args = [jax.device_put(x, cut) for x in (q, k, v)]
        args += [jax.device_put(x, NamedSharding(mesh, P())) for x in rel]
        compiled = jax.jit(function).lower(*args).compile()
        np.testing.assert_allclose(compiled(*args), wanted, atol=1e-5)
        assert "all-" not in compiled.as_text()  # all-gather, all-reduce
        one = jax.jit(function)(*(x[:1] for x in (q, k, v)), *rel)  # not divisible
    np.testing.assert_allclose(one, wanted[:1], atol=1e-5)


def test_every_device_sums_its_own_rows_and_heads():
    rng = np.random.default_rng(5)
    q, k, v = rng.normal(size=(3, 8, 2, 8, 4)).astype(np.float32)
    rel = [rng.normal(size=(n, n, 4)).astype(np.float32) for n in (4, 2)]
    wanted = kernels.attend_heads_summed(q, k, v, *rel)
    mesh = make_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        cut = NamedSharding(mesh, P(("data", "fsdp"), "tensor"))
        args = [jax.device_put(x, cut) for x in (q, k, v)]
        args += [jax.device_put(x, NamedSharding(mesh, P())) for x in rel]
        found = jax.jit(attention.attend_summed)(*args)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_unknown_implementation_names_the_choices():
    x = jnp.zeros((1, 1, 4, 2))
    rel = jnp.zeros((2, 2, 2))
    with pytest.raises(ValueError, match="'flash' is not one of auto, xla"):
        attend(x, x, x, rel, rel, impl="flash")


@pytest.mark.parametrize("impl", ["cudnn", "cudnn_bias", "splash"])
def test_a_kernel_without_its_hardware_is_refused(impl):
    x, rel = jnp.zeros((1, 1, 4, 2)), jnp.zeros((2, 2, 2))
    with pytest.raises(ValueError, match=f"{impl}' is for .* this is float32 on cpu"):
        attend(x, x, x, rel, rel, impl=impl)


def test_gradients_reach_the_tables():
    rng = np.random.default_rng(4)
    q = jnp.asarray(rng.normal(size=(1, 1, 8, 4)), jnp.float32)

    def f(table):
        rel = relative_positions(table, 4), jnp.zeros((2, 2, 4))
        return (attend(q, q, q, *rel) ** 2).sum()

    assert (np.abs(jax.jit(jax.grad(f))(jnp.ones((7, 4)))).sum(1) > 0).all()


@pytest.mark.parametrize("impl", ["xla", "heads"])
def test_logits_of_half_precision_are_float32(impl):
    """Of size 30 they would be off by a tenth with 8 bits, and so would weights."""
    rng = np.random.default_rng(0)
    q, k, v = (
        jnp.asarray(x, jnp.bfloat16) for x in 5 * rng.normal(size=(3, 1, 1, 16, 16))
    )
    none = jnp.zeros((4, 4, 16), jnp.bfloat16)
    found = attention.attend(q, k, v, none, none, impl=impl)
    q, k, v = (np.asarray(x, np.float64)[0, 0] for x in (q, k, v))
    weights = np.exp(q @ k.T / 4 - (q @ k.T / 4).max(-1, keepdims=True))
    exact = weights / weights.sum(-1, keepdims=True) @ v
    # Weights and results are rounded to 8 bits: 0.004 of values up to 15.
    np.testing.assert_allclose(np.asarray(found, np.float64)[0, 0], exact, atol=0.1)
