"""Polygons hold exactly the pixels of their mask, to pycocotools and by definition."""

import numpy as np
from hypothesis import given, settings
from pycocotools import mask as coco_mask
from scipy import ndimage

from seggpt_jax.results import outlines
from tests.results.blobs import MASKS, filled

RING = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]], bool)


@settings(max_examples=60, deadline=None)
@given(mask=MASKS)
def test_polygons_are_the_mask(mask):
    found = outlines.polygons(mask)
    flat = [polygon.ravel().tolist() for polygon in found]
    coded = coco_mask.merge(coco_mask.frPyObjects(flat, *mask.shape))
    np.testing.assert_array_equal(np.asarray(coco_mask.decode(coded)), mask)
    layers = [filled(polygon, mask.shape) for polygon in found]
    np.testing.assert_array_equal(np.sum(layers, 0), mask)
    assert len(found) == ndimage.label(mask, np.ones((3, 3)))[1]


@settings(max_examples=60, deadline=None)
@given(mask=MASKS)
def test_joined_polygons_are_the_mask_too(mask):
    base, *others = outlines.polygons(mask)
    line = outlines.join(base, others)
    np.testing.assert_array_equal(filled(line, mask.shape), mask)


def test_corners_alone_are_kept_and_a_hole_is_joined():
    (square,) = outlines.polygons(np.ones((3, 5), bool))
    assert sorted(square.tolist()) == [[0, 0], [0, 3], [5, 0], [5, 3]]
    (ring,) = outlines.polygons(RING)  # with the pixel that touches its corner
    # 8 corners outside, the one that touches twice; 4 of the hole; two to come back.
    assert len(ring) == 8 + 4 + 2


def test_a_simplified_outline_stays_within_its_slack():
    """A disc: few points, nearly the same pixels, and lines near all old points."""
    y, x = np.ogrid[:200, :200]
    disc = (x - 90) ** 2 + (y - 100) ** 2 < 80**2
    (outline,) = outlines.polygons(disc)
    fewer = outlines.simplify(outline, 1.0)
    assert len(fewer) < len(outline) / 4
    again = filled(fewer, disc.shape)
    assert (again & disc).sum() / (again | disc).sum() > 0.98
    ends = np.roll(fewer, -1, axis=0) - fewer
    along = ((outline[:, None] - fewer) * ends).sum(-1) / (ends**2).sum(-1)
    nearest = fewer + np.clip(along, 0, 1)[..., None] * ends
    gaps = np.linalg.norm(outline[:, None] - nearest, axis=-1).min(1)
    assert gaps.max() <= 1.0 + 1e-9
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]])
    np.testing.assert_array_equal(outlines.simplify(square, 9.0), square)
