"""Milliseconds of every attention implementation, forward and backward, as JSON.

    python -m benchmarks.attention --out benchmarks/results/attention.jsonl

All implementations that run here are compiled first and then run in turns; the ratio is
to the definition, `xla`, of the same round. What `auto` picks is read off these rows.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.rows import parse, report
from seggpt_jax.models.attention import IMPLEMENTATIONS, attend

# name: batch, heads, rows and columns of patches, width of a head
SHAPES = {
    "shapes": (8, 2, 24, 12, 32),  # configs/shapes.py, a step of training
    "ti16": (1, 3, 56, 28, 64),
    "l16": (1, 16, 56, 28, 64),
    "l16x8": (8, 16, 56, 28, 64),
}
PASSES = ("forward", "both")


def arguments(shape, dtype):
    b, n, h, w, k = shape
    rng = np.random.default_rng(0)

    def draw(*size):
        return jnp.asarray(rng.standard_normal(size, np.float32), dtype)

    rel = 0.1 * draw(h, h, k), 0.1 * draw(w, w, k)
    return *(draw(b, n, h * w, k) for _ in range(3)), *rel


def build(impl: str, run: str, args) -> Callable[[], Any]:
    """The compiled pass, run once."""

    def loss(*args):
        return (attend(*args, impl=impl).astype(jnp.float32) ** 2).sum()

    def forward(*args):
        return attend(*args, impl=impl)

    function = forward if run == "forward" else jax.grad(loss, range(5))
    compiled = jax.jit(function).lower(*args).compile()
    jax.block_until_ready(compiled(*args))
    return lambda: jax.block_until_ready(compiled(*args))


def measure(shape: str, run: str, dtype: str, repeats: int) -> Iterator[dict[str, Any]]:
    args = arguments(SHAPES[shape], dtype)
    ready, refused = {}, {}
    for impl in IMPLEMENTATIONS:
        try:
            ready[impl] = build(impl, run, args)
        except Exception as error:  # each lacks hardware, or types, in its own words
            refused[impl] = str(error).strip().splitlines()[0][:120]
    seconds: dict[str, list[float]] = {impl: [] for impl in ready}
    for _ in range(repeats):
        for impl, function in ready.items():
            begin = time.perf_counter()
            function()
            seconds[impl].append(time.perf_counter() - begin)
    head = {"benchmark": "attention", "shape": shape, "pass": run, "dtype": dtype,
            "device": jax.devices()[0].device_kind, "repeats": repeats}  # fmt: skip
    for impl, each in seconds.items():
        rounds = zip(seconds["xla"], each, strict=True)
        ratio = statistics.median(xla / own for xla, own in rounds)
        ms = 1e3 * statistics.median(each)
        yield head | {"impl": impl, "ms": round(ms, 3), "ratio": round(ratio, 2)}
    for impl, reason in refused.items():
        yield head | {"impl": impl, "refused": reason}


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for shape in args.shapes:
        for run in args.passes:
            yield from measure(shape, run, args.dtype, args.repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES)[:3])
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=PASSES)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=7, help="rounds of all")
    parser.add_argument("--out", type=Path, help="file that the rows are appended to")
    args = parse(parser)
    report("benchmarks.attention", rows(args), args.out)


if __name__ == "__main__":
    main()
