"""Draws procedural scenes: textures, colours and things in place, at any size.

Nothing here knows about tasks or classes. Lengths count in `sqrt(h * w)`, so that a
scene is the same picture at any size.
"""

import colorsys
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from seggpt_jax.data.sources.shapes_forms import COMPOSITES, SHAPES, Number, Parts

_TURN = 2 * math.pi

# --- Textures: which of two tones, 0..1, at (u, v) counted in periods -----------------

Texture = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _frac(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)


def _dots(u, v, radius):
    return (_frac(u) - 0.5) ** 2 + (_frac(v) - 0.5) ** 2 < radius**2


def _checker(u, v):
    return (_frac(u) < 0.5) ^ (_frac(v) < 0.5)


def _grid(u, v):
    return (_frac(u) < 0.25) | (_frac(v) < 0.25)


def _brick(u, v):
    shift = 0.5 * (_frac(v) < 0.5)
    return (_frac(2 * v) < 0.24) | (_frac(0.75 * u + shift) < 0.14)


_CELLS = np.random.default_rng(0).random((16, 16)) < 0.45


def _speckle(u, v):
    return _CELLS[(3.6 * u).astype(np.intp) & 15, (3.6 * v).astype(np.intp) & 15]


def _camouflage(u, v):
    return np.sin(3.1 * u + 2 * np.sin(1.9 * v)) + np.sin(3.4 * v + np.sin(4 * u)) > 0


def _scales(u, v):
    rows = np.floor(2 * v)
    x, y = _frac(u + 0.5 * rows) - 0.5, (2 * v - rows) / 2
    return np.abs(x * x + y * y - 0.19) < 0.075


def _crosses(u, v):
    x, y = np.abs(_frac(u) - 0.5), np.abs(_frac(v) - 0.5)
    return (np.minimum(x, y) < 0.13) & (np.maximum(x, y) < 0.4)


def _slanted(texture: Texture) -> Texture:
    return lambda u, v: texture(0.75 * (u + v), 0.75 * (u - v))


# No texture is the mirror image of another one: augmentation flips images.
TEXTURES: dict[str, Texture] = {
    "flat": lambda u, v: np.zeros(np.broadcast(u, v).shape, bool),
    "banded": lambda u, v: _frac(v) < 0.5,
    "striped": lambda u, v: _frac(u) < 0.5,
    "slanted": _slanted(lambda u, v: _frac(u) < 0.5),
    "finely banded": lambda u, v: _frac(2 * v) < 0.5,
    "finely striped": lambda u, v: _frac(2 * u) < 0.5,
    "finely slanted": _slanted(lambda u, v: _frac(1.6 * u) < 0.5),
    "ruled": lambda u, v: _frac(v) < 0.22,
    "pinstriped": lambda u, v: _frac(u) < 0.22,
    "slashed": _slanted(lambda u, v: _frac(u) < 0.22),
    "zigzag": lambda u, v: _frac(v + np.abs(1.2 * _frac(0.8 * u) - 0.6)) < 0.5,
    "wavy": lambda u, v: _frac(u + 0.22 * np.sin(4 * v)) < 0.5,
    "checkered": _checker,
    "finely checkered": lambda u, v: _checker(2 * u, 2 * v),
    "harlequin": lambda u, v: _checker(0.7 * u + 0.45 * v, 0.7 * u - 0.45 * v),
    "triangular": lambda u, v: _frac(v) > np.abs(2 * _frac(u) - 1),
    "gridded": _grid,
    "latticed": _slanted(_grid),
    "bricked": _brick,
    "plaid": lambda u, v: 0.5 * (_frac(u) < 0.5) + 0.5 * (_frac(v) < 0.5),
    "scaly": _scales,
    "dotted": lambda u, v: _dots(u, v, 0.33),
    "peppered": lambda u, v: _dots(1.8 * u, 1.8 * v, 0.33),
    "freckled": lambda u, v: _dots(u, v, 0.2),
    "crossed": _crosses,
    "speckled": _speckle,
    "camouflaged": _camouflage,
    "shaded": lambda u, v: np.clip(0.4 * v + 0.5, 0, 1),
    "glowing": lambda u, v: np.clip(1.15 - 0.85 * np.hypot(u, v), 0, 1),
    "ringed": lambda u, v: _frac(np.hypot(u, v) + 0.2) < 0.5,
    "rayed": lambda u, v: _frac(np.arctan2(v, u) * (6 / _TURN)) < 0.5,
    "halved": lambda u, v: v > 0,
    "quartered": lambda u, v: (u > 0) ^ (v > 0),
}
HELDOUT_TEXTURES = frozenset(
    {"finely striped", "pinstriped", "wavy", "harlequin", "bricked", "crossed",
     "ringed", "quartered"}
)  # fmt: skip
# These belong to the object's middle: no phase, and their period follows its size.
CENTRED = frozenset({"shaded", "glowing", "ringed", "rayed", "halved", "quartered"})


