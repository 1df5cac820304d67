"""Chest X-rays of Montgomery and Shenzhen with masks of lungs, for evaluation."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from seggpt_jax.data.layout import (
    Decoded,
    Layout,
    Listing,
    need,
    pair_up,
    thresholded,
    top,
)
from seggpt_jax.data.sources.folders import by_name


@dataclasses.dataclass(frozen=True)
class ChestXray(Layout):
    """`[Lung Segmentation/]CXR_png/NAME.png` and `masks/NAME.png` (Montgomery) or
    `masks/NAME_mask.png` (Shenzhen), 800 images and 704 masks.

    Grey of 128 or more is lung. Images without a mask make no record.
    """

    splits = ("all",)

    def records(self, root: Path, split: str) -> Listing:
        images, masks = (
            by_name(folder, ".png") for folder in self.watched(root, split)
        )
        masks = {name.removesuffix("_mask"): path for name, path in masks.items()}
        images = {name: path for name, path in images.items() if name in masks}
        return Listing({1: "lung"}, pair_up(images, masks, root))

    def watched(self, root: Path, split: str) -> Iterable[Path]:
        base = top(root, "LungSegmentation", "Lung Segmentation")
        for name in ("CXR_png", "masks"):
            yield need(base / name, "the X-rays and their masks")

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return thresholded(mask)
