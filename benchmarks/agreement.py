"""How far a model's masks in bfloat16 are from those in float32, as JSON.

    python -m benchmarks.agreement --model mini --data ../shared/data

One-shot episodes of held-out images, as `benchmarks.failures` draws them. `iou` is of
the two masks, a mean over the episodes in which one of them is not empty. `low` is the
share of these episodes with an IoU below 0.95.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.failures import draw, options
from benchmarks.rows import parse, report
from seggpt_jax import Predictor

LOW = 0.95


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    known = "float32", "bfloat16"
    predictors = [Predictor.from_pretrained(args.model, dtype=x) for x in known]
    found = []
    for episode, _ in draw(args, predictors[0].size):
        masks = []
        for predictor in predictors:
            predictor.set_prompts(episode.images[0], episode.targets[0])
            masks.append(predictor(episode.query).segments == 1)
        if either := np.logical_or(*masks).sum():
            found.append(np.logical_and(*masks).sum() / either)
    yield {
        "benchmark": "agreement", "model": predictors[0].model_name,
        "masks": len(found), "iou": round(float(np.mean(found)), 4),
        "median": round(float(np.median(found)), 4),
        "low": round(float(np.mean(np.array(found) < LOW)), 4),
    }  # fmt: skip


def main() -> None:
    args = parse(options(__doc__.splitlines()[0]))
    report("benchmarks.agreement", rows(args), args.out)


if __name__ == "__main__":
    main()
