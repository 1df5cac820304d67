"""What `seggpt mask` does: the mask of one object, by a box, points or strokes."""

import argparse
from pathlib import Path

from seggpt_jax import colors
from seggpt_jax.cli import inputs
from seggpt_jax.pictures.images import save_labels
from seggpt_jax.prompts import clicks
from seggpt_jax.runs import staging

_SIGNS = {"+": 1, "-": 0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("image", metavar="IMAGE", help="picture that shows the object")
    add("--box", metavar="X,Y,X,Y", help="left, top, right, bottom around the object")
    add("--points", nargs="+", default=[], metavar="X,Y,+",
        help="on the object: x,y,+; on the background: x,y,-")  # fmt: skip
    add("--scribble", metavar="FILE",
        help="strokes on a layer: red for background, else object")  # fmt: skip
    add("--bits", type=int, default=16, help=inputs.BITS)
    add("--out", required=True, metavar="FILE.png", help="the mask")


def run(args: argparse.Namespace) -> None:
    """Writes the mask, and says how much of the image it is."""
    out = Path(args.out)
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out {out}: a mask is a PNG; give a name that ends in .png")
    inputs.check_apart([out], [args.image, *filter(None, [args.scribble])])
    box = args.box and _numbers("--box", args.box, 4)
    points = [_point(text) for text in args.points]
    made = clicks.example(args.image, box, points, args.scribble, args.bits)
    palette = colors.with_black(colors.spread_palette(1)).tolist()
    out.parent.mkdir(parents=True, exist_ok=True)
    with staging.new_file(out) as temporary:
        save_labels(temporary, made.target, dict(enumerate(map(tuple, palette))))
    print(f"{out}: {made.target.mean():.1%} of the image; --prompt {args.image}:{out}")


def _point(text: str) -> list[int]:
    place, _, sign = text.rpartition(",")
    if sign not in _SIGNS:
        raise ValueError(f"--points {text}: x,y,+ or x,y,- is wanted")
    return [*_numbers("--points", place, 2), _SIGNS[sign]]


def _numbers(option: str, text: str, count: int) -> list[int]:
    parts = text.split(",")
    try:
        if len(parts) == count:
            return [int(part) for part in parts]
    except ValueError:
        pass
    raise ValueError(f"{option} {text}: {count} whole numbers are wanted, in pixels")
