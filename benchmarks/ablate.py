"""What single changes of `configs/mini.py` are worth, as JSON rows.

    python -m benchmarks.ablate base no_mix --init runs/mini --steps 700 \\
        --data ../shared/data --workdir runs/ablations \\
        --out benchmarks/results/mini_ablations.jsonl

Each change is trained alone from the same start, for as many steps as `base`, or with
`--equal-compute` for as many operations: the last stage of the config from the weights
of `--init`, or without it all stages from random parameters. It is then scored as the
config scores. Differences to `--base`, a run of the same workdir and arguments, are
paired by episode, with 95 % intervals of the bootstrap over episodes: they say nothing
of what another seed of training would change. Runs at another canvas are scored at it,
which draws other episodes, and so have no differences.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks.rows import parse, report
from benchmarks.run_cost import run_of
from configs import mini
from seggpt_jax import evaluate
from seggpt_jax.config import plain
from seggpt_jax.evaluators.report import commit, means
from seggpt_jax.metrics import interval, resample
from seggpt_jax.models.seggpt import SegGPTConfig
from seggpt_jax.predict import Engine
from seggpt_jax.runs.runtime import cache_compiled
from seggpt_jax.runs.sharding import make_mesh
from seggpt_jax.train import train
from seggpt_jax.weights import build, pretrained

REPLICATES = "replicates.npz"
ARMS = {"right": "", "wrong": "wrong/", "copy": "copy/", "color": "color/"}
NAMED = (
    "test/drive", "test/chase-db1", "test/dsb2018-nuclei", "test/oxford-pet-mini",
    "test/fss1000-sample", "val/coco-mini", "val/voc2012-mini",
)  # fmt: skip
# Settings that replace those of the config.
CHANGES: Mapping[str, Mapping[str, Any]] = MappingProxyType({
    "base": {},
    "seed": {"seed": 1},
    "seed_2": {"seed": 2},
    # losses
    "smooth_l1": {"stages.paint.loss": "smooth_l1"},
    "weight_1": {"stages.paint.max_foreground_weight": 1.0},
    "weight_2": {"stages.paint.max_foreground_weight": 2.0},
    "weight_6": {"stages.paint.max_foreground_weight": 6.0},
    "no_background": {"stages.paint.background_prob": 0.0},
    # pairs
    "shapes_40": {
        "stages.paint.weights.photos": 0.45, "stages.paint.weights.shapes": 0.4,
    },
    "absent_0": {"context.absent_prob": 0.0},
    "same_image_80": {"context.same_image": 0.8},
    "same_image_20": {"context.same_image": 0.2},
    "no_mix": {"context.mix_prob": 0.0},
    "mix_50": {"context.mix_prob": 0.5},
    "group_power_0": {"group_power": 0.0},
    "group_power_1": {"group_power": 1.0},
    "whole_thin": {
        f"sources.thin.members.{name}.view.crop_scale": (0.5, 1.0)
        for name in mini.THIN
    },
    "crops_10": {"view.crop_scale": (0.1, 1.0)},
    "crops_30": {"view.crop_scale": (0.3, 1.0)},
    "jitter_80": {"view.jitter_prob": 0.8},
    "one_color": {"recolor.max_colors": 1},
    "any_colors": {"recolor.all_prob": 0.0},
    "fixed_colors": {"recolor.fixed": True},
    "hidden_any": {"masking.half_prob": 0.1},
    # optimizer
    "lr_4": {"stages.paint.lr": 4e-4},
    "lr_16": {"stages.paint.lr": 1.6e-3},
    "batch_16": {"loader.batch_size": 16},
    "ema_off": {"ema": 0.0},
    # optimizer and schedule, from random parameters
    "adamw": {
        "optim.algorithm": "adamw", "stages.find.lr": 8e-4, "stages.find.end_lr": 4e-4,
        "stages.paint.lr": 4e-4,
    },
    "lr_half": {
        "stages.find.lr": 8e-4, "stages.find.end_lr": 4e-4, "stages.paint.lr": 4e-4,
    },
    "lr_double": {
        "stages.find.lr": 3.2e-3, "stages.find.end_lr": 1.6e-3,
        "stages.paint.lr": 1.6e-3,
    },
    "no_scenes": {
        "sources.photos.weight": 0.85, "stages.paint.weights.photos": 0.85,
        "sources.shapes.weight": 1e-9, "stages.paint.weights.shapes": 0.0,
    },
    # geometry, from random parameters
    "canvas_128": {"model.canvas": (256, 128)},
    "patch_6": {"model.patch": 6},
    "patch_12": {"model.patch": 12},
    "width_128": {"model.width": 128},
    "depth_8": {"model.depth": 8, "model.taps": (3, 7)},
    "merge_2": {"model.merge_after": 2},
    "decoder_16": {"model.decoder_width": 16},
    "heads_3": {"model.heads": 3},
    "one_way": {"model.one_way": True},
    # sizes below and above, from random parameters: benchmarks/scaling.py
    "small": {"model.width": 48, "model.depth": 4, "model.taps": (1, 3)},
    "large": {"model.width": 160, "model.depth": 8, "model.taps": (3, 7)},
})  # fmt: skip


def configure(names: str, args: argparse.Namespace):
    """The config of a run: changes, joined by `+`, put in."""
    config = _configure(names, args, args.steps)
    if args.equal_compute:
        base = run_of(_configure(args.base, args, args.steps))
        steps = args.steps * base.total / run_of(config).total
        config = _configure(names, args, round(steps))
    return config


def _configure(names: str, args: argparse.Namespace, steps: int):
    more = "more," if args.init else ""
    config = mini.get_config(f"{more}steps={steps}")
    config.init_from = args.init
    config.data_dir = args.data
    config.save_every = 10 * steps  # at the end alone
    config.evals.heldout.episodes = args.episodes
    settings = settings_of(names)
    if args.init:  # there is no first stage to change
        settings = {k: v for k, v in settings.items() if "stages.find" not in k}
    config.update_from_flattened_dict(settings)
    return config


def settings_of(names: str) -> dict[str, Any]:
    """The settings of changes joined by `+`."""
    return {k: v for name in names.split("+") for k, v in CHANGES[name].items()}


def score(config, checkpoint: Path) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Scores of a run's weights, and of their means the replicates."""
    weights = pretrained.load(str(checkpoint))
    if weights.step != (steps := run_of(config).steps):
        # Told to stop, training saves and returns.
        raise SystemExit(f"{checkpoint} is at step {weights.step} of {steps}")
    model, mesh = build.build_model(config.model), make_mesh()
    engine = Engine(model, mesh)
    (group,) = evaluate.build_groups(config.evals, config.data_dir, engine)
    params = build.place_params(weights, model, mesh)
    scores: dict[str, float] = {}
    replicates: dict[str, np.ndarray] = {}
    for place, evaluator in enumerate(group.evaluators.values()):
        scores |= evaluator.run(params)
        replicates |= evaluator.scores(resample(evaluator.count, seed=place))
    members = list(group.evaluators)
    return (
        scores | means(group.name, members, scores),
        means(group.name, members, replicates),
    )


