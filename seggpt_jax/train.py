"""The training loop: build, restore, step, look, save."""

import dataclasses
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from seggpt_jax import evaluate, optim, sharding
from seggpt_jax.checkpoint import Checkpoints
from seggpt_jax.config import construct, plain, require
from seggpt_jax.data.augment import View
from seggpt_jax.data.context import Context
from seggpt_jax.data.masking import Masking
from seggpt_jax.data.pipeline import make_dataset, make_iterator
from seggpt_jax.data.recolor import Recolor
from seggpt_jax.data.sources import open_groups
from seggpt_jax.models.seggpt import SegGPT
from seggpt_jax.optim import OptimSettings
from seggpt_jax.train_step import (
    Stage,
    TrainState,
    enter_stage,
    init_state,
    make_train_step,
)
from seggpt_jax.workdir import prepare_workdir
from seggpt_jax.writer import Clock, Progress, Writer

# What may differ when a run goes on: none of it changes a result.
MAY_CHANGE = (
    "log_every", "eval_every", "save_every", "keep", "loader.threads",
    "loader.workers", "loader.prefetch", "mesh.*", "data_dir", "evals.*",
)  # fmt: skip


class NonFinite(RuntimeError):
    """A loss or gradient that is not finite; the message names the step."""


def train(config, workdir: str) -> dict[str, float]:
    """`config.mode = "train"`: trains to the end of the last stage, from the newest
    intact checkpoint in `workdir` if there is one. Returns the last evaluation."""
    stages = {
        name: construct(Stage, f"stages.{name}", settings)
        for name, settings in config.stages.items()
    }
    require(bool(stages), "stages", stages, "one stage or more")
    settings = construct(OptimSettings, "optim", config.optim)
    model = evaluate.build_model(config.model)
    mesh = sharding.make_mesh(**plain(config.mesh))
    sharding.check_batch(mesh, config.loader.batch_size, config.accumulate)
    if jax.process_index() == 0:
        prepare_workdir(workdir, json.dumps(plain(config)), MAY_CHANGE)
    names, dataset = build_dataset(config, model)
    groups = evaluate.build_groups(
        config.evals, config.data_dir, model, mesh, pairs={"dataset": dataset}
    )
    loop = Loop(config, Path(workdir), model, mesh, list(stages.values()), settings)
    with Checkpoints(loop.workdir / "checkpoints", keep=config.keep) as checkpoints:
        loop.prepare(checkpoints)
        batches = make_iterator(
            dataset,
            start_step=loop.step,
            shard_index=jax.process_index(),
            shard_count=jax.process_count(),
            **plain(config.loader),
        )
        try:
            return loop.run(batches, groups, checkpoints, names)
        finally:
            batches.close()


