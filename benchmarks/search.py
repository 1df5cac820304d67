"""What chosen prompts are worth: IoU of random, similar and best-scoring ones, as JSON.

    python -m benchmarks.search --checkpoint runs/mini --data ../shared/data \\
        --out benchmarks/results/search.jsonl

An episode is a query with a pool of candidates of its class, all different images of a
split that the model was not trained on. From the pool come the prompts of three arms:
`random`, the pool cut into groups of k in the order drawn, their mean; `similarity`
and `score`, the k best (`seggpt_jax.prompts.search`). Differences to `random` are
paired by episode, with 95 % intervals of the bootstrap: `ci` draws episodes again,
`class_ci` whole classes, whose episodes have images in common.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows import parse, report
from seggpt_jax import colors
from seggpt_jax.data.augment import resize
from seggpt_jax.data.sample import Sample
from seggpt_jax.data.sources import open_groups
from seggpt_jax.evaluators import candidates
from seggpt_jax.evaluators.common import Episode
from seggpt_jax.evaluators.episodes import compose
from seggpt_jax.metrics import episode_iou, interval, resample
from seggpt_jax.predict import Engine
from seggpt_jax.prompts import search
from seggpt_jax.weights import build

_EXCLUDED = ("davis2016-val", "seggpt-examples")  # videos, and no classes


def bind(
    checkpoint: str,
) -> tuple[search.Functions, tuple[int, int], dict[str, Any]]:
    """The functions of a model, its images' size, and which model it is."""
    model, weights = build.load_model(checkpoint)
    params = build.inference_params(model, weights.params)
    functions = search.bind(Engine(model), "feature", params)
    about = {"checkpoint": weights.name, "step": weights.step}
    return functions, model.config.half, about


def open_sets(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Set -> split -> source, of those with classes."""
    specs = {
        split: {"type": "indexed", "folder": "*", "split": split, "exclude": _EXCLUDED}
        for split in args.splits
    }
    found: dict[str, dict[str, Any]] = {}
    for split, members in open_groups(specs, args.data).items():
        for name, source in members.items():
            if not source.same_image_only and (not args.sets or name in args.sets):
                found.setdefault(name, {})[split] = source
    return found


def draw(sources, args: argparse.Namespace, size) -> Iterator[tuple[str, Episode]]:
    """Class and episode; each class as often as the others."""
    for split, source in sources.items():
        for label, records in source.by_class.items():
            name = f"{split}/{source.name}/{source.class_names[label]}"
            for number in range(args.episodes):
                rng = np.random.default_rng([args.seed, label, number])
                order = rng.permutation(np.asarray(records))
                fitting = _shown(source, order, label, size, args)
                found = list(itertools.islice(fitting, args.pool + 1))
                if len(found) <= args.pool:
                    break
                # The first of them is the query; the class is white.
                records, samples = zip(*found, strict=True)
                white = colors.spread_palette(1)
                yield name, compose(source.name, records, samples, (label,), white)


def _shown(source, records, label, size, args) -> Iterator[tuple[int, Sample]]:
    for record in records.tolist():
        sample = resize(source[record], size)
        if np.sum(sample.segments == label) >= args.min_pixels:
            yield record, sample


def answer(functions: search.Functions, episode: Episode, places) -> float:
    """The IoU of the query by some prompts of an episode."""
    some = list(places)
    prompts = functions.encode(
        colors.normalize(episode.images[some])[None],
        colors.normalize(episode.targets[some])[None],
        np.array([episode.kind], np.int32),
    )
    (painting,) = functions.paint(prompts, colors.normalize(episode.query)[None])
    pred = colors.decode(painting, episode.palette)
    return episode_iou(pred, episode.truth, episode.ignore)


def arms(functions, episode: Episode, args) -> dict[str, float]:
    """IoU by `<arm>/<k>`."""
    found = {}
    drawn = np.arange(args.pool)
    for how in candidates.SEARCHES:
        ordered = candidates.sort_prompts(episode, how, functions, args.batch_size)
        for k in args.prompts:
            groups = drawn[: args.pool // k * k].reshape(-1, k)
            groups, arm = (groups, "random") if how == "none" else (groups[:1], how)
            ious = [answer(functions, ordered, group) for group in groups]
            found[f"{arm}/{k}"] = float(np.mean(ious))
    return found


def summary(episodes: list[dict[str, Any]], replicates: int = 1000) -> dict[str, Any]:
    """Means, and paired differences to random prompts with their intervals."""
    names = [name for name in episodes[0] if "/" in name]
    values = {name: np.array([each[name] for each in episodes]) for name in names}
    row: dict[str, Any] = {"episodes": len(episodes)}
    row |= {name: round(float(values[name].mean()), 4) for name in names}
    classes, own = np.unique([each["class"] for each in episodes], return_inverse=True)
    row["classes"] = len(classes)
    draws = {
        "ci": resample(len(episodes), replicates),
        "class_ci": resample(len(classes), replicates)[:, own],
    }
    for name in names:
        how, k = name.split("/")
        if how == "random":
            continue
        gain = values[name] - values[f"random/{k}"]
        row[f"{name}/gain"] = round(float(gain.mean()), 4)
        for key, counts in draws.items():
            means = counts @ gain / counts.sum(1)
            row[f"{name}/gain/{key}"] = [round(x, 4) for x in interval(means)]
    return row


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    functions, size, model = bind(args.checkpoint)
    about = {
        "benchmark": "search", **model,
        "splits": args.splits, "pool": args.pool, "seed": args.seed,
    }  # fmt: skip
    every, sets = [], 0
    for name, sources in open_sets(args).items():
        own = [
            {"class": label, **arms(functions, episode, args)}
            for label, episode in draw(sources, args, size)
        ]
        if own:
            yield {**about, "set": name, **summary(own)}
            every, sets = every + own, sets + 1
    if not every:
        raise SystemExit(f"no class of {args.data} has more than {args.pool} images")
    yield {**about, "set": "all", "sets": sets, **summary(every)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", required=True, help="a model's name (docs/models.md)"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of sets")
    parser.add_argument("--splits", nargs="+", default=["val", "test"])
    parser.add_argument("--sets", nargs="+", default=[], help="only these")
    parser.add_argument("--episodes", type=int, default=4, help="of each class")
    parser.add_argument("--pool", type=int, default=8, help="candidates of an episode")
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--min_pixels", type=int, default=64, help="shown of a class")
    parser.add_argument("--batch_size", type=int, default=8, help="queries at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file that the rows are appended to")
    args = parse(parser)
    for k in args.prompts:
        candidates.check("score", args.pool, k)
    report("benchmarks.search", rows(args), args.out)


if __name__ == "__main__":
    main()
