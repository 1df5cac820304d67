"""JSON rows of measurements: what was measured, where, when and by which command."""

import argparse
import datetime
import json
import platform
import resource
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from seggpt_jax.runs import paths


def cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def cpu_seconds() -> float:
    """CPU time of all processes that this one began and that ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments of a command; ends it where a path is not of this machine."""
    args = parser.parse_args()
    given = vars(args).items()
    try:
        # soak hands `arguments` on, to a command that checks them itself.
        paths.check_all({f"--{name}": x for name, x in given}, free=["--arguments"])
    except ValueError as error:
        sys.exit(f"error: {error}")
    return args


def report(
    module: str,
    rows: Iterable[Mapping[str, Any]],
    out: Path | None,
    show: Callable[[Mapping[str, Any]], str] | None = None,
) -> None:
    """Prints rows as they come, as JSON or as `show` tells them, and appends them to a
    file."""
    where = {
        "cpu": cpu_model(),
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
    }
    for row in rows:
        line = json.dumps({**row, **where})
        print(show(row) if show else line, flush=True)
        if out:
            with out.open("a") as file:
                file.write(line + "\n")
