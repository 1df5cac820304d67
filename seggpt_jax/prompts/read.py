"""A user's prompts -> the arrays that the model is given, and a label per colour."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seggpt_jax import colors
from seggpt_jax.config import suggest
from seggpt_jax.data.sample import KINDS
from seggpt_jax.pictures import images
from seggpt_jax.pictures.images import Picture


class Prompts(NamedTuple):
    """The arrays that the model is given, and the label that each colour stands for.

    images, targets: ImageNet-normalised `[1, p, h, w, 3]`. kind: `[1]`. labels: `[c]`,
    0 first. palette: the colour of each label, uint8 `[c, 3]`.
    """

    images: np.ndarray
    targets: np.ndarray
    kind: np.ndarray
    labels: np.ndarray
    palette: np.ndarray

    def decoded(self) -> list[np.ndarray]:
        """The targets as label maps int32 `[h, w]` into the palette."""
        return [
            colors.decode(colors.denormalize(target), self.palette)
            for target in self.targets[0]
        ]

    def colors_by_label(self) -> dict[int, tuple[int, int, int]]:
        """Label -> colour, in plain numbers."""
        rows = zip(self.labels.tolist(), self.palette.tolist(), strict=True)
        return {label: (r, g, b) for label, (r, g, b) in rows}


def read_prompts(
    pictures: Sequence[Picture],
    targets: Sequence[Picture],
    kind: str,
    size: tuple[int, int],
) -> Prompts:
    """Prompts at the model's size (h, w), from pictures and targets of any kind.

    Label maps share one palette of colours far apart. Paintings are used as they are:
    their colours get the labels 1, 2, ... by frequency. Raises ValueError that names
    the prompt.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown{suggest(kind, KINDS)}")
    if not pictures or len(pictures) != len(targets):
        raise ValueError(
            f"{len(pictures)} prompt images, {len(targets)} targets: one target "
            "for every image is wanted, and at least one"
        )
    shown, marks = [], []
    for i, (picture, target) in enumerate(zip(pictures, targets, strict=True), 1):
        shown.append(images.read_rgb(picture, f"prompt image {i}"))
        marks.append(images.read_target(target, f"prompt target {i}"))
        name = target if isinstance(target, (str, os.PathLike)) else f"target {i}"
        _check_aspect(shown[-1], marks[-1], f"prompt {name}")
    if len({mark.ndim for mark in marks}) > 1:
        raise ValueError("prompt targets: some hold labels and some colours")
    if marks[0].ndim == 3:
        flat = np.concatenate([mark.reshape(-1, 3) for mark in marks])
        palette = images.colors_of(flat[:, None])
        labels = np.arange(1, len(palette) + 1)
        painted = marks
    else:
        marks = images.without_ignored(marks)
        labels = np.setdiff1d(np.concatenate([np.unique(m) for m in marks]), [0])
        palette = colors.spread_palette(len(labels))
        painted = [colors.paint(mark, labels, palette)[0] for mark in marks]
    if not len(labels):
        raise ValueError("prompt targets are empty: they show no label at all")
    rows = [images.resize_image(x, size) for x in shown]
    resized = [images.resize_target(x, size) for x in painted]
    return Prompts(
        colors.normalize(np.stack(rows))[None],
        colors.normalize(np.stack(resized))[None],
        np.array([KINDS[kind]], np.int32),
        np.concatenate([[0], labels]).astype(np.int32),
        colors.with_black(palette),
    )


def read_labels(target: Picture, prompts: Prompts, size: tuple[int, int]) -> np.ndarray:
    """A target in the labels of `prompts`, int32, at a size (h, w).

    Every colour of a painting gets the label of the nearest colour of the prompts.
    """
    labels = images.read_target(target)
    if labels.ndim == 3:
        found, index, _ = colors.unique_colors(labels)
        nearest = colors.decode(found[None].astype(np.float32), prompts.palette)[0]
        labels = prompts.labels[nearest][index]
    else:
        labels = images.without_ignored([labels])[0]
    return images.resize_target(labels.astype(np.int32), size).copy()


def _check_aspect(image: np.ndarray, target: np.ndarray, name: str) -> None:
    (h, w), (th, tw) = image.shape[:2], target.shape[:2]
    if abs(h * tw - w * th) > 0.02 * h * tw:
        raise ValueError(
            f"{name} is {tw} x {th}, and its image {w} x {h}: they must show the same"
        )
