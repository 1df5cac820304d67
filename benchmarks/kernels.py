"""Where a step's time goes, by kinds of kernels, of a trace of jax's profiler."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

# The first kind whose pattern is in a kernel's name; names are cuBLAS', cuDNN's,
# NCCL's and XLA's own.
KINDS = {
    "attention": r"fmha|flash|sdpa|mha",
    "products": r"gemm|nvjet|cutlass|matmul|dot|cublas",
    "convolution": r"conv(?!ert)|implicit_con",
    "collectives": r"nccl|all-?reduce|all-?gather|reduce-?scatter|collective",
    "copies": r"memcpy|memset|copy|transpose",
    "optimizer and elementwise": r"fusion|loop|wrapped|add|mul|convert|reduce",
}


def shares(folder: Path) -> dict[str, float]:
    """Share of the busy time of each kind, and of the rest, largest first.

    folder: what `jax.profiler.trace(folder, create_perfetto_trace=True)` wrote.
    """
    (path,) = folder.rglob("perfetto_trace.json.gz")
    with gzip.open(path, "rt") as file:
        events = json.load(file)["traceEvents"]
    return shares_of(events)


def shares_of(events: list[dict]) -> dict[str, float]:
    """As `shares`, of the events of a trace."""
    names = {
        e["pid"]: e["args"]["name"]
        for e in events
        if e.get("ph") == "M" and e.get("name") == "process_name"
    }
    devices = {pid for pid, name in names.items() if "/device:" in name}
    spent = Counter[str]()
    for event in events:
        # Of a device's kernels; on a CPU, of the operations that its threads ran.
        own = event.get("pid") in devices or (
            not devices and "hlo_op" in event.get("args", {})
        )
        if event.get("ph") == "X" and own:
            spent[_kind(event["name"])] += event["dur"]
    total = sum(spent.values())
    return {kind: round(time / total, 4) for kind, time in spent.most_common()}


def _kind(name: str) -> str:
    for kind, pattern in KINDS.items():
        if re.search(pattern, name, re.IGNORECASE):
            return kind
    return "other"
