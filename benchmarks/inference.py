"""Seconds per image of this project and of the transformers port, in turns, as JSON.

    python -m benchmarks.inference --out benchmarks/results/inference.jsonl

Each side runs in a process of its own, with the same random weights, on the same
random images; the other waits meanwhile. `cached` is a query whose prompts are encoded
already, `whole` encodes them too. Peak memory is that of the process, the making of the
weights included.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.rows import report
from seggpt_jax import evaluate, torch_bridge
from seggpt_jax.models.params import to_torch
from seggpt_jax.models.seggpt import SegGPT, SegGPTConfig
from seggpt_jax.predict import make_predict_fns

# A port whose threads spin while it waits would slow down the other side.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("KMP_BLOCKTIME", "0")


def random_params(model, seed: int = 0):
    """Normal of deviation 0.02, norms around 1: activations as of a trained model."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape, np.float32) * np.float32(0.02)
        return noise + (path[-1].key == "scale")

    return jax.tree_util.tree_map_with_path(draw, evaluate.abstract_params(model))


def episode(config, count: int):
    """Prompts' images and targets `[1, p, h, w, 3]`, the query, and its kind."""
    rng = np.random.default_rng(1)
    h, w = config.canvas[0] // 2, config.canvas[1]
    images, targets = rng.standard_normal((2, 1, count, h, w, 3), np.float32)
    query = rng.standard_normal((1, h, w, 3), np.float32)
    return images, targets, query, np.zeros(1, np.int32)


def build_ours(config, count: int) -> dict[str, Callable[[], np.ndarray]]:
    model = SegGPT(config)
    params = jax.device_put(random_params(model))
    images, targets, query, kind = jax.device_put(episode(config, count))
    encode, predict = make_predict_fns(model)
    prompts = encode(params, images, targets, kind)
    return {
        "cached": lambda: np.asarray(predict(params, prompts, query)),
        "whole": lambda: np.asarray(
            predict(params, encode(params, images, targets, kind), query)
        ),
    }


def build_port(config, count: int) -> dict[str, Callable[[], np.ndarray]]:
    state = to_torch(config, random_params(SegGPT(config)), "hf")
    port = torch_bridge.build_port(config, state)
    images, targets, query, _ = episode(config, count)
    return {"whole": lambda: torch_bridge.run_port(port, images[0], targets[0], query)}


SIDES = {"ours": build_ours, "port": build_port}


def serve(side: str, config: Any, count: int, line) -> None:
    """A process: builds one side, then runs what it is told to and says how long."""
    runs = SIDES[side](config, count)
    outputs = {name: run() for name, run in runs.items()}  # compiled and warm
    line.send(outputs["whole"])
    while (name := line.recv()) is not None:
        begin = time.perf_counter()
        runs[name]()
        line.send(time.perf_counter() - begin)
    line.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure(config, count: int, repeats: int) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    lines, outputs, processes = {}, {}, []
    for side in SIDES:
        lines[side], theirs = context.Pipe()
        process = context.Process(target=serve, args=(side, config, count, theirs))
        process.start()
        processes.append(process)
        outputs[side] = lines[side].recv()
    runs = [("ours", "cached"), ("ours", "whole"), ("port", "whole")]
    seconds: dict[tuple[str, str], list[float]] = {run: [] for run in runs}
    for _ in range(repeats):
        for side, name in runs:
            lines[side].send(name)
            seconds[side, name].append(lines[side].recv())
    row: dict[str, Any] = {}
    medians = {run: statistics.median(each) for run, each in seconds.items()}
    for (side, name), median in medians.items():
        row[f"{side}_{name}_s"] = round(median, 3)
    for name in ("cached", "whole"):
        # Every round's own ratio: what slows the machine slows both sides of it.
        pairs = zip(seconds["port", "whole"], seconds["ours", name], strict=True)
        row[f"ratio_{name}"] = round(statistics.median(p / o for p, o in pairs), 2)
    for side, line in lines.items():
        line.send(None)
        row[f"{side}_peak_mib"] = round(line.recv())
    for process in processes:
        process.join()
    apart = np.abs(outputs["ours"] - outputs["port"]).max()
    return row | {"max_difference": float(apart)}


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    config = SegGPTConfig.of(args.size, attention=args.attention)
    for count in args.prompts:
        head = {"benchmark": "inference", "model": args.size, "prompts": count}
        head |= {"attention": args.attention}
        yield head | {"repeats": args.repeats} | measure(config, count, args.repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="l16", help="of the model")
    parser.add_argument("--attention", default="heads", help="of this project")
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=5, help="rounds of all sides")
    parser.add_argument("--out", type=Path, help="file that the rows are appended to")
    args = parser.parse_args()
    report("benchmarks.inference", rows(args), args.out)


if __name__ == "__main__":
    main()
