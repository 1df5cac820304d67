"""Outlines of the procedural scenes: shapes, and composites made of named parts.

Coordinates are x to the right and y down, as in Pillow; an outline is a polygon
float32 `[k, 2]` that fills the box -1..1.
"""

import math
from collections.abc import Callable

import numpy as np

Number = int | float  # the tables say 1 and 0.5 alike
_TURN = 2 * math.pi


def _poly(*points: tuple[Number, Number]) -> np.ndarray:
    return np.array(points, np.float32)


def _box(x0: Number, y0: Number, x1: Number, y1: Number) -> np.ndarray:
    return _poly((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def _arc(start: Number, stop: Number, x=0, y=0, rx=1, ry=None, n=32) -> np.ndarray:
    """Points of an ellipse from `start` to `stop`, in degrees clockwise from east."""
    at = np.radians(np.linspace(start, stop, n))
    ry = rx if ry is None else ry
    return np.stack([x + rx * np.cos(at), y + ry * np.sin(at)], 1).astype(np.float32)


def _oval(x: Number, y: Number, rx: Number, ry: Number | None = None) -> np.ndarray:
    return _arc(0, 360, x, y, rx, ry)


def _polar(radius: Callable[[np.ndarray], np.ndarray], n: int = 72) -> np.ndarray:
    at = np.linspace(0, _TURN, n, endpoint=False)
    r = radius(at)
    return np.stack([r * np.sin(at), -r * np.cos(at)], 1).astype(np.float32)


def _star(points: int, inner: Number) -> np.ndarray:
    return _polar(lambda at: np.where(np.arange(len(at)) % 2, inner, 1.0), 2 * points)


def _gear(teeth: int = 8) -> np.ndarray:
    return _polar(lambda at: np.where(np.arange(len(at)) % 6 < 3, 1.0, 0.68), 6 * teeth)


def _hollow(outer: np.ndarray, inner: Number) -> np.ndarray:
    """Cuts a hole: one polygon, with a seam where the outline begins.

    Pillow fills across a steep seam; a level one may show as a gap.
    """
    loop = np.concatenate([outer, outer[:1]])
    return np.concatenate([loop, inner * loop[::-1]])


def _heart() -> np.ndarray:
    at = np.linspace(0, _TURN, 48, endpoint=False)
    y = 13 * np.cos(at) - 5 * np.cos(2 * at) - 2 * np.cos(3 * at) - np.cos(4 * at)
    return np.stack([16 * np.sin(at) ** 3, -y], 1).astype(np.float32)


def _fit(outline: np.ndarray) -> np.ndarray:
    """Centres an outline and scales it, keeping its proportions, to the box -1..1."""
    low, high = outline.min(0), outline.max(0)
    return (2 * outline - low - high) / (high - low).max()


_ARM = 0.36
_CROSS = _poly((-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM),
               (_ARM, _ARM), (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM),
               (-1, -_ARM), (-_ARM, -_ARM))  # fmt: skip
_SALTIRE = _CROSS @ np.array([[1, 1], [-1, 1]], np.float32)

# No shape is the mirror image of another one: augmentation flips images.
# Neighbours look alike, so that scenes built from neighbours are hard ones.
SHAPES: dict[str, np.ndarray] = {
    name: _fit(outline)
    for name, outline in {
        "disc": _oval(0, 0, 1),
        "ring": _hollow(_arc(90, 450), 0.55),
        "pie": np.concatenate([_arc(40, 320), _poly((0, 0))]),
        "semicircle": _arc(180, 360),
        "crescent": np.concatenate(
            [_arc(55, 305), _arc(272, 88, 0.55, 0, 0.82)[1:-1]]
        ),
        "lens": np.concatenate([_arc(213, 327, 0, 0.545), _arc(33, 147, 0, -0.545)]),
        "pill": np.concatenate(
            [_arc(-90, 90, 0.55, 0, 0.45), _arc(90, 270, -0.55, 0, 0.45)]
        ),
        "drop": np.concatenate([_poly((0, -1.35)), _arc(-25, 205, 0, 0.2, 0.8)]),
        "square": _box(-1, -1, 1, 1),
        "frame": _hollow(_box(-1, -1, 1, 1), 0.5),
        "diamond": _poly((0, -1), (0.62, 0), (0, 1), (-0.62, 0)),
        "hexagon": _arc(0, 300, n=6),
        "stairs": _poly((-1, 1), (-1, 0.33), (-0.33, 0.33), (-0.33, -0.33),
                        (0.33, -0.33), (0.33, -1), (1, -1), (1, 1)),
        "triangle": _poly((0, -0.9), (1, 0.9), (-1, 0.9)),
        "hourglass": _poly((-0.9, -1), (0.9, -1), (0.16, 0), (0.9, 1), (-0.9, 1),
                           (-0.16, 0)),
        "star4": _star(4, 0.4),
        "star5": _star(5, 0.42),
        "burst": _star(10, 0.62),
        "gear": _gear(),
        "flower": _polar(lambda at: 0.7 + 0.3 * np.cos(5 * at)),
        "trefoil": _polar(lambda at: 0.4 + 0.6 * np.abs(np.cos(1.5 * at))),
        "heart": _heart(),
        "bolt": _poly((-0.15, -1), (0.6, -1), (0.15, -0.25), (0.7, -0.25), (-0.5, 1),
                      (-0.15, 0.1), (-0.7, 0.1)),
        "arrow": _poly((0, -1), (0.95, 0), (0.38, 0), (0.38, 1), (-0.38, 1),
                       (-0.38, 0), (-0.95, 0)),
        "chevron": _poly((-1, -1), (0, -0.15), (1, -1), (1, 0), (0, 0.85), (-1, 0)),
        "cross": _CROSS,
        "saltire": _SALTIRE,
        "T": _poly((-1, -1), (1, -1), (1, -0.35), (0.34, -0.35), (0.34, 1),
                   (-0.34, 1), (-0.34, -0.35), (-1, -0.35)),
        "L": _poly((-0.8, -1), (-0.12, -1), (-0.12, 0.35), (0.8, 0.35), (0.8, 1),
                   (-0.8, 1)),
        "U": _poly((-1, -1), (-0.35, -1), (-0.35, 0.35), (0.35, 0.35), (0.35, -1),
                   (1, -1), (1, 1), (-1, 1)),
        "H": _poly((-1, -1), (-0.35, -1), (-0.35, -0.3), (0.35, -0.3), (0.35, -1),
                   (1, -1), (1, 1), (0.35, 1), (0.35, 0.3), (-0.35, 0.3), (-0.35, 1),
                   (-1, 1)),
        "Z": _poly((-0.95, -1), (0.95, -1), (0.95, -0.45), (-0.05, 0.45), (0.95, 0.45),
                   (0.95, 1), (-0.95, 1), (-0.95, 0.45), (0.05, -0.45),
                   (-0.95, -0.45)),
    }.items()
}  # fmt: skip
HELDOUT_SHAPES = frozenset(
    {"ring", "hexagon", "hourglass", "star4", "gear", "heart", "arrow", "T"}
)


# --- Composites: (part, outlines) painted in order; a detail has no part name --------

Parts = tuple[tuple[str | None, tuple[np.ndarray, ...]], ...]

COMPOSITES: dict[str, Parts] = {
    "house": (
        ("wall", (_box(-0.8, -0.1, 0.8, 1),)),
        ("roof", (_poly((-1, -0.1), (0, -1), (1, -0.1)),)),
        ("door", (_box(-0.3, 0.2, 0.3, 1),)),
    ),
    "tower": (
        ("wall", (_box(-0.45, -0.3, 0.45, 1),)),
        ("roof", (_poly((-0.75, -0.3), (0, -1), (0.75, -0.3)),)),
        (None, (_box(-0.15, 0, 0.15, 0.4),)),
    ),
    "tree": (
        ("tree trunk", (_box(-0.28, -0.1, 0.28, 1),)),
        ("tree crown", (_oval(0, -0.4, 0.8, 0.6),)),
    ),
    "potted plant": (
        ("leaves", (_poly((0, 0.3), (-0.95, -0.4), (-0.35, -0.3), (0, -1),
                          (0.35, -0.3), (0.95, -0.4)),)),
        ("pot", (_poly((-0.65, 0.15), (0.65, 0.15), (0.45, 1), (-0.45, 1)),)),
    ),
    "daisy": (
        ("daisy petals", tuple(_oval(0.58 * math.cos(a), 0.58 * math.sin(a), 0.42)
                         for a in np.arange(6) * _TURN / 6)),
        ("daisy centre", (_oval(0, 0, 0.4),)),
    ),
    "car": (
        ("car body", (_poly((-1, 0), (-0.6, -0.1), (-0.4, -0.65), (0.45, -0.65),
                            (0.7, -0.1), (1, 0), (1, 0.5), (-1, 0.5)),)),
        (None, (_poly((-0.35, -0.1), (-0.25, -0.45), (0.3, -0.45), (0.4, -0.1)),)),
        ("wheel", (_oval(-0.52, 0.45, 0.32), _oval(0.52, 0.45, 0.32))),
    ),
    "truck": (
        ("cargo", (_box(-1, -0.8, 0.15, 0.4),)),
        ("truck cab", (_poly((0.2, -0.5), (0.7, -0.5), (1, -0.1), (1, 0.4),
                             (0.2, 0.4)),)),
        ("wheel", (_oval(-0.52, 0.5, 0.35), _oval(0.52, 0.5, 0.35))),
    ),
    "boat": (
        ("sail", (_poly((0.05, -1), (0.8, 0.2), (0.05, 0.2)),
                  _poly((-0.08, -0.75), (-0.08, 0.2), (-0.7, 0.2)))),
        ("hull", (_poly((-1, 0.35), (1, 0.35), (0.6, 0.9), (-0.6, 0.9)),)),
    ),
    "fish": (
        ("fish tail", (_poly((0.1, 0), (1, -0.75), (0.85, 0), (1, 0.75)),)),
        ("fish body", (_oval(-0.34, 0, 0.66, 0.5),)),
        (None, (_oval(-0.62, -0.1, 0.12),)),
    ),
    "person": (
        ("legs", (_poly((-0.42, 0.2), (0.42, 0.2), (0.5, 1), (0.12, 1), (0, 0.45),
                        (-0.12, 1), (-0.5, 1)),)),
        ("torso", (_poly((-0.75, -0.28), (0.75, -0.28), (0.75, 0.1), (0.42, 0),
                         (0.42, 0.35), (-0.42, 0.35), (-0.42, 0), (-0.75, 0.1)),)),
        ("head", (_oval(0, -0.61, 0.39),)),
    ),
    "owl": (
        ("owl body", (_oval(0, 0.1, 0.75, 0.9),
                      _poly((-0.7, -1), (0, -0.6), (0.7, -1), (0.6, 0), (-0.6, 0)))),
        ("eyes", (_oval(-0.33, -0.25, 0.31), _oval(0.33, -0.25, 0.31))),
        (None, (_poly((-0.14, 0), (0.14, 0), (0, 0.3)),)),
    ),
    "butterfly": (
        ("wings", (_oval(-0.55, -0.4, 0.45, 0.5), _oval(0.55, -0.4, 0.45, 0.5),
                   _oval(-0.45, 0.4, 0.38, 0.42), _oval(0.45, 0.4, 0.38, 0.42))),
        ("butterfly body", (_oval(0, 0, 0.22, 0.9),)),
    ),
    "cup": (
        ("handle", (_hollow(_arc(180, 540, 0, 0, 0.56, 0.66), 0.45)
                    + np.array([0.45, 0], np.float32),)),
        ("bowl", (_poly((-1, -0.8), (0.5, -0.8), (0.35, 0.8), (-0.85, 0.8)),)),
    ),
    "lamp": (
        ("stand", (_box(-0.16, -0.1, 0.16, 0.85), _box(-0.6, 0.7, 0.6, 1))),
        ("lampshade", (_poly((-0.4, -1), (0.4, -1), (0.85, 0), (-0.85, 0)),)),
    ),
    "mushroom": (
        ("mushroom stem", (_poly((-0.3, -0.1), (0.3, -0.1), (0.42, 1), (-0.42, 1)),)),
        ("mushroom cap", (_arc(180, 360, 0, 0.1, 1, 1.05),)),
    ),
    "rocket": (
        ("fins", (_poly((-0.3, 0.1), (-0.95, 1), (0.95, 1), (0.3, 0.1)),)),
        ("rocket body", (_box(-0.42, -0.1, 0.42, 0.75),)),
        ("nose", (_poly((-0.5, -0.05), (0, -1), (0.5, -0.05)),)),
    ),
    "ice cream": (
        ("cone", (_poly((-0.64, -0.15), (0.64, -0.15), (0, 1)),)),
        ("scoop", (_oval(0, -0.45, 0.68, 0.54),)),
    ),
    "hammer": (
        ("shaft", (_box(-0.2, -0.5, 0.2, 1),)),
        ("hammer head", (_box(-0.85, -1, 0.85, -0.35),)),
    ),
}  # fmt: skip
HELDOUT_COMPOSITES = frozenset({"lamp", "mushroom", "rocket", "ice cream", "hammer"})
