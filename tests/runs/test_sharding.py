"""The mesh, the placement table, and that placing arrays changes no result."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.hlo import collectives
from seggpt_jax.models.seggpt import init_params
from seggpt_jax.runs import sharding
from seggpt_jax.training.optim import OptimSettings
from seggpt_jax.training.train_step import Stage, make_train_step, new_state
from seggpt_jax.trees import named_leaves
from tests.support.models import SMALL, inputs, random_params, small

STAGE = Stage(steps=10, lr=1e-2, max_foreground_weight=4.0, background_prob=0.5)
OPTIM = OptimSettings()


def make_batch(batch: int = 8, seed: int = 0):
    rng = np.random.default_rng(seed)
    shape = (batch, *SMALL.canvas)
    return {
        "images": rng.integers(0, 256, (*shape, 3), np.uint8),
        "targets": rng.integers(0, 256, (*shape, 3), np.uint8),
        "foreground": rng.random(shape) < 0.3,
        "valid": rng.random(shape) < 0.9,
        "background": rng.integers(0, 256, (batch, 3), np.uint8),
        "hidden": rng.random((batch, *SMALL.grid)) < 0.5,
        "kind": np.arange(batch, dtype=np.int32) % 2,
    }


def run_step(model, mesh, accumulate=2, batch=16):
    """State, loss and gradient norm after a step of so many rows on a mesh, and the
    compiled step."""
    with jax.set_mesh(mesh):
        return _run_step(model, mesh, accumulate, batch)


def _run_step(model, mesh, accumulate, batch):
    params, tx = random_params(model), STAGE.optimizer(OPTIM)
    state = jax.eval_shape(lambda params: new_state(params, tx, ema=True), params)
    places = sharding.place(state, mesh)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)
    state = dataclasses.replace(state, params=params, ema=params)
    state = jax.device_put(state, places)
    step = make_train_step(model, STAGE, OPTIM, start=0, accumulate=accumulate, ema=0.9)
    step = jax.jit(step, out_shardings=(places, None))
    rows = sharding.put_batch(mesh, make_batch(batch), batch)
    given = state, rows, sharding.put_key(mesh, 0)
    step = step.trace(*given).lower().compile()
    state, metrics = step(*given)
    return state, jax.device_get(metrics), step


def dropping(**settings):
    """Rows are dropped alike on every mesh."""
    return small(depth=2, merge_after=0, taps=(1,), drop_path=0.5, **settings)


@pytest.fixture(scope="module")
def alone():
    return run_step(dropping(scan=False), _mesh_of_one())


@pytest.mark.parametrize(
    "sizes",
    [(2, 2, 2), pytest.param((1, 8, 1), marks=pytest.mark.slow)],
)
def test_any_mesh_computes_the_same_step(alone, sizes):
    _same(alone, run_step(dropping(), sharding.make_mesh(*sizes)))


@pytest.mark.slow
def test_accumulation_with_remat_of_a_part_computes_the_same_step():
    whole = run_step(small(), _mesh_of_one(), 1, batch=8)
    parts = small(remat=("full", "none"))
    _same(whole, run_step(parts, _mesh_of_two(), 4, batch=8))


@pytest.mark.parametrize(
    "query_only", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_no_device_holds_all_pixels_over_tensor(query_only):
    """The query half and its halo are 5 rows of patches, which 4 devices cannot cut."""
    # One kind of block: the test is of the decoder.
    model = small(depth=2, taps=(1,), heads=4, decoder_width=32)
    images, targets, hidden, kind = inputs()
    params, rows = random_params(model), {"images": images, "targets": targets}

    def loss(params, rows):
        painting = model.apply(
            {"params": params}, rows["images"], rows["targets"], hidden, kind,
            query_only=query_only,
        )[0]  # fmt: skip
        return jnp.square(painting).mean(), painting

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (wanted, painting), gradient = step(params, rows)
    mesh = sharding.make_mesh(1, 1, 4, jax.devices()[:4])
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, sharding.place(params, mesh))
        step = step.trace(placed, sharding.put_rows(mesh, rows)).lower().compile()
        (ours, over), descent = step(placed, sharding.put_rows(mesh, rows))
    np.testing.assert_allclose(ours, wanted, rtol=1e-5)
    np.testing.assert_allclose(over, painting, atol=1e-5 * np.abs(painting).max())
    for name, leaf in named_leaves(gradient).items():
        np.testing.assert_allclose(
            named_leaves(descent)[name], leaf, atol=2e-5 * np.abs(leaf).max(),
            err_msg=name,
        )  # fmt: skip
    pixels = painting.size // 3 * model.config.decoder_width * 4  # bytes
    found = collectives(step.as_text())
    gathered = [one.size for one in found if one.kind == "all-gather"]
    assert max(gathered, default=0) < pixels / 2


def test_accumulated_gradients_are_summed_over_data_once(alone):
    """After the last micro-batch."""
    mesh = sharding.make_mesh(4, 2, 1)  # groups of 4 over `data`
    state, metrics, step = run_step(dropping(scan=False), mesh)
    _same(alone, (state, metrics, step))
    found = collectives(step.as_text())
    assert any(one.times > 1 for one in found)  # of `fsdp`
    over_data = [one for one in found if one.group > 2]
    assert {one.times for one in over_data} == {1}
    own = [math.prod(leaf.sharding.shard_shape(leaf.shape)) * 4
           for leaf in jax.tree.leaves(state.params)]  # fmt: skip
    scalars = 2 * 4  # the loss, and the count of pixels
    assert sum(one.size for one in over_data) == sum(own) + scalars


def _mesh_of_one():
    return jax.sharding.Mesh(
        np.array(jax.devices()[:1]).reshape(1, 1, 1), sharding.AXES
    )


def _mesh_of_two():
    return jax.sharding.Mesh(
        np.array(jax.devices()[:2]).reshape(2, 1, 1), sharding.AXES
    )


def _same(alone, other):
    (wanted_state, wanted, _), (state, metrics, _) = alone, other
    # One global sum over one global count: only the order of float32 sums differs.
    np.testing.assert_allclose(metrics["loss"], wanted["loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], wanted["grad_norm"], rtol=1e-5)
    ours, theirs = _gradients(state), _gradients(wanted_state)
    scale = max(np.abs(leaf).max() for leaf in theirs.values())
    for name, leaf in ours.items():
        np.testing.assert_allclose(leaf, theirs[name], atol=1e-5 * scale, err_msg=name)


def _gradients(state):
    """Adam's first moments, which are linear in the gradients. The parameters are not:
    where a gradient is 0 but for rounding (the bias of the keys), Adam steps on it."""
    leaves = named_leaves(state.opt_state)
    return {name: np.asarray(leaf) for name, leaf in leaves.items() if "/mu/" in name}


def test_large_parameters_are_cut_and_small_ones_are_not():
    mesh = sharding.make_mesh(1, 4, 2)
    params = jax.eval_shape(
        lambda: new_state(
            init_params(small(), jax.random.key(0)), STAGE.optimizer(OPTIM), False
        )
    )
    specs = {n: s.spec for n, s in named_leaves(sharding.place(params, mesh)).items()}
    assert specs["params/blocks/mlp/fc1/kernel"] == jax.P(None, "fsdp", "tensor")
    assert specs["params/norm/scale"] == jax.P()
    assert specs["step"] == jax.P()
    moments = [s for n, s in specs.items() if n.endswith("mu/blocks/mlp/fc1/kernel")]
    assert moments == [jax.P(None, "fsdp", "tensor")]


def test_axis_that_does_not_divide_names_the_parameter():
    mesh = sharding.make_mesh(1, 1, 8)  # 2 heads over 8 devices
    params = {"blocks": {"attn": {"qkv": {"kernel": jnp.zeros((4, 24, 3, 2, 12))}}}}
    with pytest.raises(ValueError, match="blocks/attn/qkv/kernel.*tensor = 8"):
        sharding.place(params, mesh)


@pytest.mark.parametrize(
    "sizes", [(3, 1, 1), (-1, -1, 1), (0, 1, 1), (2, 2, 1), (-2, 1, 1)]
)
def test_meshes_that_do_not_fit(sizes):
    with pytest.raises(ValueError, match="mesh"):
        sharding.make_mesh(*sizes)


def test_batch_must_divide():
    mesh = sharding.make_mesh(2, 4, 1)
    sharding.check_batch(mesh, 16, 2)
    with pytest.raises(ValueError, match="batch_size 12 is not divisible.*2 x 4 x 1"):
        sharding.check_batch(mesh, 12)
    with pytest.raises(ValueError, match="batch_size 8"):
        sharding.check_batch(mesh, 8, 2)
    sharding.check_batch(mesh, 48, 2, prompts=3)
    with pytest.raises(ValueError, match="accumulate x context.prompts = 2 x 4 x 2 x"):
        sharding.check_batch(mesh, 16, 2, prompts=3)
