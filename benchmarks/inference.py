"""Images per second of this project and of the transformers port, in turns, as JSON.

    python -m benchmarks.inference --out benchmarks/results/inference.jsonl

Each side runs in a process of its own, with the same random weights, on the same random
images; the other waits meanwhile. `cached` are queries whose prompts are encoded
already, `whole` encodes them too. Peak memory is the process's own from when its
weights are in place, compilation included. `share` is the counted work per second
divided by the matmul rate measured in the same process. With several prompts the port
differs by design in one block (docs/parity.md), and so do the paintings.
"""

import argparse
import gc
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.rows import parse, report
from seggpt_jax.models.flops import painting_flops
from seggpt_jax.models.params import to_torch
from seggpt_jax.models.seggpt import SegGPT, SegGPTConfig
from seggpt_jax.predict import make_predict_fns
from seggpt_jax.weights import build, torch_bridge

# A port whose threads spin while it waits would slow down the other side.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("KMP_BLOCKTIME", "0")
# Both sides hold their weights on one GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

Runs = dict[str, Callable[[], np.ndarray]]


def random_params(model, seed: int = 0):
    """Normal of deviation 0.02, norms around 1: activations as of a trained model."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape, np.float32) * np.float32(0.02)
        return noise + (path[-1].key == "scale")

    return jax.tree_util.tree_map_with_path(draw, build.abstract_params(model))


def episode(config, count: int, batch: int):
    """Prompts' images and targets `[1, p, h, w, 3]`, queries `[b, h, w, 3]`, a kind."""
    rng = np.random.default_rng(1)
    h, w = config.half
    images, targets = rng.standard_normal((2, 1, count, h, w, 3), np.float32)
    queries = rng.standard_normal((batch, h, w, 3), np.float32)
    return images, targets, queries, np.zeros(1, np.int32)


def build_ours(config, count: int, batch: int) -> Callable[[], Runs]:
    model = SegGPT(config)
    params = jax.device_put(random_params(model))
    images, targets, queries, kind = jax.device_put(episode(config, count, batch))

    def start() -> Runs:
        encode, predict = make_predict_fns(model)
        prompts = encode(params, images, targets, kind)
        return {
            "cached": lambda: np.asarray(predict(params, prompts, queries)),
            "whole": lambda: np.asarray(
                predict(params, encode(params, images, targets, kind), queries)
            ),
        }

    return start


