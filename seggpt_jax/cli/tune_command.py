"""What `seggpt tune` does: the config of a task, its run, and the file it asks for."""

import argparse
import os
from pathlib import Path
from typing import Any

import jax
from absl import logging

from seggpt_jax.cli import talk
from seggpt_jax.config import parse_list
from seggpt_jax.data.prepared import splits_in
from seggpt_jax.data.sources.indexed import Indexed
from seggpt_jax.prompts.file import SUFFIX
from seggpt_jax.runs import paths, staging
from seggpt_jax.runs.workdir import check_writable
from seggpt_jax.weights.names import DEFAULT

_HELDOUT = ("val", "test")  # what is scored, where the folder has it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command beside the model."""
    add = parser.add_argument
    add(
        "--data",
        required=True,
        metavar="DIR",
        help="folder with the tables of `seggpt index`",
    )
    add("--out", required=True, metavar=f"FILE{SUFFIX}",
        help="the prompt; FILE.run beside it is the folder of the run")  # fmt: skip
    add("--split", default="train",
        help="of the folder, to tune on; `val`, or else `test`, is scored (default: "
        "%(default)s)")  # fmt: skip
    add("--classes", help="names or ids, separated by commas (default: all)")
    add("--prompts", type=int, default=1, help="learned together (default: 1)")
    add("--palette", choices=("spread", "painter"), default="spread",
        help="colours of classes: far apart, or Painter's (default: %(default)s)",
    )  # fmt: skip
    add("--steps", type=int, default=400, help="of tuning (default: %(default)s)")
    add("--lr", type=float, default=0.1, help="learning rate (default: %(default)s)")
    add("--batch", type=int, default=4,
        help="queries of a step, rounded up to a multiple of the devices (default: 4)",
    )  # fmt: skip
    add("--seed", type=int, default=0, help="picks the example it starts from")


def run(args: argparse.Namespace, failed: object) -> None:
    """Tunes a prompt, or goes on with it; prints where it is."""
    # Imported late: only this command needs the training code.
    from seggpt_jax.tune import PROMPT, learning, tune

    out, data = paths.locate(args.out), paths.locate(args.data)
    if isinstance(data, Path):
        data = Path(os.path.abspath(data))
    if out.suffix != SUFFIX:
        raise ValueError(f"--out {out}: a file that ends in {SUFFIX} is wanted")
    check_writable(out.parent)
    if not args.quiet:
        logging.set_verbosity(logging.INFO)  # minutes of silence would be long
    workdir = out.with_suffix(".run")
    batch = args.batch + -args.batch % jax.device_count()  # devices share it out
    how = learning(args.steps, batch, args.lr)
    tune(settings(args, data) | how, str(workdir))
    if not (workdir / PROMPT).exists():
        return  # stopped, and saved
    with staging.new_file(out) as new:
        new.write_bytes((workdir / PROMPT).read_bytes())
    print(f"wrote {out}")
    model = f"--model {args.model} " if args.model != DEFAULT else ""
    talk.say(args.quiet, talk.listed([
        f"seggpt segment {model}--prompt {out} PHOTOS --out results"
    ]))  # fmt: skip


def settings(args: argparse.Namespace, data: paths.AnyPath) -> dict[str, Any]:
    """The settings that the options stand for."""
    one: dict[str, Any] = {"type": "indexed", "folder": data.name}
    if args.bits != 16:  # a run that began without the setting goes on
        one["bits"] = args.bits
    splits = splits_in(Indexed, data)
    scored = [s for s in _HELDOUT if s in splits and s != args.split]
    model = args.model
    if os.path.exists(model):
        model = os.path.abspath(model)
    return {
        "mode": "tune",
        "seed": args.seed,
        "data_dir": str(data.parent),
        "checkpoint": model,
        "model": {"dtype": args.dtype, "attention": args.attention},
        "sources": {data.name: one | {"split": args.split}},
        "tune": {
            "classes": tuple(
                int(c) if c.isdecimal() else c for c in parse_list(args.classes)
            ),
            "prompts": args.prompts,
            "palette": args.palette,
            "heldout": one | {"split": scored[0]} if scored else {},
        },
    }
