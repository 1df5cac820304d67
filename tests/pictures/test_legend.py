"""Names of classes beneath a picture."""

import numpy as np
import pytest

from seggpt_jax.pictures.images import overlay
from seggpt_jax.pictures.legend import with_legend
from tests.support.pictures import picture

COLORS = {"ant": (255, 0, 0), "bee": (0, 200, 0), "a name longer than that": (9, 9, 9)}


@pytest.mark.parametrize("size", [(30, 41), (400, 90), (90, 700)])
def test_the_picture_stays_and_every_colour_is_beneath_it(size):
    image = picture(*size)
    shown = with_legend(image, COLORS.items())
    np.testing.assert_array_equal(shown[: size[0]], image)
    beneath = shown[size[0] :]
    assert len(beneath) and len(beneath) % 2 == 0 and shown.shape[1] == size[1]
    for color in COLORS.values():
        assert (beneath == color).all(-1).sum() > 20
    np.testing.assert_array_equal(with_legend(image, []), image)


def test_white_is_red_as_in_the_overlay():
    image = picture(60, 90)
    white = np.full((1, 1, 3), 255, np.uint8)
    ((red,),) = overlay(np.zeros_like(white), white)
    np.testing.assert_allclose(red, 0.6 * np.array((255, 64, 64)), atol=0.5)
    beneath = with_legend(image, [("ant", (255, 255, 255))])[60:]
    assert (beneath == (255, 64, 64)).all(-1).sum() > 20
