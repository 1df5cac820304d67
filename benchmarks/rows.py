"""JSON rows of measurements: what was measured, where, when and by which command."""

import datetime
import json
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


def cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


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
