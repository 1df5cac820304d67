"""Times of an exported model beside the Predictor's functions, in turns in one run.

    python -m benchmarks.export --model mini --prompts 1 --batch 1

ONNX is measured where there are jax2onnx and onnxruntime (docs/export.md).
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export
from safetensors.numpy import load

from benchmarks import rows
from seggpt_jax.inference import export
from seggpt_jax.predict import make_predict_fns
from seggpt_jax.weights import pretrained
from seggpt_jax.weights.build import inference_params, load_model

Functions = tuple[Callable[..., Any], Callable[..., Any]]


def read(path: Path, form: str) -> Functions:
    """`encode` and `paint` of a file."""
    with zipfile.ZipFile(path) as file:
        if form == "stablehlo":
            params = jax.device_put(load(file.read(export.PARAMS)))
            calls = [
                jax.jit(jax_export.deserialize(bytearray(file.read(name))).call)
                for name in ("encode.stablehlo", "paint.stablehlo")
            ]
            encode, paint = calls
            return (
                lambda *given: encode(params, *given),
                lambda *given: jax.block_until_ready(paint(params, *given)[0]),
            )
        import onnxruntime

        sessions = [
            onnxruntime.InferenceSession(file.read(name))
            for name in ("encode.onnx", "paint.onnx")
        ]

    def run(session, *given):
        names = [one.name for one in session.get_inputs()]
        return session.run(None, dict(zip(names, map(np.asarray, given), strict=True)))

    return (
        lambda *given: run(sessions[0], *given),
        lambda *given: run(sessions[1], *given)[0],
    )


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row: medians of `repeats` calls, and how far paintings are apart."""
    model, weights = load_model(args.model, dtype="float32", attention="auto")
    params = inference_params(model, weights.params)
    rng = np.random.default_rng(0)
    shape = (1, args.prompts, *model.config.half, 3)
    images, targets = rng.standard_normal((2, *shape), np.float32)
    queries = rng.standard_normal((args.batch, *model.config.half, 3), np.float32)
    kind = np.zeros(1, np.int32)
    fns = make_predict_fns(model)
    encoded = fns.encode_prompts(params, images, targets, kind)
    calls = {
        "ours": lambda: np.asarray(fns.predict(params, encoded, queries)),
    }
    with tempfile.TemporaryDirectory() as temp:
        for form, needs in zip(export.FORMS, ("flatbuffers", "jax2onnx"), strict=True):
            if importlib.util.find_spec(needs) is None:
                continue
            out = Path(temp) / f"{form}.zip"
            export.export(pretrained.load(args.model), form, args.prompts, out)
            encode, paint = read(out, form)
            given = *encode(images, targets, kind), kind, queries
            calls[form] = lambda paint=paint, given=given: np.asarray(paint(*given))
    wanted = calls["ours"]()
    row: dict[str, Any] = {"model": args.model, "prompts": args.prompts,
                           "batch": args.batch, "jax": jax.__version__}  # fmt: skip
    for form, call in calls.items():
        if form != "ours":
            row[f"{form}_apart"] = float(np.abs(call() - wanted).max())
    seconds: dict[str, list[float]] = {form: [] for form in calls}
    for _ in range(args.repeats):  # in turns: what else runs meets all alike
        for form, call in calls.items():
            begin = time.perf_counter()
            call()
            seconds[form].append(time.perf_counter() - begin)
    for form, found in seconds.items():
        row[f"{form}_ms"] = round(1e3 * statistics.median(found), 2)
        row[f"{form}_least_ms"] = round(1e3 * min(found), 2)
    yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--prompts", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path)
    args = rows.parse(parser)
    rows.report("benchmarks.export", measure(args), args.out)


if __name__ == "__main__":
    main()
