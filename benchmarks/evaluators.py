"""Images per second of the evaluators, against a plain loop over the model, as JSON.

    python -m benchmarks.evaluators --out benchmarks/results/evaluators.jsonl

The plain side is the same evaluator, but paints its queries one by one with the plain
model on as many canvases as there are prompts, as the released script does. Both see
the same random pictures; in turns, each compiled before it is timed. Ends with status 1
where their scores differ.
"""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.inference import random_params
from benchmarks.rows import parse, report
from seggpt_jax import colors
from seggpt_jax.canvas import query_half, stitch
from seggpt_jax.data.sample import CATEGORY, INSTANCE, Sample
from seggpt_jax.evaluators import examples, fewshot, vos
from seggpt_jax.models.seggpt import SegGPT
from seggpt_jax.predict import Engine, PredictFns, TrackFns
from seggpt_jax.runs.sharding import make_mesh
from seggpt_jax.weights.build import build_model

_CLASSES = 2
_APART = 0.02  # of scores: a pixel halfway between two colours may tip over


class Pictures:
    """Noise with a rectangle of one of two classes; one video, too."""

    name, same_image_only = "pictures", False
    class_names = dict(enumerate(("odd", "even")[:_CLASSES], start=1))

    def __init__(self, length: int, size: tuple[int, int], kind: int = CATEGORY):
        self._length, self._size, self._kind = length, size, kind
        self.by_class = {c: range(c - 1, length, _CLASSES) for c in self.class_names}
        self.videos = {"noise": range(length)}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (*self._size, 3), np.uint8)
        segments = np.zeros(self._size, np.int32)
        label = 1 if self._kind == INSTANCE else index % _CLASSES + 1
        h, w = self._size
        segments[h // 4 : h // 2, w // 4 : w // 2] = label
        return Sample(image, segments, self._kind, (label,))

    def record_id(self, index: int) -> str:
        return f"noise/{index:05}"

    def object_names(self, index: int) -> dict[int, str]:
        return {}


def plain_fn(model: SegGPT):
    """`predict.make_predict_fn`, query by query on a canvas for each prompt."""
    patch = model.config.patch

    @jax.jit
    def paint(params, images, targets, query, kind):
        count, h, w, _ = images.shape
        canvases = (
            stitch(images, jnp.repeat(query[None], count, 0)),
            stitch(targets, targets),
        )
        grid = (2 * h // patch, w // patch)
        hidden = jnp.broadcast_to(query_half(grid), (count, *grid))
        painting, _ = model.apply(
            {"params": params}, *canvases, hidden, jnp.repeat(kind, count),
            prompts=count,
        )  # fmt: skip
        return painting[0, h:]

    def predict(params, images, targets, queries, kind):
        rows = range(len(queries))
        return jnp.stack([
            paint(params, images[i], targets[i], queries[i], kind[i]) for i in rows
        ])  # fmt: skip

    return predict


def plain_fns(model: SegGPT) -> PredictFns:
    """`predict.make_predict_fns`: prompts are kept as they are."""
    predict = plain_fn(model)

    def paint(params, prompts, queries):
        shown = (jnp.repeat(x, len(queries), 0) for x in prompts[:2])
        kind = jnp.repeat(prompts[2], len(queries), 0)
        return predict(params, *shown, queries, kind)

    return PredictFns(lambda params, *prompts: prompts, paint)


def plain_track(model: SegGPT, last: int) -> TrackFns:
    """`predict.make_track_fns`: every frame anew with all that is remembered."""
    predict = plain_fn(model)

    def step(params, state, frame, palette):
        images, targets, kind = state
        painting = predict(params, images, targets, frame, kind)
        labels = colors.decode(colors.denormalize(painting), palette[None])
        new = colors.normalize(palette[labels])
        images = jnp.concatenate([images, frame[:, None]], 1)
        targets = jnp.concatenate([targets, new[:, None]], 1)
        keep = [0, *range(max(1, images.shape[1] - last), images.shape[1])]
        return painting, (images[:, keep], targets[:, keep], kind)

    return TrackFns(lambda params, *state: state, step)


class Plain(Engine):
    """`predict.Engine` by the plain model; its only ensemble is of features."""

    def __init__(self, model: SegGPT, mesh):
        super().__init__(model, mesh)
        self.predict_fn = lambda ensemble: plain_fn(model)
        self.prompt_fns = lambda ensemble: plain_fns(model)
        self.track_fns = functools.partial(plain_track, model)


def build(kind: str, engine: Engine, batch: int, args) -> tuple[Any, int]:
    """An evaluator, and how many images it paints in a run."""
    if kind == "vos":
        source = Pictures(args.images, engine.size, INSTANCE)
        memories = (args.prompts - 1,)
        one = vos.Evaluator(engine, name=kind, source=source, memories=memories)
        return one, args.images - 1
    source = Pictures(_CLASSES * (args.prompts + 1), engine.size)
    shared: dict[str, Any] = {"name": kind, "source": source, "batch_size": batch}
    if kind == "examples":
        settings = {"examples": (args.prompts,), "images": args.images}
        one = examples.Evaluator(engine, prompts=lambda: source, **settings, **shared)
        return one, args.images * _CLASSES
    settings = {"shots": (args.prompts,), "episodes": args.images}
    one = fewshot.Evaluator(engine, **settings, **shared)
    return one, 2 * args.images  # by right and by wrong prompts


def measure(args) -> Iterator[dict[str, Any]]:
    settings = {"size": args.size, "dtype": args.dtype}
    if args.canvas:
        settings["canvas"] = tuple(args.canvas)
    model = build_model(settings)
    mesh = make_mesh(devices=jax.devices()[:1])
    engines = {True: Engine(model, mesh), False: Plain(model, mesh)}
    params = engines[True].put_everywhere(random_params(model))
    for kind in args.kinds:
        sides = {
            ours: build(kind, engine, args.batch if ours else 1, args)
            for ours, engine in engines.items()
        }
        seconds: dict[bool, list[float]] = {True: [], False: []}
        scores = {}
        for turn in range(args.repeats + 1):  # the first compiles
            for ours, (evaluator, _) in sides.items():
                began = time.perf_counter()
                scores[ours] = dict(evaluator.run(params))
                if turn:
                    seconds[ours].append(time.perf_counter() - began)
        rates = {
            ours: count / statistics.median(seconds[ours])
            for ours, (_, count) in sides.items()
        }
        ratios = [b / a for a, b in zip(seconds[True], seconds[False], strict=True)]
        gaps = [abs(scores[True][name] - scores[False][name]) for name in scores[True]]
        yield {
            "benchmark": "evaluators", "evaluator": kind, "size": args.size,
            "canvas": list(model.config.canvas), "dtype": args.dtype,
            "prompts": args.prompts, "images": args.images, "batch": args.batch,
            "ours_images_per_s": round(rates[True], 4),
            "plain_images_per_s": round(rates[False], 4),
            "times_faster": round(statistics.median(ratios), 3),
            "largest_difference_of_scores": float(np.nanmax(gaps)),
            "device": jax.devices()[0].device_kind,
        }  # fmt: skip
        if (gap := np.nanmax(gaps)) > _APART:
            sys.exit(f"{kind}: scores are {gap:.3f} apart")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=["examples", "fewshot", "vos"])
    parser.add_argument("--size", default="s16")
    parser.add_argument("--canvas", nargs=2, type=int, default=None)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parse(parser)
    report("benchmarks.evaluators", measure(args), args.out)


if __name__ == "__main__":
    main()
