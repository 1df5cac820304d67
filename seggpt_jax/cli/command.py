"""The `seggpt` command, the same as `python -m seggpt_jax.cli`."""

import argparse
import importlib
import sys
import warnings
from pathlib import Path

from absl import logging

import seggpt_jax
from seggpt_jax.cli import talk
from seggpt_jax.runs import log, paths
from seggpt_jax.runs.runtime import cache_compiled

# Name, module, help. A module has `add_arguments(parser)` and `run(args, failed)`: it
# adds the files that it leaves out to `failed`, and may return an exit status. Only the
# module of the command that is given is imported: JAX and SciPy take seconds.
_COMMANDS = (
    ("segment", "segment_command", "segment images"),
    ("video", "video_command", "follow objects through a video"),
    ("mask", "mask_command", "make the mask of an example, by a box or points"),
    ("new", "new_command", "make a folder to bring your own data into"),
    ("index", "index_command", "make the tables of your images and masks"),
    ("tune", "tune_command", "learn a prompt from your images and masks"),
    ("check", "check_command", "read data sets to the last record, name faults"),
    ("show", "show_command", "draw what training sees"),
    ("configs", "configs_command", "copy the configs that come along, to be edited"),
    ("report", "report_command", "show results of evaluations as one page"),
    ("prepare", "prepare_command", "a data set as files that are fast to read"),
    ("export", "export_command", "a model for programs in other runtimes"),
    ("serve", "serve_command", "serve a model over HTTP, with a page to draw on"),
    ("demo", "serve_command", "serve, and open the page"),
    ("convert", "convert_command", "write weights in another form"),
    ("models", "models_command", "list bundled, cached and known models"),
    ("doctor", "doctor_command", "say what is installed, and whether it works"),
)
_OF_A_MODEL = ("segment", "video", "tune", "serve", "demo")
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
    "no --model given: taking {}, a small bundled model, for trials "
    "and research only (its data's licences); for real work give the authors' weights: "
    "--model BAAI/seggpt-vit-large"
)


def main(argv: list[str] | None = None) -> None:
    """Runs a command. Exit status: 0 done; 1 done, except for the files listed, or
    faults were found; 2 stopped, with one `error:` line; 130 interrupted."""
    args = _read(argv)
    log.show(logging.INFO if args.verbose else logging.WARNING, args.quiet)
    failed: list[tuple[Path, str]] = []
    status = 0
    try:
        _check_paths(args)
        if getattr(args, "model", "") is None:
            from seggpt_jax.weights.names import DEFAULT

            args.model = DEFAULT
            if not args.quiet:
                print(_DEFAULTED.format(DEFAULT), file=sys.stderr)
        cache_compiled()
        with warnings.catch_warnings():
            # Sizes of pictures are checked (`decode.check_size`); Pillow knows others.
            warnings.filterwarnings("ignore", "Image size .* decompression bomb")
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
    words = sys.argv[1:] if argv is None else argv
    parser = make_parser(next((word for word in words if word[:1] != "-"), ""))
    args, rest = parser.parse_known_args(words)
    if hasattr(args, "config"):
        from seggpt_jax.cli import config_args

        rest = config_args.take_changes(args, rest)
    if rest:
        lost = [text for text in rest if text.startswith("--config.")]
        if lost and hasattr(args, "changes") and not args.config:
            parser.error(f"{lost[0]} changes a config: give its file with --config")
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def _check_paths(args) -> None:
    """Holds every option of a command against the places that it may name."""
    if config := getattr(args, "config", None):
        from seggpt_jax.training import config_file

        config_file.check_place(config)
    given = {
        _ARGUMENTS.get(name, f"--{name.replace('_', '-')}"): x
        for name, x in vars(args).items()
    }
    for name in set(_ARGUMENTS.values()) & given.keys():
        if "" in (given[name] if isinstance(given[name], list) else [given[name]]):
            raise ValueError(f"{name} is empty")
    buckets = dict.fromkeys(_IN_BUCKETS.get(args.command, ()), paths.BUCKET)
    paths.check_all(given, _PLACES | buckets, free=_NO_PATHS)


def make_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The arguments of `seggpt` and of all its commands. only: the one command that is
    to be read; of the others there are the names alone."""
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

    for name, module, help in _COMMANDS:
        added = commands.add_parser(
            name,
            help=help,
            epilog=f"example:\n{_EXAMPLES[name]}" if name in _EXAMPLES else "",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if only in (None, name):
            talk.add_arguments(added)
            _add_arguments(added, name, module)
    return parser


def _add_arguments(parser: argparse.ArgumentParser, name: str, module: str) -> None:
    """The arguments of a command, and the function that runs it."""
    if name in _OF_A_MODEL:
        from seggpt_jax.cli import model_args

        model_args.add_arguments(parser, trains=name == "tune")
    found = importlib.import_module(f"seggpt_jax.cli.{module}")
    parser.set_defaults(run=found.run)
    found.add_arguments(parser)
