"""Compiles a config's train step and its prediction for chips that are not here.

    pip install -e '.[tpu]'         # for GPUs '.[cuda]': neither GPU nor driver needed
    python -m benchmarks.aot --config=configs/vitl.py --topology=v5e:4x4
    python -m benchmarks.aot --config=configs/vitl.py --topology=h100:8
    python -m benchmarks.aot --config=configs/vitl.py --config.mesh.fsdp=16 --out=FILE

Prints, for one chip: its memory, the bytes that it exchanges with others, the time of
this exchange and of the counted operations at the chip's stated rates, and the most
rows of a batch that fit. The programs are the same as `seggpt_jax.main` runs on such a
slice: the first stage's step from `train.Loop`, and prediction with one prompt, rows
cut over the mesh. docs/notes/tpu-slices.md and docs/scaling.md have tables of results.
"""

import collections
import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from unittest import mock

# Before libtpu is loaded: there is no TPU to ask, and no other process to keep out.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import jax
import numpy as np
from absl import app, flags, logging
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.cost import encoding_flops
from benchmarks.hlo import Collective, collectives
from benchmarks.rows import report
from seggpt_jax.config import require, suggest
from seggpt_jax.models.flops import painting_flops, peak_flops, training_flops
from seggpt_jax.predict import make_predict_fn
from seggpt_jax.runs import paths, sharding
from seggpt_jax.runs.partition import ROWS, ways
from seggpt_jax.train import Loop, Whole
from seggpt_jax.training import config_file
from seggpt_jax.training.settings import read_settings
from seggpt_jax.trees import table

GIB = 2**30
# Calls of fused kernels: of Pallas on TPUs, of cuDNN's attention on GPUs.
_KERNEL = re.compile(r'custom_call_target="(tpu_custom_call|__cudnn\$fmha\w*)"')


@dataclasses.dataclass(frozen=True)
class Chip:
    """hbm: GiB that a program may use, as the compiler says. ici: GB/s that the chip
    sends over all its links, from Google Cloud's pages on the TPU versions: half of the
    stated rate for both directions. (A pod's stated rate of all-reduce, divided by its
    chips, is the same.) options: of the topology. For an H100: what jax takes of its
    memory by default, 75 %, and NVLink within a host, as NVIDIA's page states it."""

    hbm: float
    ici: int
    options: tuple[tuple[str, str], ...] = ()


# What XLA knows of an H100 SXM: its GpuTargetConfigProto.
_H100 = pathlib.Path(__file__).with_name("h100.txtpb")
# A v4's two cores are one device, as they are on Cloud TPUs, only when asked for.
CHIPS = {
    "v4": Chip(30.75, 269, (("chip_config_name", "megacore"),)),
    "v5e": Chip(15.75, 200),
    "v5p": Chip(95.74, 600),
    "v6e": Chip(31.25, 400),
    "h100": Chip(59.32, 450, (("target_config", _H100.read_text()),)),
}


class Target(NamedTuple):
    """A slice of chips to compile for."""

    topology: str
    chip: Chip
    devices: list[Any]


class TooLarge(Exception):
    """A program that does not fit; bytes that it needs and that a chip has."""

    def __init__(self, needed: int, limit: int):
        super().__init__(f"needs {needed / GIB:.2f} of {limit / GIB:.2f} GiB")
        self.needed, self.limit = needed, limit


class Compiled(NamedTuple):
    """A program for a chip: seconds to make it, bytes while it runs, collectives, and
    how many calls of fused kernels there are in it."""

    seconds: dict[str, float]
    bytes: dict[str, int]
    exchanged: list[Collective]
    kernels: int


def find(topology: str) -> Target:
    """The chips of a name such as `v5e:4x4`, or `h100:8`: GPUs of one host. ValueError
    where there are none."""
    version, _, shape = topology.partition(":")
    if version not in CHIPS:
        raise ValueError(f"--topology={topology}: {version!r}{suggest(version, CHIPS)}")
    gpu, options = version == "h100", dict(CHIPS[version].options)
    form, example = ("[1-8]", "8") if gpu else (r"\d+(x\d+){1,2}", "4x4")
    if not re.fullmatch(form, shape):
        raise ValueError(f"--topology={topology}: must be such as {version}:{example}")
    if gpu:  # partitions, hosts of each, GPUs of a host
        options["topology"] = f"1x1x{shape}"
    try:
        described = topologies.get_topology_desc(
            platform="cuda" if gpu else "tpu", topology_name=topology, **options
        )
    except Exception as error:  # of many types, each in its own words
        reason = str(error).strip().splitlines()[0][:200]
        raise ValueError(f"--topology={topology}: {reason}") from error
    return Target(topology, CHIPS[version], list(described.devices))