def build_port(config, count: int, batch: int) -> Callable[[], Runs]:
    """The port on the same device and in the same type, compiled by torch on a GPU.

    Its ensemble takes one query at a time.
    """
    import torch

    state = to_torch(config, random_params(SegGPT(config)), "hf")
    port = torch_bridge.build_port(config, state)
    gpu = torch.cuda.is_available() and jax.default_backend() == "gpu"
    where = {"device": "cuda" if gpu else "cpu", "dtype": getattr(torch, config.dtype)}
    port = port.to(**where)
    images, targets, queries, _ = episode(config, count, batch)

    def rows(x):
        return torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2)), **where)

    shown, painted, asked = rows(images[0]), rows(targets[0]), rows(queries)

    def once(queries, shown, painted):
        return port(
            queries, shown, painted, embedding_type="semantic",
            feature_ensemble=count > 1,
        ).pred_masks  # fmt: skip

    def start() -> Runs:
        run = torch.compile(once) if gpu else once

        def whole() -> np.ndarray:
            with torch.inference_mode():
                if count == 1:
                    expand = (batch, -1, -1, -1)
                    out = run(asked, shown.expand(expand), painted.expand(expand))
                else:
                    each = [q.expand(count, -1, -1, -1) for q in asked[:, None]]
                    out = torch.cat([run(q, shown, painted)[:1] for q in each])
            out = out.float().cpu().numpy().transpose(0, 2, 3, 1)
            return out[:, out.shape[1] // 2 :]

        return {"whole": whole}

    return start


SIDES = {"ours": build_ours, "port": build_port}


def matmul_rate(dtype: str, seconds: float = 2.0) -> float:
    """FLOP per second of the best of several products as large as the model's MLP."""
    rows = 1568 if jax.default_backend() == "cpu" else 32 * 1568
    a, b = jnp.ones((rows, 1024), dtype), jnp.ones((1024, 4096), dtype)
    product = jax.jit(jnp.matmul)
    best, stop = 0.0, time.perf_counter() + seconds
    product(a, b).block_until_ready()
    while time.perf_counter() < stop:
        begin = time.perf_counter()
        product(a, b).block_until_ready()
        best = max(best, 2 * rows * 1024 * 4096 / (time.perf_counter() - begin))
    return best


def serve(side: str, config: Any, count: int, batch: int, line) -> None:
    """A process: builds one side, then runs what it is told to and says how long."""
    start = SIDES[side](config, count, batch)
    gc.collect()
    _forget_peak()
    runs = start()
    outputs = {name: run() for name, run in runs.items()}  # compiled and warm
    peak = _peak_mib()
    line.send((outputs["whole"], matmul_rate(config.dtype) if side == "ours" else None))
    while (name := line.recv()) is not None:
        begin = time.perf_counter()
        runs[name]()
        line.send(time.perf_counter() - begin)
    line.send(max(peak, _peak_mib()))


def _forget_peak() -> None:
    """Linux begins anew to note the most memory that this process had."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(
    config, count: int, batch: int, repeats: int, alone: bool
) -> dict[str, Any]:
    """A row: medians, and beside the port the ratios to it. alone: without the port."""
    context = multiprocessing.get_context("spawn")
    lines, outputs, processes, rate = {}, {}, [], None
    for side in ("ours",) if alone else SIDES:
        lines[side], theirs = context.Pipe()
        args = side, config, count, batch, theirs
        processes.append(context.Process(target=serve, args=args))
        processes[-1].start()
        outputs[side], measured = lines[side].recv()
        rate = rate or measured
    runs = [("ours", "cached"), ("ours", "whole"), ("port", "whole")][: 3 - alone]
    seconds: dict[tuple[str, str], list[float]] = {run: [] for run in runs}
    for _ in range(repeats):
        for side, name in runs:
            lines[side].send(name)
            seconds[side, name].append(lines[side].recv())
    row: dict[str, Any] = {}
    medians = {run: statistics.median(each) for run, each in seconds.items()}
    for (side, name), median in medians.items():
        row[f"{side}_{name}_s"] = round(median, 4)
    for name in () if alone else ("cached", "whole"):
        # Every round's own ratio: what slows the machine slows both sides of it.
        pairs = zip(seconds["port", "whole"], seconds["ours", name], strict=True)
        row[f"ratio_{name}"] = round(statistics.median(p / o for p, o in pairs), 2)
    work = batch * painting_flops(config, count) / medians["ours", "cached"]
    row |= {"gflops": round(work / 1e9), "matmul_gflops": round(rate / 1e9)}
    row["share"] = round(work / rate, 3)
    for side, line in lines.items():
        line.send(None)
        row[f"{side}_peak_mib"] = round(line.recv())
    for process in processes:
        process.join()
    if not alone:
        apart = np.abs(outputs["ours"] - outputs["port"]).max()
        row["max_difference"] = float(apart)
    return row


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    settings = {"size": args.size, "attention": args.attention, "dtype": args.dtype}
    if args.canvas:
        settings["canvas"] = tuple(args.canvas)
    config = SegGPTConfig.read(settings)
    for batch in args.batch:
        for count in args.prompts:
            yield {
                "benchmark": "inference", "model": args.size, "prompts": count,
                "canvas": list(config.canvas), "batch": batch, "dtype": args.dtype,
                "attention": args.attention,
                "device": jax.devices()[0].device_kind, "repeats": args.repeats,
                **measure(config, count, batch, args.repeats, args.alone),
            }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="l16", help="of the model")
    parser.add_argument("--canvas", nargs=2, type=int, help="the size's own by default")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--attention", default="auto", help="of this project")
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="queries")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of all sides")
    parser.add_argument("--alone", action="store_true", help="without the port")
    parser.add_argument("--out", type=Path, help="file that the rows are appended to")
    args = parse(parser)
    report("benchmarks.inference", rows(args), args.out)


if __name__ == "__main__":
    main()
