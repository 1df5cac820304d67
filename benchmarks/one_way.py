"""What a further prompt costs, one-way beside two-way, as JSON rows.

    python -m benchmarks.one_way --prompts 1 8 --out benchmarks/results/one_way.jsonl

Random weights and images. Both forms are compiled first and then run in turns, in one
process. On a CPU the seconds are of its CPU time, since other work may share it. One
prompt is encoded and repeated: the time of painting does not depend on what it shows.
Operations are those of `models/flops.py`.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.inference import episode, random_params
from benchmarks.rows import parse, report
from seggpt_jax.models import prompted
from seggpt_jax.models.flops import painting_flops
from seggpt_jax.models.seggpt import SegGPT, SegGPTConfig

FORMS = ("two-way", "one-way")
PARTS = ("encode", "join", "paint")


def build(config: SegGPTConfig, params: Any, count: int) -> dict[str, Callable]:
    """The three parts of a prediction with so many prompts, compiled and run once:
    encoding one of them, joining all, and painting a query."""
    images, targets, queries, kind = jax.device_put(episode(config, 1, 1))
    encode, join, paint = (
        jax.jit(functools.partial(getattr(prompted, part), c=config)) for part in PARTS
    )
    one = encode(params, images=images, targets=targets, kind=kind)
    tokens = prompted.map_prompts(lambda x: jnp.repeat(x, count, prompted.AXIS), one)
    weight = jnp.full((1, count), 1 / count)
    joined = join(params, prompts=tokens, weight=weight)
    parts = {
        "encode": lambda: encode(params, images=images, targets=targets, kind=kind),
        "join": lambda: join(params, prompts=tokens, weight=weight),
        "paint": lambda: paint(params, prompts=joined, queries=queries),
    }
    jax.block_until_ready([part() for part in parts.values()])
    return parts


def measure(args: argparse.Namespace, config: SegGPTConfig) -> Iterator[dict[str, Any]]:
    params = jax.device_put(random_params(SegGPT(config)))
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    configs = {form: config.replace(one_way=form == "one-way") for form in FORMS}
    for count in args.prompts:
        parts = {form: build(c, params, count) for form, c in configs.items()}
        seconds: dict[tuple[str, str], list[float]] = {}
        for _ in range(args.repeats):
            for part in PARTS:
                for form in FORMS:
                    begin = clock()
                    jax.block_until_ready(parts[form][part]())
                    seconds.setdefault((form, part), []).append(clock() - begin)
        for form, own in configs.items():
            tokens = jax.eval_shape(parts[form]["encode"])
            held = sum(x.size * x.dtype.itemsize for x in tokens[:-1])  # without kind
            medians = {n: statistics.median(seconds[form, n]) for n in PARTS}
            yield {
                "benchmark": "one_way", "form": form, "model": args.size,
                "canvas": list(own.canvas), "dtype": own.dtype, "prompts": count,
                "repeats": args.repeats, "device": jax.devices()[0].device_kind,
                **{f"{name}_s": round(median, 4) for name, median in medians.items()},
                "prompt_mib": round(held / 2**20, 1),
                "gflop": round(painting_flops(own, count) / 1e9, 1),
            }  # fmt: skip


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    settings = {"size": args.size, "dtype": args.dtype}
    if args.canvas:
        settings["canvas"] = tuple(args.canvas)
    yield from measure(args, SegGPTConfig.read(settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="l16", help="of the model")
    parser.add_argument("--canvas", nargs=2, type=int, help="the size's own by default")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=3, help="rounds of both forms")
    parser.add_argument("--out", type=Path, help="file that the rows are appended to")
    args = parse(parser)
    report("benchmarks.one_way", rows(args), args.out)


if __name__ == "__main__":
    main()
