"""What `seggpt show` does: a contact sheet of exactly what training sees at a step."""

import argparse

from seggpt_jax.cli import config_args
from seggpt_jax.runs import paths, staging


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    config_args.add_arguments(parser, "the config")
    add("--out", default="batch.png", metavar="FILE.png",
        help="picture to write (default: %(default)s)")  # fmt: skip
    add("--step", type=int, default=0, help="whose batch is shown (default: 0)")
    add("--rows", type=int, help="of the batch, from the first on"
        " (default: 8, or all where there are fewer)")  # fmt: skip


def run(args: argparse.Namespace, failed: object) -> None:
    """Writes the sheet.

    Prompt and query stand beside their targets, in the colours of that step. Hidden
    patches, which the model must paint, are greyed. Pixels that the loss does not count
    are hatched in red.
    """
    # Imported late: only the commands about data need what reads data sets.
    from PIL import Image

    from seggpt_jax.train import with_geometry
    from seggpt_jax.training.batch_sheet import draw_batch
    from seggpt_jax.training.settings import read_settings

    out = paths.locate(args.out)
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out {out}: give a name that ends in .png")
    if not args.config:
        raise ValueError("give --config: the file of a config")
    settings, _ = with_geometry(read_settings(config_args.read(args)))
    rows = min(8, settings.loader.batch_size) if args.rows is None else args.rows
    sheet = draw_batch(settings, args.step, rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    with staging.new_file(out) as new:
        Image.fromarray(sheet).save(new, "png")
    print(f"{out}: rows 0 to {rows - 1} of the batch of step {args.step}")
