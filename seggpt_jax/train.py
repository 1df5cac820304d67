"""The training loop: build, restore, step, look, save."""

import collections
import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from absl import logging

from seggpt_jax import evaluate
from seggpt_jax.config import plain, suggest
from seggpt_jax.data.pipeline import make_iterator
from seggpt_jax.evaluators import report
from seggpt_jax.models.flops import peak_flops, training_flops
from seggpt_jax.models.seggpt import SegGPT, init_params
from seggpt_jax.predict import Engine
from seggpt_jax.runs import hosts, sharding
from seggpt_jax.runs.paths import AnyPath, locate
from seggpt_jax.runs.runtime import peak_memory, quick_compile
from seggpt_jax.runs.workdir import check_workdir, prepare_workdir
from seggpt_jax.runs.writer import PICTURES, Clock, Progress, Writer, history
from seggpt_jax.training import optim
from seggpt_jax.training.mixture import build_dataset
from seggpt_jax.training.settings import RunSettings, complete, read_settings
from seggpt_jax.training.train_step import (
    TrainState,
    all_finite,
    enter_stage,
    make_train_step,
    new_state,
    paint_model,
)
from seggpt_jax.weights import pretrained
from seggpt_jax.weights.build import build_model, place_params
from seggpt_jax.weights.checkpoint import Checkpoints
from seggpt_jax.weights.names import pinned

# Settings that may change when a run is resumed. None of them changes what is learned,
# except for the rounding of sums over another mesh.
MAY_CHANGE = (
    "log_every", "eval_every", "save_every", "keep", "best", "bad_share",
    "loader.threads", "loader.workers", "loader.prefetch", "mesh.*", "cpu_devices",
    "data_dir", "evals", "evals.*",
)  # fmt: skip


# Of every row of a batch: the number of its source, and of its record there.
Records = tuple[np.ndarray, np.ndarray]
# A step, its metrics on the devices, and its records.
Unread = tuple[int, dict[str, jax.Array], Records]


class NonFinite(RuntimeError):
    """A loss, gradient or state that is not finite; the message names the step."""


@runtime_checkable
class Trained(Protocol):
    """The part of a run that differs between training the model (`Whole`) and tuning a
    prompt (`tune.TunedPrompt`).

    frozen: arrays on the devices that `paint` reads and no step changes. query_only:
    `paint` paints the query half alone. rows_per_query: so many neighbours in a batch
    show one query, with different prompts. flops: operations to train on one pair, as
    `models.flops` counts them. next_step: a command to go on with, of `{workdir}`.
    """

    model: SegGPT
    frozen: Any
    query_only: bool
    rows_per_query: int
    flops: float
    next_step: str

    def open_data(self, mesh) -> tuple[list[str], Any]:
        """Opens the training data and the evaluation data. Returns the names of the
        training sources, and the endless pairs."""

    def init(self, key) -> Any:
        """Initial values of the trained leaves; runs under jit."""

    def start(self, mesh) -> Any:
        """Values on the devices to start from instead, or None."""

    def paint(self, params, frozen, rows, key) -> Any:
        """Paints the canvases of a batch, as `train_step.Paint` does."""

    def stored_scores(self, workdir: AnyPath, step: int) -> dict[str, float] | None:
        """The scores that `evaluate` wrote at a step, or None."""

    def evaluate(self, params, step: int, writer: Writer) -> dict[str, float]:
        """Computes and writes the scores of trained leaves."""


class Whole:
    """Trains the model itself, on the mixture of a config."""

    frozen = None
    next_step = (
        "seggpt segment --model {workdir} --prompt IMAGE:MASK PHOTOS --out results"
    )

    def __init__(self, config: RunSettings, weights: pretrained.Weights | None = None):
        """weights: those of `config.init_from`, if they are read already."""
        self.config, self.model = config, build_model(config.model, weights)
        self.weights = weights
        self.query_only = config.masking.query_only
        self.rows_per_query = config.context.prompts
        self.paint = paint_model(self.model, self.query_only, self.rows_per_query)
        self.flops = training_flops(self.model.config, self.query_only)
        self.groups: list[evaluate.Group] = []

    def open_data(self, mesh):
        c = self.model.config
        sources, dataset = build_dataset(self.config, c.half, c.patch)
        self.groups = evaluate.build_groups(
            self.config.evals, self.config.data_dir, Engine(self.model, mesh),
            dataset=lambda: dataset,
        )  # fmt: skip
        return list(sources), dataset

    def init(self, key):
        return init_params(self.model, key)

    def start(self, mesh):
        if not self.config.init_from:
            return None
        weights, self.weights = self.weights, None  # no second copy stays
        weights = weights or pretrained.load(pinned(self.config.init_from))
        about = pretrained.describe(weights.config, weights.params, weights.step)
        logging.info("starting from %s: %s", weights.name, about)
        return place_params(weights, self.model, mesh)

    def stored_scores(self, workdir, step):
        return evaluate.stored_scores(workdir, step, self.groups)

    def evaluate(self, params, step, writer):
        return evaluate.run_groups(self.groups, params, step, writer)


