"""The model of a command: its options, and what is stored of it beside results."""

import argparse
import functools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from seggpt_jax.cli import inputs, talk
from seggpt_jax.inference import Predictor
from seggpt_jax.models.attention import CHOICES
from seggpt_jax.runs import checksums, paths
from seggpt_jax.weights.names import DEFAULT

MODEL = (
    "a path, also gs://... (training run, release, .pth, .safetensors, folder of "
    "transformers), a bundled name, or OWNER/NAME[@REVISION] of the Hugging Face hub; "
    "`seggpt models` lists some"
)
_DTYPE = "of the computation (default: %(default)s)"
_AUTO = "; auto: bfloat16 where it is faster, on TPUs and many GPUs and CPUs"
_ATTENTION = "how attention is computed (default: the best one for the device)"


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help=f"{MODEL} (default: {DEFAULT})")


def add_arguments(parser: argparse.ArgumentParser, trains: bool = False) -> None:
    """The options of all commands that compute with a model. trains: the command is
    one that learns; what is faster was measured for predictions only."""
    add_model(parser)
    types = ["float32", "bfloat16"] if trains else ["float32", "bfloat16", "auto"]
    help = _DTYPE if trains else _DTYPE + _AUTO
    parser.add_argument("--dtype", choices=types, default=types[0], help=help)
    parser.add_argument("--attention", choices=CHOICES, default="auto", help=_ATTENTION)
    parser.add_argument("--bits", type=int, default=16, help=inputs.BITS)


def load(args, **settings) -> Predictor:
    """The model of these options; says what it is."""
    talk.say(args.quiet, f"loading {args.model}")
    predictor = Predictor.from_pretrained(
        args.model,
        dtype=args.dtype,
        attention=args.attention,
        bits=args.bits,
        **settings,
    )
    name, device = predictor.model_name, jax.devices()[0].device_kind
    how = f"{predictor.config.dtype} on {device}"
    talk.say(args.quiet, f"loaded {name}: {predictor.describe()}; {how}")
    return predictor


def made_by(
    args, names: Iterable[str], predictor: Predictor, files: Iterable[str | Path]
) -> dict[str, Any]:
    """The settings that results depend on, stored beside them.

    A later run into the same folder with other settings is refused: its results would
    pass for those of this run.
    """
    model = predictor.model_name
    if os.path.exists(model):  # a path; else a bundled name, or one of the hub
        model = os.path.realpath(model)
    known = functools.cache(identity)  # one COCO file may serve many images
    prompts = [known(path) for path in files]
    settings = {name: getattr(args, name) for name in names}
    settings["dtype"] = predictor.config.dtype  # `auto` is not the same everywhere
    return settings | {"model": model, "step": predictor.step, "prompts": prompts}


def identity(path: str | Path) -> list[str]:
    """What a file is known by: its place and its content."""
    place = paths.locate(path)
    known = os.path.realpath(path) if isinstance(place, Path) else str(place)
    return [known, checksums.sha256(place)]
