"""Painter's colours for closed sets of classes, and its decoding of a painting.

These rules are those of Painter's released evaluation (github.com/baaivision/Painter,
Painter/data, Painter/eval, util/matrix_nms.py). SegGPT's own evaluation of closed sets
was never released. Colours are RGB, distances L1.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from seggpt_jax.colors import unique_colors

ADE20K_BASE, COCO_BASE = 6, 7
_COARSE, _FINE = 4, 20  # cells of a side of the location grid, and of each of these
_SIDE = _COARSE * _FINE
_NEAR = 3 * 19  # summed over the channels; no colour is farther than 46 from all
_KEPT, _FOUND = 2000, 100  # masks before and after the suppression
_SIGMA = 2.0
_BLOCK = 512  # colours of a painting that meet all locations at once: 25 MB


def semantic_palette(count: int, base: int) -> np.ndarray:
    """Colours uint8 `[count, 3]` of classes in the owners' order: 255 less 256 // base
    times the digits of the class in that base, red the highest."""
    if not 0 < count <= base**3:
        raise ValueError(f"base is {base}: it has {base**3} colours, not {count}")
    place = np.arange(count)
    digits = np.stack([place // base**2, place // base % base, place % base], -1)
    return (255 - digits * (256 // base)).astype(np.uint8)


def location_palette() -> np.ndarray:
    """Colours uint8 `[80, 80, 3]` of the cells of an image, row by row: red tells the
    coarse cell, green the row in it and blue the column."""
    rows, cols = np.mgrid[:_SIDE, :_SIDE]
    coarse = rows // _FINE * _COARSE + cols // _FINE
    channels = coarse * 15, rows % _FINE * 13, cols % _FINE * 13
    return (255 - np.stack(channels, -1)).astype(np.uint8)


def paint_locations(segments: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """A target uint8 `[h, w, 3]` where each object, one of `labels` of a label map, has
    the colour of the cell that its centre of mass lies in, and all else is black."""
    target, palette = np.zeros((*segments.shape, 3), np.uint8), location_palette()
    for label in labels:
        rows, cols = np.nonzero(segments == label)
        if len(rows):
            y, x = (
                int(at.mean() / size * (_SIDE - 1))
                for at, size in zip((rows, cols), segments.shape, strict=True)
            )
            target[rows, cols] = palette[y, x]
    return target


def resize_smooth(painting: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A painting float `[h, w, 3]` at another size, bilinear as torch does it (corners
    not aligned, no antialiasing), clipped and cut to whole numbers: uint8."""
    found = np.clip(painting, 0, 255).astype(np.float32)
    for axis, length in enumerate(size):
        old = found.shape[axis]
        at = np.clip((np.arange(length) + 0.5) * (old / length) - 0.5, 0, None)
        low = np.minimum(at.astype(int), old - 1)
        share = (at - low).astype(np.float32)
        share = share.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        left = np.take(found, low, axis)
        right = np.take(found, np.minimum(low + 1, old - 1), axis)
        found = left + (right - left) * share
    return found.astype(np.uint8)


