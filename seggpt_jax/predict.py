"""Prediction: paint the query's target from one prompt or several."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from seggpt_jax.models import prompted
from seggpt_jax.models.seggpt import SegGPT

Array = jax.Array | np.ndarray
ENSEMBLES = ("none", "feature", "spatial", "both")
_SIDE = 2  # of the grids of "both": the only size the paper gives scores for


class PredictFns(NamedTuple):
    """Prediction in two steps, so that prompts are encoded once.

    encode_prompts: `(params, images [b, p, h, w, 3], targets, kind [b]) -> prompts`.
    predict: `(params, prompts, queries [b, h, w, 3]) -> painting [b, h, w, 3]`; the
    prompts of one row (b = 1) serve any number of queries.
    """

    encode_prompts: Callable[..., prompted.Prompts]
    predict: Callable[..., jax.Array]


def make_predict_fns(model: SegGPT, ensemble: str = "feature") -> PredictFns:
    """The jitted two-step form of `make_predict_fn`."""
    if ensemble not in ENSEMBLES:
        raise ValueError(f"ensemble {ensemble!r} is not one of {', '.join(ENSEMBLES)}")
    return PredictFns(
        jax.jit(functools.partial(_encode, model, ensemble)),
        jax.jit(functools.partial(_paint, model)),
    )


def make_predict_fn(
    model: SegGPT, ensemble: str = "feature"
) -> Callable[..., jax.Array]:
    """A jitted `fn(params, images, targets, queries, kind) -> painting`.

    images, targets: prompts `[b, p, h, w, 3]`; queries `[b, h, w, 3]`, all
    ImageNet-normalised; kind `[b]`. Returns `[b, h, w, 3]`, normalised, float32.
    ensemble: what makes one of several prompts (paper section 3.4). `feature` averages
    the query's features over them after every attention; `spatial` tiles them into one
    grid of as many rows as columns, made as small as one prompt; `both` averages over
    grids of 2 x 2; `none` takes one prompt only. Cells left over show prompts again.
    """
    encode_prompts, predict = make_predict_fns(model, ensemble)

    def fn(params, images, targets, queries, kind):
        prompts = encode_prompts(params, images, targets, kind)
        return predict(params, prompts, queries)

    return jax.jit(fn)


def _encode(
    model: SegGPT,
    ensemble: str,
    params,
    images: Float[Array, "b p h w 3"],
    targets: Float[Array, "b p h w 3"],
    kind: Int[Array, " b"],
) -> prompted.Prompts:
    count = images.shape[1]
    if count > 1 and ensemble == "none":
        raise ValueError(
            f"{count} prompts need an ensemble: {', '.join(ENSEMBLES[1:])}"
        )
    if count > 1 and ensemble in ("spatial", "both"):
        side = _SIDE if ensemble == "both" else math.ceil(math.sqrt(count))
        images = tile(images, side, "linear")
        targets = tile(targets, side, "nearest")
    encoded = prompted.encode(params, model.config, images, targets, kind)
    weight = jnp.full(images.shape[:2], 1 / images.shape[1])
    return prompted.join(params, model.config, encoded, weight)


def _paint(
    model: SegGPT, params, prompts: prompted.Prompts, queries: Float[Array, "b h w 3"]
) -> Float[Array, "b h w 3"]:
    return prompted.paint(params, model.config, prompts, queries)


def tile(x: Float[Array, "b p h w c"], side: int, method: str):
    """Grids of `side` x `side` prompts, each resized to one prompt: `[b, g, h, w, c]`.

    The last grid is filled up with prompts from the first on.
    """
    b, count, h, w, c = x.shape
    grids = math.ceil(count / side**2)
    cells = jnp.asarray(x)[:, np.arange(grids * side**2) % count]
    cells = cells.reshape(b, grids, side, side, h, w, c).transpose(0, 1, 2, 4, 3, 5, 6)
    whole = cells.reshape(b, grids, side * h, side * w, c)
    return jax.image.resize(whole, (b, grids, h, w, c), method)
