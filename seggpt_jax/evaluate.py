"""Evaluation: build the evaluators of a config, run them, show their pictures."""

import dataclasses
import functools
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from seggpt_jax.config import construct, plain, require, suggest
from seggpt_jax.data.sources import MissingData, open_groups
from seggpt_jax.evaluators import report
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.evaluators.common import Evaluator
from seggpt_jax.metrics import resample
from seggpt_jax.pictures.sheets import Row, contact_sheet
from seggpt_jax.predict import Engine
from seggpt_jax.runs import hosts, sharding
from seggpt_jax.runs.checksums import sha256
from seggpt_jax.runs.paths import AnyPath, locate
from seggpt_jax.runs.workdir import check_workdir, prepare_workdir
from seggpt_jax.runs.writer import METRICS, PICTURES, Writer
from seggpt_jax.training.mixture import build_dataset
from seggpt_jax.training.settings import RunSettings, complete, read_settings
from seggpt_jax.trees import digest
from seggpt_jax.weights import pretrained
from seggpt_jax.weights.build import build_model, place_params
from seggpt_jax.weights.names import pinned

EVALUATORS = {
    "closed": "seggpt_jax.evaluators.closed",
    "examples": "seggpt_jax.evaluators.examples",
    "fewshot": "seggpt_jax.evaluators.fewshot",
    "pairs": "seggpt_jax.evaluators.pairs",
    "panoptic": "seggpt_jax.evaluators.panoptic",
    "vos": "seggpt_jax.evaluators.vos",
}
MAY_CHANGE = (
    "data_dir",
    "mesh.*",
    "cpu_devices",
    "evals.*.about",
)  # between two evaluations in one workdir
_PICTURES = 8  # rows of a contact sheet


def evaluate(config, workdir: str) -> dict[str, float]:
    """`config.mode = "evaluate"`: scores `config.checkpoint` on `config.evals`."""
    config = read_settings(config)
    require(bool(config.checkpoint), "checkpoint", config.checkpoint,
            "a training run's checkpoints folder or a released model's")  # fmt: skip
    require(bool(config.evals), "evals", config.evals, "one group or more")
    config = dataclasses.replace(config, checkpoint=pinned(config.checkpoint))
    weights = pretrained.load(config.checkpoint)
    model = build_model(config.model, weights)
    mesh = construct(sharding.make_mesh, "mesh", config.mesh)
    stored, first = json.dumps(plain(config)), hosts.is_first()
    folder = locate(workdir)
    hosts.on_first(lambda: check_workdir(workdir, stored, MAY_CHANGE, complete))
    engine, patch = Engine(model, mesh), model.config.patch
    groups, left_out = _build_rows(
        config, engine,
        dataset=functools.cache(lambda: build_dataset(config, engine.size, patch)[1]),
    )  # fmt: skip
    params, step = place_params(weights, model, mesh), weights.step
    hosts.on_first(lambda: prepare_workdir(workdir, stored, MAY_CHANGE, complete))
    about = {
        "checkpoint": config.checkpoint, "step": step,
        "weights_sha256": digest(weights.params),
    }  # fmt: skip
    scores: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    with (
        Writer(workdir, active=first) as writer,
        jax.set_mesh(mesh),
        jax.transfer_guard("disallow"),
    ):
        if first:
            report.write_left_out(folder / report.RESULTS, left_out)
        for group in groups:
            found = score_group(group, params, writer, folder, config, about)
            scores, intervals = scores | found[0], intervals | found[1]
        writer.scalars(step, scores)
    logging.info(
        "scores of %s, step %d, with 95 %% intervals; results/*.json has them all:\n%s",
        config.checkpoint, step, report.summary(scores, intervals),
    )  # fmt: skip
    for line in report.advice(scores):
        logging.info("%s", line)
    logging.info("pictures: %s; results: %s", folder / PICTURES,
                 folder / report.RESULTS)  # fmt: skip
    return scores


def _build_rows(
    config: RunSettings, engine: Engine, **offers: Callable[[], Any]
) -> tuple[list["Group"], dict[str, str]]:
    """The groups of `config.evals`; and with `skip_missing` those whose data is not
    there, name -> reason."""
    groups: list[Group] = []
    left_out: dict[str, str] = {}
    folders: list[AnyPath] = []
    for name, settings in config.evals.items():
        try:
            groups += build_groups({name: settings}, config.data_dir, engine, **offers)
        except MissingData as error:
            if not config.skip_missing:
                raise
            folders += error.folders
            left_out[name] = "no folder " + ", ".join(map(str, error.folders))
            logging.warning("left out: evals.%s, %s", name, left_out[name])
    if not groups:
        listed = ", ".join(dict.fromkeys(map(str, folders)))
        raise MissingData(f"no row of evals has its data: no folder {listed}", folders)
    return groups, left_out


@dataclasses.dataclass(frozen=True)
class Group:
    """Evaluators that share settings, one per source, and whose scores are averaged."""

    name: str
    evaluators: Mapping[str, Evaluator]

    def file(self, key: str) -> str:
        """An evaluator's name as that of a file."""
        return f"{self.name}-{key}".replace("/", "-")


def build_groups(
    evals: Any, data_dir: str, engine: Engine, **offers: Callable[[], Any]
) -> list[Group]:
    """The evaluator groups of `config.evals`.

    Each entry names a `type` of `EVALUATORS`, its `sources` as `open_groups` takes
    them, and settings of that evaluator. offers: functions that make what evaluators of
    some types need besides, by the names in their `needs`.
    """
    evals = plain(evals)
    for name, settings in evals.items():
        kind = "settings by name"
        require(isinstance(settings, Mapping), f"evals.{name}", settings, kind)
    return [
        _build_group(name, dict(settings), data_dir, engine, offers)
        for name, settings in evals.items()
    ]


