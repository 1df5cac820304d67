"""What has to be told to jax before it starts."""

import os
import pathlib

import jax


def cut_cpu(devices: int):
    """Cuts the CPU into devices that share a batch: with small matrices XLA keeps only
    one core busy. Must come before jax looks for devices."""
    if devices < 1:
        raise ValueError(f"setting cpu_devices = {devices}: must be at least 1")
    jax.config.update("jax_num_cpu_devices", devices)


def cache_compiled() -> str:
    """Keeps compiled programs on disk, unless jax has been told where already; returns
    the folder."""
    if not jax.config.values["jax_compilation_cache_dir"]:
        home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(home / "seggpt_jax/xla"))
    return jax.config.values["jax_compilation_cache_dir"]
