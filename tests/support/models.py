"""Small models and inputs shared by the tests of the model and of training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from seggpt_jax.models.seggpt import SegGPT, SegGPTConfig

SMALL = SegGPTConfig.of(
    "ti16", width=24, depth=4, heads=2, patch=4, canvas=(32, 16), pos_grid=3,
    merge_after=1, taps=(1, 3), decoder_width=8,
)  # fmt: skip


def small(**settings) -> SegGPT:
    """A model of 4 blocks over 8 x 4 patches, with some settings replaced."""
    return SegGPT(dataclasses.replace(SMALL, **settings))


def small_of(size: tuple[int, int]) -> tuple[SegGPT, dict]:
    """A model of 2 blocks whose images have a size (h, w), and random parameters."""
    config = SegGPTConfig(
        width=16, depth=2, heads=2, patch=8, canvas=(2 * size[0], size[1]), pos_grid=4,
        merge_after=0, taps=(0, 1), decoder_width=4,
    )  # fmt: skip
    model = SegGPT(config)
    return model, random_params(model)


def inputs(config: SegGPTConfig = SMALL, batch: int = 2, seed: int = 0):
    """Random canvases, random hidden patches, both kinds."""
    rng = np.random.default_rng(seed)
    shape = (batch, *config.canvas, 3)
    images, targets = rng.normal(size=(2, *shape)).astype(np.float32)
    hidden = rng.random((batch, *config.grid)) < 0.5
    kind = np.arange(batch, dtype=np.int32) % 2
    return jnp.asarray(images), jnp.asarray(targets), jnp.asarray(hidden), kind


def random_params(model: SegGPT, scale: float = 0.2, seed: int = 0):
    """Normal parameters everywhere: no zero or one hides a term."""
    init = jax.eval_shape(model.init, jax.random.key(0), *inputs(model.config))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype),
        init["params"],
    )