def _build_group(name, settings, data_dir, engine, offers) -> Group:
    where, kind = f"evals.{name}", settings.pop("type", None)
    settings.pop("about", None)  # words for the file of results
    if not isinstance(kind, str) or kind not in EVALUATORS:
        raise ValueError(
            f"setting {where}.type = {kind!r} is unknown"
            f"{suggest(str(kind), EVALUATORS)}"
        )
    plug_in = importlib.import_module(EVALUATORS[kind]).Evaluator
    specs = settings.pop("sources", None)
    if "prompts" in plug_in.needs and settings.get("prompts") is not None:
        offers = offers | {"prompts": _opener(settings.pop("prompts"), data_dir)}
    if isinstance(settings.get("batch_size"), int):
        # Every device gets as many rows; those past the last episode are not scored.
        settings["batch_size"] += -settings["batch_size"] % engine.parts

    def build(offers, **own: Any) -> Evaluator:
        own |= {need: offers[need] for need in plug_in.needs if need in offers}
        return construct(plug_in, where, settings, engine=engine, **own)

    if specs is None:
        return Group(name, {name: build(offers, name=name)})
    sources = {
        key if key == group else f"{group}/{key}": source
        for group, members in open_groups(specs, data_dir).items()
        for key, source in members.items()
    }
    require(bool(sources), f"{where}.sources", specs, "one source or more")
    return Group(name, {
        key: build(offers | {"wrong_sources": functools.partial(_others, sources, key)},
                   name=f"{name}/{key}", source=source)
        for key, source in sources.items()
    })  # fmt: skip


def _opener(spec: Any, data_dir: str) -> Callable[[], Any]:
    """Opens a source when it is first asked for."""

    @functools.cache
    def opened():
        (members,) = open_groups({"prompts": spec}, data_dir).values()
        return next(iter(members.values()))

    return opened


def _others(sources: Mapping[str, Any], key: str) -> list[Any]:
    """The sources that have a class which this one lacks, for wrong prompts: a set
    with a single class has no wrong prompts of its own."""
    known = set(sources[key].class_names.values())
    return [
        other
        for name, other in sources.items()
        if name != key and not known.issuperset(other.class_names.values())
    ]


def run_groups(
    groups: Sequence[Group], params, step: int, writer: Writer
) -> dict[str, float]:
    """Runs every evaluator; writes scores, means over a group's sources and sheets of
    the first cases, which are the same ones every time."""
    scores: dict[str, float] = {}
    first = hosts.is_first()
    for group in groups:
        for key, evaluator in group.evaluators.items():
            with Cases(show=group.file(key), brief=True, active=first) as cases:
                scores |= evaluator.run(params, cases)
            numbers = range(min(_PICTURES, evaluator.count))
            if rows := evaluator.rows(params, numbers):
                sheet = contact_sheet(rows, evaluator.headings)
                writer.images(step, group.file(key), sheet)
        scores |= report.means(group.name, list(group.evaluators), scores)
    writer.scalars(step, scores)
    return scores


def score_group(
    group: Group, params, writer: Writer, workdir: AnyPath, config, about
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Runs the evaluators of a group, or what is left of it after a run that was
    stopped; writes results/<group>.json and sheets of the best, the median and the
    worst cases. Returns the scores and their 95 % intervals."""
    scores: dict[str, float] = {}
    replicates: dict[str, np.ndarray] = {}
    seconds, first, folder = 0.0, hosts.is_first(), workdir / report.RESULTS
    settings = plain(config.evals)[group.name]
    words = settings.pop("about", "")
    files = next(iter(group.evaluators.values())).files  # the same for each
    about = {**about, **{f"{key}_sha256": sha256(Path(p)) for key, p in files.items()}}
    for index, (key, evaluator) in enumerate(group.evaluators.items()):
        name = group.file(key)
        data = hosts.on_first(functools.partial(getattr, evaluator, "data"))
        about_cases = {**about, "settings": settings, "data": data}
        with Cases(folder / name, about_cases, show=name, active=first) as cases:
            scores |= evaluator.run(params, cases)
            seconds += cases.seconds
        # All arms of a source are drawn alike, so they can be compared pair by pair.
        replicates |= evaluator.scores(resample(evaluator.count, seed=index))
    scores |= report.means(group.name, list(group.evaluators), scores)
    replicates |= report.means(group.name, list(group.evaluators), replicates)
    intervals = report.intervals_of(replicates)
    if first:
        report.write(
            folder / f"{group.name}.json", scores, replicates, group=group.name,
            about=words, seconds=round(seconds, 1), settings=settings,
            **about, config=plain(config),
        )  # fmt: skip
    for key, evaluator in group.evaluators.items():
        name = group.file(key)
        chosen = report.extremes(evaluator.ranked(), _PICTURES)
        rows = evaluator.rows(params, [number for _, number in chosen])
        rows = [
            Row(row.cells, f"{rank}: {row.caption}")
            for (rank, _), row in zip(chosen, rows, strict=True)
        ]
        if rows:
            writer.images(about["step"], name, contact_sheet(rows, evaluator.headings))
    return scores, intervals


def stored_scores(
    workdir: AnyPath, step: int, groups: Sequence[Group]
) -> dict[str, float] | None:
    """The scores that an earlier run wrote at `step`; None unless all groups' are."""
    metrics, names = workdir / METRICS, {group.name for group in groups}
    scores: dict[str, float] = {}
    for text in metrics.read_text().splitlines() if metrics.exists() else ():
        line = json.loads(text) if text.endswith("}") else {}  # else cut by a kill
        if line.get("step") == step:
            scores |= {k: float(v) for k, v in line.items() if k.split("/")[0] in names}
    return scores if {name.split("/")[0] for name in scores} == names else None
