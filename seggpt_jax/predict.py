"""Prediction: paint the query's target from one prompt or several."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from seggpt_jax.canvas import query_half, stitch
from seggpt_jax.models.seggpt import SegGPT

Array = jax.Array | np.ndarray
ENSEMBLES = ("none", "feature")


def make_predict_fn(
    model: SegGPT, ensemble: str = "feature"
) -> Callable[..., jax.Array]:
    """A jitted `fn(params, images, targets, queries, kind) -> painting`.

    images, targets: prompts `[b, p, h, w, 3]`; queries `[b, h, w, 3]`, all
    ImageNet-normalised; kind `[b]`. Returns `[b, h, w, 3]`, normalised, float32.
    With more than one prompt, `feature` averages the query's features over the prompts
    after every attention (paper section 3.4); `none` takes one prompt only.
    """
    if ensemble not in ENSEMBLES:
        raise ValueError(f"ensemble {ensemble!r} is not one of {', '.join(ENSEMBLES)}")
    return jax.jit(functools.partial(_predict, model, ensemble))


def _predict(
    model: SegGPT,
    ensemble: str,
    params,
    images: Float[Array, "b p h w 3"],
    targets: Float[Array, "b p h w 3"],
    queries: Float[Array, "b h w 3"],
    kind: Int[Array, " b"],
) -> Float[Array, "b h w 3"]:
    b, p, h, w, _ = images.shape
    if p > 1 and ensemble == "none":
        raise ValueError(f"{p} prompts need an ensemble; choices: {ENSEMBLES[1:]}")
    repeated = jnp.repeat(queries, p, axis=0)
    prompts, painted = (x.reshape(b * p, h, w, 3) for x in (images, targets))
    # The query half of the target is hidden: what stands there is never read.
    canvases = stitch(prompts, repeated), stitch(painted, painted)
    patch = model.config.patch
    grid = (2 * h // patch, w // patch)
    hidden = jnp.broadcast_to(jnp.asarray(query_half(grid)), (b * p, *grid))
    kinds = jnp.repeat(kind, p, axis=0)
    painting, _ = model.apply(
        {"params": params}, *canvases, hidden, kinds, prompts=p, query_only=True
    )
    # All rows of an ensemble agree but for the pixels at the seam; the release and we
    # take the first prompt's.
    return painting.reshape(b, p, h, w, 3)[:, 0]
