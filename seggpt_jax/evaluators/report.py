"""What an evaluation says in the end: means, intervals, a table, a file of results."""

import datetime
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import seggpt_jax
from seggpt_jax.config import shorten
from seggpt_jax.metrics import interval
from seggpt_jax.runs.paths import AnyPath
from seggpt_jax.runs.staging import new_file
from seggpt_jax.trees import table

ARMS = ("wrong", "copy", "color")  # the right prompts are compared with these
RESULTS = "results"  # the folder of a workdir for what was scored, case by case
LEFT_OUT = "left_out.json"  # in that folder: row -> reason
_KEY = "miou"  # the score that tables show
Intervals = Mapping[str, tuple[float, float]]


def means(group: str, keys: Sequence[str], scores: Mapping[str, Any]) -> dict[str, Any]:
    """`<group>/mean/...`: means over a group's evaluators, of scores or of bootstrap
    replicates. Evaluators whose score is nan are left out."""
    found: dict[str, list[Any]] = {}
    for key in keys if len(keys) > 1 else ():  # the mean of one would repeat it
        prefix = f"{group}/{key}/"
        for name, value in scores.items():
            if name.startswith(prefix) and np.isfinite(value).any():
                found.setdefault(name.removeprefix(prefix), []).append(value)
    return {f"{group}/mean/{name}": np.mean(v, axis=0) for name, v in found.items()}


def differences(scores: Mapping[str, Any]) -> dict[str, Any]:
    """`<place>/<score> - <arm>`: the right prompts' scores less those of every arm."""
    found = {}
    for name, value in scores.items():
        stem, _, key = name.rpartition("/")
        for arm in ARMS:
            if (other := scores.get(f"{stem}/{arm}/{key}")) is not None:
                found[f"{name} - {arm}"] = value - other
    return found


def summary(scores: Mapping[str, float], intervals: Intervals | None = None) -> str:
    """mIoU of the right prompts beside that of wrong prompts and of the baselines, in
    percent, a line per source and number of prompts; the other scores of what has no
    mIoU; then what has no such arms. With intervals of 95 % where these are given."""
    known = intervals or {}
    rows: list[tuple[str, ...]] = []
    compared: set[str] = set()
    for name in scores:
        stem, _, key = name.rpartition("/")
        arms = [f"{stem}/{arm}/{key}" for arm in ARMS]
        if any(arm in scores for arm in arms):
            compared.add(name.split("/")[0])
            if key == _KEY or f"{stem}/{_KEY}" not in scores:
                each = (name, *arms)
                texts = [_percent(x, scores[x], known) if x in scores else "-"
                         for x in each]  # fmt: skip
                rows.append((stem if key == _KEY else name, *texts))
    stems = {name.rpartition("/")[0] for name in scores if name.endswith(f"/{_KEY}")}
    title = "mIoU" if {row[0] for row in rows} <= stems else "percent"
    lines = [table((title, "prompted", *ARMS), rows)] if rows else []
    for name, value in scores.items():
        if name.split("/")[0] not in compared:
            low, high = known.get(name, (math.nan, math.nan))
            span = f"  [{low:.4f}, {high:.4f}]" if math.isfinite(low) else ""
            lines.append(f"{name}  {value:.4f}{span}")
    return "\n".join(lines)


def gains(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """mIoU before and after, of the right prompts, a line per source and shots."""
    return [
        f"{name.removesuffix('/' + _KEY)}: mIoU {100 * before[name]:.1f} -> "
        f"{100 * value:.1f}"
        for name, value in after.items()
        if name in before
        and name.endswith(f"/{_KEY}")
        and not set(name.split("/")) & set(ARMS)
    ]


def advice(scores: Mapping[str, float]) -> list[str]:
    """What to make of scores that no one would expect to be good."""
    below = [
        name.rpartition("/")[0]
        for name, value in scores.items()
        if name.endswith(f"/{_KEY}")
        and value < scores.get(f"{name.removesuffix(_KEY)}color/{_KEY}", -1)
    ]
    if not below:
        return []
    return [
        f"`color`, the nearest colours of the prompt without a model, is better for "
        f"{shorten(below, 3)}: expected of small models and of short training"
    ]


def _percent(name: str, value: float, intervals: Intervals) -> str:
    if not math.isfinite(value):
        return "-"
    if name not in intervals:
        return f"{100 * value:.1f}"
    low, high = intervals[name]
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def intervals_of(replicates: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """95 % intervals of scores, from their replicates."""
    return {name: interval(values) for name, values in replicates.items()}


def write(
    path: AnyPath,
    scores: Mapping[str, float],
    replicates: Mapping[str, np.ndarray],
    **about: Any,
) -> None:
    """Writes the results of a group as JSON: every score with its 95 % interval, the
    differences to the arms, and what it was measured with."""
    spread = intervals_of(replicates)
    gaps, gap_spread = differences(scores), intervals_of(differences(replicates))
    content = {
        **about,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware(),
        "scores": {name: _entry(v, spread.get(name)) for name, v in scores.items()},
        "differences": {n: _entry(v, gap_spread.get(n)) for n, v in gaps.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")


def write_left_out(folder: AnyPath, left_out: Mapping[str, str]) -> None:
    """Writes the rows that could not be scored, name -> reason, beside the results;
    without any, removes what an earlier run wrote."""
    path = folder / LEFT_OUT
    if left_out:
        folder.mkdir(parents=True, exist_ok=True)
        with new_file(path) as part:
            part.write_text(json.dumps(left_out, indent=2) + "\n")
    else:
        path.unlink(missing_ok=True)


def _entry(value: float, spread: tuple[float, float] | None) -> dict[str, Any]:
    values = {"value": float(value)}
    if spread:
        values |= {"low": spread[0], "high": spread[1]}
    # JSON has no nan.
    return {key: x if math.isfinite(x) else None for key, x in values.items()}


def extremes(ranked: Sequence[int], count: int) -> list[tuple[str, int]]:
    """The best, median and worst of ranked cases, `count` in all, each once."""
    third = max(1, count // 3)
    middle = max(0, len(ranked) // 2 - third // 2)
    named = [("best", n) for n in ranked[: count - 2 * third]]
    named += [("median", n) for n in ranked[middle : middle + third]]
    named += [("worst", n) for n in ranked[-third:]]
    return [
        one for k, one in enumerate(named) if one[1] not in [n for _, n in named[:k]]
    ]


def hardware() -> dict[str, Any]:
    """The devices and the host that scores were measured on."""
    devices = jax.devices()
    return {
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "backend": jax.default_backend(),
        "cpu_cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def commit() -> str:
    """The commit of this code, with + if files of it were changed since; its version
    where it is no checkout."""
    package = Path(seggpt_jax.__file__)
    git = ["git", "-C", str(package.parent)]
    # A package installed into a checkout of something else is not that commit's.
    known = [*git, "ls-files", "--error-unmatch", package.name]
    try:
        if subprocess.run(known, capture_output=True).returncode:
            return seggpt_jax.__version__
        head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True)
        changed = subprocess.check_output([*git, "status", "--porcelain", "-uno", "."])
    except (OSError, subprocess.CalledProcessError):
        return seggpt_jax.__version__
    return head.strip() + ("+" if changed else "")