def compile_for(mesh: Mesh, function, *args) -> Compiled:
    """Traces, lowers and compiles a jitted function of abstract arrays."""
    platform = mesh.devices.flat[0].platform
    marks = [time.perf_counter()]

    def done(value):
        marks.append(time.perf_counter())
        return value

    traced = done(function.trace(*args))
    platforms = ("cuda" if platform == "gpu" else platform,)
    lowered = done(traced.lower(lowering_platforms=platforms))
    try:
        program = done(lowered.compile())
    except jax.errors.JaxRuntimeError as error:
        raise _too_large(error) or error from error
    spans = zip(("trace", "lower", "compile"), marks, marks[1:], strict=False)
    seconds = {name: round(end - begin, 1) for name, begin, end in spans}
    memory = program.memory_analysis()
    held = {
        "arguments": memory.argument_size_in_bytes,
        "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    text = program.as_text()
    return Compiled(seconds, held, collectives(text), len(_KERNEL.findall(text)))


def _as_hopper(capability: str) -> bool:
    """jax asks a GPU that is present for its compute capability; an H100 has 9.0."""
    return tuple(map(int, capability.split("."))) <= (9, 0)


def _too_large(error: Exception) -> TooLarge | None:
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    size = r"\(?([\d.]+)([KMGT])\)?"
    found = re.search(
        rf"(?:Used|HLO temporaries) {size} (?:of|exceeds available HBM) {size}",
        str(error),
    )
    if not found:
        return None
    used, unit, limit, of = found.groups()
    return TooLarge(int(float(used) * units[unit]), int(float(limit) * units[of]))


def abstract_batch(loop: Loop) -> dict[str, jax.ShapeDtypeStruct]:
    """A training batch as the data pipeline makes it, and where it is put."""
    config, rows = loop.trained.model.config, loop.config.loader.batch_size
    kinds = {
        "images": ((*config.canvas, 3), np.uint8),
        "targets": ((*config.canvas, 3), np.uint8),
        "foreground": (config.canvas, np.bool_),
        "valid": (config.canvas, np.bool_),
        "background": ((3,), np.uint8),
        "hidden": (config.grid, np.bool_),
        "kind": ((), np.int32),
        "labels": ((loop.config.recolor.max_colors,), np.int32),
    }
    batch = {
        name: jax.ShapeDtypeStruct((rows, *shape), dtype)
        for name, (shape, dtype) in kinds.items()
    }
    return sharding.abstract(batch, NamedSharding(loop.mesh, sharding.BATCH))


def make_loop(config, target: Target) -> Loop:
    """The training loop of a config on the chips of a target, never to be run."""
    settings = read_settings(config)
    return Loop(settings, pathlib.Path(), Whole(settings), target.devices)


def compile_step(loop: Loop) -> Compiled:
    """The train step of a loop's first stage."""
    key = jax.eval_shape(jax.random.key, 0)
    key = sharding.abstract(key, NamedSharding(loop.mesh, P()))
    with jax.set_mesh(loop.mesh):
        step = loop.begin_stage(0)
        return compile_for(
            loop.mesh, step, loop.abstract, abstract_batch(loop), key, None
        )


def compile_prediction(loop: Loop, rows: int) -> Compiled:
    """Painting `rows` queries per chip by one prompt each."""
    model, mesh = loop.trained.model, loop.mesh
    (height, width), rows = model.config.canvas, rows * ways(mesh.shape, ROWS)
    shown = jax.ShapeDtypeStruct((rows, 1, height // 2, width, 3), np.float32)
    queries = jax.ShapeDtypeStruct((rows, height // 2, width, 3), np.float32)
    kind = jax.ShapeDtypeStruct((rows,), np.int32)
    cut = NamedSharding(mesh, sharding.BATCH)
    with jax.set_mesh(mesh):
        return compile_for(
            mesh, make_predict_fn(model), loop.abstract.params,
            *sharding.abstract((shown, shown, queries, kind), cut),
        )  # fmt: skip


def most_rows(
    needs: Callable[[int], int], choices: Sequence[int], limit: float
) -> tuple[int, int]:
    """The largest choice of rows per chip that fits `limit` bytes, and a prediction of
    the most rows that would fit. Bytes are nearly affine in rows, so two choices tell.

    The chosen number of rows has been compiled. (0, 0) if no choice fits.
    """
    needs = functools.cache(needs)
    few, some = choices[2:4] if len(choices) > 3 else (choices[0], choices[-1])
    slope = (needs(some) - needs(few)) / max(some - few, 1)
    most = int(few + (limit - needs(few)) / slope) if slope else few
    fitting = [rows for rows in choices if rows <= most]
    while fitting and needs(fitting[-1]) > limit:
        most = fitting.pop() - 1
    return (fitting[-1], most) if fitting else (0, 0)


def describe(
    program: str, loop: Loop, rows: int, flops: float, target: Target, made: Compiled
) -> dict[str, Any]:
    """A program's row: settings, seconds, bytes of a chip, and implied times.

    flops: of one row of the batch. rows: of the batch, per chip.
    """
    c, chip, mesh = loop.trained.model.config, target.chip, loop.mesh
    peak = peak_flops(target.devices[0].device_kind)
    assert peak is not None, target.devices[0].device_kind
    work = flops * rows * ways(mesh.shape, ROWS) / mesh.size
    sent = sum(one.sent for one in made.exchanged)
    times = {"compute": work / peak, "ici": sent / (1e9 * chip.ici)}
    return {
        "benchmark": "aot", "program": program, "topology": target.topology,
        "mesh": dict(mesh.shape), "width": c.width, "depth": c.depth,
        "canvas": c.canvas, "dtype": c.dtype, "remat": c.remat,
        "attention": c.attention, "kernels": made.kernels,
        "rows_per_chip": rows, "seconds": made.seconds,
        "bytes": made.bytes | {"total": sum(made.bytes.values())},
        "gib": round(sum(made.bytes.values()) / GIB, 2), "hbm_gib": chip.hbm,
        "collectives": summary(made.exchanged), "sent_bytes": round(sent),
        "flop_per_chip": work,
        "ms": {name: round(1e3 * value, 2) for name, value in times.items()},
        "bound": max(times, key=lambda name: times[name]),
    }  # fmt: skip


def summary(exchanged: Iterable[Collective]) -> list[dict[str, Any]]:
    """Collectives by kind and size of their group: how many, bytes, and bytes sent."""
    groups = collections.defaultdict[tuple[str, int], list[Collective]](list)
    for one in exchanged:
        groups[one.kind, one.group].append(one)
    return [
        {"kind": kind, "group": group, "count": sum(one.times for one in members),
         "bytes": sum(one.size * one.times for one in members),
         "sent": round(sum(one.sent for one in members))}
        for (kind, group), members in sorted(groups.items())
    ]  # fmt: skip


def show(row: Mapping[str, Any]) -> str:
    """A row in words."""
    gib = {name: f"{size / GIB:.2f}" for name, size in row["bytes"].items()}
    seconds = ", ".join(f"{name} {value} s" for name, value in row["seconds"].items())
    mesh = " x ".join(f"{name} {size}" for name, size in row["mesh"].items())
    exchanged = [
        (each["kind"], each["group"], each["count"], f"{each['bytes'] / 1e6:,.1f}",
         f"{each['sent'] / 1e6:,.1f}")
        for each in row["collectives"]
    ]  # fmt: skip
    headings = ("collective", "chips", "count", "MB", "MB sent per chip")
    return "\n".join([
        f"{row['program']}, {row['topology']}, mesh {mesh}, "
        f"{row['rows_per_chip']} rows per chip{_at_once(row)}: {seconds}",
        f"GiB per chip: {gib['total']} of {row['hbm_gib']} = arguments "
        f"{gib['arguments']}, results {gib['results']}, temporaries "
        f"{gib['temporaries']}, code {gib['code']}",
        table(headings, exchanged) if exchanged else "no collectives",
        f"at the stated rates: {row['ms']['compute']} ms for "
        f"{row['flop_per_chip'] / 1e12:.1f} TFLOP, {row['ms']['ici']} ms for "
        f"{row['sent_bytes'] / 1e6:,.1f} MB over the links; the bound: {row['bound']}",
    ])  # fmt: skip


def _at_once(row: Mapping[str, Any]) -> str:
    if "most_rows" not in row:
        return ""
    return (f", {row['rows_at_once']} at once (accumulate {row['accumulate']}; about "
            f"{row['most_rows']} would fit)")  # fmt: skip


def measure(config, target: Target, fit: bool, painted: int) -> Iterator[dict]:
    """Rows of the train step and of prediction; see `main`. fit: with as little
    `accumulate` as lets the config's batch fit."""
    absent = contextlib.nullcontext()
    if target.devices[0].platform == "gpu":
        absent = mock.patch.object(cudnn, "check_compute_capability", _as_hopper)
    with absent:
        loop, more = make_loop(config, target), {}
        model, parts = loop.trained.model, ways(loop.mesh.shape, ROWS)
        if fit:
            loop, made, more = fitting(config, loop, target)
        else:
            made = compile_step(loop)
        rows = loop.config.loader.batch_size // parts
        more |= {"accumulate": loop.config.accumulate}
        flops = training_flops(model.config, loop.trained.query_only)
        yield describe("train", loop, rows, flops, target, made) | more
        if painted:
            made = compile_prediction(loop, painted)
            flops = painting_flops(model.config, 1) + encoding_flops(model.config, 1)
            yield describe("predict", loop, painted, flops, target, made)


def fitting(config, loop: Loop, target: Target) -> tuple[Loop, Compiled, dict]:
    """The loop with the least `accumulate` that fits, its step, and the most rows that
    a chip takes at once, as predicted."""
    total = loop.config.loader.batch_size // ways(loop.mesh.shape, ROWS)
    tried = dict[int, tuple[Loop, Compiled]]()

    def needs(rows: int) -> int:
        changed = config.copy_and_resolve_references()
        changed.accumulate = total // rows
        other = make_loop(changed, target)
        try:
            tried[rows] = other, compile_step(other)
            needed = sum(tried[rows][1].bytes.values())
        except TooLarge as error:
            needed = error.needed
        logging.info("%d rows at once need %.2f GiB", rows, needed / GIB)
        return needed

    choices = [rows for rows in range(1, total + 1) if total % rows == 0]
    rows, most = most_rows(needs, choices, target.chip.hbm * GIB)
    if not rows:
        raise ValueError(
            f"not one row of a batch fits {target.topology}: raise mesh.fsdp"
        )
    return *tried[rows], {"rows_at_once": rows, "most_rows": most}


def parse_flags(config_flag: flags.FlagHolder, argv: Sequence[str]) -> list[str]:
    """Reads the command line, and the config file with it."""
    try:
        return config_file.load(flags.FLAGS, config_flag, config_file.find(argv))
    except ValueError as error:
        sys.exit(f"error: {error}")


def main(config, topology: str, fit: bool, painted: int, out: str):
    # Without chips a program that was kept on disk cannot be loaded again.
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        paths.check("--out", out)
        require(painted >= 0, "--painted", painted, "at least 0")
        rows = measure(config, find(topology), fit, painted)
        report("benchmarks.aot", rows, pathlib.Path(out) if out else None, show)
    except (ValueError, OSError, TooLarge) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    config_flag = config_file.define_flag()
    flags.DEFINE_string("topology", "v5e:4x4", "Chips: a version, and how they stand.")
    flags.DEFINE_bool("fit", True, "Whether to find how many rows fit.")
    flags.DEFINE_integer("painted", 8, "Queries per chip to predict; 0: none.")
    flags.DEFINE_string("out", "", "File that rows are appended to, as JSON.")
    flags.mark_flag_as_required("config")
    F = flags.FLAGS
    app.run(
        lambda _: main(config_flag.value, F.topology, F.fit, F.painted, F.out),
        flags_parser=functools.partial(parse_flags, config_flag),
    )
