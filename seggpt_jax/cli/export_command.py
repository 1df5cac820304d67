"""What `seggpt export` does: a model as two functions for other runtimes."""

import argparse

from seggpt_jax.cli import model_args, talk
from seggpt_jax.inference.export import FORMS, check_new, export
from seggpt_jax.runs import paths
from seggpt_jax.weights import pretrained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    model_args.add_model(parser)
    add = parser.add_argument
    add("--to", choices=FORMS, default=FORMS[0], help="form (default: %(default)s)")
    add("--prompts", type=int, default=1, metavar="P",
        help="how many prompts are given together (default: %(default)s)")  # fmt: skip
    add("--out", required=True, metavar="FILE.zip", help="a new file")


def run(args: argparse.Namespace, failed: object) -> None:
    """Writes the file, and says what is in it."""
    out = paths.locate(args.out)
    check_new(out)
    talk.say(args.quiet, f"loading {args.model}")
    weights = pretrained.load(args.model)
    talk.say(args.quiet, f"writing {out}")
    export(weights, args.to, args.prompts, out)
    print(f"wrote {out}: {weights.name} as {args.to}, prompts: {args.prompts}")
