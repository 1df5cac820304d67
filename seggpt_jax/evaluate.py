"""Evaluation: build the evaluators of a config, run them, show their pictures."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from seggpt_jax import checkpoint, sharding
from seggpt_jax.config import construct, plain, require, suggest
from seggpt_jax.data.sources import open_groups
from seggpt_jax.models.seggpt import SegGPT, SegGPTConfig
from seggpt_jax.predict import make_predict_fn
from seggpt_jax.writer import Writer

EVALUATORS = {
    "fewshot": "seggpt_jax.evaluators.fewshot",
    "pairs": "seggpt_jax.evaluators.pairs",
}


def build_model(settings: Mapping[str, Any]) -> SegGPT:
    """The model of `config.model`: a size's row with the other settings on top."""
    settings = dict(plain(settings))
    return SegGPT(SegGPTConfig.of(settings.pop("size"), **settings))


@dataclasses.dataclass(frozen=True)
class Group:
    """Evaluators that share settings, one per source, and whose scores are averaged."""

    name: str
    evaluators: Mapping[str, Any]


def build_groups(
    evals: Mapping[str, Any], data_dir: str, model: SegGPT, mesh: Mesh, **given
) -> list[Group]:
    """The evaluator groups of `config.evals`.

    Each entry names a `type` of `EVALUATORS`, its `sources` as `open_groups` takes
    them, and settings of that evaluator. given: what an evaluator of a type may need
    besides, by type.
    """
    predict_fn = make_predict_fn(model)
    rows, cols = model.config.canvas
    groups = []
    for name, settings in plain(evals).items():
        settings = dict(settings)
        kind = settings.pop("type")
        require(kind in EVALUATORS, f"evals.{name}.type", kind,
                f"known{suggest(str(kind), EVALUATORS)}")  # fmt: skip
        cls = importlib.import_module(EVALUATORS[kind]).Evaluator
        shared = {
            "put": lambda batch: _put(mesh, batch),
            "size": (rows // 2, cols),
        }
        where = f"evals.{name}"
        if "sources" not in settings:
            one = construct(
                cls, where, settings, predict_fn=predict_fn, name=name, **shared,
                **given.get(kind, {}),
            )  # fmt: skip
            groups.append(Group(name, {name: one}))
            continue
        opened = open_groups(settings.pop("sources"), data_dir)
        sources = {
            key if key == group else f"{group}/{key}": source
            for group, members in opened.items()
            for key, source in members.items()
        }
        after = dict(zip(sources, [*list(sources)[1:], list(sources)[0]], strict=True))
        built = {}
        for key, source in sources.items():
            # Single-class sets have no wrong prompt of their own: the next set has.
            other = sources[after[key]] if len(sources) > 1 else None
            built[key] = construct(
                cls, where, settings, predict_fn=predict_fn, name=f"{name}/{key}",
                source=source, wrong_source=other, **shared,
            )  # fmt: skip
        groups.append(Group(name, built))
    return groups


def run_groups(
    groups: list[Group], params, step: int, writer: Writer, pictures: int = 8
) -> dict[str, float]:
    """Runs every evaluator; writes scores, means over a group's sources and sheets."""
    scores: dict[str, float] = {}
    for group in groups:
        sums: dict[str, list[float]] = {}
        for key, evaluator in group.evaluators.items():
            for name, value in evaluator.run(params):
                scores[name] = value
                prefix = f"{group.name}/{key}/"
                if name.startswith(prefix):
                    sums.setdefault(name.removeprefix(prefix), []).append(value)
            writer.images(
                step, f"{group.name}-{key}".replace("/", "-"), evaluator.sheet(pictures)
            )
        for name, values in sums.items():
            good = [value for value in values if np.isfinite(value)]
            if len(group.evaluators) > 1 and good:
                scores[f"{group.name}/mean/{name}"] = float(np.mean(good))
    writer.scalars(step, scores)
    return scores


def summary(scores: Mapping[str, float]) -> str:
    """The right prompt's scores against the wrong prompt's and the baselines', a line
    per source and number of prompts."""
    lines = []
    for name, value in scores.items():
        stem, _, key = name.rpartition("/")
        arms = {arm: scores.get(f"{stem}/{arm}/{key}") for arm in ("wrong", "copy", "color")}
        if key == "miou" and arms["wrong"] is not None:
            rest = ", ".join(f"{arm} {100 * v:.1f}" for arm, v in arms.items())
            lines.append(f"{stem}: mIoU {100 * value:.1f} ({rest})")
    return "\n".join(lines)


def evaluate(config, workdir: str) -> dict[str, float]:
    """`config.mode = "evaluate"`: scores `config.checkpoint` on `config.evals`."""
    require(bool(config.checkpoint), "checkpoint", config.checkpoint,
            "a training run's checkpoints folder or a released model's")  # fmt: skip
    model = build_model(config.model)
    mesh = sharding.make_mesh(**plain(config.mesh))
    groups = build_groups(config.evals, config.data_dir, model, mesh)
    params, step = read_params(config.checkpoint)
    abstract = jax.eval_shape(lambda: params)
    params = jax.device_put(params, sharding.place(abstract, mesh))
    writer = Writer(workdir, active=jax.process_index() == 0)
    try:
        with jax.transfer_guard("disallow"):
            scores = run_groups(groups, params, step, writer)
    finally:
        writer.close()
    logging.info("scores of %s:\n%s", config.checkpoint, summary(scores))
    return scores


def read_params(path: str) -> tuple[Any, int]:
    """Parameters and step of a training run (its EMA if it has one) or of a release."""
    if checkpoint.is_release(path):
        return checkpoint.load_params(path)[0], 0
    params, meta = checkpoint.restore_params(path, which="ema")
    return params, meta["step"]


def _put(mesh: Mesh, batch):
    spec = jax.NamedSharding(mesh, sharding.BATCH)
    return jax.device_put(batch, spec)
