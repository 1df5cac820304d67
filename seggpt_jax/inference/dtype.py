"""The number type of a prediction where the user leaves it open."""

import functools
from pathlib import Path

import jax

DTYPES = ("float32", "bfloat16", "auto")  # that users name
# Measured on a CPU with avx512_bf16 (docs/speed.md): bfloat16 is faster from jax 0.12
# on. A model of 96 features gains 2 ms, and its small masks change.
_JAX = (0, 12)
_NARROWEST = 192
_BFLOAT16 = {"avx512_bf16", "amx_bf16"}
_AMPERE = (8, 0)  # NVIDIA's first GPUs with products of bfloat16; not measured here


def automatic(width: int) -> str:
    """The type that `dtype="auto"` takes for a model of `width` features on jax's first
    device: `bfloat16` where it is faster, else `float32`."""
    device = jax.devices()[0]
    match device.platform:
        case "cpu":
            fast = _fast_cpu(width)
        case "gpu":
            fast = _capability(getattr(device, "compute_capability", "")) >= _AMPERE
        case platform:
            fast = platform == "tpu"
    return "bfloat16" if fast else "float32"


def _fast_cpu(width: int) -> bool:
    recent = jax.__version_info__ >= _JAX
    return recent and width >= _NARROWEST and not _BFLOAT16.isdisjoint(cpu_flags())


def _capability(named: str) -> tuple[int, ...]:
    """Of an NVIDIA GPU, as (9, 0); of other makers' GPUs, (0,)."""
    parts = named.split(".")
    return tuple(map(int, parts)) if all(p.isdecimal() for p in parts) else (0,)


@functools.cache
def cpu_flags(path: str = "/proc/cpuinfo") -> frozenset[str]:
    """What the processor can do, as Linux names it; empty elsewhere."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())
