"""The `seggpt` command, the same as `python -m seggpt_jax.cli`."""

from seggpt_jax.cli.command import main

__all__ = ["main"]
