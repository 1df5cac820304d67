"""SegGPT in JAX: training, evaluation, tuning and inference."""

__version__ = "0.1.0"
