"""Seconds from a command to its first result, and where they go, as JSON.

    python -m benchmarks.startup --out benchmarks/results/startup.jsonl

Every command is a process of its own. `cold`: no compiled program is kept; `warm`: all
are. `cpu_s` is the time of all its threads: beside other work it tells more than
`wall_s`. `mask` is the first mask of a bundled model in Python, and `segment` the same
on the command line. `train` is a run up to its first step. The parts `trace`, `lower`
and `compile` are jax's own, of wall time, and lie within the others.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from benchmarks.rows import cpu_seconds, parse, report

EXAMPLES = Path(__file__).parents[1] / "docs/examples"
PROMPT = [str(EXAMPLES / name) for name in ("prompt.jpg", "prompt-mask.png")]
QUERY = str(EXAMPLES / "query.jpg")
# jax's event -> our name of it.
_EVENTS = {
    "jaxpr_trace": "trace",
    "jaxpr_to_mlir_module": "lower",
    "backend_compile": "compile",
}
# In front of what a process does: `done(name)` ends a part, `tell()` prints all.
_WATCHED = """
import json, sys, time
clocks = lambda: (time.process_time(), time.perf_counter())
marks, parts, events = [clocks()], {}, json.loads(sys.argv.pop(1))
def done(name):
    marks.append(clocks())
    spent = [round(b - a, 3) for a, b in zip(*marks[-2:])]
    parts[name] = dict(zip(("cpu_s", "wall_s"), spent))
def listen():
    import jax
    def heard(name, seconds, **_):
        name = name.split("/")[-1].removesuffix("_duration")
        if name in events:
            part = parts.setdefault(events[name], {"wall_s": 0})
            part["wall_s"] = round(part["wall_s"] + seconds, 3)
    jax.monitoring.register_event_duration_secs_listener(heard)
def tell():
    print(json.dumps(parts), flush=True)
"""
_MASK = """
import jax
done("import jax")
listen()
from seggpt_jax import Predictor
from seggpt_jax.runs.runtime import cache_compiled
done("import seggpt_jax")
cache_compiled()
predictor = Predictor.from_pretrained(sys.argv[1])
done("weights")
predictor.set_prompts(*sys.argv[2:4])
done("encode")
assert predictor(sys.argv[4]).segments.any()
done("first mask")
predictor(sys.argv[4])
done("second mask")
tell()
"""
# The main command, which ends where its first step is done.
_TRAIN = """
from absl import app
from seggpt_jax import main, train
done("imports")
listen()
begun = train.Loop.open_data
def open_data(self):
    done("config")
    begun(self)
    done("data")
train.Loop.open_data = open_data
begin = train.Loop.begin_stage
def begin_stage(self, *args):
    done("state")
    step = begin(self, *args)
    def first(*args):
        import jax, os
        jax.block_until_ready(step(*args))
        done("first step")
        tell()
        os._exit(0)
    return first
train.Loop.begin_stage = begin_stage
app.run(main.main, flags_parser=main.parse_flags)
"""


def command(name: str, args: argparse.Namespace, folder: str) -> list[str]:
    """What is run, to be found again in its row."""
    python, events = [sys.executable], json.dumps(_EVENTS)
    watched = [*python, "-c"]
    return {
        "python": [*watched, "pass"],
        "help": [*python, "-m", "seggpt_jax.cli", "--help"],
        "import": [*watched, "import seggpt_jax"],
        "mask": [*watched, _WATCHED + _MASK, events, args.model, *PROMPT, QUERY],
        "segment": [
            *python, "-m", "seggpt_jax.cli", "segment", "--model", args.model,
            "--out", f"{folder}/out", "--prompt", ":".join(PROMPT), QUERY,
        ],
        "train": [
            *watched, _WATCHED + _TRAIN, events, f"--config={args.config}",
            f"--workdir={folder}/run",
        ],
    }[name]  # fmt: skip


def run(name: str, args: argparse.Namespace, cache: str) -> dict[str, Any]:
    """The times of one command in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        before, begin = cpu_seconds(), time.perf_counter()
        done = subprocess.run(
            command(name, args, folder), capture_output=True, text=True,
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
        )  # fmt: skip
        wall, cpu = time.perf_counter() - begin, cpu_seconds() - before
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    row = {"cpu_s": round(cpu, 3), "wall_s": round(wall, 3)}
    if name in ("mask", "train"):
        row["parts"] = json.loads(done.stdout.splitlines()[-1])
    return row


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    about = {"benchmark": "startup", "jax": jax.__version__,
             "python": sys.version.split()[0]}  # fmt: skip
    for name in ("python", "help", "import"):
        yield {**about, "start": name, **run(name, args, "")}
    compiling = {"mask": args.model, "segment": args.model, "train": args.config}
    for name, what in compiling.items():
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "warm"):
                found = run(name, args, cache)
                yield {**about, "start": name, "of": what, "programs": state, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini", help="a bundled model")
    parser.add_argument("--config", default="configs/vitl.py:tiny", help="to train")
    parser.add_argument("--out", type=Path, help="file that the rows are appended to")
    args = parse(parser)
    report("benchmarks.startup", rows(args), args.out)


if __name__ == "__main__":
    main()
