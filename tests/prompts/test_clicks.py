"""Masks of examples by a box, points and strokes."""

import sys

import numpy as np
import pytest
from PIL import Image

from seggpt_jax.prompts.clicks import example

H, W = 120, 160
Y, X = np.mgrid[:H, :W] + 0.5


def scene(scale=1):
    """A rough green field with an orange disc, and with another beside it."""
    y, x = np.mgrid[: H * scale, : W * scale] / scale + 0.5 / scale
    noise = np.random.default_rng(0).integers(0, 40, (*y.shape, 3))
    image = np.array([40, 110, 60]) + noise
    discs = [(x - cx) ** 2 + (y - 60) ** 2 < r**2 for cx, r in ((50, 28), (125, 20))]
    for disc in discs:
        image[disc] = np.array([200, 110, 30]) + noise[disc]
    return image.astype(np.uint8), *discs


IMAGE, DISC, OTHER = scene()


def iou(found, truth):
    return (found & truth).sum() / (found | truth).sum()


@pytest.mark.parametrize(
    "marks",
    [
        {"box": (18, 28, 82, 92)},
        {"points": [(50, 60, 1)]},
        {"points": [(40, 60, True), (60, 70, True), (10, 10, False)]},
        {"box": (18, 28, 82, 92), "points": [(45, 55, 1), (20, 30, 0)]},
    ],
)
def test_the_marked_object_is_found_alone(marks):
    made = example(IMAGE, **marks)
    assert made.target.dtype == bool and made.target.shape == (H, W)
    assert iou(made.target, DISC) > 0.97
    np.testing.assert_array_equal(made.image, IMAGE)
    np.testing.assert_array_equal(example(IMAGE, **marks).target, made.target)


def strokes(form):
    """One on the disc, and one on the field, as a file has them."""
    on = (np.abs(Y - 60) < 2) & (np.abs(X - 50) < 18)
    off = (np.abs(Y - 108) < 2) & (np.abs(X - 60) < 50)
    if form == "labels":
        return np.uint8(on * 1 + off * 2)
    if form == "object alone":
        return np.uint8(on * 255)
    colours = np.zeros((H, W, 3), np.uint8)
    colours[on], colours[off] = (0, 255, 0), (255, 0, 0)
    return colours


@pytest.mark.parametrize("form", ["labels", "object alone", "colours"])
def test_strokes_mark_object_and_background(form, tmp_path):
    Image.fromarray(strokes(form)).save(tmp_path / "lines.png")
    found = example(IMAGE, scribble=str(tmp_path / "lines.png")).target
    assert iou(found, DISC) > 0.97
    np.testing.assert_array_equal(found, example(IMAGE, scribble=strokes(form)).target)


def test_background_marks_take_away():
    both = example(IMAGE, box=(15, 25, 150, 95)).target
    assert iou(both, DISC | OTHER) > 0.95
    one = example(IMAGE, box=(15, 25, 150, 95), scribble=np.uint8(OTHER * 2)).target
    assert iou(one, DISC) > 0.95 and not one[OTHER].any()


def test_large_images_are_cut_at_their_own_size():
    image, disc, _ = scene(scale=8)
    found = example(image, points=[(400, 480, 1)]).target
    assert found.shape == (960, 1280) and iou(found, disc) > 0.97


PLAIN = np.full((H, W, 3), 90, np.uint8)


@pytest.mark.parametrize(
    ("image", "marks", "said"),
    [
        (IMAGE, {}, "the image: mark the object by a box, points or a scribble"),
        (IMAGE, {"box": (18, 28, 161, 92)},
         "box 18,28,161,92 is empty, or not inside of the image, which is 160 x 120"),
        (IMAGE, {"box": (-1, 0, 9, 9)}, "box -1,0,9,9 is empty, or not inside"),
        (IMAGE, {"box": (82, 28, 18, 92)}, "box 82,28,18,92 is empty"),
        (IMAGE, {"box": (1, 2, 3)}, "left, top, right, bottom are wanted"),
        (IMAGE, {"box": (0, 0, W, H)}, "box 0,0,160,120 is all of the image: mark"),
        (IMAGE, {"points": [(160, 5, 1)]},
         "point 160,5 is outside of the image, which is 160 x 120"),
        (IMAGE, {"points": [(5, -1, 0)]}, "point 5,-1 is outside"),
        (IMAGE, {"points": [(5, 5)]}, "point \\(5, 5\\): x, y, inside are wanted"),
        (IMAGE, {"points": [(5, 5, 0)]}, "only background is marked"),
        (IMAGE, {"box": (18, 28, 82, 92), "points": [(5, 5, 1)]},
         "point 5,5,\\+ is outside of the box 18,28,82,92"),
        (IMAGE, {"box": (90, 5, 150, 40), "scribble": strokes("labels")},
         "the scribble marks the object outside of the box 90,5,150,40"),
        (IMAGE, {"scribble": strokes("labels")[1:]},
         "the scribble is 160 x 119, and the image 160 x 120: strokes are drawn on"),
        (IMAGE, {"scribble": np.zeros((H, W), np.uint8)}, "scribble has no strokes"),
        (IMAGE, {"scribble": np.maximum(IMAGE, 130)}, "strokes on more than half"),
        (PLAIN, {"box": (18, 28, 82, 92)}, "no object was found in the image beyond"),
        (PLAIN[:1, :1], {"points": [(0, 0, 1)]}, "the image: too little of it is"),
    ],
)  # fmt: skip
def test_marks_that_tell_nothing_are_named(image, marks, said):
    with pytest.raises(ValueError, match=said):
        example(image, **marks)


def test_without_opencv_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r"need OpenCV: pip install .*\[mask"):
        example(IMAGE, points=[(50, 60, 1)])
