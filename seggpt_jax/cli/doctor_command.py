"""What `seggpt doctor` does: says what is installed, and whether it works."""

import argparse
import importlib.metadata
import importlib.util
import os
import sys

import jax

from seggpt_jax.models.attention import automatic
from seggpt_jax.runs.runtime import cache_compiled
from seggpt_jax.weights.names import bundled

_SHOWN = ("seggpt_jax", "jax", "jaxlib", "flax", "numpy", "pillow", "av", "torch",
          "transformers")  # fmt: skip
_EXTRAS = (
    ("av", "videos", "video"),
    ("pillow_heif", "photographs in HEIC", "heic"),
    ("cv2", "masks by a box or points", "mask"),
    ("fastapi", "demo and serve", "serve"),
    ("torch", ".pth files", "torch"),
    ("flatbuffers", "export", "export"),
)  # package, what needs it, extra


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no options of its own."""


def run(args: argparse.Namespace, failed: object) -> None:
    """Prints versions, devices, and a verdict."""
    print(f"python       {sys.version.split()[0]}")
    for name in _SHOWN:
        try:
            print(f"{name:12} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{name:12} not installed")
    devices = jax.devices()
    kind, platform = devices[0].device_kind, jax.default_backend()
    print(f"devices      {len(devices)} x {kind}{f' ({platform})' * (kind != platform)}"
          f", {os.cpu_count()} CPU cores")  # fmt: skip
    plain, half = map(automatic, ("float32", "bfloat16"))
    print(f"attention    {plain}{f' (bfloat16: {half})' * (half != plain)}")
    print(f"cache        {cache_compiled()}")
    print(f"models       {', '.join(bundled()) or 'none bundled'}")
    print(_verdict())


def _verdict() -> str:
    """Whether a prediction works on the devices, and what is missing for more."""
    value = float(jax.numpy.ones((64, 64)).dot(jax.numpy.ones((64, 64))).sum())
    if value != 64**3:
        raise RuntimeError(f"{jax.devices()[0]} computes wrong: {value}")
    lacking = [f"{what}: pip install 'seggpt_jax[{extra}]'"
               for package, what, extra in _EXTRAS
               if importlib.util.find_spec(package) is None]  # fmt: skip
    slow = " (slow with large models: no GPU or TPU)"
    where = f"computes on {jax.default_backend()}"
    lines = [f"verdict      ready: {where}{slow * (jax.default_backend() == 'cpu')}"]
    return "\n".join(lines + [f"             not installed, for {x}" for x in lacking])
