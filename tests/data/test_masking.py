import numpy as np
import pytest
from scipy import ndimage

from seggpt_jax import canvas
from seggpt_jax.data.masking import Masking


@pytest.mark.parametrize("grid", [(56, 28), (12, 6), (2, 1), (8, 20)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.75, 1.0])
def test_count_is_exact(grid, share):
    rng = np.random.default_rng(0)
    for _ in range(20):
        hidden = Masking(share=share, half_prob=0.0)(grid, rng)
        assert hidden.shape == grid and hidden.dtype == bool
        assert hidden.sum() == round(share * hidden.size)


def test_half_is_the_query_half_as_often_as_asked():
    rng = np.random.default_rng(1)
    grid = (56, 28)
    half = canvas.query_half(grid)
    always = Masking(half_prob=1.0)
    assert all(np.array_equal(always(grid, rng), half) for _ in range(5))
    often = [np.array_equal(Masking()(grid, rng), half) for _ in range(1000)]
    assert abs(np.mean(often) - 0.1) < 0.03  # three standard deviations


def test_blocks_cover_the_canvas_evenly_in_large_pieces():
    rng = np.random.default_rng(2)
    masks = np.stack([Masking(half_prob=0.0)((56, 28), rng) for _ in range(400)])
    assert len(np.unique(masks.reshape(400, -1), axis=0)) == 400
    prompt, query = masks[:, :28].mean(), masks[:, 28:].mean()
    assert abs(prompt - query) < 0.05
    # Few blocks reach into a corner, as in BEiT, but some do.
    assert masks.mean(0).min() > 0.01
    pieces = [ndimage.label(mask)[1] for mask in masks]
    # 784 patches at random would fall into more than a hundred pieces.
    assert np.mean(pieces) < 10


def test_a_single_block_has_its_area_and_aspect():
    rng = np.random.default_rng(3)
    size = 64 * 64
    masking = Masking(
        share=0.5, half_prob=0.0, block_share=(0.5, 0.5), aspect=(2.0, 2.0)
    )
    for _ in range(20):
        rows, cols = np.nonzero(masking((64, 64), rng))
        # sqrt(2048 * 2) = 64 rows by 32 columns, in one piece.
        assert len(rows) == size / 2
        assert np.ptp(rows) + 1 == 64 and np.ptp(cols) + 1 == 32


def test_blocks_are_drawn_as_beit_draws_them(monkeypatch):
    """The first area uniform, aspects log-uniform, and every place as likely."""
    drawn, block = [], Masking._block

    def note(self, area, hidden, rng):
        found = block(self, area, hidden, rng)
        if not hidden.any():
            drawn.append((area, *((s.start, s.stop) for s in found)))
        return found

    monkeypatch.setattr(Masking, "_block", note)
    masking, rng = Masking(half_prob=0.0, block_share=(0.01, 0.05)), None
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        masking((120, 120), rng)
    areas = np.array([area for area, *_ in drawn])
    (top, bottom), (left, right) = (
        np.array([one[k] for one in drawn]).T for k in (1, 2)
    )
    rows, cols = bottom - top, right - left
    np.testing.assert_allclose(rows * cols / areas, 1, atol=0.1)  # whole patches
    quantiles = np.quantile(areas / 120**2, [0.1, 0.5, 0.9])
    np.testing.assert_allclose(quantiles, [0.014, 0.03, 0.046], atol=0.003)
    quantiles = np.quantile(np.log(rows / cols), [0.1, 0.5, 0.9])
    wanted = np.log(1 / 0.3) * np.array([-0.8, 0, 0.8])
    np.testing.assert_allclose(quantiles, wanted, atol=0.12)
    # A block lies over its patch anyhow: in the middle on average.
    for start, length in ((top, rows), (left, cols)):
        assert abs(np.mean(start / (120 - length)) - 0.5) < 0.05


@pytest.mark.parametrize(
    "setting, value",
    [
        ("share", 0.0),
        ("share", 1.1),
        ("half_prob", -0.1),
        ("block_share", (0.3, 0.2)),
        ("aspect", (0.0, 1.0)),
    ],
)
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        Masking(**{setting: value})
