"""Painter's palettes, and paintings whose answer is known."""

import itertools

import numpy as np
import pytest
import torch

from seggpt_jax import colors, painter
from seggpt_jax.metrics import PanopticQuality


@pytest.mark.parametrize(
    "count, base, step, least", [(150, 6, 42, 45), (133, 7, 36, 39)]
)
def test_semantic_palettes(count, base, step, least):
    """Digits of the class, red the highest, by a count of its own."""
    palette = painter.semantic_palette(count, base)
    digits = itertools.islice(itertools.product(range(base), repeat=3), count)
    expected = [[255 - step * digit for digit in three] for three in digits]
    assert palette.tolist() == expected and palette.dtype == np.uint8
    assert palette.min() == least and len(np.unique(palette, axis=0)) == count
    with pytest.raises(ValueError, match="base is 6: it has 216 colours, not 217"):
        painter.semantic_palette(217, 6)


def test_the_palette_of_locations():
    palette = painter.location_palette()
    assert palette.shape == (80, 80, 3)
    assert len(np.unique(palette.reshape(-1, 3), axis=0)) == 6400
    assert palette[0, 0].tolist() == [255, 255, 255]
    assert palette[0, 79].tolist() == [255 - 3 * 15, 255, 255 - 19 * 13]
    assert palette[61, 22].tolist() == [255 - 13 * 15, 255 - 13, 255 - 2 * 13]
    # Twins of another coarse cell differ in red alone.
    assert palette[41, 2].tolist() == [255 - 8 * 15, 255 - 13, 255 - 2 * 13]


def test_objects_are_painted_by_their_centres():
    segments = np.zeros((160, 240), np.int32)
    segments[:2, :3], segments[100:141, 39:202], segments[150:] = 7, 300, 255
    target = painter.paint_locations(segments, (7, 300, 12))
    palette = painter.location_palette()
    assert (target[:2, :3] == palette[0, 0]).all()
    y, x = int(120 / 160 * 79), int(120 / 240 * 79)
    assert (target[segments == 300] == palette[y, x]).all()
    assert not target[segments == 255].any() and not target[50].any()


@pytest.mark.parametrize("size", [(17, 40), (5, 9), (10, 12), (23, 3)])
def test_resizing_is_torchs(size):
    rng = np.random.default_rng(0)
    painting = rng.uniform(-40, 300, (10, 12, 3)).astype(np.float32)
    given = torch.tensor(painting).clip(0, 255).permute(2, 0, 1)[None]
    for mode, ours in (
        ("bilinear", painter.resize_smooth), ("nearest", painter.resize_nearest)
    ):  # fmt: skip
        theirs = torch.nn.functional.interpolate(given, size, mode=mode)[0]
        theirs = theirs.permute(1, 2, 0).int().numpy()
        found = ours(painting, size).astype(int)
        # A rounding before the cut to whole numbers may turn one of them.
        assert abs(found - theirs).max() <= 1 and (found != theirs).mean() < 0.01


def test_the_nearest_colour_is_that_of_the_whole_table():
    rng = np.random.default_rng(0)
    painting = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    palette = painter.semantic_palette(133, 7)
    expected = colors.decode(painting.astype(np.float32), palette)
    np.testing.assert_array_equal(painter.nearest(painting, palette), expected)


def plain_instances(painting, sigma=2.0):
    """The same in full arrays, with torch, in the manner of Painter's code."""
    palette = torch.tensor(painter.location_palette().reshape(-1, 3)).double()
    pixels = torch.tensor(painting).double()
    gaps = (pixels[None] - palette[:, None, None]).abs().mean(-1)
    masks = gaps < 19
    kept = masks.any(dim=(1, 2))
    masks, gaps = masks[kept], gaps[kept]
    distance = (gaps * masks).sum((1, 2)) / masks.sum((1, 2))
    distance, order = torch.sort(distance, stable=True)
    masks = masks[order][:2000].flatten(1).double()
    scores = 1 - distance[:2000] / distance[:2000].max().clip(1.0)
    both = masks @ masks.T
    areas = masks.sum(1)
    iou = (both / (areas[:, None] + areas[None] - both)).triu(1)
    worst = iou.max(0).values[:, None]
    decay = (torch.exp(-sigma * iou**2) / torch.exp(-sigma * worst**2)).min(0).values
    scores, order = torch.sort(scores * decay, descending=True, stable=True)
    return scores[:100].numpy(), masks[order][:100].reshape(-1, *painting.shape[:2])


