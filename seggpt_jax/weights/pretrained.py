"""Reads parameters of every form: a release, a training run, or files of PyTorch."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from seggpt_jax.config import plain, shorten
from seggpt_jax.models.params import from_torch
from seggpt_jax.models.seggpt import SegGPTConfig
from seggpt_jax.runs import staging
from seggpt_jax.runs.buckets import BucketPath
from seggpt_jax.runs.paths import AnyPath
from seggpt_jax.runs.workdir import CONFIG
from seggpt_jax.trees import named_leaves
from seggpt_jax.weights import release, torch_bridge
from seggpt_jax.weights.files import (
    INDEX,
    SUFFIXES,
    TORCH,
    parts,
    read_json,
)
from seggpt_jax.weights.names import bundled, resolve
from seggpt_jax.weights.origins import complete


class Weights(NamedTuple):
    """A model's geometry and parameters.

    params: nested dicts of NumPy arrays. step: of the training run that wrote them; 0
    without a run. notes: for the user, one sentence for each change made while reading.
    name: as of `names.Model`.
    """

    config: SegGPTConfig
    params: Any
    step: int = 0
    notes: tuple[str, ...] = ()
    name: str = ""


def load(name: str | os.PathLike, raw: bool = False) -> Weights:
    """Reads parameters of any form.

    name: a model's name (`names.resolve`). A path is a release folder; a training run's
    workdir, its checkpoints or one of them; a folder or `.safetensors` file of
    transformers; a `.pth` file of SegGPT, Painter or MAE, or a folder that holds one.
    raw: of a training run, take the parameters even if the run kept their moving
    average. Raises OSError or ValueError that names the file.
    """
    model = resolve(name)
    weights = _load(model.path, raw)
    leaves = named_leaves(weights.params).items()
    if bad := [leaf for leaf, x in leaves if not np.isfinite(x).all()]:
        raise ValueError(
            f"{model.path} has values that are not finite, in {shorten(bad, 5)}"
        )
    return weights._replace(name=model.name)


def describe(config: SegGPTConfig, params: Any, step: int = 0) -> str:
    """Geometry and size of a model, in words."""
    count = sum(np.size(leaf) for leaf in named_leaves(params).values())
    h, w = config.half
    return (
        f"{config.depth} blocks of width {config.width}, {count / 1e6:,.1f} M "
        f"parameters, images of {h} x {w} pixels" + (f", step {step}" if step else "")
    )


def _load(path: AnyPath, raw: bool) -> Weights:
    if path.name.isdecimal() and (path / "state").is_dir():
        return _load_run(path.parent, raw, int(path.name))
    if isinstance(path, BucketPath):
        if path.is_dir() and not release.is_release(path) and _is_run(path):
            return _load_run(path, raw)
        return _load_copy(path, raw)
    if path.is_file():
        return _load_state(path, _read_file(path))
    if release.is_release(path):
        params, settings = release.load_params(path)
        return Weights(_read_config(path / CONFIG, settings), params)
    if _is_run(path):
        return _load_run(path, raw)
    if found := [p for p in parts(path) if p.name not in (CONFIG, INDEX)]:
        return _load_torch(path, found)
    remedy = ""
    if str(path) in bundled():
        remedy = f"; it hides the bundled model {path}: rename it, or go elsewhere"
    raise FileNotFoundError(
        f"{path} holds no model: neither a release nor a training run (with {CONFIG} "
        f"and checkpoints/) nor a folder of transformers nor a .pth{remedy}"
    )


def _load_copy(path: BucketPath, raw: bool) -> Weights:
    """Reads files of a bucket, which libraries of weights cannot open."""
    with staging.fetched(path) as here:
        try:
            return _load(here, raw)
        except (ValueError, OSError) as error:
            # The user knows the bucket's name.
            text = str(error).replace(str(here), str(path))
            kind = OSError if isinstance(error, OSError) else ValueError
            raise kind(text) from error


def _is_run(path: AnyPath) -> bool:
    """Whether a folder is a training run's workdir, or its checkpoints."""
    inside = (path / "checkpoints").is_dir() or any(
        p.name.isdecimal() for p in path.iterdir()
    )
    # `checkpoints` of the config may name a folder elsewhere.
    return inside or (path / CONFIG).is_file() and "stages" in read_json(path / CONFIG)


