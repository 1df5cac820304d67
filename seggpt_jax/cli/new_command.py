"""What `seggpt new` does: a folder to bring one's own data into, with a config."""

import argparse
from pathlib import Path

from seggpt_jax.cli import talk
from seggpt_jax.runs import staging

_CONFIG = '''\
"""{name}: trains a model further on the data beside this file.

    python -m seggpt_jax.main --config=config.py --workdir=runs/first
    python -m seggpt_jax.main --config=config.py:steps=1000,form=decoder --workdir=...

Every setting can be changed below, or as --config.NAME=VALUE.
"""

from configs import finetune


def get_config(argument=None):
    """The arguments are those of `configs/finetune.py`."""
    c = finetune.get_config(argument)
    c.data_dir = "data"
    return c
'''
_README = """\
# {name}

Run these in this folder. `seggpt COMMAND --help` tells more of each.

1. Put images and masks into `data` (see `data/README.md`), and make the tables:

       seggpt index data/images data/masks

2. See what is wrong with the files, and look at what training would see:

       seggpt check --config config.py
       seggpt show --config config.py --out batch.png

3. Tune a prompt. It is quick, needs little data, and helps most:

       seggpt tune --data data --out tuned.safetensors
       seggpt segment --prompt tuned.safetensors photos/ --out results

4. Train the model itself, if that is not enough:

       python -m seggpt_jax.main --config=config.py --workdir=runs/first
       seggpt segment --model runs/first --prompt IMAGE:MASK photos/ --out results

Both start from the small bundled model. For real work take the authors' weights, on a
GPU or TPU: `--model BAAI/seggpt-vit-large` for the commands, and for training
`--config=config.py:model=BAAI/seggpt-vit-large`.
"""
_DATA = """\
# Data

    images/rex.jpg
    masks/rex.png

A mask has the name and the size of its image. It is black and white for one class (0
and 255), has a number for each class (1, 2, ...; 0 is background), or is painted in a
colour for each class. Save masks as PNG. `seggpt index data/images data/masks` says
what it finds in them, and holds a fifth of the images out to measure with. With a COCO
file instead of masks: `seggpt index data/images data/export.json`.
"""
FILES = {"config.py": _CONFIG, "README.md": _README, "data/README.md": _DATA}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The argument of the command."""
    parser.add_argument("folder", metavar="DIR", help="that is made")


def run(args: argparse.Namespace, failed: object) -> None:
    """Writes the files. Raises ValueError where the folder is not empty."""
    folder = Path(args.folder)
    if folder.is_file() or folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is there already: name a new folder")
    for name in ("data/images", "data/masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        with staging.new_file(folder / name) as new:
            new.write_text(text.replace("{name}", folder.resolve().name), "utf-8")
    print(f"wrote {', '.join(str(folder / name) for name in FILES)}")
    talk.say(args.quiet, talk.listed([
        f"put your images and masks into {folder / 'data'}",
        f"cd {folder}", "seggpt index data/images data/masks",
    ]))  # fmt: skip
