"""Objects of a result: areas, boxes, scores and run lengths."""

import numpy as np
import pytest
from hypothesis import given, settings
from pycocotools import mask as coco_mask
from scipy import ndimage

from seggpt_jax.results.objects import find
from tests.results.blobs import LABELS, result


@pytest.mark.parametrize("split", [False, True])
@settings(max_examples=40, deadline=None)
@given(segments=LABELS)
def test_objects_are_what_pycocotools_makes_of_the_masks(split, segments):
    size, shown = segments.shape, np.zeros_like(segments)
    for each in find(result(segments), split):
        coded = each.rle(size)
        mask = np.asarray(coco_mask.decode(coded)) > 0
        theirs = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        assert coded == {"size": list(size), "counts": theirs["counts"].decode()}
        assert (segments[mask] == each.label).all()
        assert each.area == mask.sum() == coco_mask.area(coded)
        assert list(each.box) == coco_mask.toBbox(coded).tolist()
        if split:
            assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
        assert not shown[mask].any()
        shown[mask] = each.label
    np.testing.assert_array_equal(shown, segments)


def test_parts_are_numbered_from_the_top_and_scored_alone():
    segments = np.array([[1, 0, 2, 1], [0, 1, 0, 0], [0, 0, 0, 1]], np.int32)
    shares = np.array([[0.5, 0, 0.9, 0.25], [0, 0.75, 0, 0], [0, 0, 0, 1]])
    parts = find(result(segments, shares), split=True)
    shown = [(each.label, each.part, each.box, each.score) for each in parts]
    assert shown == [
        (1, 1, (0, 0, 2, 2), 0.625),
        (1, 2, (3, 0, 1, 1), 0.25),
        (1, 3, (3, 2, 1, 1), 1),
        (2, 1, (2, 0, 1, 1), pytest.approx(0.9)),
    ]
    whole = find(result(segments, shares))
    assert [(e.label, e.part, e.box, e.score) for e in whole] == [
        (1, 0, (0, 0, 4, 3), 0.625),
        (2, 0, (2, 0, 1, 1), pytest.approx(0.9)),
    ]
    assert find(result(np.zeros((3, 4)))) == []
