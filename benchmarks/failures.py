"""What one-shot scores depend on: size, scale, colour and pieces of a thing, as JSON.

    python -m benchmarks.failures --model mini --data ../shared/data \\
        --out benchmarks/results/mini_failures.jsonl

Right prompts and queries are those of the evaluation `heldout` of configs/mini.py. Each
row is of the episodes whose thing, for example, covers less than 1 % of its image. One
fails by an IoU below 0.1.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, label

from benchmarks.rows import parse, report
from configs import mini
from seggpt_jax import Predictor
from seggpt_jax.data.sources import open_groups
from seggpt_jax.evaluators.common import Episode
from seggpt_jax.evaluators.episodes import Episodes
from seggpt_jax.metrics import episode_iou

FAILED = 0.1  # IoU below which an episode fails
LOW = 0.1  # share of the asked colour in a pixel that is painted a quarter of it
# Fact -> its bounds; a group is between two of them.
GROUPS = {
    "area": (0, 0.01, 0.03, 0.1, 0.3, np.inf),
    "width": (0, 0.5, 1, 2, 4, np.inf),
    "scale": (0, 0.25, 4, np.inf),
    "colour": (0, 50, 100, 200, np.inf),
    "pieces": (1, 2, 6, np.inf),
}


def draw(args: argparse.Namespace, size) -> Iterator[tuple[Episode, Episode | None]]:
    """Episodes and the same with wrong prompts, of every set and split."""
    heldout = mini.get_config().evals.heldout.sources.to_dict()
    specs = {split: heldout[split] for split in args.splits}
    for sources in open_groups(specs, args.data).values():
        for name, source in sources.items():
            others = [other for key, other in sources.items() if key != name]
            episodes = Episodes(source, size, wrong_sources=others)
            yield from map(episodes.draw, range(args.episodes))


def facts(episode: Episode, patch: int) -> dict[str, float]:
    """area: the part of the query that the thing covers. width: of its widest place, in
    patches. scale: its area in the query over that in the prompt. colour: the distance
    (L1) of its mean colours in both. pieces: how many it is cut into."""
    thing, shown = episode.truth > 0, episode.targets[0].any(-1)
    inside = distance_transform_edt(np.pad(thing, 1))
    colours = [x[y].mean(0) for x, y in ((episode.query, thing),
                                         (episode.images[0], shown))]  # fmt: skip
    return {
        "area": thing.mean(),
        "width": 2 * inside.max() / patch,
        "scale": thing.sum() / shown.sum(),
        "colour": np.abs(colours[0] - colours[1]).sum(),
        "pieces": label(thing)[1],
    }


def answer(predictor: Predictor, episode: Episode) -> dict[str, float]:
    """iou. low: that of all pixels with at least a quarter of the asked colour. found:
    the decoded area, as a share of the thing's."""
    predictor.set_prompts(episode.images[0], episode.targets[0])
    result = predictor(episode.query)

    def iou(found):
        return episode_iou(np.int32(found), episode.truth, episode.ignore)

    return {
        "iou": iou(result.segments == 1),
        "low": iou(result.shares[1] > LOW),
        "found": (result.segments == 1).sum() / (episode.truth > 0).sum(),
    }


def summary(episodes: Sequence[dict[str, float]]) -> dict[str, Any]:
    """The mean IoU of the right and of the wrong prompt, and the share that fails.
    black: of the failures, the share in which less than a tenth of the thing's area was
    found. dim: the share in which a quarter of the colour would do, by an IoU above a
    half."""
    failures = [each for each in episodes if each["iou"] < FAILED]
    named = {
        "iou": [each["iou"] for each in episodes],
        "wrong": [each["wrong"] for each in episodes if "wrong" in each],
        "failed": [each["iou"] < FAILED for each in episodes],
        "black": [each["found"] < 0.1 for each in failures],
        "dim": [each["low"] > 0.5 for each in failures],
    }
    means = {name: round(float(np.mean(x)), 4) for name, x in named.items() if x}
    return {"episodes": len(episodes), **means}


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    predictor = Predictor.from_pretrained(args.model)
    about = {"benchmark": "failures", "model": predictor.model_name}
    every = []
    for right, wrong in draw(args, predictor.size):
        own = facts(right, predictor.config.patch) | answer(predictor, right)
        if wrong:
            own["wrong"] = answer(predictor, wrong)["iou"]
        every.append(own)
    yield {**about, "by": "all", **summary(every)}
    for fact, bounds in GROUPS.items():
        for least, below in itertools.pairwise(bounds):
            some = [x for x in every if least <= x[fact] < below]
            if some:
                yield {**about, "by": fact, "least": least,
                       "below": None if np.isinf(below) else below,
                       **summary(some)}  # fmt: skip


def options(about: str) -> argparse.ArgumentParser:
    """The options of a command that takes a model through episodes of `draw`."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--model", required=True, help="a model's name")
    parser.add_argument("--data", type=Path, required=True, help="folder of sets")
    splits = ["val", "test"]
    parser.add_argument("--splits", nargs="+", default=splits, choices=splits)
    parser.add_argument("--episodes", type=int, default=40, help="of each split")
    parser.add_argument("--out", type=Path, help="file that the rows are appended to")
    return parser


def main() -> None:
    args = parse(options(__doc__.splitlines()[0]))
    report("benchmarks.failures", rows(args), args.out)


if __name__ == "__main__":
    main()
