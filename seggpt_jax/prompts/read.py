"""A user's prompts -> the arrays that the model is given, and a label per colour."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seggpt_jax import colors
from seggpt_jax.config import counted, shorten, suggest
from seggpt_jax.data import decode
from seggpt_jax.data.decode import Picture, Remark, Upright
from seggpt_jax.data.masks import Mask
from seggpt_jax.data.sample import BACKGROUND, IGNORE, KINDS
from seggpt_jax.pictures import images

logger = logging.getLogger(__name__)

_APART = 48  # L1 distance below which two colours of a painting are taken for one
_SCALED = "masks of another size than their images are scaled to them"
_EXCHANGED = "image and mask look exchanged"
_VANISHED = (
    "labels whose objects are too small for the model's size are shown nowhere, and so "
    "never found: crop the image and its mask around an object"
)
_OVER = "masks look like their image with paint over it: save the paint alone, on black"
_DROPPED = (
    "255 beside other labels is ignored, and is background in a prompt; a class needs "
    "another value"
)


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
        return colors.by_label(self.labels, self.palette)


def read_prompts(
    pictures: Sequence[Picture],
    targets: Sequence[Picture],
    kind: str,
    size: tuple[int, int],
    bits: int = 16,
    log: bool = True,
    names: Sequence[str] | None = None,
) -> Prompts:
    """Prompts at the model's size (h, w), from pictures and targets of any kind.

    Label maps share one palette of colours far apart. Paintings are used as they are:
    their colours get the labels 1, 2, ... by frequency. bits: as of
    `images.read_image`. log: whether remarks about the files go to the log. names: what
    errors call the targets, as of `target_names`. Raises ValueError that names the
    prompt.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown{suggest(kind, KINDS)}")
    if not pictures or len(pictures) != len(targets):
        raise ValueError(
            f"{counted(len(pictures), 'prompt image')}, "
            f"{counted(len(targets), 'target')}: one target "
            "for every image is wanted, and at least one"
        )
    names = names or target_names(targets)
    shown, marks = [], []
    remarks: list[tuple[str, Remark]] = []
    for i, (picture, target) in enumerate(zip(pictures, targets, strict=True), 1):
        image = images.read_image(picture, f"prompt image {i}", bits)
        mask = images.read_mask(target, names[i - 1])
        name = images.name_of(picture, f"prompt image {i}")
        remarks += [(name, remark) for remark in image.remarks]
        remarks += [(names[i - 1], remark) for remark in mask.remarks]
        shown.append(image.pixels)
        fitted = _fitted(mask.values, image, names[i - 1])
        (h, w), (rows, columns) = image.pixels.shape[:2], fitted.shape[:2]
        if (h, w) != (rows, columns):
            detail = f"it is {columns} x {rows}, the image {w} x {h}"
            remarks.append((names[i - 1], Remark(_SCALED, detail)))
        marks.append(mask._replace(values=fitted))
        count = len(colors.unique_colors(fitted)[0]) if fitted.ndim == 3 else 0
        if count > images.FEW_COLORS:
            if _drawn(image.pixels):
                detail = f"it has {count:,} colours, and the image two"
                remarks.append((names[i - 1], Remark(_EXCHANGED, detail)))
            elif images.painted_over(fitted, image.pixels):
                detail = f"it has {count:,} colours"
                remarks.append((names[i - 1], Remark(_OVER, detail)))
    if any(mask.values.ndim == 3 for mask in marks):
        painted = _paintings(marks, names)
        palette = images.colors_of(*painted)
        labels = np.arange(1, len(palette) + 1)
        _check_apart(palette, painted, names)
    else:
        maps, dropped = _label_maps(marks, names)
        remarks += dropped
        labels = np.setdiff1d(np.concatenate([np.unique(m) for m in maps]), [0])
        palette = colors.spread_palette(len(labels))
        painted = [colors.paint(one, labels, palette)[0] for one in maps]
    if not len(labels):
        hint = f"; {_EXCHANGED}" if all(map(_drawn, shown)) else ""
        raise ValueError(
            "prompt targets are empty: they show no label at all "
            f"({shorten(names, 3)}){hint}"
        )
    rows = [images.resize_image(x, size) for x in shown]
    resized = [images.resize_target(x, size) for x in painted]
    remarks += _vanished(labels, palette, resized, names)
    if log:
        _log(remarks)
    return Prompts(
        colors.normalize(np.stack(rows))[None],
        colors.normalize(np.stack(resized))[None],
        np.array([KINDS[kind]], np.int32),
        np.concatenate([[0], labels]).astype(np.int32),
        colors.with_black(palette),
    )


