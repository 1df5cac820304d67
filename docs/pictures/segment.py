"""Draws the first picture of the README: an example, its mask, an image, the result.

    python docs/pictures/segment.py --out docs/pictures/segment.png

The files are those of docs/examples, and the model is the bundled `shapes`.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from PIL import Image  # noqa: E402

from seggpt_jax import Predictor  # noqa: E402
from seggpt_jax.pictures.images import overlay  # noqa: E402

EXAMPLES = Path(__file__).parents[1] / "examples"


def panels() -> dict:
    """Title -> picture."""
    example, mask, query = (
        EXAMPLES / f"{name}.png" for name in ("prompt", "prompt-mask", "query")
    )
    predictor = Predictor.from_pretrained("shapes")
    predictor.set_prompts(example, mask)
    image = predictor.read_image(query)
    return {
        "your example": Image.open(example).convert("RGB"),
        "its mask": Image.open(mask).convert("RGB"),
        "another image": image,
        "what is found": overlay(image, predictor(query).colors),
    }


def draw(shown: dict, path) -> None:
    """A row of pictures with their titles."""
    figure, axes = plt.subplots(1, len(shown), figsize=(8.4, 2.4), layout="constrained")
    for place, (title, picture) in zip(axes, shown.items(), strict=True):
        place.imshow(picture)
        place.set_title(title, fontsize=11, color="#1f2328")
        place.axis("off")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    draw(panels(), parser.parse_args().out)
