"""A user's prompts as arrays."""

import numpy as np
import pytest

from seggpt_jax.prompts.read import read_prompts
from tests.test_inference import label_map, picture


@pytest.mark.parametrize(
    "mask, same",
    [
        (label_map((3, 255)), label_map((3, 0))),  # nothing is asked where none knows
        (label_map((255,)), label_map((1,))),  # a binary mask
    ],
)
def test_ignored_pixels_are_no_label(mask, same):
    found, expected = (
        read_prompts([picture()], [target], "category", (16, 16))
        for target in (mask, same)
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