# --- Colours: hue in degrees, saturation, value ---------------------------------------

Hsv = tuple[Number, Number, Number]

COLOURS: dict[str, Hsv] = {
    "red": (0, 0.9, 0.88), "orange": (26, 0.95, 0.97), "yellow": (53, 0.9, 0.96),
    "lime": (84, 0.85, 0.85), "green": (128, 0.8, 0.65), "teal": (174, 0.9, 0.58),
    "cyan": (186, 0.75, 0.96), "azure": (210, 0.85, 0.95), "blue": (236, 0.85, 0.9),
    "violet": (268, 0.75, 0.85), "magenta": (302, 0.8, 0.88), "pink": (333, 0.55, 0.98),
    "maroon": (350, 0.85, 0.42), "brown": (24, 0.75, 0.45), "olive": (60, 0.8, 0.46),
    "forest": (135, 0.8, 0.32), "navy": (235, 0.85, 0.38), "plum": (302, 0.6, 0.4),
    "salmon": (8, 0.5, 0.98), "peach": (32, 0.38, 1.0), "cream": (55, 0.38, 0.98),
    "mint": (150, 0.38, 0.95), "sky": (203, 0.42, 0.97), "lavender": (265, 0.32, 0.95),
}  # fmt: skip
HELDOUT_COLOURS = frozenset({"lime", "azure", "pink", "brown", "plum", "mint"})


def second_tone(hsv: Hsv, contrast: float, hue: Number | None = None) -> Hsv:
    """The other tone of a texture: `contrast` (of value) darker, or lighter if dark."""
    h, s, v = hsv
    h = h if hue is None else hue
    if v > 0.62:
        return h, s, max(v - contrast, 0.05)
    return h, s * (1 - 0.7 * contrast), min(v + contrast, 1.0)


def rgb(hsv: Hsv) -> np.ndarray:
    """Colour `[3]`, 0..255, of hue in degrees, saturation and value 0..1."""
    h, s, v = hsv
    return np.array(colorsys.hsv_to_rgb(h % 360 / 360, s, v), np.float32) * 255


# --- Scenes ---------------------------------------------------------------------------

MAX_SLOTS = 254  # the map of pieces is 8 bit, and 0 is the ground


@dataclasses.dataclass(frozen=True)
class Piece:
    """Outlines of one look: a whole object, or one part of a composite."""

    outlines: tuple[np.ndarray, ...]
    texture: str
    tones: tuple[Hsv, Hsv]


@dataclasses.dataclass(frozen=True)
class Thing:
    """An object in place; angles in radians.

    size: the side of its box. period, turn, phase: of its texture.
    """

    pieces: tuple[Piece, ...]
    x: float
    y: float
    size: float
    angle: float
    period: float
    turn: float
    phase: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Ground:
    """Background: coarse colours uint8 `[rows, cols, 3]`, blown up, under a texture
    of `contrast` levels out of 255."""

    coarse: np.ndarray
    texture: str
    contrast: float
    period: float
    turn: float


@dataclasses.dataclass(frozen=True)
class Light:
    """What falls on a scene: a factor per channel, and by how much it grows from one
    side to the other, across and down."""

    factors: tuple[float, float, float] = (1.0, 1.0, 1.0)
    slope: tuple[float, float] = (0.0, 0.0)


