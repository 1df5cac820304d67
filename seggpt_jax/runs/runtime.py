"""Settings that jax needs before it starts, and the memory that it has used.

jax is imported late: the command line reads its options without it.
"""

import os
import sys
from typing import Any

from seggpt_jax.runs import paths

# Flags of XLA for NVIDIA GPUs that change speed or order of sums; benchmarks/train.py
# measures each.
XLA_FLAGS = {
    "none": "",
    "latency_hiding": "--xla_gpu_enable_latency_hiding_scheduler=true",
    "no_latency_hiding": "--xla_gpu_enable_latency_hiding_scheduler=false",
    "no_command_buffers": "--xla_gpu_enable_command_buffer=",
    "deterministic": "--xla_gpu_deterministic_ops=true",
}
KEPT_S = 0.1  # of compiling: what took longer is kept on disk


def cut_cpu(devices: int):
    """Cuts the CPU into devices that share a batch: with small matrices XLA uses only
    one core. Call it before jax looks for devices."""
    if devices < 1:
        raise ValueError(f"setting cpu_devices = {devices}: must be at least 1")
    import jax

    jax.config.update("jax_num_cpu_devices", devices)


def peak_memory() -> int:
    """The most bytes that a device of this process has used. CPUs do not count bytes:
    there it is the memory of the process; 0 on Windows, which does not tell."""
    import jax

    found = [device.memory_stats() or {} for device in jax.local_devices()]
    known = [stats["peak_bytes_in_use"] for stats in found if stats]
    return max(known, default=_process_memory())


def _process_memory() -> int:
    try:
        import resource
    except ModuleNotFoundError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def cache_compiled() -> str:
    """Keeps compiled programs on disk: in jax's own setting of a folder, or else in the
    user's cache. Returns the folder."""
    import jax

    # jax keeps what took a second. A small model has programs that take a little less,
    # and every start would compile them.
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", KEPT_S)
    if not jax.config.values["jax_compilation_cache_dir"]:
        folder = str(paths.user_cache() / "seggpt_jax/xla")
        jax.config.update("jax_compilation_cache_dir", folder)
    return jax.config.values["jax_compilation_cache_dir"]


def quick_compile() -> dict[str, Any]:
    """Compiler options of a program that runs once. On a CPU, to optimise the drawing
    of random parameters takes longer than to draw them. The values stay the same."""
    import jax

    on_cpu = jax.default_backend() == "cpu"
    return {"xla_backend_optimization_level": 1} if on_cpu else {}
