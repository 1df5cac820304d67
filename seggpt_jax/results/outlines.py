"""Outlines of masks, along the edges of pixels: polygons that hold exactly the mask.

The pixel of row y and column x covers x..x + 1 and y..y + 1. So a polygon is filled
with the pixels whose centres are in it, by the even-odd rule.

SciPy is imported late: it takes a third of a second, and few results have outlines.
"""

from collections.abc import Sequence

import numpy as np

TOUCHING = np.ones((3, 3), bool)  # pixels that touch at a corner are connected
_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # right, down, left, up; (x, y)


def polygons(mask: np.ndarray) -> list[np.ndarray]:
    """A polygon int `[n, 2]` of points (x, y) for each connected part of a mask bool
    `[h, w]`, from the top. The outline of a hole is joined to that of its part."""
    from scipy import ndimage

    parts, _ = ndimage.label(mask, TOUCHING)
    found = []
    for number, place in enumerate(ndimage.find_objects(parts), 1):
        outer, *holes = _rings(parts[place] == number)
        found.append(join(outer, holes) + (place[1].start, place[0].start))
    return found


def join(base: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """One closed line through several: from the corner of `base` that is nearest to
    another line it goes there, around, and back. By the even-odd rule it is filled as
    all of them are."""
    if not others:
        return base
    from scipy import spatial

    nearest = spatial.cKDTree(base)
    detours: dict[int, list[np.ndarray]] = {}
    for ring in others:
        gaps, corners = nearest.query(ring)
        first = int(gaps.argmin())
        detour = np.concatenate([ring[first:], ring[: first + 1]])
        detours.setdefault(int(corners[first]), []).append(detour)
    line = []
    for corner, point in enumerate(base):
        line.append(point[None])
        for detour in detours.get(corner, ()):
            line += [detour, point[None]]
    return np.concatenate(line)


def _rings(part: np.ndarray) -> list[np.ndarray]:
    """The closed lines around one connected part and around its holes, its own first.
    Corners only, int `[n, 2]`; the part lies to the right of its lines."""
    size = part.shape[0] + 1, part.shape[1] + 1
    padded = np.pad(part, 1)
    above, below = padded[:-1, 1:-1], padded[1:, 1:-1]
    left, right = padded[1:-1, :-1], padded[1:-1, 1:]
    # leaves[d, y, x]: an edge leaves the corner (x, y) in direction d of _STEPS.
    leaves = np.zeros((4, *size), bool)
    leaves[0, :, :-1] = below & ~above
    leaves[1, :-1, :] = left & ~right
    leaves[2, :, 1:] = above & ~below
    leaves[3, 1:, :] = right & ~left
    edge = np.arange(leaves.size).reshape(leaves.shape)
    follower = np.zeros(leaves.size, np.int64)
    for way, (dx, dy) in enumerate(_STEPS):
        at = np.nonzero(leaves[way])
        y, x = at[0] + dy, at[1] + dx
        # A turn to the left first: so parts that touch at a corner are one.
        turns = [(way - 1) % 4, way, (way + 1) % 4]
        choices = [edge[turn, y, x] for turn in turns]
        open_ = [leaves[turn, y, x] for turn in turns]
        follower[edge[way][at]] = np.select(open_, choices)
    after = follower.tolist()
    seen, rings = set[int](), []
    for start in edge[0][leaves[0]].tolist():  # every line has an edge to the right
        if start in seen:
            continue
        ring, here = [], start
        while True:
            ring.append(here)
            here = after[here]
            if here == start:
                break
        seen.update(ring)
        ways, rows, columns = np.unravel_index(np.array(ring), leaves.shape)
        turned = ways != np.roll(ways, 1)
        rings.append(np.stack([columns[turned], rows[turned]], -1))
    return rings


def simplify(polygon: np.ndarray, slack: float = 1.0) -> np.ndarray:
    """A polygon `[n, 2]` of fewer points, none of whose old points is farther than
    `slack` pixels from its lines (Douglas and Peucker, 1973). Raises ValueError without
    OpenCV."""
    try:
        import cv2
    except ImportError as error:
        raise ValueError(
            "polygons of few points need OpenCV: pip install 'seggpt_jax[serve]'"
        ) from error
    fewer = cv2.approxPolyDP(polygon.astype(np.int32)[:, None], slack, closed=True)
    return fewer[:, 0] if len(fewer) > 2 else polygon