def test_instances_are_those_of_full_arrays():
    rng = np.random.default_rng(0)
    blobs = np.kron(rng.integers(0, 256, (3, 4, 3)), np.ones((6, 6, 1)))
    painting = np.clip(blobs + rng.normal(0, 4, blobs.shape), 0, 255).astype(np.uint8)
    scores, masks = plain_instances(painting)
    found = painter.find_instances(painting)
    np.testing.assert_allclose(found.scores, scores, atol=1e-9)
    ours = np.stack([found.mask(k) for k in range(len(scores))])
    np.testing.assert_array_equal(ours, masks.numpy() > 0)


def test_a_black_painting_shows_nothing():
    """Black is nearest to a location's colour, if not near enough for a score."""
    painting = np.zeros((100, 100, 3), np.uint8)
    found = painter.find_instances(painting)
    assert found.scores.tolist() == [0] and found.mask(0).all()
    _, segments = painter.merge(painting, painter.semantic_palette(133, 7), 80, found)
    assert len(segments) == 1 and segments[0][1] >= 80  # stuff, of the darkest colours


def scene(rng):
    """Three things apart, the rest two stuffs; ids and categories."""
    ids = np.full((240, 320), 10)
    ids[120:] = 11
    for number, (y, x, size) in enumerate(
        ((20, 30, 60), (30, 200, 90), (150, 90, 70)), 1
    ):
        ids[y : y + size, x : x + size] = number
    return ids, {1: 0, 2: 5, 3: 0, 10: 80, 11: 100}


def paintings(ids, classes, palette):
    semantic, _ = colors.paint(ids, [*classes], palette[[*classes.values()]])
    return semantic, painter.paint_locations(ids, [1, 2, 3])


def quality(ids, segments, truth, classes):
    categories = [{"id": k, "isthing": k < 80} for k in range(133)]
    metric = PanopticQuality(categories)
    metric.update(
        ids, [{"id": i, "category_id": k} for i, k in segments],
        truth, [{"id": i, "category_id": k} for i, k in classes.items()],
    )  # fmt: skip
    return metric.compute()


def test_a_painted_truth_is_found():
    rng = np.random.default_rng(0)
    truth, classes = scene(rng)
    palette = painter.semantic_palette(133, 7)
    semantic, places = paintings(truth, classes, palette)
    for noise in (0, 3):
        blurred = [
            np.clip(p + rng.normal(0, noise, p.shape), 0, 255).astype(np.uint8)
            for p in (semantic, places)
        ]
        found = painter.find_instances(blurred[1])
        answer = painter.merge(blurred[0], palette, 80, found)
        scores = quality(*answer, truth, classes)
        assert scores["pq"] > 0.99 and scores["rq"] == 1


def test_an_instance_is_of_a_thing_whatever_stuff_is_nearer():
    """By all pixels of its mask, those too that a better instance has taken."""
    palette = np.array([[200, 0, 0], [0, 200, 0], [0, 100, 0]], np.uint8)
    semantic = np.zeros((4, 10, 3), np.uint8) + palette[2]
    semantic[:, :4] = palette[0]
    index = np.arange(40).reshape(4, 10)
    near = np.zeros((2, 40), bool)
    near[0, index[:, :4]] = near[1, index[:, 2:9]] = True
    given = painter.Instances(np.array([0.9, 0.8]), near, index)
    _, segments = painter.merge(semantic, palette, 2, given, stuff_area=1)
    assert segments == [(1, 0), (2, 1), (3, 2)]


def test_rules_of_merging():
    """Small stuff is left out, faint instances too, and what is mostly covered."""
    palette = painter.semantic_palette(4, 2)
    semantic = np.zeros((10, 20, 3), np.uint8) + palette[2]
    semantic[:, 15:] = palette[3]
    semantic[:, :9] = palette[1]
    index = np.arange(200).reshape(10, 20)
    near = np.zeros((4, 200), bool)
    near[0, index[:, :8]] = True  # best
    near[1, index[:, 4:12]] = True  # half covered: exactly 0.5 is allowed
    near[2, index[:, 7:13]] = True  # more than half
    near[3, index[:, 16:]] = True  # too faint
    given = painter.Instances(np.array([0.9, 0.8, 0.7, 0.5]), near, index)
    ids, segments = painter.merge(semantic, palette, 2, given, stuff_area=30)
    assert segments == [(1, 1), (2, 1), (3, 2), (4, 3)]
    assert ids[0].tolist() == [1] * 8 + [2] * 4 + [3] * 3 + [4] * 5
    _, segments = painter.merge(semantic, palette, 2, given, stuff_area=31)
    assert segments == [(1, 1), (2, 1), (3, 3)]