def render(
    things: Sequence[Thing],
    ground: Ground,
    light: Light,
    size: tuple[int, int],
    noise: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws things over one another, later ones on top.

    Returns the image uint8 `[h, w, 3]` and the slots uint8 `[h, w]`: 0 is the ground,
    i the i-th piece counted over all things. `noise` is uniform, in levels out of 255.
    """
    h, w = size
    unit = math.sqrt(h * w)
    image = _paint_ground(ground, size, unit)
    canvas = Image.new("L", (w, h))
    draw = ImageDraw.Draw(canvas)
    boxes, slot = [], 0
    for thing in things:
        for piece in thing.pieces:
            slot += 1
            boxes.append((thing, piece, _fill(draw, thing, piece, slot, unit)))
    assert slot <= MAX_SLOTS, f"{slot} pieces do not fit in 8 bits"
    slots = np.array(canvas)
    for slot, (thing, piece, (x0, y0, x1, y1)) in enumerate(boxes, start=1):
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, w), min(y1, h)
        visible = slots[y0:y1, x0:x1] == slot
        if visible.any():
            part = _tone(thing, piece, (x0, y0, x1, y1), unit)[visible]
            image[y0:y1, x0:x1][visible] = _ramp(piece.tones)[part]
    image = _shine(image, light)
    if noise > 0:
        grain = np.frombuffer(rng.bytes(image.size), np.int8).reshape(image.shape)
        noisy = image + ((grain * np.int16(noise)) >> 7)
        image = np.clip(noisy, 0, 255).astype(np.uint8)
    return image, slots


@functools.cache
def coverage(name: str) -> dict[str, float]:
    """Part name (the shape's own for a shape) -> share of its box that it fills."""
    parts: Parts = COMPOSITES.get(name) or ((name, (SHAPES[name],)),)
    canvas = Image.new("L", (100, 100))
    draw = ImageDraw.Draw(canvas)
    for slot, (_, outlines) in enumerate(parts, start=1):
        for outline in outlines:
            draw.polygon((50 * outline + 49.5).ravel().tolist(), fill=slot)
    counts = np.bincount(np.array(canvas).ravel(), minlength=len(parts) + 1)
    shares = zip(parts, counts[1:] / 100**2, strict=True)
    return {part: float(share) for (part, _), share in shares if part is not None}


def _fill(draw, thing: Thing, piece: Piece, slot: int, unit: float):
    """Fills a piece with its slot; returns its box x0, y0, x1, y1 in pixels."""
    c, s = math.cos(thing.angle), math.sin(thing.angle)
    turn = np.array([[c, s], [-s, c]], np.float32) * (thing.size * unit / 2)
    # Pillow counts pixel centres as whole numbers, so half a pixel comes off.
    middle = np.array([thing.x * unit - 0.5, thing.y * unit - 0.5], np.float32)
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for outline in piece.outlines:
        points = outline @ turn + middle
        draw.polygon(points.ravel().tolist(), fill=slot)
        low, high = np.minimum(low, points.min(0)), np.maximum(high, points.max(0))
    (x0, y0), (x1, y1) = np.floor(low).tolist(), np.ceil(high).tolist()
    return int(x0), int(y0), int(x1) + 2, int(y1) + 2


def _coordinates(box, middle, period: float, turn: float, phase, unit: float):
    """Texture coordinates (u, v) of the pixels of a box, each `[h, w]`, in periods."""
    x0, y0, x1, y1 = box
    x = (np.arange(x0, x1, dtype=np.float32) + 0.5) / (unit * period) - middle[0]
    y = (np.arange(y0, y1, dtype=np.float32) + 0.5) / (unit * period) - middle[1]
    c, s = math.cos(turn), math.sin(turn)
    u = (c * x + phase[0])[None] + (s * y)[:, None]
    return u, (phase[1] - s * x)[None] + (c * y)[:, None]


def _tone(thing: Thing, piece: Piece, box, unit: float) -> np.ndarray:
    """Rows of the colour ramp at the pixels of a box, uint8 `[h, w]`."""
    centred = piece.texture in CENTRED
    period = thing.size / 2.6 if centred else thing.period
    phase = (0.0, 0.0) if centred else thing.phase
    middle = (thing.x / period, thing.y / period)
    u, v = _coordinates(box, middle, period, thing.turn, phase, unit)
    tone = TEXTURES[piece.texture](u, v)
    return (tone * np.float32(_LEVELS - 1)).astype(np.uint8)


_LEVELS = 16


def _ramp(tones: tuple[Hsv, Hsv]) -> np.ndarray:
    first, second = rgb(tones[0]), rgb(tones[1])
    at = np.linspace(0, 1, _LEVELS, dtype=np.float32)[:, None]
    return (first + (second - first) * at + 0.5).astype(np.uint8)


def _shine(image: np.ndarray, light: Light) -> np.ndarray:
    """The image uint8 `[h, w, 3]` in a light."""
    h, w = image.shape[:2]
    across = light.slope[0] * (np.arange(w, dtype=np.float32) / w - 0.5)
    down = light.slope[1] * (np.arange(h, dtype=np.float32) / h - 0.5)
    shade = 1 + across[None] + down[:, None]
    lit = image * (shade[..., None] * np.array(light.factors, np.float32))
    return np.minimum(lit, 255).astype(np.uint8)


def _paint_ground(ground: Ground, size: tuple[int, int], unit: float) -> np.ndarray:
    h, w = size
    coarse = Image.fromarray(ground.coarse)
    image = np.array(coarse.resize((w, h), Image.Resampling.BILINEAR))
    if ground.contrast > 0:
        box, start = (0, 0, w, h), (0.0, 0.0)
        u, v = _coordinates(box, start, ground.period, ground.turn, start, unit)
        tone = TEXTURES[ground.texture](u, v) * np.float32(ground.contrast)
        # Grounds are drawn from the middle greys, so the sum stays under 255.
        image += tone.astype(np.uint8)[..., None]
    return image
