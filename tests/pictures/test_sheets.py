"""Contact sheets: sizes, content, clipping, errors."""

import numpy as np
import pytest

from seggpt_jax.pictures.sheets import Row, contact_sheet


def cell(seed, size=(48, 48)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def find(sheet, picture):
    """Top left corners of `picture` in `sheet`."""
    h, w, _ = picture.shape
    views = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], (h, w))
    hits = np.argwhere(views[..., 0, 0] == picture[0, 0, 0])
    return [(y, x) for y, x in hits if (sheet[y : y + h, x : x + w] == picture).all()]


def test_small_cells_grow_by_a_whole_factor_and_stay_in_their_places():
    cells = [[cell(3 * i + j) for j in range(3)] for i in range(2)]
    rows = [Row(line, f"row {i}") for i, line in enumerate(cells)]
    sheet = contact_sheet(rows, ("prompt", "query", "truth"))
    assert sheet.dtype == np.uint8 and sheet.shape == (18 + 2 * 166, 4 + 3 * 148, 3)
    for i in range(2):
        for j in range(3):
            large = cells[i][j].repeat(3, axis=0).repeat(3, axis=1)  # 48 -> 144 px
            assert find(sheet, large) == [(18 + i * 166 + 18, 4 + j * 148)]


def test_large_cells_shrink_and_keep_their_aspect():
    flat = np.full((896, 448, 3), (10, 200, 30), np.uint8)
    sheet = contact_sheet([Row([flat], "large")], ["flat"])
    assert sheet.shape == (18 + 18 + 256 + 4, 4 + 128 + 4, 3)
    assert len(find(sheet, flat[:256, :128])) == 1
    kept = cell(0, (200, 150))
    assert find(contact_sheet([Row([kept], "")], ["kept"]), kept) == [(36, 4)]


def test_paintings_are_clipped_and_rounded():
    painting = np.zeros((128, 128, 3), np.float32)
    painting[:32], painting[32:64], painting[64:96] = -80, 400, 99.6
    painting[96:] = np.nan
    sheet = contact_sheet([Row([painting], "")], ["painting"])[36:164, 4:132]
    shown = [np.unique(part).tolist() for part in np.split(sheet, 4)]
    assert shown == [[0], [255], [100], [0]]


def test_headings_and_captions_are_written():
    black = np.zeros((128, 128, 3), np.uint8)
    sheet = contact_sheet([Row([black], "Straße: 猫, dog   IoU 0.52")], ["query"])
    without = contact_sheet([Row([black], "")], [""])
    assert (sheet[:18] != without[:18]).any() and (sheet[18:36] != without[18:36]).any()
    np.testing.assert_array_equal(sheet[36:], without[36:])


def test_a_long_caption_loses_its_middle_not_its_score():
    black = np.zeros((128, 128, 3), np.uint8)

    def strip(caption):
        return contact_sheet([Row([black] * 2, caption)], ["query", "truth"])[18:36]

    caption = "shapes: object: lime striped cross, plum ring, a box   IoU 0.54"
    whole = strip(caption)
    assert (whole[:, -2:] == 255).all()  # a letter is a pixel wider than it counts
    np.testing.assert_array_equal(whole, strip(caption.replace("plum", "teal")))
    for seen in (caption.replace("0.54", "0.55"), caption.replace("shapes", "scenes")):
        assert (whole != strip(seen)).any()


def test_rows_must_fit_the_headings():
    with pytest.raises(ValueError, match=r"2 cells .* counts \[1\]"):
        contact_sheet([Row([cell(0)], "")], ("a", "b"))
    with pytest.raises(ValueError, match=r"sizes \[\(8, 8, 3\), \(48, 48, 3\)\]"):
        contact_sheet([Row([cell(0), cell(1, (8, 8))], "")], ("a", "b"))
    with pytest.raises(ValueError, match=r"counts \[\]"):
        contact_sheet([], ("a",))
