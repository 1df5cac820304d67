"""What `seggpt convert` does: weights in another form."""

import argparse
import functools

from seggpt_jax.cli import model_args, talk
from seggpt_jax.weights.convert import FORMS, convert


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("--input", required=True, metavar="MODEL", help=model_args.MODEL)
    add("--output", required=True, help="folder")
    add("--to", choices=FORMS, default=FORMS[0], help="layout (default: %(default)s)")
    add("--raw", action="store_true",
        help="of a training run, the parameters themselves instead of their average",
    )  # fmt: skip
    add(
        "--license", default="", metavar="ID", help="for --to hub-folder, as apache-2.0"
    )


def run(args: argparse.Namespace, failed: object) -> None:
    """Writes the weights, and says what was found."""
    say = functools.partial(talk.say, args.quiet)
    for line in convert(args.input, args.output, args.to, args.raw, args.license, say):
        print(line, flush=True)
