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
