"""Segmenting images and videos as examples show it."""

from seggpt_jax.inference.predictor import Predictor, PromptSet
from seggpt_jax.inference.result import Result
from seggpt_jax.inference.session import Session

__all__ = ["Predictor", "PromptSet", "Result", "Session"]
