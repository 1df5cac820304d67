"""Masks out of strokes: OpenCV's GrabCut against the model's own painting, as JSON.

    python -m benchmarks.strokes --data ../shared/data/desk-objects \
        ../shared/data/oxford-pet-mini

Of each image one object is marked, the largest connected part of a class: by a line
through its middle, and a line through the middle of what is not of the class.
`grabcut` is the mask that `Predictor.example` makes of these strokes. `painting` shows
the model the image with the object's stroke as its target, and has it segment the same
image. `both` shows it the mask of GrabCut instead. All are mean IoU with the object.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from benchmarks.rows import parse, report
from seggpt_jax import Predictor

_SMALL = 0.005  # share of an image; a smaller object is left out


def line(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A line bool `[h, w]` through the middle of a mask, as a hand would draw it."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    middle = np.argwhere(depth > depth.max() / 2)
    start = end = middle[rng.integers(len(middle))]
    for _ in range(2):  # two ends that are far apart
        start, end = middle[((middle - start) ** 2).sum(1).argmax()], start
    steps = np.linspace(0, 1, 2 * max(mask.shape))[:, None]
    rows, columns = np.round(start + (end - start) * steps).astype(int).T
    drawn = np.zeros(mask.shape, bool)
    drawn[rows, columns] = True
    return ndimage.binary_dilation(drawn, iterations=1 + max(mask.shape) // 150) & mask


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def scored(
    predictor: Predictor, image: np.ndarray, segments: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, float] | None:  # fmt: skip
    """The IoU of each way for one object of an image; None if all are small."""
    label = rng.choice(np.setdiff1d(np.unique(segments), [0, 255]))
    parts, count = ndimage.label(segments == label)
    sizes = ndimage.sum_labels(parts > 0, parts, range(1, count + 1))
    thing = parts == 1 + sizes.argmax()
    if thing.mean() < _SMALL:
        return None
    marks = line(thing, rng).astype(np.uint8)
    away = ~ndimage.binary_dilation(segments == label, iterations=5)
    marks[line(away, rng)] = 2

    def painting(target: np.ndarray) -> np.ndarray:
        shown = predictor.encode_prompts(image, target.astype(np.uint8))
        return predictor(image, shown).segments == 1

    try:
        cut = predictor.example(image, scribble=marks).target
    except ValueError:  # it found nothing beyond the stroke
        cut = marks == 1
    masks = {"grabcut": cut, "painting": painting(marks == 1), "both": painting(cut)}
    return {name: iou(mask, thing) for name, mask in masks.items()}


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    predictor = Predictor.from_pretrained(args.model)
    for folder in args.data:
        rng = np.random.default_rng(0)
        with (folder / "index.tsv").open() as file:
            listed = list(csv.DictReader(file, delimiter="\t"))
        chosen = [x for x in listed if x["split"] != "train" and x["mask"]]
        rng.shuffle(chosen)
        found = []
        for row in chosen[: args.images]:
            with Image.open(folder / row["image"]) as image:
                shown = np.asarray(image.convert("RGB"))
            with Image.open(folder / row["mask"]) as mask:
                scores = scored(predictor, shown, np.asarray(mask), rng)
            if scores:
                found.append(scores)
        means = {x: round(float(np.mean([s[x] for s in found])), 3) for x in found[0]}
        yield {"benchmark": "strokes", "model": args.model, "data": folder.name,
               "images": len(found), **means}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--data", type=Path, nargs="+", required=True,
                        help="folders with index.tsv")  # fmt: skip
    parser.add_argument("--images", type=int, default=40, help="of each folder")
    parser.add_argument("--out", type=Path, help="file that the rows are appended to")
    args = parse(parser)
    report("benchmarks.strokes", rows(args), args.out)


if __name__ == "__main__":
    main()
