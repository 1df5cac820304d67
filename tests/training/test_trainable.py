"""Training a part of a model: `optim.trainable`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seggpt_jax import canvas
from seggpt_jax.training.optim import OptimSettings, describe, make_optimizer
from seggpt_jax.training.train_step import Stage, make_train_step, new_state
from seggpt_jax.trees import named_leaves
from tests.support.models import random_params, small

# One kind of block, which compiles in half the time.
MODEL = small(depth=2, taps=(1,))
PARAMS = jax.device_get(random_params(MODEL))


def batch(model):
    rng = np.random.default_rng(0)
    shape = (2, *model.config.canvas)
    return {
        "images": rng.integers(0, 256, (*shape, 3), np.uint8),
        "targets": rng.integers(0, 256, (*shape, 3), np.uint8),
        "foreground": np.ones(shape, bool),
        "valid": np.ones(shape, bool),
        "background": np.zeros((2, 3), np.uint8),
        "hidden": np.broadcast_to(
            canvas.query_half(model.config.grid), (2, *model.config.grid)
        ),
        "kind": np.zeros(2, np.int32),
    }


@pytest.mark.parametrize(
    "pattern",
    [".*(bias|scale)", pytest.param("decoder/.*", marks=pytest.mark.slow)],
)
def test_only_what_is_trainable_changes(pattern):
    settings = OptimSettings(trainable=pattern)
    stage, free = Stage(steps=4, lr=1e-2), 0
    tx = stage.optimizer(settings)
    state = new_state(jax.tree.map(jnp.asarray, PARAMS), tx, ema=True)
    step = jax.jit(
        make_train_step(MODEL, stage, settings, start=0, accumulate=2, ema=0.5)
    )
    for _ in range(2):
        state, _ = step(state, batch(MODEL), jax.random.key(0))
    before, after, ema = map(named_leaves, (PARAMS, state.params, state.ema))
    table = describe(PARAMS, settings).splitlines()[1:]
    for (name, leaf), row in zip(before.items(), table, strict=True):
        changed = not np.array_equal(leaf, after[name])
        frozen = "frozen" in row
        assert changed != frozen, name
        assert np.array_equal(leaf, ema[name]) == frozen, name
        free += not frozen
    assert 0 < free < len(before)
    moments = [x for x in jax.tree.leaves(tx.init(PARAMS)) if x.ndim]
    assert len(moments) == 2 * free


def test_by_default_the_optimizer_is_as_without_the_setting():
    ours = make_optimizer(OptimSettings(), 1e-3).init(PARAMS)
    assert len([x for x in jax.tree.leaves(ours) if x.ndim]) == 2 * len(
        jax.tree.leaves(PARAMS)
    )


def test_wrong_patterns():
    with pytest.raises(ValueError, match="trainable = 'decode': must be a regular .*"):
        make_optimizer(OptimSettings(trainable="decode"), 1e-3).init(PARAMS)
    with pytest.raises(ValueError, match=r"optim.trainable = '\(': must be a regular"):
        OptimSettings(trainable="(")