def _load_run(path: AnyPath, raw: bool, step: int | None = None) -> Weights:
    """Reads a training run, by its workdir or the checkpoints in it.

    Takes the moving average of the parameters if the run kept one, unless `raw`.
    """
    from seggpt_jax.weights import checkpoint  # late: orbax takes half a second

    workdir = path if (path / CONFIG).is_file() else path.parent
    if not (workdir / CONFIG).is_file():
        raise FileNotFoundError(f"{path} has no {CONFIG} beside its checkpoints")
    settings = read_json(workdir / CONFIG)
    if "model" not in settings:
        raise ValueError(f"{workdir / CONFIG} is no training run's: it has no 'model'")
    if settings.get("mode") == "tune":
        of = settings.get("checkpoint")
        model = f"take that of {of!r}" if of else "take the one it was tuned with"
        raise ValueError(
            f"{workdir} is a run that tuned a prompt (mode 'tune') and holds no model: "
            f"{model} as the model, and {workdir / 'prompt.safetensors'} as the prompt"
        )
    elsewhere = settings.get("checkpoints")
    if elsewhere is not None and not isinstance(elsewhere, str):
        raise ValueError(f"{workdir / CONFIG}: checkpoints {elsewhere!r} is no path")
    folder = elsewhere or workdir / "checkpoints" if path == workdir else path
    config = _read_config(workdir / CONFIG, settings["model"])
    try:
        which = "params" if raw else "ema"
        params, meta = checkpoint.restore_params(folder, which, step)
    except ValueError:  # this run kept no average
        params, meta = checkpoint.restore_params(folder, "params", step)
    return Weights(config, params, meta["step"])


def _load_torch(path: Path, files: list[Path]) -> Weights:
    """Reads a folder of PyTorch files.

    Tensors do not tell the taps and the merge; the config.json of transformers does.
    """
    weights = _load_state(path, _merge(files))
    if not (path / CONFIG).is_file():
        return weights
    settings = plain(read_json(path / CONFIG))
    names = {"merge_after": "merge_index", "taps": "intermediate_hidden_state_indices"}
    known = {ours: settings[name] for ours, name in names.items() if name in settings}
    config = _read_config(path / CONFIG, plain(weights.config) | known)
    return weights._replace(config=config)


def _read_config(path: AnyPath, settings: Any) -> SegGPTConfig:
    try:
        return SegGPTConfig.read(settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _load_state(path: Path, state: Mapping[str, np.ndarray]) -> Weights:
    try:
        state, filled = complete(state)
        config, params = from_torch(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    notes = [filled] if filled else []
    cls = state.get("pos_embed", state.get("model.embeddings.position_embeddings"))
    if cls is not None and np.any(cls[0, 0]):
        notes.append("the unused position of the cls token was dropped")
    return Weights(config, params, notes=tuple(notes))


def _merge(files: list[Path]) -> dict[str, np.ndarray]:
    """The tensors of several files together."""
    state: dict[str, np.ndarray] = {}
    doubled = []
    for file in files:
        tensors = _read_file(file)
        doubled += [name for name in tensors if name in state]
        state |= tensors
    if doubled:
        raise ValueError(f"{files[0].parent}: doubled tensors: {shorten(doubled)}")
    return state


def _read_file(path: Path) -> dict[str, np.ndarray]:
    if path.suffix in TORCH:
        state = torch_bridge.load_state(path)
    elif path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except (SafetensorError, OSError, AttributeError, KeyError) as error:
            # AttributeError and KeyError: a number type that NumPy does not have.
            raise ValueError(f"{path} cannot be read: {error}") from error
        if any("/" in name for name in state):
            raise ValueError(f"{path} is a part of a release: give its folder")
    else:
        choices = ", ".join(SUFFIXES)
        raise ValueError(f"{path} is not a file of weights ({choices})")
    return _unwrap(path, state)


def _unwrap(path: Path, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes the prefix `module.` of DistributedDataParallel from names."""
    names = [name.removeprefix("module.") for name in state]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(f"{path}: doubled tensors: {shorten(doubled)}")
    return dict(zip(names, state.values(), strict=True))