def build_dataset(config, model: SegGPT):
    """The training mixture of a config: source names, and the endless pairs."""
    rows, cols = model.config.canvas
    specs = plain(config.sources)
    weights = {name: spec.pop("weight") for name, spec in specs.items()}
    groups = open_groups(specs, config.data_dir)
    context = construct(
        Context, "context", config.context,
        view=construct(View, "view", config.view, size=(rows // 2, cols)),
        recolor=construct(Recolor, "recolor", config.recolor),
        masking=construct(Masking, "masking", config.masking),
        patch=model.config.patch,
    )  # fmt: skip
    shares = split_weights(weights, groups, config.group_power)
    logging.info("mixture: %s", {n: round(w, 4) for n, w in shares.items()})
    sources = {n: source for group in groups.values() for n, source in group.items()}
    dataset = make_dataset(
        list(sources.values()), [shares[name] for name in sources], context,
        config.seed, config.bad_share,
    )  # fmt: skip
    if config.fixed_pairs:  # memorise these very pairs
        dataset = dataset.slice(slice(0, config.fixed_pairs)).repeat()
    return list(sources), dataset


def split_weights(weights, groups, power: float) -> dict[str, float]:
    """Sampling share of every source: a group's weight is divided among its sources by
    their size to the `power`, then all shares are normalised."""
    shares = {}
    for name, sources in groups.items():
        sizes = {key: len(source) ** power for key, source in sources.items()}
        total = sum(sizes.values())
        shares |= {key: weights[name] * size / total for key, size in sizes.items()}
    total = sum(shares.values())
    if not total > 0:
        raise ValueError(f"sources: weights {weights} must be positive")
    return {key: share / total for key, share in shares.items()}


class Loop:
    """One run in one process: its state, and what happens between steps."""

    def __init__(
        self, config, workdir: Path, model: SegGPT, mesh: Mesh, stages: list[Stage],
        settings: OptimSettings,
    ):  # fmt: skip
        self.config, self.workdir, self.model, self.mesh = config, workdir, model, mesh
        self.stages = stages
        ends = np.cumsum([stage.steps for stage in stages]).tolist()
        self.starts, self.steps = [0, *ends[:-1]], ends[-1]
        self.optim = settings
        self.state: TrainState
        self.step = 0
        self.stopped = False
        self.key = sharding.put_replicated(mesh, jax.random.key(config.seed))

    def prepare(self, checkpoints: Checkpoints):
        """Restores the newest intact state, or makes one; prints the parameter table."""
        init = lambda key: init_state(  # noqa: E731
            key, self.model, self.stages[0].optimizer(self.optim), self.config.ema > 0
        )
        abstract = jax.eval_shape(init, self.key)
        places = sharding.place(abstract, self.mesh)
        self.places = places
        logging.info("parameters:\n%s", optim.describe(abstract.params, self.optim))
        wanted = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            abstract, places,
        )  # fmt: skip
        restored = checkpoints.restore(wanted)
        if restored is not None:
            self.state, _, self.step = restored
            logging.info("resumed at step %d of %d", self.step, self.steps)
            return
        self.state = jax.jit(init, out_shardings=places)(self.key)
        if self.config.init_from:
            params, _ = evaluate.read_params(self.config.init_from)
            params = jax.device_put(merge(params, abstract.params), places.params)
            ema = jax.tree.map(jax.numpy.copy, params) if self.config.ema else None
            self.state = self.state.replace(params=params, ema=ema)

    def stage_steps(self, index: int):
        """The jitted step of a stage, and the jitted entry into it."""
        stage, config = self.stages[index], self.config
        step = make_train_step(
            self.model, stage, self.optim, start=self.starts[index],
            accumulate=config.accumulate, ema=config.ema,
        )  # fmt: skip
        enter = lambda state: enter_stage(state, stage.optimizer(self.optim))  # noqa: E731
        outputs = {"out_shardings": (self.places, None), "donate_argnums": 0}
        return jax.jit(step, **outputs), jax.jit(enter, out_shardings=self.places)

    def run(
        self, batches: Iterator[dict], groups, checkpoints: Checkpoints, names: list[str]
    ) -> dict[str, float]:
        """Steps to the end, or to a SIGTERM, which saves and returns."""
        config, scores = self.config, {}
        first = jax.process_index() == 0
        writer = Writer(self.workdir, active=first, start=self.step)
        clock = Clock(config.loader.batch_size)
        progress = Progress(self.steps, self.step, active=first)
        previous = signal.signal(signal.SIGTERM, self._stop)
        pending = None
        current = None
        try:
            with jax.transfer_guard("disallow"):
                while self.step < self.steps and not self.stopped:
                    index = int(np.searchsorted(self.starts, self.step, "right")) - 1
                    if index != current:
                        step_fn, enter = self.stage_steps(index)
                        current = index
                        if self.step == self.starts[index] and index:
                            self.state = enter(self.state)
                    with clock.waiting():
                        batch = next(batches)
                    ids = {key: batch.pop(key) for key in ("source", "record")}
                    placed = sharding.put_batch(self.mesh, batch)
                    self.state, metrics = step_fn(self.state, placed, self.key)
                    self.step += 1
                    # Read the numbers of the step before, while this one runs.
                    if pending:
                        self._report(*pending, writer, clock, progress, names)
                    pending = self.step, metrics, ids
                    last = self.step == self.steps or self.stopped
                    look = config.eval_every and self.step % config.eval_every == 0
                    save = self.step % config.save_every == 0
                    if last or look or save:
                        self._report(*pending, writer, clock, progress, names)
                        pending = None
                    if last or save:
                        checkpoints.save(self.step, self.state, {"step": self.step})
                    if (look or self.step == self.steps) and not self.stopped:
                        params = self.state.params if self.state.ema is None else self.state.ema
                        scores = evaluate.run_groups(groups, params, self.step, writer)
                        logging.info("step %d:\n%s", self.step, evaluate.summary(scores))
                        clock.read()
            checkpoints.wait()
        finally:
            signal.signal(signal.SIGTERM, previous)
            progress.close()
            writer.close()
        if self.stopped:
            logging.info("SIGTERM: saved step %d, run the same command to go on", self.step)
        return scores

    def _stop(self, *_):
        self.stopped = True

    def _report(self, step, metrics, ids, writer, clock, progress, names):
        """Reads a step's numbers, stops on a non-finite one, logs them when due."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not np.isfinite([values["loss"], values["grad_norm"]]).all():
            path = self.workdir / f"nonfinite_{step:07d}.json"
            records = [
                {"source": names[source], "record": int(record)}
                for source, record in zip(ids["source"], ids["record"], strict=True)
            ]
            path.write_text(json.dumps(values | {"step": step, "records": records}))
            raise NonFinite(
                f"step {step}: loss {values['loss']}, gradient norm "
                f"{values['grad_norm']}; the batch's records are listed in {path}"
            )
        if step % self.config.log_every == 0 or step == self.steps:
            values |= clock.read()
            writer.scalars(step, values)
        progress.update(step, values)


def merge(params, abstract):
    """Parameters from a file, checked against the model's, name by name."""
    from seggpt_jax.trees import named_leaves

    ours, theirs = named_leaves(abstract), named_leaves(params)
    problems = [f"missing: {name}" for name in ours if name not in theirs]
    problems += [f"unexpected: {name}" for name in theirs if name not in ours]
    problems += [
        f"shape: {name} is {theirs[name].shape}, the model's is {leaf.shape}"
        for name, leaf in ours.items()
        if name in theirs and theirs[name].shape != leaf.shape
    ]
    if problems:
        raise ValueError("init_from does not fit the model:\n  " + "\n  ".join(problems))
    return params
