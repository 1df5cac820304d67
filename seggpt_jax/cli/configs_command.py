"""What `seggpt configs` does: the configs that come along, copied to be edited."""

import argparse
import shutil
from pathlib import Path

from seggpt_jax.runs import staging
from seggpt_jax.training import config_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The option of the command."""
    parser.add_argument("dir", metavar="DIR", help="they go to DIR/configs")


def run(args: argparse.Namespace, failed: object) -> None:
    """Copies the configs, and says how they are used."""
    target = Path(args.dir) / config_file.FOLDER
    if not args.dir or Path(args.dir).is_file():
        raise ValueError(f"DIR {args.dir!r} is not a folder")
    if target.exists():
        raise ValueError(f"{target} is there already: choose another DIR")
    files = sorted(config_file.shipped().glob("*.py"))
    with staging.new_folder(target) as new:
        for path in files:
            shutil.copyfile(path, new / path.name)
    print(f"{target}: {len(files)} files; use them as --config={target}/NAME.py")
