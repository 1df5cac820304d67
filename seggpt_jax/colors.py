"""Colours: ImageNet normalisation, palettes kept apart, painting and decoding.

Colours are RGB, 0..255. Distances between colours are L1 over the three channels,
as in Painter's decoder.
"""

import functools
from collections.abc import Sequence

import numpy as np

MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet, as the released model
STD = np.array([0.229, 0.224, 0.225], np.float32)
BLACK = (0, 0, 0)


def _like(constant: np.ndarray, x):
    """Per-channel constants with the namespace, dtype and rank of x."""
    xp = x.__array_namespace__()
    return xp.reshape(xp.asarray(constant, dtype=x.dtype), (1,) * (x.ndim - 1) + (3,))


def normalize(rgb, dtype=np.float32):
    """Colours 0..255 `[..., 3]` -> ImageNet-normalised floats of the same shape."""
    x = rgb.__array_namespace__().astype(rgb, dtype) / 255
    return (x - _like(MEAN, x)) / _like(STD, x)


def denormalize(x):
    """ImageNet-normalised `[..., 3]` -> colours, float, not clipped to 0..255."""
    return (x * _like(STD, x) + _like(MEAN, x)) * 255


def random_palette(
    rng: np.random.Generator,
    count: int,
    min_distance: float,
    apart_from: Sequence[Sequence[int]] = (BLACK,),
    tries: int = 100,
) -> np.ndarray:
    """Draws `count` colours uint8 `[count, 3]`, pairwise at least `min_distance` apart
    (L1) and as far from every colour of `apart_from`.

    Colours are uniform over RGB, under the condition of the distance. When none of
    `tries` candidates keeps the distance, the farthest candidate is taken: with too
    many colours the distance shrinks, and the function still ends.
    """
    # Rejection: the first candidate that keeps the distance to all chosen before it.
    chosen = [np.asarray(c, np.int32) for c in apart_from]
    for _ in range(count):
        candidates = rng.integers(0, 256, (tries, 3))
        if not chosen:
            chosen.append(candidates[0])
            continue
        gaps = np.abs(candidates[:, None] - np.stack(chosen)).sum(-1).min(1)
        far = np.flatnonzero(gaps >= min_distance)
        chosen.append(candidates[far[0] if len(far) else gaps.argmax()])
    return np.array(chosen[len(apart_from) :], np.uint8).reshape(count, 3)


def by_label(
    labels: np.ndarray, palette: np.ndarray
) -> dict[int, tuple[int, int, int]]:
    """Label -> colour, in plain numbers, of labels `[c]` and colours `[c, 3]`."""
    rows = zip(labels.tolist(), palette.tolist(), strict=True)
    return {label: (r, g, b) for label, (r, g, b) in rows}


@functools.cache
def spread_palette(
    count: int, apart_from: tuple[tuple[int, int, int], ...] = (BLACK,)
) -> np.ndarray:
    """`count` fixed colours uint8 `[count, 3]`, far from black and from each other.

    Colours are chosen one by one, each as far as possible (L1) from those of
    `apart_from` and from the colours before it. So a longer palette begins with every
    shorter one.
    """
    steps = np.linspace(0, 255, 9).round().astype(np.int32)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    gaps = np.abs(grid[:, None] - np.array(apart_from, np.int32)).sum(-1).min(1)
    chosen: list[np.ndarray] = []
    for _ in range(count):
        at = int(gaps.argmax())
        if not gaps[at]:
            raise ValueError(f"{count} labels: there are colours for {len(chosen)}")
        chosen.append(grid[at])
        gaps = np.minimum(gaps, np.abs(grid - grid[at]).sum(-1))
    palette = np.array(chosen, np.uint8).reshape(count, 3)
    palette.flags.writeable = False  # it is kept for the next call
    return palette


def with_black(palette: np.ndarray) -> np.ndarray:
    """A palette `[c, 3]` with the background's colour before it: uint8 `[c + 1, 3]`."""
    return np.concatenate([[BLACK], palette]).astype(np.uint8)


