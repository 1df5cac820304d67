"""The `seggpt` command, the same as `python -m seggpt_jax.cli`."""

import argparse
import functools
import importlib.metadata
import os
import sys

import jax
from absl import logging

from seggpt_jax.cli import (
    check_command,
    config_args,
    configs_command,
    index_command,
    inputs,
    mask_command,
    model_args,
    models_command,
    prepare_command,
    report_command,
    segment_command,
    serve_command,
    show_command,
    tune_command,
    video_command,
)
from seggpt_jax.models.attention import choose
from seggpt_jax.runs import paths
from seggpt_jax.runs.runtime import cache_compiled
from seggpt_jax.training import config_file
from seggpt_jax.weights.convert import FORMS, convert
from seggpt_jax.weights.names import DEFAULT, bundled

_SHOWN = ("seggpt_jax", "jax", "jaxlib", "flax", "numpy", "pillow", "av", "torch",
          "transformers")  # fmt: skip
_EXAMPLES = """examples:
  seggpt segment --model BAAI/seggpt-vit-large --prompt cat.jpg:cat-mask.png \\
      photos/ --out results
  seggpt segment --model seggpt.pth --prompt a.jpg:a.png --prompt b.jpg:b.png \\
      'photos/*.jpg' --out results --as segments,overlay,coco-json
  seggpt segment --model runs/mini --prompt images:masks --prompt auto:4 \\
      photos/ --out results
  seggpt mask cat.jpg --box 10,20,200,180 --out cat-mask.png
  seggpt video --model runs/mini --first first-frame-mask.png clip.mp4 --out results
  seggpt check indexed --root my-data
  seggpt check --config configs/vitl.py --config.data_dir=DATA
  seggpt show --config configs/vitl.py:tiny --out batch.png
  seggpt report runs/* --out report
  seggpt configs my-project
  seggpt prepare ade20k --root ADEChallengeData2016 --out DATA
  seggpt tune --model runs/mini --data my-data --out prompt.safetensors
  seggpt segment --model runs/mini --prompt prompt.safetensors photos/ --out results
  seggpt convert --input seggpt_vit_large.pth --output weights/vitl
  seggpt convert --input runs/mini --output weights/mini --to hub-folder
  seggpt models
  seggpt demo
  seggpt serve --host 0.0.0.0 --token SECRET
  seggpt doctor
"""
# How arguments are given, where it is not --NAME.
_ARGUMENTS = {
    "inputs": "INPUT", "images": "IMAGES", "masks": "MASKS", "video": "VIDEO",
    "image": "IMAGE", "type": "TYPE", "forms": "--as", "workdirs": "WORKDIR",
    "dir": "DIR",
}  # fmt: skip
_PLACES = {
    "--model": paths.MODEL, "--input": paths.MODEL, "VIDEO": paths.STREAM,
    "--prompt": paths.PROMPT,
}  # fmt: skip
# The options that may name a bucket, by command.
_IN_BUCKETS = {
    "segment": ("--out",), "video": ("--out",), "mask": ("--out",),
    "tune": ("--data", "--out"), "convert": ("--output",), "check": ("--root",),
    "prepare": ("--out",), "show": ("--out",), "report": ("WORKDIR", "--out"),
}  # fmt: skip
_NO_PATHS = ("--host", "--token", "--license", "TYPE", "--beam-flags", "--config",
             "--changes")  # fmt: skip
_DEFAULTED = (
    f"no --model given: taking {DEFAULT}, a small bundled model, for trials "
    "and research only (its data's licences); for real work give the authors' weights: "
    "--model BAAI/seggpt-vit-large"
)


