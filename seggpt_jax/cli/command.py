"""The `seggpt` command, the same as `python -m seggpt_jax.cli`."""

import argparse
import functools
import importlib.metadata
import importlib.util
import os
import sys

import jax
from absl import logging

import seggpt_jax
from seggpt_jax.cli import (
    check_command,
    config_args,
    configs_command,
    index_command,
    inputs,
    mask_command,
    model_args,
    models_command,
    new_command,
    prepare_command,
    report_command,
    segment_command,
    serve_command,
    show_command,
    talk,
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
_EXTRAS = (
    ("av", "videos", "video"),
    ("fastapi", "demo and serve", "serve"),
    ("torch", ".pth files", "torch"),
)  # package, what needs it, extra
# Command -> how it is used; all but the models of the hub comes with the package or is
# the user's own.
_EXAMPLES = {
    "segment": """\
  seggpt segment --model BAAI/seggpt-vit-large --prompt cat.jpg:cat-mask.png \\
      photos/ --out results
  seggpt segment --model seggpt.pth --prompt a.jpg:a.png --prompt b.jpg:b.png \\
      'photos/*.jpg' --out results --as segments,overlay,coco-json
  seggpt segment --prompt images:masks --prompt auto:4 photos/ --out results
  seggpt segment --prompt tuned.safetensors photos/ --out results""",
    "video": """\
  seggpt video --model BAAI/seggpt-vit-large --first first-frame-mask.png \\
      clip.mp4 --out results
  seggpt video --camera 0 --prompt cat.jpg:cat-mask.png --out results""",
    "mask": """\
  seggpt mask cat.jpg --box 10,20,200,180 --out cat-mask.png""",
    "new": """\
  seggpt new my-project""",
    "index": """\
  seggpt index my-data/images my-data/masks --names 1=cat,2=dog
  seggpt index photos export.json --out my-data""",
    "check": """\
  seggpt check indexed --root my-data
  seggpt check --config configs/vitl.py --config.data_dir=DATA""",
    "show": """\
  seggpt show --config configs/vitl.py:tiny --out batch.png""",
    "report": """\
  seggpt report runs/* --out report""",
    "configs": """\
  seggpt configs my-project""",
    "prepare": """\
  seggpt prepare ade20k --root ADEChallengeData2016 --out DATA""",
    "tune": """\
  seggpt tune --data my-data --out tuned.safetensors
  seggpt segment --prompt tuned.safetensors photos/ --out results""",
    "convert": """\
  seggpt convert --input seggpt_vit_large.pth --output weights/vitl
  seggpt convert --input runs/mine --output weights/mine --to hub-folder""",
    "serve": """\
  seggpt serve --model BAAI/seggpt-vit-large
  seggpt serve --host 0.0.0.0 --token SECRET""",
}
_FIRST = ("segment", "video", "tune")  # shown by the help of all commands
# How arguments are given, where it is not --NAME.
_ARGUMENTS = {
    "inputs": "INPUT", "images": "IMAGES", "masks": "MASKS", "video": "VIDEO",
    "image": "IMAGE", "type": "TYPE", "folder": "DIR", "forms": "--as",
    "workdirs": "WORKDIR", "dir": "DIR",
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
            if not args.quiet:
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
        named = reason if str(path) in reason else f"{path}: {reason}"
        print(f"failed: {named}", file=sys.stderr)
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
        epilog="\n".join(
            ["examples:", *(_EXAMPLES[name] for name in _FIRST),
             "\n`seggpt COMMAND --help` tells more of one command."]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--version", action="version", version=f"seggpt_jax {seggpt_jax.__version__}"
    )
    parser.add_argument("--verbose", action="store_true", help="more log; tracebacks")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    def command(name: str, run, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=help,
            epilog=f"example:\n{_EXAMPLES[name]}" if name in _EXAMPLES else "",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        talk.add_arguments(added)
        return added

    segment = command("segment", segment_command.run, "segment images")
    model_args.add_arguments(segment)
    segment_command.add_arguments(segment)

    movie = command("video", video_command.run, "follow objects through a video")
    model_args.add_arguments(movie)
    video_command.add_arguments(movie)

    mask = command("mask", _mask, "make the mask of an example, by a box or points")
    mask_command.add_arguments(mask)

    new = command("new", new_command.run, "make a folder to bring your own data into")
    new_command.add_arguments(new)

    tables = command(
        "index", index_command.run, "make the tables of your images and masks"
    )
    index_command.add_arguments(tables)

    tuned = command("tune", _tune, "learn a prompt from your images and masks")
    model_args.add_arguments(tuned)
    tune_command.add_arguments(tuned)

    checked = command("check", _check, "read data sets to the last record, name faults")
    check_command.add_arguments(checked)

    shown = command("show", _show, "draw what training sees")
    show_command.add_arguments(shown)

    copied = command(
        "configs", _configs, "copy the configs that come along, to be edited"
    )
    configs_command.add_arguments(copied)

    reported = command("report", _report, "show results of evaluations as one page")
    report_command.add_arguments(reported)

    prepared = command("prepare", _prepare, "a data set as files that are fast to read")
    prepare_command.add_arguments(prepared)

    for name, run, help in (
        ("serve", _serve, "serve a model over HTTP, with a page to draw on"),
        ("demo", _demo, "serve, and open the page"),
    ):
        served = command(name, run, help)
        model_args.add_arguments(served)
        serve_command.add_arguments(served)

    weights = command("convert", _convert, "write weights in another form")
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

    command("models", _models, "list bundled, cached and known models")
    command("doctor", _doctor, "say what is installed, and whether it works")
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
    talk.say(args, f"reading {args.input}")
    for line in convert(args.input, args.output, args.to, args.raw, args.license):
        print(line, flush=True)


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
    print(_verdict())


def _verdict() -> str:
    """Whether a prediction works on the devices, and what is missing for more."""
    value = float(jax.numpy.ones((64, 64)).dot(jax.numpy.ones((64, 64))).sum())
    if value != 64**3:
        raise RuntimeError(f"{jax.devices()[0]} computes wrong: {value}")
    lacking = [f"{what}: pip install 'seggpt_jax[{extra}]'"
               for package, what, extra in _EXTRAS
               if importlib.util.find_spec(package) is None]  # fmt: skip
    slow = " (slow with large models: no GPU or TPU)"
    where = f"computes on {jax.default_backend()}"
    lines = [f"verdict      ready: {where}{slow * (jax.default_backend() == 'cpu')}"]
    return "\n".join(lines + [f"             not installed, for {x}" for x in lacking])
