"""Small models and inputs shared by the tests of the model and of training."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from seggpt_jax.canvas import query_half, stitch
from seggpt_jax.models.seggpt import SegGPT, SegGPTConfig
from seggpt_jax.weights import build, release

abstract_params = functools.cache(build.abstract_params)

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
        merge_after=1, taps=(1,), decoder_width=4, scan=False,
    )  # fmt: skip
    model = SegGPT(config)
    return model, random_params(model)


def write_release(folder) -> str:
    """The folder of a released model of 2 blocks for images of 32 x 32, which costs
    little to compile and less to run. Its parameters are random."""
    model, params = small_of((32, 32))
    release.export_params(folder, params, dataclasses.asdict(model.config))
    return str(folder)


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
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype),
        abstract_params(model),
    )


def episode(b: int, p: int, size=(16, 16), seed: int = 0):
    """Prompts' images and targets `[b, p, h, w, 3]`, queries, kinds of both sorts."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=(*shape, *size, 3)).astype(np.float32)  # noqa: E731
    kind = ((np.arange(b) + seed) % 2).astype(np.int32)
    return draw(b, p), draw(b, p), draw(b), kind


@functools.partial(jax.jit, static_argnums=(0, 1))
def applied(model, prompts, params, *args):
    return model.apply({"params": params}, *args, prompts=prompts)


def definition(model, params, images, targets, queries, kind):
    """The plain model on p copies of every query, as the released script does it."""
    b, p, h, w, _ = images.shape
    prompts, painted = (x.reshape(b * p, h, w, 3) for x in (images, targets))
    canvases = stitch(prompts, np.repeat(queries, p, 0)), stitch(painted, painted)
    grid = (2 * h // model.config.patch, w // model.config.patch)
    hidden = jnp.broadcast_to(jnp.asarray(query_half(grid)), (b * p, *grid))
    painting, _ = applied(model, p, params, *canvases, hidden, np.repeat(kind, p))
    return painting.reshape(b, p, 2 * h, w, 3)[:, 0, h:]
