"""Everything that needs PyTorch: its files, and the transformers port as a reference.

`pip install 'seggpt_jax[torch]'` installs PyTorch; no other module needs it.
"""

import argparse
import contextlib
import importlib.util
import os
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seggpt_jax import colors
from seggpt_jax.models.seggpt import SegGPTConfig

_REMEDY = "pip install 'seggpt_jax[torch]'"
# PyTorch and transformers import torch_xla where it is installed, as on Colab's TPUs:
# it would take the TPU from JAX.
_NO_XLA = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "USE_TORCH_XLA": "0"}


def installed(*names: str) -> bool:
    """Whether packages can be imported, without importing them."""
    return all(importlib.util.find_spec(name) is not None for name in names)


@contextlib.contextmanager
def _without_xla() -> Iterator[None]:
    """Imports in it leave torch_xla alone, unless the user's environment wants it."""
    added = {n: value for n, value in _NO_XLA.items() if n not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _torch() -> Any:
    with _without_xla():
        import torch
    return torch


def load_state(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a `.pth` file; code in it is never run.

    The file holds a state dict, or has one under `model` or `state_dict`. Raises
    ValueError for any other content, and for a file that holds code.
    """
    require(path)
    torch = _torch()
    # Training scripts store their arguments too: a Namespace of plain values.
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{path} is damaged or holds code beside weights, and was not loaded; "
                "save its state_dict alone, or as .safetensors"
            ) from error
        except Exception as error:  # torch raises many types on damaged bytes
            reason = str(error).splitlines()[0] if str(error) else "it is empty"
            raise ValueError(f"{path} cannot be read: {reason}") from error
    for key in ("model", "state_dict"):
        if isinstance(saved, Mapping) and isinstance(saved.get(key), Mapping):
            saved = saved[key]
            break
    if not isinstance(saved, Mapping) or not all(map(torch.is_tensor, saved.values())):
        raise ValueError(
            f"{path} holds no state dict, neither itself nor under 'model' or "
            "'state_dict'"
        )
    return {str(name): _to_numpy(path, name, x) for name, x in saved.items()}


def save_state(path: Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes a `.pth` file as the authors': the state dict under `model`."""
    require(path)
    torch = _torch()
    tensors = {name: torch.from_numpy(np.array(x)) for name, x in state.items()}
    torch.save({"model": tensors}, path)


def port_config(config: SegGPTConfig) -> dict[str, Any]:
    """The settings of transformers' SegGptConfig for a model of this geometry."""
    return {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "image_size": list(config.canvas),
        "patch_size": config.patch,
        "pretrain_image_size": config.pos_grid * config.patch,
        "mlp_dim": config.mlp_ratio * config.width,
        "merge_index": config.merge_after,
        "intermediate_hidden_state_indices": list(config.taps),
        "decoder_hidden_size": config.decoder_width,
    }


def processor_config(config: SegGPTConfig) -> dict[str, Any]:
    """The settings of transformers' SegGptImageProcessor for a model's images."""
    height, width = config.half
    return {
        "image_processor_type": "SegGptImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": int(Image.Resampling.BICUBIC),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [round(float(x), 4) for x in colors.MEAN],
        "image_std": [round(float(x), 4) for x in colors.STD],
    }


def build_port(config: SegGPTConfig, state: Mapping[str, np.ndarray]):
    """transformers' model with the tensors of a state dict in `hf` layout."""
    torch = _torch()
    with _without_xla():
        from transformers import SegGptConfig, SegGptForImageSegmentation

    with torch.device("meta"):
        port = SegGptForImageSegmentation(SegGptConfig(**port_config(config)))
    # Torch warns of read-only arrays, and jax's are read-only.
    tensors = {
        n: torch.from_numpy(np.require(x, requirements="W")) for n, x in state.items()
    }
    port.load_state_dict(tensors, assign=True)
    return port.eval()


def run_port(port, images, targets, query) -> np.ndarray:
    """The port's painting of one query `[1, h, w, 3]` by prompts `[p, h, w, 3]`."""
    torch = _torch()

    def tensor(x):
        return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))

    queries = np.repeat(query, len(images), 0)
    with torch.inference_mode():
        out = port(
            *map(tensor, (queries, images, targets)),
            embedding_type="semantic", feature_ensemble=len(images) > 1,
        )  # fmt: skip
    painting = out.pred_masks.numpy().transpose(0, 2, 3, 1)
    return painting[:1, painting.shape[1] // 2 :]


def _to_numpy(path: Path, name: object, tensor) -> np.ndarray:
    torch = _torch()
    try:
        # NumPy lacks bfloat16 and float8; float32 holds every value.
        if tensor.is_floating_point() and tensor.dtype != torch.float64:
            tensor = tensor.float()
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantized, or without values
        raise ValueError(
            f"{path}: {name!r} cannot be made an array ({tensor.dtype}, "
            f"{tensor.layout}, {tensor.device}); save it as a plain tensor on the CPU"
        ) from error


def require(what: str | os.PathLike) -> None:
    """Raises ValueError, with the remedy, where PyTorch is not installed."""
    if not installed("torch"):
        raise ValueError(
            f"{what} needs PyTorch: {_REMEDY}, or use a .safetensors file instead"
        )
