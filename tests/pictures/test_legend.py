"""Names of classes beneath a picture."""

import numpy as np
import pytest

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
