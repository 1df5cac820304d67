"""What `seggpt index` does: the tables of a user's own images and masks."""

import argparse
from pathlib import Path

from seggpt_jax.cli import inputs, talk
from seggpt_jax.config import counted
from seggpt_jax.indexing.tables import MASKS, write_tables
from seggpt_jax.results.categories import read_names
from seggpt_jax.trees import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add("images", metavar="IMAGES", help="folder, searched with the folders in it")
    add("masks", metavar="MASKS",
        help="folder of masks named as the images, or a COCO JSON file")  # fmt: skip
    add("--out", metavar="DIR",
        help="of the tables, and of masks made of colours or of a JSON, in "
        f"{MASKS} (default: the folder that holds both)")  # fmt: skip
    add("--names", metavar="1=cat,2=dog",
        help="of the values of the masks (default: those of a classes.tsv that is "
        "there)")  # fmt: skip
    add("--split", default="", metavar="NAME",
        help="put all images into this split, and add it to the tables that are there "
        "(default: the folders train, val and test; else a fifth of each class, evenly "
        "by name, is val)")  # fmt: skip


def run(args: argparse.Namespace, failed: list[inputs.Failed]) -> None:
    """Writes the tables, and says what is in them and what to do next."""
    named = read_names(args.names) if args.names else {}

    def show(items, total):
        return talk.bar(args.quiet, unit="image")(items, total=total)

    made = write_tables(
        Path(args.images), Path(args.masks), args.out and Path(args.out), named,
        args.split, show,
    )  # fmt: skip
    failed += made.failed
    for note in made.notes:
        print(note)
    splits = ", ".join(f"{count} {split}" for split, count in made.splits.items())
    images = counted(sum(made.splits.values()), "image")
    print(f"wrote {made.root}/index.tsv: {images}, {splits}")
    print(f"wrote {made.root}/classes.tsv; edit it to rename a class:")
    print(table(("id", "name", "images"), made.classes))
    talk.say(args.quiet, talk.listed([
        f"seggpt check indexed --root {made.root}",
        f"seggpt tune --data {made.root} --out tuned.safetensors",
    ]))  # fmt: skip
