"""Draws the failures of docs/results.md: one-shot episodes, one of each cause.

    python docs/pictures/failures.py --data ../shared/data \\
        --out docs/pictures/failures.jpg

All images are held out of training, of sets whose licences allow to show them. Prints
the IoU of each episode, at the size of its query.
"""

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from PIL import Image

from seggpt_jax import Predictor
from seggpt_jax.colors import paint
from seggpt_jax.data.sample import IGNORE, Sample
from seggpt_jax.data.sources import open_sources
from seggpt_jax.metrics import intersection_and_union
from seggpt_jax.pictures.images import overlay, resize_image, resize_target
from seggpt_jax.pictures.sheets import Row, contact_sheet

HEADINGS = ("prompt", "query", "truth", "painting", "decoded")
PINK = np.array([[255, 40, 180]], np.uint8)
SIZE = 160, 160  # of a picture on the sheet: a square, as the model is given it


class Failure(NamedTuple):
    """A cause, and an episode of it: what is asked for, and the names of two images."""

    cause: str
    asked: str
    folder: str
    split: str
    prompt: str
    query: str


FAILURES = (
    Failure("thin", "retinal vessel", "chase-db1", "test",
            "Image_12L", "Image_14L"),
    Failure("small", "turtle", "endangered-animals", "val",
            "d1ac1ffbdcaef5a6", "1ac4f2fa8952c1e4"),
    Failure("near after far", "deer", "endangered-animals", "val",
            "a9baa6267801ca2a", "09872894e7664a7e"),
    Failure("clutter", "Bengal", "oxford-pet-mini", "test",
            "Bengal_45", "Bengal_30"),
    Failure("look-alikes", "solar panel", "aerial-solar-panel", "test",
            "hflipped_425", "rotated_90_20"),
    Failure("soft outline", "skin lesion", "isic2017-skin", "test",
            "ISIC_0013948", "ISIC_0014600"),
    Failure("another colour", "facade", "building-facade", "val",
            "20230417_203221_577_R_scaled_0_png_jpg",
            "20230424_210348_557_R_scaled_0_png_jpg"),
    Failure("dim", "Bengal", "oxford-pet-mini", "test",
            "Bengal_139", "Bengal_89"),
    Failure("another category", "tiger", "endangered-animals", "val",
            "0b0dec096146999f", "01991bc8dcbd156e"),
    Failure("parts", "window", "building-facade", "val",
            "20230417_203221_577_R_scaled_0_png_jpg",
            "IMG_5925_scaled_0_png_jpg"),
    Failure("stuff", "vegetation", "building-facade", "test",
            "IMG_6126_scaled_0_png_jpg",
            "20230417_200949_967_R_scaled_1_png_jpg"),
    Failure("damage", "broken part", "car-damage", "test",
            "10268", "10042"),
)  # fmt: skip


def read(failure: Failure, data: str) -> tuple[Sample, Sample, int]:
    """Prompt, query, and the label of what is asked for."""
    spec = {"type": "indexed", "folder": failure.folder, "split": failure.split}
    (source,) = open_sources({failure.folder: spec}, data).values()
    names = [PurePath(source.record_id(number)).stem for number in range(len(source))]
    prompt, query = (source[names.index(x)] for x in (failure.prompt, failure.query))
    (label,) = (k for k, name in source.class_names.items() if name == failure.asked)
    return prompt, query, label


def answer(predictor: Predictor, failure: Failure, data: str) -> tuple[Row, float]:
    """The episode as a row of the sheet, and its IoU: 0 where nothing is to be found
    and something is."""
    prompt, query, label = read(failure, data)
    shown, truth = (paint(x.segments, [label], PINK)[0] for x in (prompt, query))
    predictor.set_prompts(prompt.image, shown)
    result = predictor(query.image)
    (both, either), _ = intersection_and_union(
        result.segments == 1, query.segments == label, query.segments == IGNORE
    )
    iou = both / max(either, 1)
    cells = (
        over(prompt.image, shown),
        resize_image(query.image, SIZE),
        over(query.image, truth),
        resize_image(result.painting.round().astype(np.uint8), SIZE),
        over(query.image, result.colors),
    )
    return Row(cells, f"{failure.cause}: {failure.asked}   IoU {iou:.2f}"), iou


def over(image: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Colours over their image, at the size of the sheet, so that lines stay thin."""
    return overlay(resize_image(image, SIZE), resize_target(colors, SIZE))


def answers(name: str, data: str) -> Iterator[tuple[Row, float]]:
    predictor = Predictor.from_pretrained(name)
    for number, failure in enumerate(FAILURES, 1):
        row, iou = answer(predictor, failure, data)
        yield dataclasses.replace(row, caption=f"{number} {row.caption}"), iou


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini", help="a model's name")
    parser.add_argument("--data", required=True, help="the folder of the sets")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    rows = [row for row, _ in answers(args.model, args.data)]
    print(*(row.caption for row in rows), sep="\n")
    sheet = contact_sheet(rows, HEADINGS)
    Image.fromarray(sheet).save(args.out, quality=85)
