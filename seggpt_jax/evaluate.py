"""Evaluation: build the evaluators of a config, run them, show their pictures."""

import dataclasses
import functools
import importlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from seggpt_jax import pretrained, sharding
from seggpt_jax.config import (
    construct,
    plain,
    read_settings,
    require,
    suggest,
)
from seggpt_jax.data.sources import open_groups
from seggpt_jax.mixture import build_dataset
from seggpt_jax.models.seggpt import SegGPT, SegGPTConfig, init_params
from seggpt_jax.predict import make_predict_fn, make_predict_fns, make_track_fns
from seggpt_jax.trees import named_leaves, table
from seggpt_jax.workdir import check_workdir, prepare_workdir
from seggpt_jax.writer import Writer

EVALUATORS = {
    "examples": "seggpt_jax.evaluators.examples",
    "fewshot": "seggpt_jax.evaluators.fewshot",
    "pairs": "seggpt_jax.evaluators.pairs",
    "vos": "seggpt_jax.evaluators.vos",
}
MAY_CHANGE = (
    "data_dir",
    "mesh.*",
    "cpu_devices",
)  # between two evaluations in one workdir
_ARMS = ("wrong", "copy", "color")  # what a right prompt's scores are held against


def evaluate(config, workdir: str) -> dict[str, float]:
    """`config.mode = "evaluate"`: scores `config.checkpoint` on `config.evals`."""
    config = read_settings(config)
    require(bool(config.checkpoint), "checkpoint", config.checkpoint,
            "a training run's checkpoints folder or a released model's")  # fmt: skip
    require(bool(config.evals), "evals", config.evals, "one group or more")
    weights = pretrained.load(config.checkpoint)
    if "size" in config.model:
        model = build_model(config.model)
    else:  # the checkpoint's own, with what is set here on top
        own = plain(weights.config) | plain(config.model)
        model = SegGPT(construct(SegGPTConfig, "model", own))
    mesh = construct(sharding.make_mesh, "mesh", config.mesh)
    stored, first = json.dumps(plain(config)), jax.process_index() == 0
    if first:
        check_workdir(workdir, stored, MAY_CHANGE)
    given = {}
    if any(group.get("type") == "pairs" for group in plain(config.evals).values()):
        given["dataset"] = build_dataset(config, model)[1]
    groups = build_groups(config.evals, config.data_dir, model, mesh, pairs=given)
    params, step = fit(weights, config.checkpoint, model, mesh), weights.step
    if first:
        prepare_workdir(workdir, stored, MAY_CHANGE)
    with Writer(workdir, active=first) as writer, jax.transfer_guard("disallow"):
        scores = run_groups(groups, params, step, writer)
    logging.info("scores of %s, step %d:\n%s", config.checkpoint, step, summary(scores))
    return scores


def build_model(settings: Any) -> SegGPT:
    """The model of `config.model`: a size's row with the other settings on top."""
    require("size" in settings, "model.size", None, "given")
    return SegGPT(SegGPTConfig.read(settings))


def abstract_params(model: SegGPT) -> Any:
    """Shapes and types of a model's parameters."""
    return jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))


def load_params(path: str, model: SegGPT, mesh: Mesh) -> tuple[Any, int]:
    """Parameters, placed on the mesh, and their step (0 if they have none), from
    whatever `pretrained.load` reads, as `fit` does."""
    weights = pretrained.load(path)
    return fit(weights, path, model, mesh), weights.step


def fit(weights: pretrained.Weights, path: str, model: SegGPT, mesh: Mesh) -> Any:
    """Parameters that were read at `path`, placed on the mesh. ValueError lists every
    name and shape that differs from the model's."""
    for note in weights.notes:
        logging.info("%s: %s", path, note)
    params, abstract = weights.params, abstract_params(model)
    ours, theirs = named_leaves(abstract), named_leaves(params)
    problems = [f"missing: {name}" for name in ours if name not in theirs]
    problems += [f"unexpected: {name}" for name in theirs if name not in ours]
    problems += [
        f"shape: {name} is {theirs[name].shape}, the model's is {leaf.shape}"
        for name, leaf in ours.items()
        if name in theirs and theirs[name].shape != leaf.shape
    ]
    if problems:
        raise ValueError(f"{path} does not fit the model:\n  " + "\n  ".join(problems))
    cast = jax.tree.map(lambda x, leaf: np.asarray(x, leaf.dtype), params, abstract)
    return jax.device_put(cast, sharding.place(abstract, mesh))


