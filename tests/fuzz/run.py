"""Generated inputs, thousands of each kind, in processes of their own.

    python -m tests.fuzz.run --each 2000 --seed 1              # all kinds
    python -m tests.fuzz.run images masks --each 500 --seed 2  # some
    python -m tests.fuzz.run images --seed 1 --only 17         # one, with its traceback

An input is read rightly, or refused in a line that names it and its fault. Else it is a
fault: `wrong` (another reading than the second one, or a message that helps nobody),
`traceback`, `crash` (a signal) or `hang` (more than 10 s). The status is 1 with one.
"""

import argparse
import collections
import importlib
import json
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tests.fuzz.outcomes import GOOD, REFUSED, RIGHT, Outcome, Refused, Wrong

KINDS = ("images", "masks", "annotations", "prompts", "weights", "configs", "commands")
LIMIT = 10.0  # seconds for one input
_START = 300.0  # seconds for imports and what a kind makes once
_SHOWN = 20  # faults of a kind that are printed


def attempts(kind: str, seed: int, home: Path) -> Callable[[int], Outcome]:
    """A function that makes the input of a number, tries it, and says what came of it.

    The module of the kind has `start(home)`, which is called once, and `attempt(rng,
    folder, started)`, which raises `Refused` or `Wrong`.
    """
    module = importlib.import_module(f"tests.fuzz.{kind}")
    started = module.start(home)

    def attempt(number: int, raising: bool = False) -> Outcome:
        rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
        folder, here = home / "input", os.getcwd()
        folder.mkdir()
        (home / "number").write_text(str(number))
        try:
            module.attempt(rng, folder, started)
            return Outcome(kind, seed, number, RIGHT)
        except Refused as error:
            return Outcome(kind, seed, number, REFUSED, str(error))
        except Wrong as error:
            if raising:
                raise
            return Outcome(kind, seed, number, "wrong", str(error))
        except Exception:
            if raising:
                raise
            return Outcome(kind, seed, number, "traceback", traceback.format_exc())
        finally:
            os.chdir(here)
            _removed(folder)

    return attempt


def _removed(folder: Path) -> None:
    for path in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        path.chmod(0o700)
    shutil.rmtree(folder)


def _serve(pipe, kind: str, seed: int, numbers: Sequence[int]) -> None:
    """Tries inputs one by one; tells each number before, and its outcome after."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "__array__ implementation")
    warnings.filterwarnings("ignore", r"label\(\) is deprecated")  # Beam's protobuf
    warnings.filterwarnings("ignore", module="PIL")  # of damaged tags
    warnings.filterwarnings("ignore", r"the load_module\(\) method")  # ml_collections
    logging.disable(logging.CRITICAL)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    with tempfile.TemporaryDirectory() as home:
        attempt = attempts(kind, seed, Path(home))
        for number in numbers:
            pipe.send(number)
            pipe.send(attempt(number))
    pipe.send(None)


def run(
    kind: str, seed: int, numbers: Sequence[int], limit: float = LIMIT
) -> Iterator[Outcome]:
    """The outcomes of inputs, in order. A process that dies or hangs is replaced.

    limit: seconds for one input.
    """
    context = multiprocessing.get_context("spawn")
    todo = list(numbers)
    while todo:
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, kind, seed, todo))
        process.start()
        there.close()
        began = False
        while True:
            seconds = limit if began else _START
            if not here.poll(seconds):
                process.kill()
                yield Outcome(kind, seed, todo.pop(0), "hang", f"over {seconds} s")
                break
            try:
                told = here.recv()
            except (EOFError, OSError):
                process.join()
                status = f"status {process.exitcode}"
                yield Outcome(kind, seed, todo.pop(0), "crash", status)
                break
            if told is None:
                break
            began = True
            if isinstance(told, Outcome):
                yield told
                todo.pop(0)
        process.join()
        here.close()


def _last(text: str) -> str:
    """The last lines of a traceback."""
    return "\n  ".join(text.strip().splitlines()[-5:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=" ".join(KINDS))
    parser.add_argument("--each", type=int, default=200, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one input, in this process")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS",
                        help="of one input; more on a busy machine")  # fmt: skip
    parser.add_argument("--out", type=Path, help="a file for a line of each input")
    args = parser.parse_args()
    kinds = args.kinds or KINDS
    if args.only is not None:
        with tempfile.TemporaryDirectory() as home:
            print(attempts(kinds[0], args.seed, Path(home))(args.only, True))
        return 0
    total: collections.Counter[str] = collections.Counter()
    for kind in kinds:
        began, shown = time.monotonic(), 0
        counts: collections.Counter[str] = collections.Counter()
        for outcome in run(kind, args.seed, range(args.each), args.limit):
            counts[outcome.name] += 1
            if args.out:
                with args.out.open("a") as file:
                    file.write(json.dumps(outcome._asdict()) + "\n")
            if outcome.name not in GOOD and (shown := shown + 1) <= _SHOWN:
                print(f"{kind} --seed {args.seed} --only {outcome.number}: "
                      f"{outcome.name}\n  {_last(outcome.text)}")  # fmt: skip
        took = time.monotonic() - began
        print(f"{kind}: seed {args.seed}, {dict(counts)}, {took:.0f} s", flush=True)
        total += counts
    print(f"all: {dict(total)}")
    return int(any(name not in GOOD for name in total))


if __name__ == "__main__":
    sys.exit(main())
