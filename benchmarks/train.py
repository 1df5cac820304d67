"""Training steps per second of this project and of the transformers port, as JSON.

    python -m benchmarks.train --out benchmarks/results/train.jsonl

The step is that of configs/vitl.py: forward, backward, clipping, AdamW with layer-wise
decay, drop path; random pairs that lie on the device. The port: autocast to the same
type, its own loss, fused AdamW, compiled by torch on a GPU. Every setting runs in a
process of its own; one that does not fit the memory gets a row that says so. `mfu` is
the counted work per second (seggpt_jax/models/flops.py) divided by the maker's peak in
bfloat16; rematerialised work does not count. `port_times` in a row of ours: our pairs
per second divided by those of the fastest of the port's rows before it.
"""

import argparse
import functools
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import kernels
from benchmarks.inference import random_params
from benchmarks.rows import parse, report
from configs import vitl
from seggpt_jax.canvas import query_half
from seggpt_jax.models.flops import peak_flops, training_flops
from seggpt_jax.models.params import to_torch
from seggpt_jax.models.seggpt import SegGPTConfig
from seggpt_jax.runs import sharding
from seggpt_jax.runs.runtime import XLA_FLAGS, peak_memory
from seggpt_jax.train import Loop, Whole
from seggpt_jax.training.settings import read_settings
from seggpt_jax.weights import torch_bridge
from seggpt_jax.weights.build import build_model

WARM = 2  # steps that are not timed
Step = Callable[[], Any]  # one step; waits for it


def random_batch(c: SegGPTConfig, rows: int) -> dict[str, np.ndarray]:
    """Noise in the form that data.context gives; the query half is hidden."""
    rng = np.random.default_rng(0)
    shape = (rows, *c.canvas)
    return {
        "images": rng.integers(0, 256, (*shape, 3), np.uint8),
        "targets": rng.integers(0, 256, (*shape, 3), np.uint8),
        "foreground": rng.random(shape) < 0.3,
        "valid": np.ones(shape, bool),
        "background": np.zeros((rows, 3), np.uint8),
        "hidden": np.broadcast_to(query_half(c.grid), (rows, *c.grid)),
        "kind": np.zeros(rows, np.int32),
    }


def build_ours(model: dict[str, Any], rows: int) -> tuple[Step, dict[str, Any]]:
    config = vitl.get_config()
    config.model, config.loader.batch_size = model, rows
    settings = read_settings(config)
    loop = Loop(settings, Path(), Whole(settings))
    key = sharding.put_key(loop.mesh, 0)
    state = jax.jit(loop.init, out_shardings=loop.places)(key)
    made = random_batch(loop.trained.model.config, rows)
    batch = sharding.put_batch(loop.mesh, made, rows)
    jitted = loop.begin_stage(0)
    with jax.set_mesh(loop.mesh):
        times = [time.perf_counter()]
        traced = jitted.trace(state, batch, key)
        times.append(time.perf_counter())
        compiled = traced.lower().compile()
        times.append(time.perf_counter())
    trace_s, compile_s = np.diff(times).round(2).tolist()

    def run():
        nonlocal state
        state, metrics = compiled(state, batch, key)
        return float(metrics["loss"])

    return run, {"trace_s": trace_s, "compile_s": compile_s}