def main(argv: list[str] | None = None) -> None:
    """Runs a command. Exit status: 0 done; 1 done, except for the files listed, or
    faults were found; 2 stopped, with one `error:` line; 130 interrupted."""
    args = _read(argv)
    logging.set_verbosity(logging.INFO if args.verbose else logging.WARNING)
    logging.set_stderrthreshold("info")
    failed: list[inputs.Failed] = []
    status = 0
    try:
        _check_paths(args)
        if getattr(args, "model", "") is None:
            args.model = DEFAULT
            print(_DEFAULTED, file=sys.stderr)
        cache_compiled()
        status = args.run(args, failed) or 0
    # RuntimeError: jax has no device, or too little memory on it.
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if args.verbose:
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        print("error: " + "\n  ".join(lines), file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        status = 130
    for path, reason in failed:
        print(f"failed: {path}: {reason}", file=sys.stderr)
    sys.exit(status or (1 if failed else 0))


def _read(argv: list[str] | None) -> argparse.Namespace:
    """The options; changed settings of a config are known only to the config."""
    parser = make_parser()
    args, rest = parser.parse_known_args(argv)
    if rest := config_args.take_changes(args, rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def _check_paths(args) -> None:
    """Holds every option of a command against the places that it may name."""
    if config := getattr(args, "config", None):
        config_file.check_place(config)
    given = {
        _ARGUMENTS.get(name, f"--{name.replace('_', '-')}"): x
        for name, x in vars(args).items()
    }
    buckets = dict.fromkeys(_IN_BUCKETS.get(args.command, ()), paths.BUCKET)
    paths.check_all(given, _PLACES | buckets, free=_NO_PATHS)


def make_parser() -> argparse.ArgumentParser:
    """The arguments of `seggpt` and of all its commands."""
    parser = argparse.ArgumentParser(
        "seggpt",
        description="Segment images and videos the way an example shows.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--verbose", action="store_true", help="more log; tracebacks")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    def command(name: str, run, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=help,
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    segment = command("segment", segment_command.run, "images")
    model_args.add_arguments(segment)
    segment_command.add_arguments(segment)

    movie = command("video", video_command.run, "videos")
    model_args.add_arguments(movie)
    video_command.add_arguments(movie)

    mask = command("mask", _mask, "the mask of an example, by a box or points")
    mask_command.add_arguments(mask)

    tables = command("index", index_command.run, "tables of your images and masks")
    index_command.add_arguments(tables)

    tuned = command("tune", _tune, "a prompt learned from an indexed folder")
    model_args.add_arguments(tuned)
    tune_command.add_arguments(tuned)

    checked = command("check", _check, "data sets, read to the last record")
    check_command.add_arguments(checked)

    shown = command("show", _show, "a picture of what training sees")
    show_command.add_arguments(shown)

    copied = command("configs", _configs, "the configs that come along, to be edited")
    configs_command.add_arguments(copied)

    reported = command("report", _report, "results of evaluations as one page")
    report_command.add_arguments(reported)

    prepared = command("prepare", _prepare, "a data set as files that are fast to read")
    prepare_command.add_arguments(prepared)

    for name, run, help in (
        ("serve", _serve, "an HTTP server, with a page to draw on"),
        ("demo", _demo, "the same, and the page is opened"),
    ):
        served = command(name, run, help)
        model_args.add_arguments(served)
        serve_command.add_arguments(served)

    weights = command("convert", _convert, "weights")
    weights.add_argument(
        "--input", required=True, metavar="MODEL", help=model_args.MODEL
    )
    weights.add_argument("--output", required=True, help="folder")
    weights.add_argument(
        "--to", choices=FORMS, default=FORMS[0], help="layout (default: %(default)s)"
    )
    weights.add_argument(
        "--raw", action="store_true",
        help="of a training run, the parameters themselves instead of their average",
    )  # fmt: skip
    weights.add_argument(
        "--license", default="", metavar="ID", help="for --to hub-folder, as apache-2.0"
    )

    command("models", _models, "bundled, cached and known models")
    command("doctor", _doctor, "versions, devices, folders")
    return parser


def _mask(args, failed: list[inputs.Failed]) -> None:
    mask_command.run(args)


def _tune(args, failed: list[inputs.Failed]) -> None:
    tune_command.run(args)


def _check(args, failed: list[inputs.Failed]) -> int:
    return 0 if check_command.run(args) else 1


def _show(args, failed: list[inputs.Failed]) -> None:
    show_command.run(args)


def _configs(args, failed: list[inputs.Failed]) -> None:
    configs_command.run(args)


def _prepare(args, failed: list[inputs.Failed]) -> None:
    prepare_command.run(args)


def _report(args, failed: list[inputs.Failed]) -> None:
    report_command.run(args)


def _serve(args, failed: list[inputs.Failed]) -> None:
    serve_command.run(args, functools.partial(model_args.load, args), browser=False)


def _demo(args, failed: list[inputs.Failed]) -> None:
    serve_command.run(args, functools.partial(model_args.load, args), browser=True)


def _convert(args, failed: list[inputs.Failed]) -> None:
    for line in convert(args.input, args.output, args.to, args.raw, args.license):
        print(line)


def _models(args, failed: list[inputs.Failed]) -> None:
    models_command.run()


def _doctor(args, failed: list[inputs.Failed]) -> None:
    print(f"python       {sys.version.split()[0]}")
    for name in _SHOWN:
        try:
            print(f"{name:12} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{name:12} not installed")
    devices = jax.devices()
    print(f"devices      {len(devices)} x {devices[0].device_kind}"
          f" ({jax.default_backend()}), {os.cpu_count()} CPU cores")  # fmt: skip
    print(f"attention    {choose(jax.default_backend())}")
    print(f"cache        {cache_compiled()}")
    print(f"models       {', '.join(bundled()) or 'none bundled'}")