def unique_colors(target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours uint8 `[c, 3]` of a picture uint8 `[h, w, 3]`, the place `[h, w]` of each
    pixel's colour among them, and the number of pixels of each colour."""
    # One number of 24 bits per pixel: several times as fast as unique rows.
    packed = target.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    found, index, counts = np.unique(packed, return_inverse=True, return_counts=True)
    colors = np.stack([found >> 16, found >> 8 & 255, found & 255], -1)
    return colors.astype(np.uint8), index.reshape(packed.shape), counts


class Memberships:
    """The share of each colour of a palette `[c, 3]` in every pixel of a painting
    `[h, w, 3]`. Shares of a pixel sum to 1; the nearest colour (L1) has the largest.

    A share is inversely proportional to the squared distance, like a membership of
    fuzzy c-means. Shares are made for one colour at a time, to save memory. leading:
    the colours that have the largest share in some pixel.
    """

    def __init__(self, painting: np.ndarray, palette: np.ndarray):
        self._painting = np.asarray(painting, np.float32)
        self._palette = np.asarray(palette, np.float32)
        self._total = np.zeros(painting.shape[:2], np.float32)
        best = np.zeros_like(self._total)
        nearest = np.zeros(painting.shape[:2], np.int64)
        for k in range(len(self._palette)):
            near = self._near(k)
            self._total += near
            nearest[near > best] = k
            np.maximum(best, near, out=best)
        self.leading = np.unique(nearest)

    def __getitem__(self, k: int) -> np.ndarray:
        """Share of colour k, float32 `[h, w]`."""
        return self._near(k) / self._total

    def _near(self, k: int) -> np.ndarray:
        gap = np.abs(self._painting - self._palette[k]).sum(-1)
        return 1 / np.maximum(gap, np.float32(1e-3)) ** 2


def strongest(
    claims: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Joins decodings of one image, each the number of a label per pixel, int `[h, w]`,
    0 the background, and its share, float32 `[h, w]`.

    A pixel goes to the label with the largest share, and to the background where all
    say so.
    """
    index, share = claims[0]
    for other, own in claims[1:]:
        wins = np.where((other > 0) == (index > 0), own > share, other > 0)
        index, share = np.where(wins, other, index), np.where(wins, own, share)
    return index, share


def paint(
    segments: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    palette: np.ndarray,
    background: Sequence[int] = BLACK,
) -> tuple[np.ndarray, np.ndarray]:
    """Paints `labels` of a label map int `[h, w]` with the colours of `palette`.

    Returns the target uint8 `[h, w, 3]` and a bool `[h, w]` of painted pixels. Labels
    that are not listed take the `background` colour.
    """
    order = np.argsort(np.asarray(labels, np.int64), kind="stable")
    keys = np.asarray(labels, np.int64)[order]  # sorted, for the search below
    table = np.concatenate([np.asarray(palette, np.uint8).reshape(-1, 3)[order],
                            np.asarray([background], np.uint8)])  # fmt: skip
    at = np.searchsorted(keys, segments)
    at = np.where(at < len(keys), at, 0) if len(keys) else np.zeros_like(segments)
    painted = (keys[at] == segments) if len(keys) else np.zeros(segments.shape, bool)
    # take: four times as fast as indexing, and once per pixel of every pair
    return np.take(table, np.where(painted, at, len(keys)), axis=0), painted


def decode(painting, palette):
    """Nearest colour (L1) of a painting `[..., 3]` in `palette` `[..., c, 3]` -> int32.

    Leading axes of `palette` broadcast against those of one painting per palette:
    `[b, h, w, 3]` with `[b, c, 3]`, or `[h, w, 3]` with `[c, 3]`.
    """
    xp = painting.__array_namespace__()
    colors = xp.astype(palette, painting.dtype)[..., None, None, :, :]
    return xp.astype(
        xp.argmin(xp.abs(painting[..., None, :] - colors).sum(-1), axis=-1), xp.int32
    )