def build_port(model: dict[str, Any], rows: int) -> tuple[Step, dict[str, Any]]:
    import torch

    ours = build_model(model)
    c = ours.config
    state = to_torch(c, random_params(ours), "hf")
    port = torch_bridge.build_port(c, {n: np.array(x) for n, x in state.items()})
    gpu = torch.cuda.is_available() and jax.default_backend() == "gpu"
    device = "cuda" if gpu else "cpu"
    port = port.to(device).train()
    optimizer = torch.optim.AdamW(port.parameters(), lr=1e-4, fused=gpu)
    batch, half = random_batch(c, rows), c.half[0]

    def pixels(x):
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32) / 128 - 1
        return torch.tensor(x, device=device)

    shown, asked = (batch["images"][:, s] for s in (slice(half), slice(half, None)))
    painted, truth = (batch["targets"][:, s] for s in (slice(half), slice(half, None)))
    given = {
        "pixel_values": pixels(asked),
        "prompt_pixel_values": pixels(shown),
        "prompt_masks": pixels(painted),
        "labels": pixels(truth),
        "bool_masked_pos": torch.tensor(batch["hidden"].reshape(rows, -1)).to(device),
    }

    def forward():
        with torch.autocast(device, torch.bfloat16, enabled=c.dtype == "bfloat16"):
            return port(**given, embedding_type="semantic").loss

    forward = torch.compile(forward) if gpu else forward

    def run():
        loss = forward()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(port.parameters(), 3.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return run, {}


BUILD = {"ours": build_ours, "port": build_port}


def peak_mib(side: str) -> float:
    if side == "port" and jax.default_backend() == "gpu":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    return peak_memory() / 2**20


def measure(
    side: str, model: dict[str, Any], rows: int, steps: int, profile: bool
) -> dict[str, Any]:
    """Times of one setting, `config.model`, in this process."""
    run, built = BUILD[side](model, rows)
    c = SegGPTConfig.read(model)
    for _ in range(WARM):
        run()
    times = []
    for _ in range(steps):
        begin = time.perf_counter()
        loss = run()
        times.append(time.perf_counter() - begin)
    seconds = statistics.median(times)
    found = {**built, "step_s": round(seconds, 4), "pairs_per_s": rows / seconds}
    work = rows * training_flops(c) / seconds
    device = jax.devices()[0].device_kind
    found |= {"device": device, "tflops_per_s": round(work / 1e12, 3), "loss": loss}
    if (peak := peak_flops(device)) and c.dtype == "bfloat16":
        found["mfu"] = round(work / (peak * jax.device_count()), 4)
    found["peak_mib"] = round(peak_mib(side))
    if profile:
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder, create_perfetto_trace=True):
                run()
            found["profile"] = kernels.shares(Path(folder))
    return found


def serve(line, *args) -> None:
    """A process: sends what it measured, or what went wrong."""
    try:
        line.send(measure(*args))
    except Exception as error:  # noqa: BLE001  the next setting may still run
        text = str(error).strip().splitlines() or [type(error).__name__]
        line.send({"error": text[0][:200]})


def apart(flags: str, *args) -> dict[str, Any]:
    """`measure` in a process of its own, with XLA flags."""
    before = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = " ".join(filter(None, (before, XLA_FLAGS[flags])))
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, *args))
    process.start()
    there.close()
    os.environ["XLA_FLAGS"] = before or ""
    try:
        found = here.recv()
    except EOFError:
        found = {"error": "the process died"}
    process.join()
    return found


def rows_of(args) -> Iterator[dict[str, Any]]:
    base = {"size": args.size, "dtype": args.dtype, "canvas": tuple(args.canvas),
            "drop_path": 0.1}  # fmt: skip
    best = 0.0
    for rows in args.port_batch:
        found = apart("none", "port", base, rows, args.steps, False)
        best = max(best, found.get("pairs_per_s", 0))
        yield {"benchmark": "train", "side": "port", "model": args.size, "batch": rows,
               "dtype": args.dtype, **found}  # fmt: skip
    for attention, remat, rows, flags in itertools.product(
        args.attention, args.remat, args.batch, args.flags
    ):
        model = {**base, "attention": attention, "remat": remat}
        found = apart(flags, "ours", model, rows, args.steps, args.profile)
        if best and "pairs_per_s" in found:
            found["port_times"] = round(found["pairs_per_s"] / best, 2)
        yield {"benchmark": "train", "side": "ours", "model": args.size, "batch": rows,
               "dtype": args.dtype, "attention": attention, "remat": remat,
               "flags": flags, **found}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = functools.partial(parser.add_argument, nargs="+")
    parser.add_argument("--size", default="l16")
    parser.add_argument("--dtype", default="bfloat16")
    add("--canvas", type=int, default=(896, 448))
    add("--batch", type=int, default=[8], help="of ours")
    parser.add_argument("--port-batch", type=int, nargs="*", default=[], help="port's")
    add("--attention", default=["auto"])
    add("--remat", default=["full"])
    add("--flags", default=["none"], choices=list(XLA_FLAGS))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument(
        "--profile", action="store_true", help="where a step's time goes"
    )
    parser.add_argument("--out", type=Path, help="append the rows to this file")
    args = parse(parser)
    report("benchmarks.train", rows_of(args), args.out)


if __name__ == "__main__":
    main()