def _functions(kind: str, settings: dict, mesh: Mesh, model: SegGPT) -> dict[str, Any]:
    """What an evaluator of a kind is given of the model and the devices."""
    rows, cols = model.config.canvas
    functions: dict[str, Any] = {"size": (rows // 2, cols)}
    everywhere = functools.partial(_put_everywhere, mesh)
    if kind == "vos":
        tracking = functools.partial(make_track_fns, model)
        return functions | {"make_track_fns": tracking, "put": everywhere}
    functions["put"] = functools.partial(_put, mesh)
    ensemble = settings.pop("ensemble", "feature")
    if kind == "examples":
        functions["predict_fns"] = make_predict_fns(model, ensemble)
        return functions | {"put_everywhere": everywhere}
    return functions | {"predict_fn": make_predict_fn(model, ensemble)}


@dataclasses.dataclass(frozen=True)
class Group:
    """Evaluators that share settings, one per source, and whose scores are averaged."""

    name: str
    evaluators: Mapping[str, Any]


def build_groups(
    evals: Any, data_dir: str, model: SegGPT, mesh: Mesh, **given
) -> list[Group]:
    """The evaluator groups of `config.evals`.

    Each entry names a `type` of `EVALUATORS`, its `sources` as `open_groups` takes
    them, and settings of that evaluator. given: what an evaluator of a type may need
    besides, by type.
    """
    return [
        _build_group(name, dict(settings), data_dir, mesh, model, given)
        for name, settings in plain(evals).items()
    ]


def _build_group(name, settings, data_dir, mesh, model, given) -> Group:
    where, kind = f"evals.{name}", settings.pop("type", None)
    if kind not in EVALUATORS:
        raise ValueError(
            f"setting {where}.type = {kind!r} is unknown"
            f"{suggest(str(kind), EVALUATORS)}"
        )
    build = functools.partial(
        construct, importlib.import_module(EVALUATORS[kind]).Evaluator, where
    )
    try:
        shared = _functions(kind, settings, mesh, model)
    except ValueError as error:
        raise ValueError(f"settings of {where}: {error}") from error
    if (spec := settings.pop("prompts", None)) is not None:
        (opened,) = open_groups({"prompts": spec}, data_dir).values()
        shared["prompts"] = next(iter(opened.values()))
    specs = settings.pop("sources", None)
    if isinstance(settings.get("batch_size"), int):
        # Every device gets as many rows; those past the last episode are not scored.
        devices = mesh.shape["data"] * mesh.shape["fsdp"]
        settings["batch_size"] += -settings["batch_size"] % devices
    if specs is None:
        one = build(settings, name=name, **shared, **given.get(kind, {}))
        return Group(name, {name: one})
    sources = {
        key if key == group else f"{group}/{key}": source
        for group, members in open_groups(specs, data_dir).items()
        for key, source in members.items()
    }
    require(bool(sources), f"{where}.sources", specs, "one source or more")
    others = kind == "fewshot"  # give wrong prompts
    return Group(name, {
        key: build(
            settings, name=f"{name}/{key}", source=source, **shared,
            **({"wrong_sources": _others(sources, key)} if others else {}),
        )
        for key, source in sources.items()
    })  # fmt: skip


def _others(sources: Mapping[str, Any], key: str) -> list[Any]:
    """The sources that have a class which this one lacks, for wrong prompts: sets of a
    single class have none of their own."""
    known = set(sources[key].class_names.values())
    return [
        other
        for name, other in sources.items()
        if name != key and not known.issuperset(other.class_names.values())
    ]


def run_groups(
    groups: Sequence[Group], params, step: int, writer: Writer, pictures: int = 8
) -> dict[str, float]:
    """Runs every evaluator; writes scores, means over a group's sources and sheets."""
    scores: dict[str, float] = {}
    for group in groups:
        for key, evaluator in group.evaluators.items():
            scores |= evaluator.run(params)
            name = f"{group.name}-{key}".replace("/", "-")
            writer.images(step, name, evaluator.sheet(pictures))
        scores |= _means(group, scores)
    writer.scalars(step, scores)
    return scores


def _means(group: Group, scores: Mapping[str, float]) -> dict[str, float]:
    """`<group>/mean/...`: means over the sources, those without evidence left out."""
    if len(group.evaluators) < 2:
        return {}
    values: dict[str, list[float]] = {}
    for key in group.evaluators:
        prefix = f"{group.name}/{key}/"
        for name, value in scores.items():
            if name.startswith(prefix) and math.isfinite(value):
                values.setdefault(name.removeprefix(prefix), []).append(value)
    return {
        f"{group.name}/mean/{name}": float(np.mean(found))
        for name, found in values.items()
    }


def stored_scores(
    workdir: Path, step: int, groups: Sequence[Group]
) -> dict[str, float] | None:
    """The scores that an earlier run wrote at `step`; None unless all groups' are."""
    metrics, names = workdir / "metrics.jsonl", {group.name for group in groups}
    scores: dict[str, float] = {}
    for text in metrics.read_text().splitlines() if metrics.exists() else ():
        line = json.loads(text) if text.endswith("}") else {}  # else cut by a kill
        if line.get("step") == step:
            scores |= {k: float(v) for k, v in line.items() if k.split("/")[0] in names}
    return scores if {name.split("/")[0] for name in scores} == names else None


def summary(scores: Mapping[str, float]) -> str:
    """mIoU of the right prompts beside that of wrong prompts and of the baselines, in
    percent, a line per source and number of prompts; then what has no such arms."""
    rows: list[tuple[str, ...]] = []
    compared: set[str] = set()
    for name, value in scores.items():
        stem, _, key = name.rpartition("/")
        arms = [f"{stem}/{arm}/{key}" for arm in _ARMS]
        if all(arm in scores for arm in arms):
            compared.add(name.split("/")[0])
            if key == "miou":
                values = [value, *(scores[arm] for arm in arms)]
                rows.append((stem, *(f"{100 * v:.1f}" for v in values)))
    lines = [table(("mIoU", "prompted", *_ARMS), rows)] if rows else []
    rest = [name for name in scores if name.split("/")[0] not in compared]
    return "\n".join([*lines, *(f"{name}  {scores[name]:.4f}" for name in rest)])


def _put_everywhere(mesh: Mesh, arrays):
    whole = jax.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.device_put(arrays, whole)


def _put(mesh: Mesh, batch):
    return jax.device_put(batch, jax.NamedSharding(mesh, sharding.BATCH))
