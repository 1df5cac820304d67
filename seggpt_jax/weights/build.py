"""The model that a config describes, and weights placed on the devices to fit it.

Training, evaluation, tuning, the `Predictor` and the tools all come here for a model.
"""

import os
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from seggpt_jax.config import plain
from seggpt_jax.models.resample import linear_matrix
from seggpt_jax.models.seggpt import INITIALIZERS, SegGPT, SegGPTConfig
from seggpt_jax.runs import sharding
from seggpt_jax.trees import lines, map_named, named_leaves
from seggpt_jax.weights import pretrained


def build_model(settings: Any, weights: pretrained.Weights | None = None) -> SegGPT:
    """The model of `config.model`: a row of `SIZES`, with the other settings on top.

    weights: their geometry is used if the settings have no `size`. Raises ValueError
    that names the setting.
    """
    if "size" in settings:
        return SegGPT(SegGPTConfig.read(settings))
    if weights is None:
        raise ValueError("setting model.size = None: must be given")
    return SegGPT(SegGPTConfig.read(plain(weights.config) | plain(settings)))


def abstract_params(model: SegGPT) -> Any:
    """Shapes and types of the parameters that `init_params` gives. The forward pass is
    not traced: it would take most of the time of loading."""

    def draw():
        key = jax.random.key(0)
        return {name: init(key, model.config) for name, init in INITIALIZERS.items()}

    return jax.eval_shape(draw)


def load_model(
    name: str | os.PathLike, **settings: Any
) -> tuple[SegGPT, pretrained.Weights]:
    """Reads weights by a model's name (`pretrained.load`) -> their model, the weights.

    settings: of the model; they replace the settings of the weights. The parameters
    stay on the host: `inference_params` or `place_params` put them on devices. Raises
    what `pretrained.load` and `check_fit` do.
    """
    weights = pretrained.load(name)
    _log_notes(weights)
    model = build_model(settings, weights)
    weights = resize_tables(weights, model.config)
    check_fit(weights, abstract_params(model))
    return model, weights


def inference_params(model: SegGPT, params: Any) -> Any:
    """Parameters on the first device, in the types that a forward pass computes in.

    Kernels are cast to `model.dtype`, as the model casts them at every use: the numbers
    are the same, and bfloat16 takes half the memory. Training needs float32.
    """

    def cast(name: str, leaf: Any) -> Any:
        is_kernel = name.endswith("kernel")
        return np.asarray(leaf).astype(model.config.dtype) if is_kernel else leaf

    return jax.device_put(map_named(cast, params))


def place_params(weights: pretrained.Weights, model: SegGPT, mesh: Mesh) -> Any:
    """Places weights on the mesh, in the model's types, with tables of its canvas.

    Raises what `check_fit` does.
    """
    _log_notes(weights)
    weights = resize_tables(weights, model.config)
    params, abstract = weights.params, abstract_params(model)
    check_fit(weights, abstract)
    cast = jax.tree.map(lambda x, leaf: np.asarray(x, leaf.dtype), params, abstract)
    return sharding.put(cast, sharding.place(abstract, mesh))


def resize_tables(
    weights: pretrained.Weights, config: SegGPTConfig
) -> pretrained.Weights:
    """Weights whose tables of relative positions are those of another `model.canvas`,
    interpolated as the model does it for canvases that its tables are not made for."""
    if weights.config.canvas == config.canvas or weights.config.patch != config.patch:
        return weights
    grid = dict(zip(("rel_pos_h", "rel_pos_w"), config.grid, strict=True))

    def resized(name: str, leaf: Any) -> Any:
        table = name.rpartition("/")[2]
        if table not in grid:
            return leaf
        length = 2 * grid[table] - 1
        return np.einsum("st,ntk->nsk", linear_matrix(leaf.shape[1], length), leaf)

    params = map_named(resized, weights.params)
    own = weights.config.replace(canvas=config.canvas)
    return weights._replace(params=params, config=own)


def check_fit(weights: pretrained.Weights, abstract: Any) -> None:
    """Raises ValueError that lists names and shapes that differ from the model's."""
    ours, theirs = named_leaves(abstract), named_leaves(weights.params)
    problems = [f"missing: {name}" for name in ours if name not in theirs]
    problems += [f"unexpected: {name}" for name in theirs if name not in ours]
    problems += [
        f"shape: {name} is {theirs[name].shape}, the model's is {leaf.shape}"
        for name, leaf in ours.items()
        if name in theirs and theirs[name].shape != leaf.shape
    ]
    if problems:
        raise ValueError(f"{weights.name} does not fit the model:\n  {lines(problems)}")


def _log_notes(weights: pretrained.Weights) -> None:
    for note in weights.notes:
        logging.info("%s: %s", weights.name, note)