def check_prompts(
    pictures: Sequence[Picture],
    targets: Sequence[Picture],
    kind: str,
    bits: int = 16,
    names: Sequence[str] | None = None,
) -> None:
    """Raises what `read_prompts` raises for such prompts; logs nothing."""
    read_prompts(pictures, targets, kind, (16, 16), bits, log=False, names=names)


def target_names(targets: Sequence[Picture]) -> list[str]:
    """What errors call targets: their files, or else their numbers."""
    return [images.name_of(t, f"prompt target {i}") for i, t in enumerate(targets, 1)]


def read_labels(
    target: Picture,
    labels: np.ndarray,
    palette: np.ndarray,
    size: tuple[int, int],
    name: str,
    log: bool = True,
) -> np.ndarray:
    """A target of an image of size (h, w) in labels `[c]` of colours `[c, 3]`, int32
    `[h, w]`. Every colour of a painting gets the label of the nearest colour. log:
    whether remarks go to the log. Raises ValueError that names the target, also where
    it shows an image of another shape."""
    mask = images.read_mask(target, name)
    check_aspect(mask.values, size, name)
    remarks = [(name, remark) for remark in mask.remarks]
    if mask.values.ndim == 3:
        for color in images.colors_of(mask.values):
            if np.abs(palette.astype(int) - color).sum(-1).min() > images.NEAR:
                raise ValueError(f"{name}: no label has the colour {color.tolist()}")
        found, index, _ = colors.unique_colors(mask.values)
        nearest = colors.decode(found[None].astype(np.float32), palette)[0]
        read = labels[nearest][index]
    else:
        (read,), dropped = _label_maps([mask], [name])
        remarks += dropped
    if log:
        _log(remarks)
    return images.resize_target(read.astype(np.int32), size).copy()


def read_new(
    target: Picture, free: int, size: tuple[int, int], name: str, log: bool = True
) -> np.ndarray:
    """A mask of new objects in an image of size (h, w) as labels int32 `[h, w]`; a
    binary mask, of 0 and 255 or of bool, gets the label `free`. log, and what is
    raised: as of `read_labels`."""
    mask = images.read_mask(target, name)
    if mask.values.ndim == 3:
        raise ValueError(
            f"{name} has colours: labels, or a mask of 0 and 255, are wanted for new "
            "objects"
        )
    check_aspect(mask.values, size, name)
    (read,), dropped = _label_maps([mask], [name])
    if log:
        _log([*((name, remark) for remark in mask.remarks), *dropped])
    if np.setdiff1d(mask.values, [BACKGROUND]).tolist() == [IGNORE]:
        read = read * free
    read = images.resize_target(read.astype(np.int32), size).copy()
    if not read.any():
        raise ValueError(f"{name} shows no object")
    return read


