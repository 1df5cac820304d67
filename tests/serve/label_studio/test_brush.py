"""Run lengths of brush masks: ours against those of Label Studio's own SDK."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seggpt_jax.serve.label_studio import brush

# label_studio_sdk.converter.brush.mask2rle of this mask, label-studio-sdk 2.1.2.
MASK = np.zeros((6, 9), bool)
MASK[1:4, 2:7] = MASK[5, 0] = True
PACKED = [0, 0, 0, 216, 57, 27, 254, 43, 0, 194, 127, 247, 192, 48, 159, 253, 240, 12,
          39, 255, 138, 192, 35, 255, 195, 224, 0]  # fmt: skip
# encode_rle of a picture [2, 3, 4] with a colour and soft edges: alphas of 255 and 255,
# 200 and 60. Values that differ from pixel to pixel come one by one.
SOFT = [0, 0, 0, 24, 57, 27, 248, 31, 224, 60, 0, 21, 15, 248, 15, 0, 5, 1, 255, 56, 0,
        31, 224, 60, 0, 20, 6, 64, 31, 224, 60, 0, 20, 1, 224]  # fmt: skip

# Four strokes in an image of 192 x 192, drawn and submitted in Label Studio 1.23.2.
DRAWN = [
    0, 2, 64, 0, 57, 27, 255, 42, 55, 0, 140, 62, 55, 232, 239, 35, 178, 142, 150,
    57, 136, 226, 227, 124, 141, 142, 52, 104, 203, 35, 16, 224, 89, 224, 17, 186,
    226, 191, 248, 240, 239, 224, 71, 93, 28, 156, 110, 241, 173, 198, 131, 25,
    156, 100, 209, 140, 198, 25, 192, 165, 192, 35, 162, 204, 255, 241, 242, 71,
    143, 29, 108, 114, 49, 163, 95, 64, 140, 226, 50, 168, 199, 35, 14, 224, 75,
    224, 17, 168, 105, 255, 248, 234, 120, 18, 184, 4, 107, 154, 143, 254, 51, 158,
    4, 166, 1, 29, 46, 83, 255, 143, 246, 127, 204, 135, 255, 26, 119, 2, 83, 0,
    141, 195, 71, 255, 207, 249, 31, 244, 127, 241, 240, 112, 37, 112, 8, 207, 99,
    247, 211, 255, 241, 149, 112, 37, 48, 8, 231, 177, 255, 252, 127, 211, 254, 71,
    253, 148, 255, 227, 87, 224, 74, 96, 17, 193, 103, 127, 248, 252, 227, 245,
    143, 230, 63, 204, 55, 255, 24, 143, 2, 83, 0, 140, 234, 62, 141, 63, 255, 24,
    223, 2, 83, 0, 142, 51, 21, 255, 199, 231, 31, 180, 127, 49, 254, 102, 127,
    248, 213, 120, 18, 152, 4, 114, 153, 191, 254, 63, 220, 95, 255, 25, 31, 2, 83,
    0, 140, 210, 62, 29, 55, 255, 31, 116, 97, 220, 9, 108, 2, 52, 8, 212, 99, 95,
    141, 178, 55, 152, 227, 227, 171, 143, 30, 62, 44, 247, 255, 26, 79, 2, 131, 0,
    140, 46, 49, 136, 201, 99, 50, 140, 250, 52, 216, 214, 227, 105, 141, 218, 56,
    40, 228, 99, 158, 142, 174, 59, 136, 242, 227, 234, 198, 255, 241, 158, 112,
    44, 112, 8, 200, 99, 59, 141, 42, 53, 120, 217, 35, 113, 141, 250, 56, 200,
    230, 163, 168, 142, 218, 59, 184, 226, 191, 255, 248, 7, 229, 31, 0
]  # fmt: skip


def noise(seed, size, share):
    return np.random.default_rng(seed).random(size) < share


def test_a_mask_has_the_bytes_of_the_sdk():
    assert brush.encode(MASK) == PACKED
    np.testing.assert_array_equal(brush.decode(PACKED, (6, 9)), MASK)


def test_pixels_that_are_more_than_half_painted_are_of_the_mask():
    wanted = [[True, True, False], [False, True, False]]
    np.testing.assert_array_equal(brush.decode(SOFT, (2, 3)), wanted)


def test_strokes_of_label_studio_are_read():
    mask = brush.decode(DRAWN, (192, 192))
    assert mask.sum() == 572 and mask[16:29, 17:55].mean() > 0.97
    assert not mask[31:].any() and not mask[:, 56:].any()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(0, 99),
    st.sampled_from([0.0, 0.02, 0.5, 1.0]),
)  # fmt: skip
def test_masks_come_back(h, w, seed, share):
    mask = noise(seed, (h, w), share)
    np.testing.assert_array_equal(brush.decode(brush.encode(mask), (h, w)), mask)


def test_runs_longer_than_16_bits_come_back():
    mask = np.zeros((300, 400), bool)
    mask[100:290] = True
    packed = brush.encode(mask)
    assert len(packed) < 40
    np.testing.assert_array_equal(brush.decode(packed, (300, 400)), mask)


@pytest.mark.parametrize(
    "packed, size, text",
    [
        (PACKED, (9, 9), "are not of a mask of 9 x 9"),
        ([], (6, 9), "are not of a mask of 9 x 6"),
        (PACKED[:-8], (6, 9), "end too early"),
        ([*PACKED[:6], 0, 0], (6, 9), "end too early"),
        ([*PACKED[:-1], 256], (6, 9), "are not numbers from 0 to 255"),
        ([*PACKED[:-1], "0"], (6, 9), "are not numbers from 0 to 255"),
        # It says that it has 4 billion values.
        ([255, 255, 255, 255, *PACKED[4:]], (6, 9), "are not of a mask of 9 x 6"),
    ],
)
def test_bytes_that_are_no_mask_are_refused(packed, size, text):
    with pytest.raises(ValueError, match=f"the run lengths {text}"):
        brush.decode(packed, size)


def test_the_sdk_reads_our_bytes_and_we_read_its():
    """In an environment of its own, as the SDK wants an older OpenCV."""
    sdk = pytest.importorskip("label_studio_sdk.converter.brush")
    for seed, (size, share) in enumerate(
        [((1, 1), 1), ((7, 5), 0.5), ((40, 31), 0.01), ((90, 80), 0), ((300, 200), 1)]
    ):
        mask = noise(seed, size, share)
        theirs = sdk.decode_rle(brush.encode(mask)).reshape(*size, 4)
        wanted = np.repeat(np.where(mask, 255, 0)[..., None], 4, axis=-1)
        np.testing.assert_array_equal(theirs, wanted)
        packed = sdk.mask2rle(np.where(mask, 255, 0))
        np.testing.assert_array_equal(brush.decode(packed, size), mask)
