"""Every benchmark in its smallest form, to see that each can run.

    python -m benchmarks.all --quick
    python -m benchmarks.all --quick serve train    # these two

Ends with status 1 where one fails. Times are of no account: models are the smallest
there are, inputs are drawn, and XLA compiles without optimisation. In full, each has
its own command, in benchmarks/README.md.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.rows import cpu_seconds, parse
from benchmarks.serve import scene
from configs.mini import NOT_EPISODES, THIN, UNSEEN_CLASSES
from tests.tiny import environment

RESULTS = Path(__file__).parent / "results"
# As in tests: what is compiled here runs once. Processes share what they compile.
COMPILING = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


class Quick(NamedTuple):
    """The arguments of the smallest form, and the packages that it needs.

    {data} stands for a folder of drawn sets, {work} for an empty folder.
    """

    arguments: str = ""
    needs: tuple[str, ...] = ()


PORT = ("torch", "transformers")
BENCHMARKS = {
    "ablate": Quick("base --init mini --steps 1 --data {data} --episodes 1 "
                    "--workdir {work}"),
    "agreement": Quick("--model shapes --data {data} --splits val --episodes 2"),
    "aot": Quick("--config=tests/tiny.py:first=6,batch=4 --topology=v5e:2x2 --nofit "
                 "--painted=0", ("libtpu",)),
    "attention": Quick("--shapes shapes --passes forward --repeats 1"),
    "carry": Quick("--data {data} --out {work} --side 64"),
    "catalog": Quick("--images 100 --objects 300"),
    "cost": Quick(),
    "evaluators": Quick("--size ti16 --canvas 64 32 --prompts 3 --images 3 --batch 2 "
                        "--repeats 1"),
    "export": Quick("--model shapes --repeats 1"),
    "failures": Quick("--model shapes --data {data} --splits val --episodes 2"),
    "inference": Quick("--size ti16 --canvas 64 32 --prompts 1 --repeats 1", PORT),
    "one_way": Quick("--size ti16 --canvas 64 32 --prompts 2 --repeats 1"),
    "pipeline": Quick("--size 32 --photo 48 64 --images 1 --batch_size 1 --batches 1 "
                      "--memory_pairs 0"),
    "run_cost": Quick(),
    "scaling": Quick(f"{RESULTS}/mini_scaling.jsonl --out {{work}}/scaling.png"),
    "search": Quick("--checkpoint shapes --data {data} --splits val --sets discs "
                    "--episodes 1 --pool 2 --prompts 1"),
    "serve": Quick("--model shapes --requests 120 --clients 4"),
    "soak": Quick("--workdir {work} --every 1e9 -- "
                  "--config=tests/tiny.py:steps=2,first=2"),
    "startup": Quick("--model shapes --config tests/tiny.py:first=6"),
    "strokes": Quick("--model shapes --data {data}/discs --images 1"),
    "tables": Quick(),
    "train": Quick("--size ti16 --canvas 64 32 --dtype float32 --batch 1 --steps 1 "
                   "--profile"),
}  # fmt: skip


def write_sets(root: Path) -> None:
    """Indexed sets with the names that configs/mini.py looks for, of which `discs` has
    all splits; an image shows one of four classes."""
    names = (*THIN, *NOT_EPISODES, "discs")
    classes = ("one", "other", *UNSEEN_CLASSES)
    for name in names:
        folder, rows = root / name, []
        folder.mkdir(parents=True)
        splits = ("train", "val", "test") if name == "discs" else ("train",)
        for number, split in enumerate(12 * splits):
            image, labels = scene(number, (96, 96))
            value = 1 + number // len(splits) % len(classes)
            mask = np.where(labels > 0, value, 0).astype(np.uint8)
            Image.fromarray(image).save(folder / f"{number}-image.png")
            Image.fromarray(mask).save(folder / f"{number}-mask.png")
            files = f"{number}-image.png\t{number}-mask.png"
            rows.append(f"{split}\t{files}\t96\t96\t{value}\n")
        head = "split\timage\tmask\twidth\theight\tclasses\n"
        (folder / "index.tsv").write_text(head + "".join(rows))
        listed = "".join(f"{n}\t{c}\t9\n" for n, c in enumerate(classes, 1))
        (folder / "classes.tsv").write_text("id\tname\timages\n" + listed)
    table = "".join(f"{name}\tsemantic\n" for name in names)
    (root / "sets.tsv").write_text("set\tkind\n" + table)


def run(name: str, data: Path, work: Path) -> str:
    """Runs one. Returns what went wrong: "" for nothing."""
    work.mkdir()
    quick = BENCHMARKS[name]
    arguments = quick.arguments.format(data=data, work=work).split()
    more = COMPILING | {"JAX_COMPILATION_CACHE_DIR": f"{data.parent}/compiled"}
    torch = "torch" in quick.needs
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | more if torch else environment(**more),
    )  # fmt: skip
    return f"{done.stdout}\nstatus {done.returncode}" if done.returncode else ""


def run_all(names: list[str]) -> Iterator[str]:
    """Runs each; prints how it went. Yields the names of those that failed."""
    with tempfile.TemporaryDirectory() as root:
        data = Path(root) / "data"
        write_sets(data)
        for name in names:
            missing = [
                x for x in BENCHMARKS[name].needs if not importlib.util.find_spec(x)
            ]
            if missing:
                print(f"{name}: skipped, needs {', '.join(missing)}", flush=True)
                continue
            before = cpu_seconds()
            wrong = run(name, data, Path(root) / name)
            spent = f"{cpu_seconds() - before:.1f} CPU s"
            print(f"{name}: {'FAILED' if wrong else 'runs'}, {spent}", flush=True)
            if wrong:
                print(wrong, flush=True)
                yield name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", required=True)
    args = parse(parser)
    if unknown := set(args.names) - set(BENCHMARKS):
        parser.error(f"unknown benchmarks: {', '.join(sorted(unknown))}")
    if failed := list(run_all(args.names or list(BENCHMARKS))):
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
