"""What `seggpt mask` does: the mask of one object, by a box, points or strokes."""

import argparse
import shlex

from seggpt_jax.cli import inputs
from seggpt_jax.pictures.images import label_png
from seggpt_jax.prompts import clicks
from seggpt_jax.runs import paths, staging
from seggpt_jax.runs.workdir import check_writable


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


def run(args: argparse.Namespace, failed: object) -> None:
    """Writes the mask, and says how much of the image it is."""
    out = paths.locate(args.out)
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out {out}: a mask is a PNG; give a name that ends in .png")
    clicks.require()
    check_writable(out.parent)
    inputs.check_apart([out], [args.image, *filter(None, [args.scribble])])
    box = args.box and clicks.read_box(args.box, "--box")
    points = [clicks.read_point(text, "--points") for text in args.points]
    made = clicks.example(args.image, box, points, args.scribble, args.bits)
    out.parent.mkdir(parents=True, exist_ok=True)
    with staging.new_file(out) as temporary:
        temporary.write_bytes(label_png(made.target))
    prompt = shlex.quote(f"{args.image}:{out}")
    print(f"{out}: {made.target.mean():.1%} of the image; --prompt {prompt}")
