import colorsys
import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from seggpt_jax.data import augment
from seggpt_jax.data.augment import View, Window, whole
from seggpt_jax.data.sample import BACKGROUND, CATEGORY, IGNORE, Sample, sides_of

STILL = View(jitter_prob=0.0)


def show(view, sample, rng, size=(48, 48)) -> Sample:
    """One view of a sample, cut as `data.context` cuts it."""
    window = view.window(sample.segments.shape, rng)
    segments = view.cut_segments(sample, window, size)
    image = view.cut_image(sample.image, window, size, rng)
    return Sample(image, segments, sample.kind, augment.visible(segments))


def ramp(rows=60, cols=80) -> Sample:
    """An image that says where each pixel came from; a label on each quadrant."""
    y, x = np.mgrid[:rows, :cols]
    image = np.stack([x * 255 / cols, y * 255 / rows, 0 * x], -1).astype(np.uint8)
    segments = (1 + (x >= cols // 2) + 2 * (y >= rows // 2)).astype(np.int32)
    return Sample(image, segments, CATEGORY, (1, 2, 3, 4))


def test_view_has_the_size_the_labels_and_the_classes_of_what_it_shows():
    rng = np.random.default_rng(0)
    sample = ramp()
    seen = set()
    for _ in range(50):
        view = show(View(crop_scale=(0.05, 1.0)), sample, rng, (32, 48))
        assert view.image.shape == (32, 48, 3) and view.image.dtype == np.uint8
        assert view.segments.shape == (32, 48) and view.segments.dtype == np.int32
        assert view.classes == tuple(np.unique(view.segments))
        seen.add(view.classes)
    assert (1, 2, 3, 4) in seen and len(seen) > 1


def test_image_and_segments_move_together():
    """The ramp's colours say which quadrant each pixel comes from."""
    rng = np.random.default_rng(1)
    view = dataclasses.replace(STILL, vertical_flip=0.5)
    for _ in range(50):
        shown = show(view, ramp(), rng)
        x, y = shown.image[..., 0] / 255.0, shown.image[..., 1] / 255.0
        # Bicubic and nearest agree away from the edge: a margin of two pixels of 60.
        sure = (abs(x - 0.5) > 2 / 60) & (abs(y - 0.5) > 2 / 60)
        expected = 1 + (x >= 0.5) + 2 * (y >= 0.5)
        np.testing.assert_array_equal(shown.segments[sure], expected[sure])


def test_segments_are_what_pillow_calls_nearest():
    rng = np.random.default_rng(2)
    segments = rng.integers(0, 200, (61, 83)).astype(np.int32)
    for box in [(0, 0, 83, 61), (5, 7, 40, 30), (20, 0, 11, 61)]:
        left, top, width, height = box
        ours = augment.cut_segments(segments, Window(*map(float, box)), (32, 48))
        theirs = Image.fromarray(segments.astype(np.uint8)).resize(
            (48, 32), Image.Resampling.NEAREST, (left, top, left + width, top + height)
        )
        np.testing.assert_array_equal(ours, np.asarray(theirs))


def test_whole_window_at_its_own_size_is_the_identity():
    sample = ramp()
    same = augment.resize(sample, (60, 80))
    np.testing.assert_array_equal(same.image, sample.image)
    np.testing.assert_array_equal(same.segments, sample.segments)
    assert augment.resize(sample, (7, 9)).image.shape == (7, 9, 3)


@pytest.mark.parametrize("flips", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_parts_of_a_window_tile_its_view(flips):
    segments = np.arange(64 * 64, dtype=np.int32).reshape(64, 64)
    window = Window(16.0, 8.0, 32.0, 48.0, *map(bool, flips))
    view = augment.cut_segments(segments, window, (48, 32))
    part = augment.cut_segments(segments, window.part(0.25, 0.5, 1.0, 0.75), (12, 24))
    np.testing.assert_array_equal(part, view[24:36, 8:])


def test_boxes_keep_to_their_ranges_and_fall_back_to_the_centre():
    rng = np.random.default_rng(3)
    boxes = [
        augment.random_box((480, 640), (0.3, 1.0), (3 / 4, 4 / 3), rng)
        for _ in range(500)
    ]
    for left, top, width, height in boxes:
        assert 0 <= left <= left + width <= 640 and 0 <= top <= top + height <= 480
        # Rounding to pixels moves either by less than 1 %.
        assert 0.29 < width * height / (480 * 640) <= 1
        assert 0.74 < width / height < 1.35
    assert len(set(boxes)) > 400
    ones = (1.0, 1.0), (1.0, 1.0)
    assert augment.random_box((10, 100), *ones, rng) == (45, 0, 10, 10)
    assert augment.random_box((100, 10), *ones, rng) == (0, 45, 10, 10)


def assert_uniform(values, low, high):
    """So many values, at least 500, are uniform in their range."""
    shares = (np.quantile(values, [0.1, 0.5, 0.9]) - low) / (high - low)
    # Four standard deviations of the median.
    np.testing.assert_allclose(shares, [0.1, 0.5, 0.9], atol=2 / len(values) ** 0.5)


def test_boxes_are_drawn_as_torchvision_draws_them():
    """Areas uniform, aspects log-uniform, and every place of a box as likely."""
    rng, (rows, cols) = np.random.default_rng(6), (900, 1200)
    boxes = [augment.random_box((rows, cols), (0.02, 0.3), (1 / 3, 3.0), rng)
             for _ in range(4000)]  # fmt: skip
    left, top, width, height = np.array(boxes).T
    assert_uniform(width * height / (rows * cols), 0.02, 0.3)
    assert_uniform(np.log(width / height), -np.log(3), np.log(3))
    assert_uniform(left / (cols - width), 0, 1)
    assert_uniform(top / (rows - height), 0, 1)
    # Nine squares in ten are drawn again where one draw in five fits.
    boxes = [augment.random_box((99, 99), (0.9, 1.0), (3 / 4, 4 / 3), rng)
             for _ in range(500)]  # fmt: skip
    assert np.mean([box == (0, 0, 99, 99) for box in boxes]) < 0.4


@pytest.mark.parametrize("flip", [False, True])
def test_images_are_cut_as_pillow_cuts_them(flip):
    image = np.random.default_rng(7).integers(0, 256, (61, 83, 3), np.uint8)
    window = Window(5.0, 7.0, 40.0, 30.0, flip)
    ours = STILL.cut_image(image, window, (24, 56), np.random.default_rng(0))
    theirs = Image.fromarray(image).resize(
        (56, 24), Image.Resampling.BICUBIC, (5, 7, 45, 37)
    )
    theirs = np.asarray(theirs)
    np.testing.assert_array_equal(ours, theirs[:, ::-1] if flip else theirs)


@pytest.mark.parametrize("flips", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("swap", [True, False])
def test_a_mirrored_left_part_is_a_right_part(flips, swap):
    """One mirror exchanges the sides; two are a half turn, which does not."""
    segments = np.zeros((8, 10), np.int32)
    segments[1:3, :3], segments[5:7, 6:9], segments[4, :] = 1, 2, 3
    sides = sides_of({1: "Left_arm", 2: "right_arm", 3: "left"})
    sample = Sample(
        np.zeros((8, 10, 3), np.uint8), segments, CATEGORY, (1, 2, 3), sides=sides
    )
    view = View(swap_sides=swap)
    window = whole((8, 10))._replace(flip_x=bool(flips[0]), flip_y=bool(flips[1]))
    expected = segments[:: 1 - 2 * flips[1], :: 1 - 2 * flips[0]]
    if swap and sum(flips) == 1:
        expected = np.choose(expected, [0, 2, 1, 3])
    np.testing.assert_array_equal(view.cut_segments(sample, window, (8, 10)), expected)


def test_sides_differ_in_one_word_alone():
    names = {1: "left-arm", 2: "right-arm", 3: "left-leg", 4: "bright arm", 5: "arm"}
    assert sides_of(names) == {1: 2, 2: 1}


def test_flips_happen_as_often_as_asked():
    rng = np.random.default_rng(4)
    view = View(flip=0.5, vertical_flip=0.1)
    windows = [view.window((60, 80), rng) for _ in range(2000)]
    # Three standard deviations of the two means.
    assert abs(np.mean([w.flip_x for w in windows]) - 0.5) < 0.034
    assert abs(np.mean([w.flip_y for w in windows]) - 0.1) < 0.021


def test_jitter_changes_the_image_only_and_as_often_as_asked():
    sample = ramp()
    view = View(jitter_prob=0.8)
    moved = 0
    for seed in range(200):
        still = show(STILL, sample, np.random.default_rng(seed))
        shown = show(view, sample, np.random.default_rng(seed))
        np.testing.assert_array_equal(shown.segments, still.segments)
        moved += not np.array_equal(shown.image, still.image)
    assert abs(moved / 200 - 0.8) < 0.09  # three standard deviations


def jittered(image, strengths, seed) -> np.ndarray:
    matrix = augment.jitter_matrix(image, strengths, np.random.default_rng(seed))
    np.testing.assert_array_equal(matrix[3], [0, 0, 0, 1])
    return image @ matrix[:3, :3].T + matrix[:3, 3]


def test_each_jitter_keeps_what_it_should():
    rng = np.random.default_rng(5)
    image = np.repeat(np.repeat(rng.integers(0, 256, (4, 4, 3)), 8, 0), 8, 1)
    image = image.astype(np.uint8)  # constant 8x8 cells: the strided mean is exact
    luma = image @ augment.LUMA
    for seed in range(20):
        bright = jittered(image, (0.4, 0.0, 0.0, 0.0), seed)
        factor = bright.sum() / image.sum()
        np.testing.assert_allclose(bright, factor * image, atol=1e-9)
        assert 0.6 <= factor <= 1.4
        contrast = jittered(image, (0.0, 0.4, 0.0, 0.0), seed)
        np.testing.assert_allclose((contrast @ augment.LUMA).mean(), luma.mean())
        saturated = jittered(image, (0.0, 0.0, 0.4, 0.0), seed)
        np.testing.assert_allclose(saturated @ augment.LUMA, luma)
        turned = jittered(image, (0.0, 0.0, 0.0, 0.1), seed)
        np.testing.assert_allclose(turned @ augment.LUMA, luma, atol=1e-9)
        assert abs(turned - image).max() > 0.1
    # The printed YIQ matrix has rows that sum to zero only to four digits.
    grey = np.full((8, 8, 3), 100, np.uint8)
    np.testing.assert_allclose(jittered(grey, (0.0, 0.4, 0.4, 0.1), 0), 100, atol=0.1)


def test_jitters_are_pillows_and_uniform():
    """Factors and turns are read off the matrices of the four jitters alone."""
    cells = np.random.default_rng(8).integers(90, 166, (4, 4, 3), np.uint8)
    image = cells.repeat(8, 0).repeat(8, 1)
    most, drawn = (0.4, 0.4, 0.2, 0.1), []
    _, *iq = colorsys.rgb_to_yiq(1, 0.2, 0.1)
    for seed in range(1000):
        single = np.diag(most)
        light, contrast, saturation, hue = (
            augment.jitter_matrix(image, tuple(one), np.random.default_rng(seed))
            for one in single
        )
        turned = colorsys.rgb_to_yiq(*hue[:3, :3] @ [1, 0.2, 0.1])[1:]
        turn = np.angle(complex(*turned) / complex(*iq)) / (2 * np.pi)
        luma = augment.LUMA[0]
        factor = (saturation[0, 0] - luma) / (1 - luma)
        drawn.append((light[0, 0], contrast[0, 0], factor, turn))
    for values, middle, strength in zip(
        np.transpose(drawn), (1, 1, 1, 0), most, strict=True
    ):
        assert_uniform(values, middle - strength, middle + strength)
    assert abs(np.corrcoef(np.transpose(drawn)) - np.eye(4)).max() < 0.15
    for seed in range(10):
        x = image.astype(float)
        for one in np.diag(most):  # all at once is one after the other, in any order
            x = jittered(x, tuple(one), seed)
        np.testing.assert_allclose(jittered(image, most, seed), x, atol=1e-6)
        for k, kind in enumerate(("Brightness", "Contrast", "Color")):
            enhance = getattr(ImageEnhance, kind)(Image.fromarray(image))
            theirs = np.asarray(enhance.enhance(drawn[seed][k])).astype(float)
            ours = jittered(image, tuple(np.diag(most)[k]), seed)
            # Pillow rounds the mean grey and the grey of each pixel.
            np.testing.assert_allclose(ours.clip(0, 255), theirs, atol=1.6)


def test_visible_counts_by_table_and_by_sorting_alike():
    segments = np.full((10, 10), 7, np.int32)
    segments[0, 0], segments[1], segments[2] = 9, BACKGROUND, IGNORE
    assert augment.visible(segments) == (7, 9)
    assert augment.visible(segments, 0.02) == (7,)
    segments[segments == 7] = 1 << 20
    assert augment.visible(segments) == (9, 1 << 20)
    assert augment.visible(segments, 0.02) == (1 << 20,)
    assert augment.visible(np.zeros((4, 4), np.int32)) == ()


@pytest.mark.parametrize(
    "setting, value",
    [
        ("crop_scale", (0.5, 1.5)),
        ("crop_scale", (0.0, 1.0)),
        ("crop_ratio", (2.0, 1.0)),
        ("flip", 1.5),
        ("vertical_flip", -0.1),
        ("jitter", (0.4, 0.4, 0.2, 0.6)),
        ("jitter_prob", 2.0),
    ],
)
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        View(**{setting: value})
