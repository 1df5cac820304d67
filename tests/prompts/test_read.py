"""A user's prompts as arrays."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from seggpt_jax.pictures import images
from seggpt_jax.prompts.read import read_labels, read_prompts
from tests.conftest import REPOSITORY
from tests.support.pictures import label_map, picture

SIZE = (16, 16)


def read(*targets, **settings):
    shown = [picture()] * len(targets)
    return read_prompts(shown, [*targets], "category", SIZE, **settings)


def same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_255_beside_labels_is_no_label_and_is_said(caplog):
    same(read(label_map((3, 255))), read(label_map((3, 0))))
    assert "255 beside other labels is ignored" in caplog.text
    assert "prompt target 1 (33.3% of the pixels)" in caplog.text


def test_the_inside_of_a_mask_of_two_values_is_label_1(caplog):
    one = label_map((1,))
    forms = [one * 255, one.astype(np.uint8) * 255, one > 0, jnp.array(one > 0)]
    forms += [torch.tensor(one * 255), np.dstack([one * 255] * 3).astype(np.uint8)]
    for mask in forms:
        same(read(mask), read(one))
    same(read(one * 255, one), read(one, one))
    same(read(one * 255, one * 0), read(one, one * 0))
    assert not caplog.records


@pytest.mark.parametrize("labels", [(7, 255), (2, 3), (1, 255)])
def test_a_binary_mask_beside_labels_is_refused(labels):
    """Its 255 might be its inside, or what is ignored."""
    with pytest.raises(ValueError, match="2 holds 0 and 255 only, and .*target 1"):
        read(label_map(labels), label_map((255,)))


def test_beside_a_painting_a_grey_picture_is_a_painting():
    white = np.dstack([label_map((1,)) * 255] * 3).astype(np.uint8)
    painting = white.copy()
    painting[:9, :9] = (255, 0, 0)
    found = read(painting, white)
    assert found.labels.tolist() == [0, 1, 2]
    assert found.palette.tolist() == [[0, 0, 0], [255, 255, 255], [255, 0, 0]]
    with pytest.raises(ValueError, match="some hold labels and some colours; p"):
        read(painting, label_map((1,)))


@pytest.mark.parametrize("color", [(1, 0, 0), (10, 20, 0), (220, 0, 0)])
def test_colours_that_cannot_be_told_apart_are_refused(tmp_path, color):
    """Ids in the channels of a picture would be painted nearly black."""
    painting = np.zeros((40, 30, 3), np.uint8)
    painting[:20], painting[20:, 9:20] = (200, 0, 0), color
    Image.fromarray(painting).save(tmp_path / "ids.png")
    with pytest.raises(ValueError, match=r"ids.png has the colours \(.*too near to be"):
        read(tmp_path / "ids.png")


@pytest.mark.parametrize("tag", [2, 3, 6, 8])
def test_a_mask_of_the_stored_pixels_is_turned_with_them(tmp_path, tag):
    """Sizes tell it where the camera was turned; else a mask is of what is seen."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = tag
    stored, mask = picture(), label_map((3, 5))
    Image.fromarray(stored).save(tmp_path / "x.png", exif=exif)
    turn = {2: np.fliplr, 3: lambda x: np.rot90(x, 2), 6: lambda x: np.rot90(x, -1),
            8: np.rot90}[tag]  # fmt: skip
    expected = read_prompts([turn(stored)], [turn(mask)], "category", SIZE)
    drawn = [turn(mask)] if tag < 5 else [turn(mask), mask]
    for one in drawn:
        found = read_prompts([tmp_path / "x.png"], [one], "category", SIZE)
        same(found, expected)


def test_bits_are_those_of_the_setting(caplog):
    twelve = picture().astype(np.uint16)[..., 0] * 16
    grey = np.repeat(picture()[..., :1], 3, -1)
    expected = read_prompts([grey], [label_map()], "category", SIZE)
    same(read_prompts([twelve], [label_map()], "category", SIZE, bits=12), expected)
    assert not caplog.records
    read_prompts([twelve], [label_map()], "category", SIZE)
    assert "look nearly black when read as 16 bits" in caplog.text
    with pytest.raises(ValueError, match="prompt image 1 has values .* and bits = 10"):
        read_prompts([twelve], [label_map()], "category", SIZE, bits=10)


def test_a_painting_is_read_in_the_labels_of_the_prompts():
    """Each colour is the label of the nearest one, not its place in the palette."""
    prompts = read_prompts([picture()], [label_map((7, 300))], "category", (16, 16))
    painting = np.repeat(prompts.palette[[2, 0, 1]].astype(int)[None], 2, 0)
    painting = np.clip(painting + 9, 0, 255).astype(np.uint8)
    known = prompts.labels, prompts.palette
    labels = read_labels(painting, *known, (2, 3), "painting")
    assert labels.tolist() == [[300, 0, 7]] * 2
    with pytest.raises(ValueError, match="painting: no label has the colour"):
        read_labels(255 - painting, *known, (2, 3), "painting")
    with pytest.raises(ValueError, match="painting is 3 x 2, and its image 3 x 3"):
        read_labels(painting, *known, (3, 3), "painting")


def test_objects_that_vanish_at_the_models_size_are_said(caplog):
    image, mask = np.zeros((320, 320, 3), np.uint8), np.zeros((320, 320), np.uint8)
    image[5, 5] = image[9, 9] = 9
    mask[100:200, 100:200], mask[26:33, 46:53] = 1, 7
    read_prompts([image], [mask], "category", (32, 32))
    (said,) = caplog.messages
    assert "never found" in said and "label 7 at 32 x 32" in said
    caplog.clear()
    # Another prompt shows it.
    read_prompts([image] * 2, [mask, np.full_like(mask, 7)], "category", (32, 32))
    assert not caplog.records


def test_paint_over_the_image_itself_is_said(caplog, tmp_path):
    photo = images.read_image(REPOSITORY / "docs/examples/own/coffee.jpg").pixels
    painted = photo.copy()
    painted[15:155, 130:300] = (255, 0, 0)
    alone = np.where((painted == photo).all(-1, keepdims=True), 0, painted)
    Image.fromarray(painted).save(tmp_path / "over.jpg", quality=90)
    Image.fromarray(painted).resize((225, 150)).save(tmp_path / "small.png")
    Image.fromarray(alone).save(tmp_path / "alone.jpg")
    said = "look like their image with paint over it: save the paint alone, on black: "
    for mask, warned in (
        (painted, True), ("over.jpg", True), ("small.png", True), (alone, False),
        ("alone.jpg", False), (photo, False),
    ):  # fmt: skip
        caplog.clear()
        given = tmp_path / mask if isinstance(mask, str) else mask
        read_prompts([photo], [given], "category", SIZE)
        assert (said in caplog.text) == warned, mask


def test_an_image_and_a_mask_that_look_exchanged_are_said(caplog):
    mask = np.uint8(255 * (label_map() > 0))
    read_prompts([mask], [picture()], "category", SIZE)
    assert "image and mask look exchanged: prompt target 1 (it has" in caplog.text
    caplog.clear()
    flat = np.zeros((40, 30, 3), np.uint8)
    flat[:20, :15] = (0, 0, 255)
    for image, target in ((picture(), picture()), (picture(), mask), (flat, flat)):
        read_prompts([image], [target], "category", SIZE)
    assert not caplog.records
    for image, hint in ((mask, "; image and mask look exchanged"), (picture(), "")):
        with pytest.raises(ValueError, match=rf"no label at all \(.*1\){hint}$"):
            read_prompts([image], [0 * mask], "category", SIZE)
