"""In-context tuning (paper, "In-Context Tuning"): the prompt is learned, the model is
frozen."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from seggpt_jax import canvas, colors, evaluate, painter
from seggpt_jax.config import plain, require, suggest
from seggpt_jax.data import augment
from seggpt_jax.data.pipeline import make_dataset
from seggpt_jax.data.queries import Queries, TuneTask, choose
from seggpt_jax.data.sample import IGNORE, INSTANCE, Source
from seggpt_jax.data.sources import open_sources
from seggpt_jax.evaluators import common
from seggpt_jax.metrics import (
    fewshot_scores,
    intersection_and_union,
    interval,
    resample,
)
from seggpt_jax.models.flops import training_flops
from seggpt_jax.predict import make_predict_fns
from seggpt_jax.prompts.file import SUFFIX, PromptFile, save_prompts
from seggpt_jax.prompts.read import Prompts
from seggpt_jax.runs import hosts, paths, sharding, staging
from seggpt_jax.train import Loop, follow
from seggpt_jax.training.settings import RunSettings, read_settings
from seggpt_jax.trees import digest
from seggpt_jax.weights import pretrained
from seggpt_jax.weights.build import build_model, place_params
from seggpt_jax.weights.names import pinned

PROMPT, SCORES = f"prompt{SUFFIX}", "scores.json"
_NOISE = 0.02  # standard deviation, as of tokens and positions at the start
_THREADS = 4  # that read the images to score


def learning(steps: int, batch: int, lr: float = 0.1) -> dict[str, Any]:
    """The settings for tuning a prompt that differ from the defaults (docs/training.md
    gives the reasons)."""
    return {
        "view": {"crop_scale": (0.5, 1.0), "jitter_prob": 0.3},
        "loader": {"batch_size": batch, "threads": 2},
        "optim": {"weight_decay": 0.0, "clip": 1.0, "layer_decay": 1.0},
        "stages": {"tune": {"steps": steps, "lr": lr, "warmup": steps // 20}},
        "ema": 0.99,
        "save_every": 100,
        "keep": 2,
        "eval_every": max(1, steps // 4),
    }


def tune(config, workdir: str) -> dict[str, float] | None:
    """`config.mode = "tune"`: learns the prompt of a task on the frozen weights of
    `config.checkpoint`. Writes `prompt.safetensors` and, with `tune.heldout`,
    `scores.json`. Returns the last scores; None after a SIGTERM."""
    settings = read_settings(config)
    require(bool(settings.checkpoint), "checkpoint", settings.checkpoint,
            "the model that the prompt is for")  # fmt: skip
    require(not settings.evals, "evals", plain(settings.evals),
            "empty: tune.heldout names what the prompt is scored on")  # fmt: skip
    settings = dataclasses.replace(settings, checkpoint=pinned(settings.checkpoint))
    weights = pretrained.load(settings.checkpoint)
    about = pretrained.describe(weights.config, weights.params, weights.step)
    logging.info("tuning a prompt for %s: %s", weights.name, about)
    trained = TunedPrompt(settings, weights)
    loop = Loop(settings, paths.locate(workdir), trained)
    for name, stage in settings.stages.items():
        prob = stage.background_prob
        require(not prob, f"stages.{name}.background_prob", prob,
                "0: the colours of a tuned prompt are fixed")  # fmt: skip
        require(not stage.weights, f"stages.{name}.weights", stage.weights,
                "empty: a prompt is tuned on one set")  # fmt: skip
    for name in ("init_from", "fixed_pairs", "skip_missing"):
        value = getattr(settings, name)
        require(not value, name, value, "unset: it is of mode train")  # fmt: skip
    scores = follow(loop)
    if scores is not None:
        _write(loop, trained, weights)
    return scores


def _write(loop: Loop, trained: "TunedPrompt", weights: pretrained.Weights) -> None:
    """Writes the prompt, and its scores beside the scores of the initial prompt."""
    path = loop.workdir / PROMPT
    about: dict[str, Any] = {
        "source": trained.task.name,
        "init": trained.settings.init,
        "records": trained.shown,
        "steps": loop.steps,
        "seed": loop.config.seed,
    }
    content = PromptFile(
        trained.prompts(jax.device_get(loop.state.average)),
        trained.task.class_names,
        trained.model.config.geometry,
        {"step": weights.step, "sha256": digest(weights.params)},
        about,
    )
    if trained.heldout is not None:
        with jax.set_mesh(loop.mesh):
            initial = sharding.put_replicated(loop.mesh, trained.initial)
            before, after = map(trained.count, (initial, loop.state.average))
        compared = compare(before, after, loop.config.seed)
        about["scores"] = compared
        logging.info("mIoU %.4f -> %.4f (%+.4f, 95 %% interval %+.4f .. %+.4f)",
                     compared["initial"]["miou"], compared["tuned"]["miou"],
                     compared["difference"], *compared["interval"])  # fmt: skip
        if compared["difference"] <= 0:
            logging.warning("the tuned prompt does no better than the example that it "
                            "began with: try more steps, or more images")  # fmt: skip
    if hosts.is_first():
        save_prompts(path, content)
        if "scores" in about:
            with staging.new_file(loop.workdir / SCORES) as new:
                new.write_text(json.dumps(about["scores"], indent=2) + "\n")
        logging.info("wrote %s", path)


class TunedPrompt:
    """The trained leaves of `tune` (see `train.Trained`): images and targets
    `[1, p, h, w, 3]`, normalised, of the prompts of one task with fixed colours."""

    query_only = True
    rows_per_query = 1  # `paint` repeats them for several prompts
    next_step = ""  # the command `seggpt tune` says where its file is

    def __init__(self, config: RunSettings, weights: pretrained.Weights):
        self.config, self.weights = config, weights
        self.settings = config.tune
        self.model = build_model(config.model, weights)
        self.size = self.model.config.half
        self.fns = make_predict_fns(self.model)
        # Frozen weights have no gradient, which saves a third of the work.
        each = 2 / 3 * training_flops(self.model.config, self.query_only)
        self.flops = each * self.settings.prompts
        self.heldout: TuneTask | None = None
        self.frozen: Any = None

    def open_data(self, mesh):
        """Opens the source to tune on and the held-out source to score."""
        config = self.config
        opened = open_sources(plain(config.sources), config.data_dir)
        require(len(opened) == 1, "sources", [*opened], "one source")
        (source,) = opened.values()
        self.task = self._open_task(source)
        self.palette = self.task.palette
        if self.settings.heldout:
            self.heldout = self._open_heldout(self.task.class_names.values())
        patch = self.model.config.patch
        queries = Queries(config.view, config.context, self.size, patch)
        dataset = make_dataset([self.task], [1.0], queries, config.seed,
                               config.bad_share)  # fmt: skip
        self.initial, self.kind, self.shown = self._example()
        self.frozen = place_params(self.weights, self.model, mesh)
        self.place = functools.partial(sharding.put_rows, mesh)
        self.placed_kind = sharding.put_replicated(mesh, self.kind)
        return [self.task.name], dataset

    def _open_task(self, source: Source) -> TuneTask:
        if self.settings.palette == "locations":
            require(source[0].kind == INSTANCE, "sources", source.name,
                    "one of instances")  # fmt: skip
            white = np.full((1, 3), 255, np.uint8)
            return TuneTask(source, (), white, np.arange(len(source)))
        require(not source.same_image_only, "sources", source.name,
                "a source whose labels mean the same in every image")  # fmt: skip
        labels = sorted(chosen(source.class_names, self.settings.classes, source.name))
        palette = colors.spread_palette(len(labels))
        if self.settings.palette == "painter":
            base = math.ceil(round(len(labels) ** (1 / 3), 9))
            palette = painter.semantic_palette(len(labels), base)
        task = choose(source, labels, palette)
        require(len(task) > 0, "tune.classes", self.settings.classes,
                f"classes that {source.name} shows")  # fmt: skip
        return task

    def _open_heldout(self, names: Iterable[str]) -> TuneTask:
        spec = {"heldout": plain(self.settings.heldout)}
        (source,) = open_sources(spec, self.config.data_dir).values()
        # In the order of the colours: labels may have other numbers in this source.
        labels = chosen(source.class_names, tuple(names), source.name)
        require(len(labels) == len(self.palette), "tune.heldout", spec["heldout"],
                "a source whose classes have names of their own")  # fmt: skip
        task = choose(source, labels, self.palette)
        if limit := self.settings.images:
            task = dataclasses.replace(task, records=task.records[:limit])
        require(len(task) > 0, "tune.heldout", spec["heldout"],
                "a source that shows the classes")  # fmt: skip
        return task

    def _example(self) -> tuple[dict[str, np.ndarray], np.ndarray, list[int]]:
        """The initial prompts, their kind, and their records.

        The classes take turns in random order, and a random record shows each. So
        several prompts show as many classes as possible.
        """
        rng, task = np.random.default_rng(self.config.seed), self.task
        members = task.by_class or {1: np.arange(len(task))}
        order = rng.permutation([*members])
        taken: list[int] = []
        for label in np.resize(order, self.settings.prompts).tolist():
            free = np.setdiff1d(members[label], taken)
            taken.append(int(rng.choice(free if len(free) else members[label])))
        samples = [augment.resize(task[index], self.size) for index in taken]
        painted = [task.paint(sample.segments)[0] for sample in samples]
        shown = {"image": [sample.image for sample in samples], "target": painted}
        leaves = {n: colors.normalize(np.stack(x))[None] for n, x in shown.items()}
        if self.settings.init == "noise":
            for name, x in leaves.items():
                leaves[name] = np.float32(_NOISE * rng.standard_normal(x.shape))
        kind = np.array([samples[0].kind], np.int32)
        return leaves, kind, task.records[taken].tolist()

    def init(self, key):
        return jax.tree.map(jnp.zeros_like, self.initial)

    def start(self, mesh):
        return sharding.put_replicated(mesh, self.initial)

    def paint(self, params, frozen, rows, key):
        """Paints each query below every prompt, `b * p` canvases, as one ensemble."""
        hidden, kind = rows["hidden"], rows["kind"]
        b, p = len(hidden), params["image"].shape[1]

        def below(prompt, query):
            prompts = jnp.broadcast_to(prompt, (b, *prompt.shape[1:]))
            queries = jnp.broadcast_to(query[:, None], (b, p, *query.shape[1:]))
            both = canvas.stitch(prompts, queries)
            return both.reshape(b * p, *both.shape[2:])

        painting, _ = self.model.apply(
            {"params": frozen},
            below(params["image"], canvas.split(rows["images"])[1]),
            below(params["target"], jnp.zeros_like(canvas.split(rows["targets"])[1])),
            jnp.repeat(hidden, p, axis=0), jnp.repeat(kind, p),
            prompts=p, query_only=True,
        )  # fmt: skip
        return painting[::p]  # the first prompt's row above the query, as in `predict`

    def stored_scores(self, workdir, step):
        groups = [evaluate.Group("tune", {})] if self.heldout is not None else []
        return evaluate.stored_scores(workdir, step, groups)

    def evaluate(self, params, step, writer):
        leaves = jax.device_get(params)
        rows = np.concatenate([leaves["image"][0], leaves["target"][0]], axis=2)
        picture = np.clip(colors.denormalize(rows), 0, 255).round().astype(np.uint8)
        writer.images(step, "prompt", np.concatenate(list(picture)))
        if self.heldout is None:
            return {}
        values = fewshot_scores(self.count(params).sum(0))
        scores = {f"tune/{name}": float(value) for name, value in values.items()}
        writer.scalars(step, scores)
        return scores

    def count(self, params) -> np.ndarray:
        """`score` of a prompt on the devices, on the held-out source."""
        assert self.heldout is not None
        encoded = self.fns.encode_prompts(
            self.frozen, params["image"], params["target"], self.placed_kind
        )

        def paint(queries):
            placed = self.place(queries)
            return hosts.fetch(self.fns.predict(self.frozen, encoded, placed))

        return score(paint, self.heldout, self.size, self.config.loader.batch_size)

    def prompts(self, leaves: Mapping[str, np.ndarray]) -> Prompts:
        """Leaves, on the host, as the `Predictor` takes them."""
        return Prompts(
            leaves["image"],
            leaves["target"],
            self.kind,
            np.array([0, *(self.task.labels or (1,))], np.int32),
            np.concatenate([[colors.BLACK], self.palette]).astype(np.uint8),
        )


def chosen(
    names: Mapping[int, str], classes: tuple[str | int, ...], source: str
) -> list[int]:
    """Labels of the classes given by name or label, in their order; of all if none."""
    labels = {name: label for label, name in names.items()}
    found = [labels.get(str(one), one) for one in classes] or [*names]
    for one in found:
        if one not in names:
            raise ValueError(
                f"setting tune.classes: source {source!r} has no {one!r}"
                f"{suggest(one, names.values())}"
            )
    return [int(one) for one in dict.fromkeys(found)]


def score(
    paint: Callable[[np.ndarray], np.ndarray],
    task: TuneTask,
    size: tuple[int, int],
    batch_size: int,
) -> np.ndarray:
    """Counts of pixels by a fixed prompt, int64 `[n, c, 2, 2]` for every record and
    label, as of `metrics.intersection_and_union`, at the model's size.

    paint: queries `[batch_size, h, w, 3]`, normalised -> painting.
    """
    palette = np.concatenate([[colors.BLACK], task.palette])
    counts = []
    reading = common.prefetch(
        lambda index: augment.resize(task[index], size),
        range(len(task)), _THREADS, 2 * batch_size,
    )  # fmt: skip
    for samples in common.batched(reading, batch_size):
        images = common.filled([sample.image for sample in samples], batch_size)
        paintings = paint(colors.normalize(np.stack(images)))
        for sample, painting in zip(samples, paintings, strict=False):
            found = colors.decode(colors.denormalize(painting), palette)
            ignored = sample.segments == IGNORE
            counts.append([
                intersection_and_union(
                    found == place, sample.segments == label, ignored
                )
                for place, label in enumerate(task.labels, start=1)
            ])  # fmt: skip
    return np.array(counts)


def compare(before: np.ndarray, after: np.ndarray, seed: int) -> dict[str, Any]:
    """Scores of two prompts on the same images, from counts of `score`; their
    difference, with its 95 % interval of a bootstrap that draws the same images for
    both."""
    draws = resample(len(before), seed=seed)

    def miou(counts):
        return fewshot_scores(np.tensordot(draws, counts, axes=1))["miou"]

    initial, tuned = (
        {name: float(value) for name, value in fewshot_scores(counts.sum(0)).items()}
        for counts in (before, after)
    )
    return {
        "images": len(before),
        "initial": initial,
        "tuned": tuned,
        "difference": tuned["miou"] - initial["miou"],
        "interval": [*interval(miou(after) - miou(before))],
    }