def row(scores: Mapping[str, float]) -> dict[str, Any]:
    """mIoU in percent: of the mean and of the named splits, each arm."""
    found = {}
    for place in ("mean", *NAMED):
        keys = {arm: f"heldout/{place}/1shot/{key}miou" for arm, key in ARMS.items()}
        if all(key in scores for key in keys.values()):
            found[place] = {a: round(100 * scores[k], 1) for a, k in keys.items()}
    return found


def about(config, args: argparse.Namespace) -> dict[str, Any]:
    """What two runs must share to be compared."""
    names = ("steps", "init", "data", "episodes")
    canvas = list(SegGPTConfig.read(config.model).canvas)
    return {name: getattr(args, name) for name in names} | {"canvas": canvas}


def read_base(path: Path, wanted: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """Replicates of the run to compare with; None if there is none at this canvas."""
    if not path.exists():
        return None
    with np.load(path) as stored:
        replicates = dict(stored)
    found = json.loads(str(replicates.pop("about")))
    if others := [k for k in wanted if k != "canvas" and wanted[k] != found[k]]:
        differ = ", ".join(f"{k} {found[k]!r}, not {wanted[k]!r}" for k in others)
        raise SystemExit(f"{path.parent} has {differ}: take another --workdir")
    return replicates if found["canvas"] == wanted["canvas"] else None


def compare(
    replicates: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray]
) -> dict[str, list[float]]:
    """95 % intervals of the differences of means to those of a run, in percent."""
    found = {}
    for arm in ("right", "wrong"):
        key = f"heldout/mean/1shot/{ARMS[arm]}miou"
        low, high = interval(100 * (replicates[key] - base[key]))
        found[arm] = [round(low, 1), round(high, 1)]
    return found


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for names in args.names:
        config, workdir = configure(names, args), Path(args.workdir) / names
        run, described = run_of(config), about(config, args)
        base = read_base(Path(args.workdir) / args.base / REPLICATES, described)
        evals, config.evals = config.evals, {}
        resumed, start = (workdir / "checkpoints").exists(), time.perf_counter()
        train(config, str(workdir))
        seconds = round(time.perf_counter() - start)
        config.evals = evals
        scores, replicates = score(config, workdir)
        np.savez(workdir / REPLICATES, about=json.dumps(described), **replicates)
        if names == args.base:
            base = replicates
        differences = compare(replicates, base) if base else {}
        yield {
            "benchmark": "ablate", "change": names,
            "settings": settings_of(names),
            "kind": "continued" if args.init else "scratch",
            "steps": run.steps,
            "seconds": None if resumed else seconds,  # of a part only
            "flops": run.total, "seed": config.seed, "episodes": args.episodes,
            "stages": plain(config.stages), "commit": commit(), **row(scores),
            **{f"{arm} - {args.base}": d for arm, d in differences.items()},
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", help=f"of {', '.join(CHANGES)}; a+b: both")
    parser.add_argument("--data", required=True, help="folder of sets")
    parser.add_argument("--workdir", required=True, help="gets a folder for each run")
    parser.add_argument("--base", default="base", help="the run to compare with")
    parser.add_argument("--init", default="", help="weights to go on from")
    parser.add_argument("--steps", type=int, default=700, help="of base")
    parser.add_argument(
        "--equal-compute", action="store_true",
        help="as many operations as base, instead of as many steps",
    )  # fmt: skip
    parser.add_argument("--episodes", type=int, default=20, help="of each split")
    parser.add_argument("--out", type=Path, help="file that the rows are appended to")
    args = parse(parser)
    parts = {part for name in (*args.names, args.base) for part in name.split("+")}
    unknown = parts - set(CHANGES)
    if unknown:
        parser.error(f"unknown changes: {', '.join(sorted(unknown))}")
    cache_compiled()
    report("benchmarks.ablate", rows(args), args.out)


if __name__ == "__main__":
    main()
