"""A long run that is killed again and again, against one that is left alone: JSON.

    python -m benchmarks.soak --workdir=runs/soak --every=240 \
        --out=benchmarks/results/soak.jsonl -- --config=configs/mini.py:steps=6000 \
        --config.data_dir=../shared/data

What follows `--` goes to the main command. The one run gets SIGKILL after random times,
on average every `every` seconds, and is started again until it is done; `same` says
that both logged the same numbers at every step and end in the same parameters, bit for
bit. Memory, open files and the size of the workdir are looked at every few seconds:
`grows` is the memory per hour, by a line through the last life's second half.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.rows import parse, report
from seggpt_jax.runs.writer import history
from seggpt_jax.weights import checkpoint

LOOK_S = 5.0


class Life:
    """One process of the main command, watched."""

    def __init__(self, arguments: Sequence[str], workdir: Path, log: Path):
        command = [sys.executable, "-m", "seggpt_jax.main", *arguments]
        self._log = log.open("a")
        self.process = subprocess.Popen(
            [*command, f"--workdir={workdir}"], stdout=self._log, stderr=self._log
        )
        self.workdir, self.began = workdir, time.monotonic()
        self.looks: list[tuple[float, float, int, float]] = []  # s, MiB, files, MiB
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_S):
            try:
                own = Path(f"/proc/{self.process.pid}")
                pages = int((own / "statm").read_text().split()[1])
                files = len(list((own / "fd").iterdir()))
            except (OSError, IndexError):  # it has just ended
                return
            seconds = time.monotonic() - self.began
            self.looks.append(
                (seconds, pages * 4096 / 2**20, files, size(self.workdir))
            )

    def end(self, within: float | None) -> int:
        """Its exit status; it is killed if it is not done within so many seconds."""
        try:
            status = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            status = self.process.wait()
        self._ended.set()
        self._watcher.join()
        self._log.close()
        return status

    def growth(self) -> float:
        """MiB of memory per hour, in the second half of this life."""
        late = np.array(self.looks[len(self.looks) // 2 :])
        if len(late) < 3:
            return 0.0
        return float(np.polyfit(late[:, 0], late[:, 1], 1)[0] * 3600)


def size(folder: Path) -> float:
    """MiB of a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # a temporary file that has just gone
            continue
    return total / 2**20


def live(arguments, workdir: Path, every: float | None, seed: int) -> dict[str, Any]:
    """Runs the command to its end, through kills if there are any."""
    rng, lives = random.Random(seed), list[Life]()
    while True:
        lives.append(Life(arguments, workdir, workdir.with_suffix(".log")))
        status = lives[-1].end(rng.expovariate(1 / every) if every else None)
        if status == 0:
            break
        if status != -signal.SIGKILL:
            raise ValueError(f"the run failed: see {workdir.with_suffix('.log')}")
    looks = [look for life in lives for look in life.looks] or [(0.0, 0.0, 0, 0.0)]
    return {
        "kills": len(lives) - 1,
        "peak_mib": round(max(look[1] for look in looks)),
        "grows_mib_per_h": round(lives[-1].growth(), 1),
        "most_files": max(look[2] for look in looks),
        "most_disk_mib": round(max(look[3] for look in looks), 1),
        "last_disk_mib": round(size(workdir), 1),
    }


def same(one: Path, other: Path) -> bool:
    """Whether two runs logged the same and ended in the same parameters."""
    for name in ("loss", "grad_norm", "lr"):
        if history(one, name) != history(other, name):
            return False
    states = []
    for workdir in (one, other):
        folder = workdir / "checkpoints"
        parts = [checkpoint.restore_params(folder, "params")]
        try:
            parts.append(checkpoint.restore_params(folder, "ema"))
        except ValueError:  # kept no average
            pass
        states.append(parts)
    if jax.tree.structure(states[0]) != jax.tree.structure(states[1]):
        return False
    return all(map(np.array_equal, *map(jax.tree.leaves, states)))


def rows_of(args) -> Iterator[dict[str, Any]]:
    whole, broken = args.workdir / "whole", args.workdir / "broken"
    for workdir in (whole, broken):
        if workdir.exists():
            shutil.rmtree(workdir)
    args.workdir.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}

    def run(workdir: Path, every: float | None):
        begin = time.monotonic()
        row = live(args.arguments, workdir, every, args.seed)
        found[workdir.name] = {"seconds": round(time.monotonic() - begin), **row}

    # Side by side, so that both take the time of one.
    threads = [
        threading.Thread(target=run, args=(whole, None)),
        threading.Thread(target=run, args=(broken, args.every)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(found) < 2:
        raise ValueError(f"a run failed: see {args.workdir}/*.log")
    equal = same(whole, broken)
    for name, row in found.items():
        yield {"benchmark": "soak", "run": name, "same": equal, **row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--every", type=float, default=240.0, help="mean seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="append the rows to this file")
    parser.add_argument("arguments", nargs="+", help="of the main command, after --")
    args = parse(parser)
    report("benchmarks.soak", rows_of(args), args.out)


if __name__ == "__main__":
    main()
