"""Draws the first picture of the README: examples, their masks, images, the results.

    python docs/pictures/segment.py --out docs/pictures/segment.png
    python docs/pictures/segment.py --sheet own --out docs/pictures/own-photos.jpg

The photographs are those of docs/examples, and the model is the bundled `mini`. The
sheet `own` has only photographs of none of the sets that `mini` was trained on.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402

from seggpt_jax import Predictor  # noqa: E402
from seggpt_jax.pictures.images import overlay  # noqa: E402

EXAMPLES = Path(__file__).parents[1] / "examples"
TITLES = ("your example", "its mask", "another image", "what is found")
# Sheet -> example and image of each row; the mask is beside the example.
SHEETS = {
    "readme": (
        ("prompt", "query"),
        ("cells/prompt", "cells/query"),
        ("own/coin", "own/coins"),
    ),
    "own": (
        ("own/coin", "own/coins"),
        ("own/eye", "own/other-eye"),
        ("own/flower", "own/lower-flower"),
        ("own/coffee", "own/flower"),
    ),
}


def panels(sheet: str) -> list[list[Image.Image]]:
    """Rows of four pictures."""
    predictor, rows = Predictor.from_pretrained("mini"), []
    for example, query in SHEETS[sheet]:
        shown = EXAMPLES / f"{example}.jpg", EXAMPLES / f"{example}-mask.png"
        predictor.set_prompts(*shown)
        image = predictor.read_image(EXAMPLES / f"{query}.jpg")
        colored = overlay(image, predictor(image).colors)
        rows.append([*map(Image.open, shown), *map(Image.fromarray, (image, colored))])
    return rows


def draw(rows: list[list[Image.Image]], path: Path) -> None:
    """Rows of pictures under their titles."""
    size = (2.1 * len(TITLES), 1.6 * len(rows) + 0.25)
    figure, axes = plt.subplots(
        len(rows), len(TITLES), figsize=size, layout="constrained", squeeze=False
    )
    for pictures, places in zip(rows, axes, strict=True):
        for picture, place in zip(pictures, places, strict=True):
            place.imshow(
                ImageOps.pad(picture.convert("RGB"), (480, 360), color="white")
            )
            place.axis("off")
    for title, place in zip(TITLES, axes[0], strict=True):
        place.set_title(title, fontsize=11, color="#1f2328")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheet", choices=SHEETS, default="readme")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    draw(panels(args.sheet), args.out)
