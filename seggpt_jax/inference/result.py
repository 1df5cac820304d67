"""What is made of a painting: labels, colours and scores at the image's size."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from seggpt_jax import colors
from seggpt_jax.pictures import images, tiles
from seggpt_jax.prompts import search
from seggpt_jax.prompts.read import Prompts


@dataclasses.dataclass(frozen=True)
class Result:
    """A segmented image, or a frame of a video.

    Attributes:
      segments: labels int32 `[h, w]` at the image's size, 0 background.
      colors: the same labels in the prompts' colours, uint8 `[h, w, 3]`.
      confidence: share of the label in every pixel, 0..1, `[h, w]`.
      scores: each found label -> mean confidence over its pixels.
      shares: each label of the prompts, 0 too -> its share in every pixel, 0..1,
        float32 `[h, w]`, made when it is asked for; the shares of a pixel sum to 1.
      painting: the model's raw output, float32 `[H, W, 3]` in 0..255 at the model's
        size, or `[t, H, W, 3]` of t tiles, or of t groups of objects of a video.
      palette: label -> colour.
      choice: the prompts chosen for this image, None where all images share theirs.
      time: of a frame, seconds since the start of its video; None where nothing tells.
    """

    segments: np.ndarray
    colors: np.ndarray
    confidence: np.ndarray
    scores: dict[int, float]
    shares: Mapping[int, np.ndarray]
    painting: np.ndarray
    palette: dict[int, tuple[int, int, int]]
    choice: search.Choice | None = None
    time: float | None = None

    def __repr__(self) -> str:
        h, w = self.segments.shape
        found = ", ".join(
            f"{label}: {score:.2f}" for label, score in self.scores.items()
        )
        at = "" if self.time is None else f", {self.time:.2f} s"
        return f"<Result {w} x {h}{at}, labels and scores {{{found}}}>"


class Shares(Mapping[int, np.ndarray]):
    """Label -> share; `share` makes it."""

    def __init__(self, labels: np.ndarray, share: Callable[[int], np.ndarray]):
        self._labels, self._share = labels.tolist(), share

    def __getitem__(self, label: int) -> np.ndarray:
        if label not in self._labels:
            raise KeyError(label)
        return self._share(label)

    def __iter__(self) -> Iterator[int]:
        return iter(self._labels)

    def __len__(self) -> int:
        return len(self._labels)


class Job(NamedTuple):
    """An image in work: its size, its tiles, and the tiles at the model's size,
    normalised `[t, h, w, 3]`."""

    size: tuple[int, int]
    boxes: list[tiles.Box]
    queries: np.ndarray


def make_job(
    image: np.ndarray, model_size: tuple[int, int], tile: int = 0, overlap: float = 0.0
) -> Job:
    """Cuts an image uint8 `[h, w, 3]` into tiles of side `tile`; 0 takes it whole."""
    size = image.shape[0], image.shape[1]
    boxes = tiles.cut(size, tile, overlap)
    cells = [image[box.place] for box in boxes]
    resized = np.stack([images.resize_image(cell, model_size) for cell in cells])
    return Job(size, boxes, colors.normalize(resized))


class Decoded(NamedTuple):
    """An image in the colours of a palette. found: the place of the colour with the
    largest share in every pixel, int `[h, w]`. confidence: that share. share: makes the
    share of a colour."""

    found: np.ndarray
    confidence: np.ndarray
    share: Callable[[int], np.ndarray]


def decode(job: Job, paintings: np.ndarray, palette: np.ndarray) -> Decoded:
    """Decodes paintings `[t, H, W, 3]` in 0..255 of an image's tiles."""
    shares = [colors.Memberships(painting, palette) for painting in paintings]
    boxes, size = job.boxes, job.size  # not the job, whose pixels would be kept

    def share(color: int) -> np.ndarray:
        return tiles.averaging(boxes, size)([own[color] for own in shares])

    return Decoded(*tiles.blend(shares, boxes, size), share)


def read_painting(job: Job, paintings: np.ndarray, prompts: Prompts) -> Result:
    """The result of an image, from the paintings `[t, H, W, 3]` of its tiles."""
    decoded = decode(job, paintings, prompts.palette)
    painting = paintings[0] if len(paintings) == 1 else paintings
    return make_result(decoded, prompts.labels, prompts.palette, painting)


def make_result(
    decoded: Decoded,
    labels: np.ndarray,
    palette: np.ndarray,
    painting: np.ndarray,
    time: float | None = None,
) -> Result:
    """The result of an image that is decoded in labels int32 `[c]`, rising from 0, of
    colours uint8 `[c, 3]`."""
    found, confidence, share = decoded
    sums = np.bincount(found.ravel(), confidence.ravel(), len(labels))
    counts = np.bincount(found.ravel(), minlength=len(labels))
    return Result(
        segments=labels[found],
        colors=palette[found],
        confidence=confidence,
        scores={
            int(labels[k]): float(sums[k] / counts[k])
            for k in np.flatnonzero(counts)
            if k
        },
        shares=Shares(labels, lambda label: share(int(np.searchsorted(labels, label)))),
        painting=painting,
        palette=colors.by_label(labels, palette),
        time=time,
    )


def in_range(paintings: np.ndarray) -> np.ndarray:
    """A painting as the model gives it -> colours 0..255."""
    return np.clip(colors.denormalize(paintings), 0, 255)
