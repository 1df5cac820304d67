"""Tuned prompts as one small file: arrays, class names, and the model they belong to.

A learned prompt is not a picture: its values go beyond 0..255, and it works only
with the weights that it was tuned for.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from seggpt_jax.data.sample import CATEGORY, INSTANCE
from seggpt_jax.prompts.read import Prompts
from seggpt_jax.runs import paths, staging

SUFFIX = ".safetensors"
_FORMAT = "seggpt_jax prompt 1"
# Errors raised by a truncated or an altered file.
_UNREADABLE = (SafetensorError, OSError, KeyError, TypeError, AttributeError,
               json.JSONDecodeError)  # fmt: skip
_ABOUT = ("names", "model", "weights", "about")
_TYPES = {"images": "float32", "targets": "float32", "kind": "int32",
          "labels": "int32", "palette": "uint8"}  # fmt: skip


class PromptFile(NamedTuple):
    """The content of a file.

    names: label -> class. model: `SegGPTConfig.geometry` of the model. weights: `step`
    and `sha256` of the parameters that the prompt was tuned for. about: how it was
    made.
    """

    prompts: Prompts
    names: dict[int, str]
    model: dict[str, Any]
    weights: dict[str, Any]
    about: dict[str, Any]


def save_prompts(path: str | os.PathLike, content: PromptFile) -> None:
    """Writes a file; an older one is replaced only by a complete new one."""
    paths.check("prompt file", path, paths.BUCKET)
    path = paths.locate(path)
    arrays = {
        name: np.ascontiguousarray(getattr(content.prompts, name), kind)
        for name, kind in _TYPES.items()
    }
    # One entry: safetensors shuffles several, and equal prompts would differ in bytes.
    about = {name: getattr(content, name) for name in _ABOUT}
    metadata = {
        _FORMAT: json.dumps(about | {"size": content.prompts.images.shape[2:4]})
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with staging.new_file(path) as new:
        try:
            save_file(arrays, new, metadata=metadata)
        except SafetensorError as error:
            raise OSError(f"{path} could not be written: {error}") from error
        new.chmod(0o644)  # safetensors lets nobody else read its files


def load_prompts(path: str | os.PathLike, size: tuple[int, int]) -> PromptFile:
    """Reads a file for a model whose images have `size` (h, w).

    Raises FileNotFoundError, or ValueError that names the file where it is no prompt,
    damaged, or of another size.
    """
    path = paths.locate(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such prompt file")
    try:
        with staging.fetched(path) as here, safe_open(here, "numpy") as file:
            metadata = file.metadata() or {}
            if _FORMAT not in metadata:
                raise ValueError(
                    f"{path} is no prompt file: seggpt tune and mode 'tune' write them"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        about = json.loads(metadata[_FORMAT])
        parts = {name: about[name] for name in _ABOUT}
        if wrong := [n for n, part in parts.items() if not isinstance(part, dict)]:
            raise TypeError(f"its part {wrong[0]!r} holds no names and values")
        if wrong := [label for label in parts["names"] if not label.isdecimal()]:
            raise TypeError(f"the label {wrong[0]!r} of a name is no whole number")
        names = {int(label): str(name) for label, name in parts["names"].items()}
    except _UNREADABLE as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"prompt file {path} is damaged: {why}") from error
    if fault := _fault(arrays):
        raise ValueError(f"prompt file {path} is damaged: {fault}")
    prompts = Prompts(**arrays)
    if (own := prompts.images.shape[2:4]) != tuple(size):
        raise ValueError(
            f"prompt file {path} is {own[0]} x {own[1]}, and the model's images are "
            f"{size[0]} x {size[1]}: it was tuned for another model"
        )
    return PromptFile(prompts, names, parts["model"], parts["weights"], parts["about"])


def _fault(arrays: Mapping[str, np.ndarray]) -> str | None:
    """The first fault of a file's arrays; None if there is none."""
    if set(arrays) != set(_TYPES):
        return f"it holds {sorted(arrays)} instead of {sorted(_TYPES)}"
    for name, kind in _TYPES.items():
        if arrays[name].dtype != kind:
            return f"{name} is {arrays[name].dtype} instead of {kind}"
    images, labels = arrays["images"], arrays["labels"]
    if images.ndim != 5 or len(images) != 1 or images.shape[-1] != 3:
        return f"images is {images.shape} instead of [1, p, h, w, 3]"
    wanted = {"targets": images.shape, "kind": (1,), "labels": (labels.size,),
              "palette": (labels.size, 3)}  # fmt: skip
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            return f"{name} is {arrays[name].shape} instead of {shape}"
    if labels.size < 2 or labels[0] != 0 or (np.diff(labels) <= 0).any():
        return f"labels {labels.tolist()} must rise from 0"
    if arrays["kind"][0] not in (CATEGORY, INSTANCE):
        return f"kind is {arrays['kind'][0]}"
    if not (np.isfinite(images).all() and np.isfinite(arrays["targets"]).all()):
        return "it has values that are not finite"
    return None
