"""Random views of a sample: resized crop, flips and colour jitter.

The values are Painter's (SegGPT gives none): a crop of 0.3 to 1 of
the area; a flip with p = 0.5; of the image only, a jitter of 0.4/0.4/0.2/0.1 with
p = 0.8.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from seggpt_jax.data.sample import BACKGROUND, IGNORE, Sample

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in Pillow's "L"
# RGB <-> YIQ: a rotation of the last two axes changes the hue and keeps the luma.
_TO_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_MAX_COUNTED = 1 << 16  # labels below are counted by table, others by sorting


class Window(NamedTuple):
    """A rectangle of an image, in pixels, shown flipped or not."""

    left: float
    top: float
    width: float
    height: float
    flip_x: bool = False
    flip_y: bool = False

    @property
    def mirrored(self) -> bool:
        """Whether left and right change places; two flips are a half turn."""
        return self.flip_x != self.flip_y

    def part(self, x0: float, y0: float, x1: float, y1: float) -> "Window":
        """The window of a part of the view; x0 ... y1 are shares of the view, 0..1."""
        # What is on the left of a flipped view comes from the right of the image.
        if self.flip_x:
            x0, x1 = 1 - x1, 1 - x0
        if self.flip_y:
            y0, y1 = 1 - y1, 1 - y0
        return self._replace(
            left=self.left + x0 * self.width,
            top=self.top + y0 * self.height,
            width=(x1 - x0) * self.width,
            height=(y1 - y0) * self.height,
        )


@dataclasses.dataclass(frozen=True)
class View:
    """How random views of samples are drawn.

    crop_scale: share of the image's area. crop_ratio: width / height of the crop.
    flip, vertical_flip: probabilities. jitter: strengths of brightness, contrast,
    saturation (factor 1 +- strength) and hue (turn by +- strength of a circle).
    swap_sides: in a mirrored view, labels of left and right parts (`Sample.sides`)
    change places: a mirrored left arm is a right arm.
    """

    crop_scale: tuple[float, float] = (0.3, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    vertical_flip: float = 0.0
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_prob: float = 0.8
    swap_sides: bool = True

    def __post_init__(self):
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale={self.crop_scale}: need 0 < low <= high <= 1")
        low, high = self.crop_ratio
        if not 0 < low <= high < math.inf:
            raise ValueError(f"crop_ratio={self.crop_ratio}: need 0 < low <= high")
        for name in ("flip", "vertical_flip", "jitter_prob"):
            check_share(name, getattr(self, name))
        if not (all(0 <= s <= 1 for s in self.jitter) and self.jitter[3] <= 0.5):
            raise ValueError(
                f"jitter={self.jitter}: need brightness, contrast and saturation in "
                "[0, 1] and hue in [0, 0.5]"
            )

    def window(self, shape: tuple[int, ...], rng: np.random.Generator) -> Window:
        """Draws the crop and the flips for an image of `shape` (rows, columns)."""
        box = random_box(shape, self.crop_scale, self.crop_ratio, rng)
        flip_x, flip_y = (rng.random(2) < (self.flip, self.vertical_flip)).tolist()
        left, top, width, height = map(float, box)
        return Window(left, top, width, height, flip_x, flip_y)

    def cut_segments(
        self, sample: Sample, window: Window, size: tuple[int, int]
    ) -> np.ndarray:
        """The window of a sample's segments int32 `[h, w]` at `size`."""
        segments = cut_segments(sample.segments, window, size)
        if self.swap_sides and window.mirrored and sample.sides:
            swapped = segments.copy()
            for label, other in sample.sides.items():
                swapped[segments == label] = other
            return swapped
        return segments

    def cut_image(
        self,
        image: np.ndarray,
        window: Window,
        size: tuple[int, int],
        rng: np.random.Generator,
    ) -> np.ndarray:
        """The window of an image uint8 `[h, w, 3]` at `size` (rows, columns), jittered.

        Brightness, contrast and saturation are torchvision's formulas; hue is a turn
        about the grey axis. Their order is random. All are affine in RGB, so together
        they are one 3x4 matrix: one pass over the pixels, which clips colours once.
        """
        view = _resize(image, window, size)
        if rng.random() < self.jitter_prob:
            matrix = jitter_matrix(np.asarray(view), self.jitter, rng)
            view = view.convert("RGB", tuple(matrix[:3].ravel()))
        return np.asarray(view)


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """The whole sample at `size` (rows, columns), nothing random: for evaluation."""
    window = whole(sample.segments.shape)
    segments = cut_segments(sample.segments, window, size)
    image = np.asarray(_resize(sample.image, window, size))
    return dataclasses.replace(
        sample, image=image, segments=segments, classes=visible(segments)
    )