def train(config, workdir: str) -> dict[str, float] | None:
    """`config.mode = "train"`: trains to the end of the last stage, from the newest
    intact checkpoint in `workdir` if there is one. Returns what `follow` does."""
    settings = read_settings(config)
    check_start(settings)
    settings, weights = with_geometry(settings)
    return follow(Loop(settings, locate(workdir), Whole(settings, weights)))


def with_geometry(
    settings: RunSettings,
) -> tuple[RunSettings, pretrained.Weights | None]:
    """The settings, with a model like the weights of `init_from` where they name no
    size; and these weights, where they were read."""
    if not settings.init_from or settings.model.keys() & {"size", "width"}:
        return settings, None
    weights = pretrained.load(pinned(settings.init_from))
    model = plain(build_model(settings.model, weights).config)
    return dataclasses.replace(settings, model=model), weights


def check_start(settings: RunSettings):
    """Refuses to train random parameters by settings for pre-trained ones: layer-wise
    decay would leave the first layers as they are drawn."""
    decay = settings.optim.layer_decay
    if not settings.init_from and decay < 1:
        raise ValueError(
            f"setting init_from is empty, but optim.layer_decay={decay} is for "
            "pre-trained parameters: give weights to start from, a path or a name of "
            "the hub (the paper's run starts from BAAI/Painter), or train from random "
            "parameters with optim.layer_decay=1 (configs/vitl.py:scratch)"
        )


def follow(loop: "Loop") -> dict[str, float] | None:
    """Runs a loop to its end and returns the last scores; None after a SIGTERM.

    The config is stored in the workdir only after all checks. So a config that fails a
    check leaves no run behind.
    """
    settings, workdir = loop.config, loop.workdir
    stored = json.dumps(plain(settings))
    # The cheapest checks come first. A wrong workdir shows at once, missing data in
    # seconds, and parameters that do not fit only after all of them are read.
    hosts.on_first(lambda: check_workdir(workdir, stored, MAY_CHANGE, complete))
    loop.open_data()
    folder = settings.checkpoints or loop.workdir / "checkpoints"
    with (
        jax.set_mesh(loop.mesh),
        hosts.stop_on_sigterm() as stop,
        Checkpoints(folder, keep=settings.keep) as checkpoints,
    ):
        loop.prepare(checkpoints)
        # Only now: a config that failed above can be corrected in the same workdir.
        hosts.on_first(lambda: prepare_workdir(workdir, stored, MAY_CHANGE, complete))
        scores = loop.run(checkpoints, stop)
    if loop.step < loop.steps:
        logging.info("SIGTERM: step %d is saved, the same command goes on", loop.step)
        return None
    if scores:
        logging.info("step %d:\n%s", loop.step, report.summary(scores))
        first = loop.trained.stored_scores(workdir, 0)
        for line in [*report.gains(first or {}, scores), *report.advice(scores)]:
            logging.info("%s", line)
    logging.info("checkpoints: %s", folder)
    if (workdir / PICTURES).is_dir():
        logging.info("pictures: %s", workdir / PICTURES)
    if loop.trained.next_step:
        logging.info("next: %s", loop.trained.next_step.format(workdir=workdir))
    return scores


