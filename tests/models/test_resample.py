"""Position tables on other grids: equal to torch, exact where nothing changes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seggpt_jax.models.resample import cubic_matrix, linear_matrix

# torch computes source positions in float32: an error of 1e-7 of up to 111 places.
TOLERANCE = 3e-5
SIZES = [(14, 56), (14, 28), (5, 8), (8, 5), (3, 3), (7, 1)]


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_cubic_equals_torch_bicubic(before, after):
    table = np.random.default_rng(0).normal(size=(before, before)).astype(np.float32)
    wanted = F.interpolate(
        torch.tensor(table)[None, None], size=(after, before), mode="bicubic",
        align_corners=False,
    )[0, 0].numpy()  # fmt: skip
    np.testing.assert_allclose(
        cubic_matrix(before, after) @ table, wanted, atol=TOLERANCE
    )


@pytest.mark.parametrize(("before", "after"), [(111, 55), (55, 111), (9, 9), (5, 23)])
def test_linear_equals_torch(before, after):
    table = np.random.default_rng(0).normal(size=(before, 6)).astype(np.float32)
    wanted = F.interpolate(torch.tensor(table.T)[None], size=after, mode="linear")[0].T
    np.testing.assert_allclose(
        linear_matrix(before, after) @ table, wanted.numpy(), atol=TOLERANCE
    )


@pytest.mark.parametrize("matrix", [cubic_matrix, linear_matrix])
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_rows_sum_to_one(matrix, before, after):
    # 1e-6: float32 rounding of four weights.
    np.testing.assert_allclose(matrix(before, after).sum(1), 1, atol=1e-6)
    assert np.array_equal(matrix(before, before), np.eye(before, dtype=np.float32))