def whole(shape: tuple[int, ...]) -> Window:
    """The window that shows all of an image of `shape` (rows, columns)."""
    return Window(0.0, 0.0, float(shape[1]), float(shape[0]))


def random_box(
    shape: tuple[int, ...],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
    tries: int = 10,
) -> tuple[int, int, int, int]:
    """Draws `(left, top, width, height)` by torchvision's RandomResizedCrop rule.

    The area is uniform, the aspect log-uniform. If none of `tries` boxes fits into the
    image, it is the largest central box.
    """
    rows, cols = shape[:2]
    for _ in range(tries):
        area = rows * cols * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        width = round(math.sqrt(area * aspect))
        height = round(math.sqrt(area / aspect))
        if 0 < width <= cols and 0 < height <= rows:
            left = int(rng.integers(cols - width + 1))
            return left, int(rng.integers(rows - height + 1)), width, height
    aspect = min(max(cols / rows, ratio[0]), ratio[1])
    width = max(1, min(cols, round(rows * aspect)))
    height = max(1, min(rows, round(cols / aspect)))
    return (cols - width) // 2, (rows - height) // 2, width, height


def cut_segments(
    segments: np.ndarray, window: Window, size: tuple[int, int]
) -> np.ndarray:
    """The window of a label map `[h, w]` at `size`. Every pixel is that of the nearest
    centre: labels are names, and a mean of two would be a third."""
    rows = _nearest(window.top, window.height, size[0], segments.shape[0])
    cols = _nearest(window.left, window.width, size[1], segments.shape[1])
    rows = rows[::-1] if window.flip_y else rows
    cols = cols[::-1] if window.flip_x else cols
    return segments[rows[:, None], cols]


def visible(segments: np.ndarray, min_share: float = 0.0) -> tuple[int, ...]:
    """Labels of a map `[h, w]`, without background and ignore, in increasing order,
    that cover at least `min_share` of its pixels (and at least one)."""
    if 0 <= segments.min() and segments.max() < _MAX_COUNTED:
        counts = np.bincount(segments.ravel())
        labels = np.flatnonzero(counts >= max(1, min_share * segments.size))
    else:
        labels, counts = np.unique(segments, return_counts=True)
        labels = labels[counts >= min_share * segments.size]
    return tuple(int(v) for v in labels if v not in (BACKGROUND, IGNORE))


def jitter_matrix(
    image: np.ndarray,
    strengths: tuple[float, float, float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws a colour jitter `[4, 4]` (affine in RGB, 0..255) for an image `[h, w, 3]`.

    Contrast keeps the mean grey. Its mean is that of every eighth row and column: over
    all of them it would cost as much as the jitter itself.
    """
    mean = np.append(image[::8, ::8].reshape(-1, 3).mean(0), 1.0)
    *factors, turn = rng.uniform(-1, 1, 4) * strengths
    brightness, contrast, saturation = 1 + np.array(factors)
    matrix = np.eye(4)
    for op in rng.permutation(4):
        step = np.eye(4)
        if op == 0:  # brightness: towards black, or away from it
            step[:3, :3] *= brightness
        elif op == 1:  # contrast: towards the mean grey of the image so far
            step[:3, :3] *= contrast
            step[:3, 3] = (1 - contrast) * (LUMA @ (matrix @ mean)[:3])
        elif op == 2:  # saturation: towards the grey of each pixel
            step[:3, :3] = saturation * np.eye(3) + (1 - saturation) * LUMA
        else:  # hue
            cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
            rotation = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
            step[:3, :3] = _FROM_YIQ @ rotation @ _TO_YIQ
        matrix = step @ matrix  # this step after the earlier ones
    return matrix


def check_share(name: str, value: float) -> None:
    """Refuses a setting that is not a share or a probability."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value}: must be in [0, 1]")


def _resize(image: np.ndarray, window: Window, size: tuple[int, int]) -> Image.Image:
    """Pillow's bicubic: antialiased when it shrinks, as the released code resizes."""
    rows, cols = image.shape[:2]
    # A part of a window may lie outside by a rounding error, which Pillow refuses.
    box = (
        max(window.left, 0.0),
        max(window.top, 0.0),
        min(window.left + window.width, float(cols)),
        min(window.top + window.height, float(rows)),
    )
    view = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC, box)
    if window.flip_x:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if window.flip_y:
        view = view.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return view


def _nearest(start: float, length: float, count: int, limit: int) -> np.ndarray:
    """Indices of the pixels under the centres of `count` equal steps of a stretch."""
    centres = start + (np.arange(count) + 0.5) * (length / count)
    return np.clip(centres.astype(np.intp), 0, limit - 1)
