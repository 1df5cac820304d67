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
    export_command,
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
from seggpt_jax.runs import log, paths
from seggpt_jax.runs.runtime import cache_compiled
from seggpt_jax.training import config_file
from seggpt_jax.weights.convert import FORMS, convert
from seggpt_jax.weights.names import DEFAULT, bundled

# Name, module, help. A module has `add_arguments(parser)` and `run(args, failed)`: it
# adds the files that it leaves out to `failed`, and may return an exit status.
_COMMANDS = (
    ("segment", segment_command, "segment images"),
    ("video", video_command, "follow objects through a video"),
    ("mask", mask_command, "make the mask of an example, by a box or points"),
    ("new", new_command, "make a folder to bring your own data into"),
    ("index", index_command, "make the tables of your images and masks"),
    ("tune", tune_command, "learn a prompt from your images and masks"),
    ("check", check_command, "read data sets to the last record, name faults"),
    ("show", show_command, "draw what training sees"),
    ("configs", configs_command, "copy the configs that come along, to be edited"),
    ("report", report_command, "show results of evaluations as one page"),
    ("prepare", prepare_command, "a data set as files that are fast to read"),
    ("export", export_command, "a model for programs in other runtimes"),
    ("serve", serve_command, "serve a model over HTTP, with a page to draw on"),
    ("demo", serve_command, "serve, and open the page"),
)
_OF_A_MODEL = ("segment", "video", "tune", "serve", "demo")
_SHOWN = ("seggpt_jax", "jax", "jaxlib", "flax", "numpy", "pillow", "av", "torch",
          "transformers")  # fmt: skip
_EXTRAS = (
    ("av", "videos", "video"),
    ("fastapi", "demo and serve", "serve"),
    ("torch", ".pth files", "torch"),
    ("flatbuffers", "export", "export"),
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
    "export": """\
  seggpt export --model BAAI/seggpt-vit-large --prompts 1 --out vitl.zip
  seggpt export --model mini --to onnx --out mini.zip""",
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
    log.show(logging.INFO if args.verbose else logging.WARNING, args.quiet)
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
        lost = [text for text in rest if text.startswith("--config.")]
        if lost and hasattr(args, "changes") and not args.config:
            parser.error(f"{lost[0]} changes a config: give its file with --config")
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

    for name, module, help in _COMMANDS:
        added = command(name, module.run, help)
        if name in _OF_A_MODEL:
            model_args.add_arguments(added)
        module.add_arguments(added)

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

    command("models", models_command.run, "list bundled, cached and known models")
    command("doctor", _doctor, "say what is installed, and whether it works")
    return parser


def _convert(args, failed: list[inputs.Failed]) -> None:
    say = functools.partial(talk.say, args.quiet)
    for line in convert(args.input, args.output, args.to, args.raw, args.license, say):
        print(line, flush=True)


def _doctor(args, failed: list[inputs.Failed]) -> None:
    print(f"python       {sys.version.split()[0]}")
    for name in _SHOWN:
        try:
            print(f"{name:12} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{name:12} not installed")
    devices = jax.devices()
    kind, platform = devices[0].device_kind, jax.default_backend()
    print(f"devices      {len(devices)} x {kind}{f' ({platform})' * (kind != platform)}"
          f", {os.cpu_count()} CPU cores")  # fmt: skip
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
