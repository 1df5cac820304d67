"""Draws score against training compute, from rows of `benchmarks.ablate`.

    for steps in 500 1500; do
        python -m benchmarks.ablate small base large --steps $steps --equal-compute \\
            --data ../shared/data --workdir runs/scaling-$steps \\
            --out runs/scaling.jsonl
    done
    python -m benchmarks.scaling runs/scaling.jsonl --out docs/pictures/scaling.png

One line per change, a point per run, the right prompt's score and the wrong one's.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from benchmarks.rows import parse  # noqa: E402


def lines(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[float, ...]]]:
    """Change -> (operations, right prompt, wrong prompt) of its runs, by operations."""
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for row in rows:
        mean = row["mean"]
        found[row["change"]].append((row["flops"], mean["right"], mean["wrong"]))
    return {change: sorted(points) for change, points in found.items()}


def draw(found: Mapping[str, list[tuple[float, ...]]], out: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for change, points in found.items():
        flops, right, wrong = zip(*points, strict=True)
        (line,) = axes.plot(flops, right, "o-", label=change)
        axes.plot(flops, wrong, "x:", color=line.get_color())
    axes.set_xscale("log")
    axes.set_xlabel("training operations (multiplications and additions)")
    axes.set_ylabel("mean mIoU of held-out splits, %")
    axes.legend(title="right prompt; dotted: wrong")
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, help="JSON lines of benchmarks.ablate")
    parser.add_argument("--out", type=Path, required=True, help="a .png or .svg")
    args = parse(parser)
    draw(lines(map(json.loads, args.rows.read_text().splitlines())), args.out)


if __name__ == "__main__":
    main()