def _drawn(image: np.ndarray) -> bool:
    """Whether an image has two colours, as masks have, and photographs have not."""
    step = max(1, max(image.shape) // 64)  # few pixels tell of nearly all photographs
    few = len(colors.unique_colors(image[::step, ::step])[0]) <= 2
    return few and len(colors.unique_colors(image)[0]) == 2


def _same_aspect(target: np.ndarray, size: tuple[int, ...]) -> bool:
    (h, w), (th, tw) = size, target.shape[:2]
    return abs(h * tw - w * th) <= 0.02 * h * tw


def check_aspect(target: np.ndarray, size: tuple[int, ...], name: str) -> None:
    """Raises ValueError that names a target whose image of size (h, w) has another
    shape."""
    if not _same_aspect(target, size):
        (h, w), (th, tw) = size, target.shape[:2]
        raise ValueError(
            f"{name} is {tw} x {th}, and its image {w} x {h}: they must show the same"
        )


def _fitted(values: np.ndarray, image: Upright, name: str) -> np.ndarray:
    """The mask of an image, upright as the image. A mask that was drawn on the pixels
    as a camera stored them is turned with them, where the sizes tell it."""
    size = image.pixels.shape[:2]
    if not _same_aspect(values, size) and image.orientation >= 5:
        turned = decode.turned(values, image.orientation)
        if _same_aspect(turned, size):
            return np.ascontiguousarray(turned)
    check_aspect(values, size, name)
    return values


def say_vanished(
    labels: np.ndarray, palette: np.ndarray, target: np.ndarray, name: str
) -> None:
    """Logs which labels `[c]` of colours `[c, 3]` a target of the model's size, uint8
    `[h, w, 3]`, shows nowhere."""
    _log(_vanished(labels, palette, [target], [name]))


def _vanished(
    labels: np.ndarray,
    palette: np.ndarray,
    resized: Sequence[np.ndarray],
    names: Sequence[str],
) -> list[tuple[str, Remark]]:
    """What is said of labels that no target shows at the model's size."""
    found = np.concatenate([colors.unique_colors(one)[0] for one in resized])
    # Smooth paintings have no label's very colour, but near ones.
    nearest = colors.decode(found[None].astype(np.float32), colors.with_black(palette))
    lost = np.setdiff1d(np.arange(1, len(labels) + 1), nearest)
    if not len(lost):
        return []
    h, w = resized[0].shape[:2]
    detail = f"label {shorten(labels[lost - 1])} at {w} x {h}"
    # Masks of one COCO file have its name.
    return [(shorten(dict.fromkeys(names), 3), Remark(_VANISHED, detail))]


def _paintings(marks: Sequence[Mask], names: Sequence[str]) -> list[np.ndarray]:
    """Targets uint8 `[h, w, 3]`. Beside paintings, a picture in greys is one too."""
    for mask, name in zip(marks, names, strict=True):
        if not mask.pictured:
            raise ValueError(
                f"prompt targets: some hold labels and some colours; {name} has labels"
            )
    return [
        mask.values if mask.values.ndim == 3
        else np.repeat(mask.values[..., None], 3, -1).astype(np.uint8)
        for mask in marks
    ]  # fmt: skip


def _check_apart(
    palette: np.ndarray, painted: Sequence[np.ndarray], names: Sequence[str]
) -> None:
    """Refuses colours that a painting cannot tell apart, such as ids as colours."""
    known = colors.with_black(palette).astype(int)
    gaps = np.abs(known[:, None] - known[None]).sum(-1)
    near = np.argwhere(np.triu(gaps < _APART, 1))
    if not len(near):
        return
    one, other = (tuple(known[i].tolist()) for i in near[0])
    holds = ((painting == other).all(-1).any() for painting in painted)
    name = next((n for n, held in zip(names, holds, strict=True) if held), names[0])
    raise ValueError(
        f"{name} has the colours {one} and {other}, which are too near to be told "
        f"apart (L1 distance under {_APART}): for ids, save one channel; a painting "
        "needs colours far apart"
    )


def _label_maps(
    marks: Sequence[Mask], names: Sequence[str]
) -> tuple[list[np.ndarray], list[tuple[str, Remark]]]:
    """Label maps int32 `[h, w]`, and what was left out of them.

    In a mask of 0 and 255 only, 255 is the inside and becomes label 1. Beside other
    labels 255 is ignored, and becomes background: a prompt has nothing for it.
    """
    found = [set(np.unique(mask.values).tolist()) - {BACKGROUND} for mask in marks]
    inside = [labels == {IGNORE} for labels in found]
    other = next(
        (i for i, x in enumerate(found) if x and x not in ({1}, {IGNORE})), None
    )
    if any(inside) and other is not None:
        labels = shorten(sorted(found[other] - {IGNORE}), 5)
        raise ValueError(
            f"{names[inside.index(True)]} holds 0 and 255 only, and {names[other]} has "
            f"the labels {labels}: beside labels 255 is ignored, so give the inside of "
            "the first its label"
        )
    maps, dropped = [], []
    for mask, name, two in zip(marks, names, inside, strict=True):
        ignored = mask.values == IGNORE
        maps.append(np.where(ignored, 1 if two else BACKGROUND, mask.values))
        if not two and ignored.any():
            share = f"{ignored.mean():.1%} of the pixels"
            dropped.append((name, Remark(_DROPPED, share)))
    return maps, dropped


def _log(remarks: Sequence[tuple[str, Remark]]) -> None:
    """A line for every kind of remark."""
    found: dict[str, list[str]] = {}
    for name, remark in remarks:
        found.setdefault(remark.what, []).append(f"{name} ({remark.detail})")
    for what, where in found.items():
        logger.warning("%s: %s", what, shorten(where, 3))
