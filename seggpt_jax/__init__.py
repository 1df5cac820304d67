"""SegGPT in JAX: training, evaluation, tuning and inference."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seggpt_jax.inference import Predictor, Result

__version__ = "0.1.0"
__all__ = ["Predictor", "Result"]


def __getattr__(name: str):
    # Imported on demand: data workers import this package too, and need no jax.
    if name in __all__:
        return getattr(importlib.import_module("seggpt_jax.inference"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