class Loop:
    """One run: its checked settings, its state, and its steps.

    devices: of the mesh; all devices by default. No array is placed on them before
    `prepare`, so they may be absent hardware that a program is compiled for.
    """

    def __init__(
        self,
        config: RunSettings,
        workdir: AnyPath,
        trained: Trained,
        devices: Sequence[Any] | None = None,
    ):
        self.config, self.workdir, self.trained = config, workdir, trained
        self.stages, self.steps = list(config.stages.values()), config.steps
        self.mesh = sharding.make_mesh(**vars(config.mesh), devices=devices)
        sharding.check_batch(
            self.mesh,
            config.loader.batch_size,
            config.accumulate,
            trained.rows_per_query,
        )
        self.step = 0
        self.key: jax.Array
        self.state: TrainState

    def open_data(self):
        """Opens every source of training and evaluation."""
        self.names, self.dataset = self.trained.open_data(self.mesh)

    def init(self, key) -> TrainState:
        """The state before the first step; runs under jit."""
        return self.begin(self.trained.init(key))

    def begin(self, params) -> TrainState:
        """The state before the first step of given parameters; runs under jit."""
        tx, ema = self.stages[0].optimizer(self.config.optim), self.config.ema > 0
        return new_state(params, tx, ema)

    @functools.cached_property
    def abstract(self) -> TrainState:
        """Shape, type and sharding of every leaf of the state."""
        state = jax.eval_shape(self.init, jax.eval_shape(jax.random.key, 0))
        return sharding.abstract(state, sharding.place(state, self.mesh))

    @property
    def places(self) -> TrainState:
        """The sharding of every leaf of the state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract)

    def prepare(self, checkpoints: Checkpoints):
        """Restores the newest intact state or makes one; prints the parameter table."""
        self.key = sharding.put_key(self.mesh, self.config.seed)
        restored = checkpoints.restore(self.abstract)
        if restored is not None:
            self.state, _, self.step = restored
            if self.step == self.steps:
                logging.info(
                    "this run is finished: step %d of %d is restored, and there "
                    "is nothing left to train",
                    self.step,
                    self.steps,
                )
            else:
                logging.info("resumed at step %d of %d", self.step, self.steps)
            return
        logging.info("%s", optim.count(self.abstract.params, self.config.optim))
        table = optim.describe(self.abstract.params, self.config.optim)
        logging.debug("parameters:\n%s", table)
        logging.debug("placement:\n%s", sharding.describe(self.abstract, self.places))
        params = self.trained.start(self.mesh)
        make, of = (self.init, self.key) if params is None else (self.begin, params)
        self.state = jax.jit(
            make, out_shardings=self.places, compiler_options=quick_compile()
        )(of)

    def begin_stage(self, index: int):
        """The jitted step of a stage. At the first step of a later stage the state
        enters the stage too (`enter_stage`)."""
        stage, start = self.stages[index], self.config.spans[index].start
        step = make_train_step(
            self.trained.model, stage, self.config.optim, start=start,
            accumulate=self.config.accumulate, ema=self.config.ema,
            query_only=self.trained.query_only, prompts=self.trained.rows_per_query,
            paint=self.trained.paint,
        )  # fmt: skip
        if index and self.step == start:
            enter = jax.jit(
                enter_stage, static_argnames="tx", out_shardings=self.places
            )
            self.state = enter(self.state, tx=stage.optimizer(self.config.optim))
        return jax.jit(step, out_shardings=(self.places, None), donate_argnums=0)

    def run(
        self, checkpoints: Checkpoints, stop: Callable[[int], bool]
    ) -> dict[str, float]:
        """Trains to the last step, or until `stop` is true: then saves and returns.

        Three things keep the devices busy. Other threads make batches ahead. A step is
        dispatched without waiting for its result. The numbers of a step are read while
        the next step runs. All processes do the same: `stop` agrees on one step.
        """
        config, first = self.config, hosts.is_first()
        # The scores of the step that the run resumes from. None after a kill between a
        # save and its evaluation: then the evaluation runs now.
        stored = functools.partial(self.trained.stored_scores, self.workdir, self.step)
        scores = hosts.on_first(stored)
        # Before any save: a save deletes old checkpoints, except the best one.
        self.find_best(checkpoints)
        stopped, stage, unread = stop(self.step), None, collections.deque[Unread]()
        with (
            Writer(self.workdir, active=first, start=self.step) as writer,
            Progress(self.steps, self.step, active=first) as progress,
            contextlib.closing(self.batches()) as batches,
            # An implicit copy to the devices would wait for the step; it is an error.
            jax.transfer_guard("disallow"),
        ):
            # Given weights are scored first: training must do better than they do.
            begins = self.step == 0 and config.eval_every > 0 and config.init_from
            if scores is None and (begins or self.due(config.eval_every)):
                scores = self.evaluate(writer)
                self.find_best(checkpoints, scores)
            clock = Clock(config.loader.batch_size)
            while self.step < self.steps and not stopped:
                index = config.stage_at(self.step)
                compiles = index != stage  # each stage has its own loss and program
                if compiles:
                    logging.info("compiling the stage %s", [*config.stages][index])
                    stage, step_fn = index, self.begin_stage(index)
                with clock.waiting():
                    batch = next(batches)
                # The records' numbers stay on the host, to name them if a step fails.
                records = batch.pop("source"), batch.pop("record")
                placed = sharding.put_batch(self.mesh, batch, config.loader.batch_size)
                # The old state is donated: its memory becomes the new state's.
                self.state, metrics = step_fn(
                    self.state, placed, self.key, self.trained.frozen
                )
                if compiles:
                    clock.read()  # that time says nothing of the steps after it
                self.step += 1
                unread.append((self.step, metrics, records))
                stopped = stop(self.step)
                # After a SIGTERM there is time to save, but not to score. With `best`,
                # every scored step is saved: it may turn out to be the best.
                look = not stopped and self.due(config.eval_every)
                save = stopped or self.due(config.save_every) or look and config.best
                # Reading waits for a step, so its numbers are read while the next step
                # runs. Before a save or an evaluation they are read at once: a number
                # that is not finite must stop the run first.
                while len(unread) > (0 if save or look else 1):
                    self.report(unread.popleft(), writer, clock, progress)
                if save:
                    self.refuse_broken(records)  # the last good checkpoint must stay
                    writer.store()  # a run that resumes there has the lines before
                    checkpoints.save(self.step, self.state, {"step": self.step})
                # After the save: a kill during an evaluation then loses no step.
                if look:
                    scores = self.evaluate(writer)
                    self.find_best(checkpoints, scores)
                    clock.read()  # steps per second leave out the evaluation
        return scores or {}

    def batches(self):
        """This process's rows of the batches from `self.step` on."""
        return make_iterator(
            self.dataset,
            start_step=self.step,
            rows=sharding.own_rows(self.mesh, self.config.loader.batch_size),
            **vars(self.config.loader),
        )

    def due(self, every: int) -> bool:
        """Whether an action of every `every` steps, and of the last step, is due."""
        regular = self.step > 0 and every > 0 and self.step % every == 0
        return regular or self.step == self.steps

    def evaluate(self, writer: Writer) -> dict[str, float]:
        scores = self.trained.evaluate(self.state.average, self.step, writer)
        writer.store()  # `find_best` reads them
        if scores and self.step < self.steps:  # `follow` logs the last scores
            logging.info("step %d:\n%s", self.step, report.summary(scores))
        return scores

    def find_best(self, checkpoints: Checkpoints, scores: Mapping | None = None):
        """Marks the checkpoint with the best score so far: it is never deleted. scores:
        the newest, to check that the run has a score of this name."""
        name = self.config.best
        if not name:
            return
        if scores is not None and name not in scores:
            raise ValueError(f"setting best: {name!r} is no score of this run"
                             f"{suggest(name, scores)}")  # fmt: skip
        checkpoints.wait()
        written = hosts.on_first(lambda: history(self.workdir, name))
        steps = hosts.on_first(checkpoints.steps)
        kept = [(value, step) for value, step in written if step in steps]
        checkpoints.best = max(kept, default=(0.0, None))[1]

    def report(self, unread: Unread, writer: Writer, clock: Clock, progress: Progress):
        """Reads a step's numbers, stops on a non-finite one, logs them when due."""
        step, metrics, records = unread
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not np.isfinite([values["loss"], values["grad_norm"]]).all():
            found = f"loss {values['loss']}, gradient norm {values['grad_norm']}"
            self.fail(step, records, found)
        if step % self.config.log_every == 0 or step == self.steps:
            rates = clock.read()
            if rates["steps_per_s"]:  # 0 for the second of two steps read at once
                values |= rates | self.used(rates["images_per_s"])
            writer.scalars(step, values)
        progress.update(step, values)

    def used(self, images_per_s: float) -> dict[str, float]:
        """tflops_per_s: counted operations of all devices. mfu: their share of the
        peak, if the peak is known and the model computes in bfloat16. peak_gib: the
        most memory that a device of this process has used; on a CPU, the process."""
        rate, device = self.trained.flops * images_per_s, jax.local_devices()[0]
        used = {"tflops_per_s": rate / 1e12, "peak_gib": peak_memory() / 2**30}
        peak = peak_flops(device.device_kind)
        if peak and self.trained.model.config.dtype == "bfloat16":
            used["mfu"] = rate / (peak * self.mesh.size)
        return used

    def refuse_broken(self, records: Records):
        """Stops on a state that is not finite: a finite loss may have led to it."""
        if not jax.device_get(all_finite(self.state)):
            self.fail(self.step, records, "the state is not finite after it")

    def fail(self, step: int, records: Records, reason: str):
        """Writes the records of the step's batch, and raises `NonFinite`."""
        path = self.workdir / f"nonfinite_{step:07d}.json"
        sources, indices = hosts.gather(records)
        listed = [
            {"source": self.names[source], "record": int(index)}
            for source, index in zip(sources, indices, strict=True)
        ]
        found = {"step": step, "reason": reason, "records": listed}
        if hosts.is_first():
            path.write_text(json.dumps(found))
        raise NonFinite(
            f"step {step}: {reason}; {path} lists the batch's records, and earlier "
            f"checkpoints are untouched (init_from continues from one in a new workdir)"
        )