def resize_nearest(painting: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """As `resize_smooth`, by torch's nearest pixel."""
    rows, cols = (
        np.arange(new) * old // new
        for new, old in zip(size, painting.shape, strict=False)
    )
    return np.clip(painting[rows[:, None], cols], 0, 255).astype(np.uint8)


def nearest(painting: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Place int32 `[h, w]` in a palette `[c, 3]` of the nearest colour of a painting
    uint8 `[h, w, 3]`, the first of equals; one colour at a time, to save memory."""
    channels = np.moveaxis(painting.astype(np.int16), -1, 0)
    best = np.full(painting.shape[:2], 3 * 256, np.int16)
    found = np.zeros(painting.shape[:2], np.int32)
    for place, color in enumerate(np.asarray(palette, np.int16)):
        gap = sum(abs(x - c) for x, c in zip(channels, color, strict=True))
        np.copyto(found, place, where=gap < best)
        np.minimum(best, gap, out=best)
    return found


class Instances(NamedTuple):
    """Objects of a painting, best first; their masks may overlap.

    scores: `[n]`. near: bool `[n, u]`, which of the painting's colours each is made of.
    of_pixel: `[h, w]`, the colour of every pixel.
    """

    scores: np.ndarray
    near: np.ndarray
    of_pixel: np.ndarray

    def mask(self, number: int) -> np.ndarray:
        """Bool `[h, w]`."""
        return self.near[number][self.of_pixel]


def find_instances(painting: np.ndarray) -> Instances:
    """The objects of a painting uint8 `[h, w, 3]` in the colours of locations.

    Every one of the 6400 locations proposes a mask: the pixels whose channels differ
    from the location's colour by less than 19 on average. The score of a mask is lower
    for a larger mean distance of its pixels. Matrix NMS (SOLOv2, gaussian) lowers it
    further by the overlap with better masks.

    All sums are over the distinct colours of the painting, in blocks of colours:
    an array of locations times pixels would not fit the memory.
    """
    found, index, pixels = unique_colors(painting)
    values = found.astype(np.int16)  # differences of uint8 wrap around
    count, total = np.zeros(_SIDE**2), np.zeros(_SIDE**2)
    for part in _blocks(len(values)):
        gaps = _gaps(values[part])
        near = gaps < _NEAR
        count += near.astype(np.float64) @ pixels[part]
        total += np.where(near, gaps, 0).astype(np.float64) @ pixels[part]
    places = np.flatnonzero(count)
    distance = total[places] / count[places] / 3
    order = np.argsort(distance, kind="stable")[:_KEPT]
    places, distance = places[order], distance[order]
    both = np.zeros((len(places), len(places)))
    for part in _blocks(len(values)):
        # Sums of whole numbers below 2^24: exact in float32.
        shown = (_gaps(values[part])[places] < _NEAR).astype(np.float32)
        both += (shown * pixels[part].astype(np.float32)) @ shown.T
    scores = (1 - distance / max(distance.max(), 1)) * _decay(both)
    order = np.argsort(-scores, kind="stable")[:_FOUND]
    parts = [
        _gaps(values[part])[places[order]] < _NEAR for part in _blocks(len(values))
    ]
    return Instances(scores[order], np.concatenate(parts, 1), index)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, count, _BLOCK))


def _gaps(values: np.ndarray) -> np.ndarray:
    """Distances int16 `[6400, m]` of locations to colours `[m, 3]`, in the order of
    red, green and blue."""
    red = 255 - 15 * np.arange(_COARSE**2, dtype=np.int16)
    fine = 255 - 13 * np.arange(_FINE, dtype=np.int16)
    gaps = [
        abs(levels[:, None] - values[:, c])
        for c, levels in enumerate((red, fine, fine))
    ]
    grid = gaps[0][:, None, None] + gaps[1][None, :, None] + gaps[2][None, None]
    return grid.reshape(-1, len(values))


def _decay(both: np.ndarray) -> np.ndarray:
    """Matrix NMS: factors `[n]` for the scores of masks, best first. both: the pixels
    `[n, n]` that each two masks share."""
    areas = np.diag(both)
    iou = np.triu(both / (areas[:, None] + areas[None] - both), 1)
    worst = iou.max(0)  # the largest overlap of each mask with a better mask
    # A better mask counts less the more it is itself covered by a better one.
    return np.exp(_SIGMA * (worst[:, None] ** 2 - iou**2)).min(0)


def merge(
    semantic: np.ndarray,
    palette: np.ndarray,
    things: int,
    instances: Instances,
    *,
    min_score: float = 0.55,
    max_overlap: float = 0.5,
    stuff_area: int = 8192,
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Panoptic segments: ids int32 `[h, w]`, 0 for none, and `(id, class)` of each.

    semantic: a painting uint8 `[h, w, 3]` in `palette` `[c, 3]`, whose first `things`
    classes are things. The class of an instance is the thing whose colour is nearest
    over the whole mask. Instances of at least `min_score` are laid down, best first; an
    instance that is covered by more than `max_overlap` is left out. Then the pixels
    without a thing go to stuff: classes with fewer than `stuff_area` pixels are left
    out.
    """
    ids = np.zeros(semantic.shape[:2], np.int32)
    segments: list[tuple[int, int]] = []
    for number, score in enumerate(instances.scores.tolist()):
        if score < min_score:
            break
        mask = instances.mask(number)
        free = mask & (ids == 0)
        if not free.any() or 1 - free.sum() / mask.sum() > max_overlap:
            continue
        thing = _class_of(semantic[mask], palette[:things])
        segments.append((len(segments) + 1, thing))
        ids[free] = len(segments)
    classes = nearest(semantic, palette)
    for place in range(things, len(palette)):
        mask = (classes == place) & (ids == 0)
        if (area := mask.sum()) and area >= stuff_area:
            segments.append((len(segments) + 1, place))
            ids[mask] = len(segments)
    return ids, segments


def _class_of(pixels: np.ndarray, palette: np.ndarray) -> int:
    """The colour of least summed distance to pixels `[m, 3]`, by their histograms."""
    levels, cost = np.arange(256), np.zeros(len(palette), np.int64)
    for values, colors in zip(pixels.T, palette.astype(np.int64).T, strict=True):
        cost += abs(colors[:, None] - levels) @ np.bincount(values, minlength=256)
    return int(cost.argmin())
