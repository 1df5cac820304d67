"""The Predictor: the released engine's painting, and what is made of it."""

import itertools
import struct
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from seggpt_jax import colors
from seggpt_jax.inference import Predictor
from seggpt_jax.models.params import to_torch
from seggpt_jax.pictures import video
from seggpt_jax.predict import make_predict_fn
from seggpt_jax.weights import torch_bridge
from tests.support.models import SMALL, random_params, small
from tests.support.pictures import label_map, picture
from tests.support.videos import write_clip
from tests.test_predict import definition

PARAMS = jax.device_get(random_params(small()))
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
RNG = np.random.default_rng(0)


def predictor(**given):
    made = Predictor(SMALL, PARAMS, **given)
    made.set_prompts(picture(seed=1), label_map())
    return made


def engine(path_image, prompts, targets):
    """The released engine's way from files to the painting, in its own words: Pillow's
    default resizing, doubles, ImageNet constants."""
    size = (16, 16)

    def image(picture):
        return (np.array(Image.fromarray(picture).resize(size)) / 255 - MEAN) / STD

    def target(picture):
        near = Image.fromarray(picture).resize(size, Image.Resampling.NEAREST)
        return (np.array(near) / 255 - MEAN) / STD

    shown = np.stack([image(p) for p in prompts]).astype(np.float32)
    painted = np.stack([target(t) for t in targets]).astype(np.float32)
    return shown, painted, image(path_image)[None].astype(np.float32)


@pytest.mark.parametrize("count", [1, 3])
def test_colour_prompts_paint_as_the_released_engine(count):
    """To 0.05 of 255; several prompts against the plain model, for the port ensembles
    otherwise (docs/parity.md)."""
    prompts = [picture(50, 20 + i, seed=i) for i in range(count)]
    targets = [np.rot90(p, 2).copy() for p in prompts]
    query = picture(33, 41, seed=9)
    ours = Predictor(SMALL, PARAMS)
    ours.set_prompts(prompts, targets)
    shown, painted, asked = engine(query, prompts, targets)
    if count == 1:
        state = to_torch(SMALL, PARAMS, "hf")
        with torch.inference_mode():
            port = torch_bridge.build_port(SMALL, state)
        theirs = torch_bridge.run_port(port, shown, painted, asked)[0]
    else:
        theirs = np.asarray(
            definition(small(), PARAMS, shown[None], painted[None], asked,
                       np.zeros(1, np.int32))[0]
        )  # fmt: skip
    wanted = np.clip((theirs * STD + MEAN) * 255, 0, 255)
    np.testing.assert_allclose(ours(query).painting, wanted, atol=0.05)


def test_segments_have_the_image_size_and_the_prompts_labels():
    ours = Predictor(SMALL, PARAMS)
    ours.set_prompts(picture(), label_map((7, 300, 9, 12, 40)))
    result = ours(picture(33, 57, seed=3))
    assert result.segments.shape == (33, 57) and result.segments.dtype == np.int32
    found = set(np.unique(result.segments).tolist())
    assert found <= {0, 7, 300, 9, 12, 40} and len(found) > 1
    assert set(result.scores) == found - {0}
    assert (
        list(ours.palette) == [0, 7, 9, 12, 40, 300] and ours.palette == result.palette
    )
    for label, color in result.palette.items():
        assert (result.colors[result.segments == label] == color).all()
    for label, score in result.scores.items():
        mean = result.confidence[result.segments == label].mean()
        assert score == pytest.approx(float(mean), rel=1e-5)
    assert 1 / 6 - 1e-6 <= result.confidence.min() <= result.confidence.max() <= 1


def test_a_painting_is_decoded_to_the_nearest_colour():
    """At the model's size nothing is resized, so that the rule can be read off."""
    result = predictor()(picture(16, 16, seed=5))
    palette = np.array(list(result.palette.values()))
    nearest = colors.decode(result.painting, palette)
    labels = np.array(list(result.palette))
    np.testing.assert_array_equal(result.segments, labels[nearest])


def test_a_painting_keeps_to_the_range_of_colours():
    head = {k: v + 9 for k, v in PARAMS["decoder"]["head"].items()}
    bright = PARAMS | {"decoder": PARAMS["decoder"] | {"head": head}}
    ours = Predictor(SMALL, bright)
    ours.set_prompts(picture(seed=1), label_map())
    frames = [picture(seed=2), picture(seed=3)]
    for result in (ours(frames[0]), *ours.track(frames, memory=2)):
        assert result.painting.max() == 255 and result.painting.min() >= 0


def test_one_a_list_and_an_iterator_are_segmented_alike():
    pictures = [picture(20 + i, 30, seed=i) for i in range(5)]
    ours = predictor(batch_size=2)
    alone = [predictor(batch_size=1)(p) for p in pictures]
    for results in (ours(pictures), list(ours(iter(pictures)))):
        assert len(results) == 5
        for one, many in zip(alone, results, strict=True):
            # Batches change the order of sums; colours are up to 255.
            np.testing.assert_allclose(one.painting, many.painting, atol=0.01)
            assert (one.segments == many.segments).mean() > 0.99


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray, torch.tensor])
def test_arrays_of_any_library_are_arrays(make):
    ours, images = predictor(), np.stack([picture(seed=i) for i in range(3)])
    masks = np.stack([label_map(labels) for labels in ((1, 2), (1,), (2,))])
    expected = ours(images[0])
    np.testing.assert_array_equal(ours(make(images[0])).painting, expected.painting)
    assert len(list(ours(make(images[:2])))) == 2
    ours.set_prompts(list(images), list(masks))
    listed = ours(images[0])
    for shown, targets in (
        (make(images), make(masks)),
        (make(images), make(masks[..., None])),
        (list(images), make(masks)),
        ([make(image) for image in images], [make(mask) for mask in masks]),
    ):
        ours.set_prompts(shown, targets)
        np.testing.assert_array_equal(ours(images[0]).painting, listed.painting)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (picture().transpose(2, 0, 1), r"image 1 \(3, 40, 30\).*channels stand last"),
        (torch.zeros(4, 4, requires_grad=True), "cannot be made a NumPy array"),
        (np.ma.masked_array(picture(), picture() > 9), "is a masked array: fill it"),
    ],
)
def test_what_is_no_picture_is_named(given, said):
    with pytest.raises(ValueError, match=said):
        list(predictor()(given))


def test_bits_of_images_are_a_setting(caplog):
    grey = picture()[..., :1]
    deep = grey.astype(np.uint16) * 16
    ours = Predictor(SMALL, PARAMS, bits=12)
    ours.set_prompts(grey, label_map())
    expected = ours(grey).painting
    ours.set_prompts(deep, label_map())
    np.testing.assert_array_equal(ours(deep).painting, expected)
    wrong = predictor()
    for _ in range(2):
        assert wrong.read_image(deep).max() < 16
    assert len([r for r in caplog.records if "look nearly black" in r.message]) == 1
    with pytest.raises(ValueError, match="bits = 17: must be a whole number of 8 to"):
        Predictor(SMALL, PARAMS, bits=17)


def test_an_iterator_is_read_only_a_little_ahead():
    taken = []

    def endless():
        for i in itertools.count():
            taken.append(i)
            yield picture(seed=i)

    results = predictor(batch_size=1)(endless())
    for _ in range(3):
        next(results)
    assert len(taken) <= 6
    results.close()


def test_tiles_are_segmented_as_images_are():
    image = picture(48, 32, seed=2)
    whole, tiled = predictor(), predictor(tile=32, batch_size=3)
    result = tiled(image)
    assert result.segments.shape == (48, 32)
    assert result.painting.shape == (2, 16, 16, 3)
    np.testing.assert_allclose(
        result.painting[1], whole(image[16:]).painting, atol=0.01
    )
    assert len(predictor(tile=32, overlap=0.75)(image).painting) == 3
    small_one = tiled(image[:30, :30])
    np.testing.assert_array_equal(small_one.segments, whole(image[:30, :30]).segments)


@pytest.mark.parametrize("tile", [0, 24])
def test_shares_are_what_the_labels_are_chosen_by(tile):
    ours = Predictor(SMALL, PARAMS, tile=tile)
    ours.set_prompts(picture(), label_map((7, 9, 12, 40, 300)))
    result = ours(picture(33, 57, seed=3))
    labels = list(result.shares)
    assert labels == [0, 7, 9, 12, 40, 300]
    assert tile or len(np.unique(result.segments)) > 1
    shares = np.stack([result.shares[label] for label in labels])
    assert shares.dtype == np.float32 and shares.shape == (6, 33, 57)
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(np.array(labels)[shares.argmax(0)], result.segments)
    np.testing.assert_array_equal(shares.max(0), result.confidence)
    with pytest.raises(KeyError):
        result.shares[8]


def tracked(frames, first, memory):
    """The rule of tracking, written with the plain prediction function."""
    ours = Predictor(SMALL, PARAMS)
    ours.set_prompts(frames[0], first, "instance")
    prompts = ours._prompted().prompts
    shown, painted = [prompts.images[0, 0]], [prompts.targets[0, 0]]
    fn, paintings = make_predict_fn(small()), []
    for frame in frames[1:]:
        resized = Image.fromarray(frame).resize((16, 16), Image.Resampling.BICUBIC)
        query = colors.normalize(np.asarray(resized))[None]
        last = slice(max(1, len(shown) - memory), None)
        args = [np.stack([x[0], *x[last]])[None] for x in (shown, painted)]
        # All as often as gives 6 prompts: the same mean, and one program.
        args = [np.tile(x, (1, 6 // x.shape[1], 1, 1, 1)) for x in args]
        painting = np.asarray(fn(PARAMS, *args, query, np.ones(1, np.int32)))[0]
        paintings.append(np.clip(colors.denormalize(painting), 0, 255))
        labels = colors.decode(colors.denormalize(painting), prompts.palette)
        shown.append(query[0])
        painted.append(colors.normalize(prompts.palette[labels]))
    return paintings


def test_tracking_remembers_the_first_and_the_last_frames():
    memory = 2
    frames, first = [picture(seed=i) for i in range(6)], label_map(range(1, 6))
    results = list(Predictor(SMALL, PARAMS).track(iter(frames), first, memory=memory))
    assert len(results) == 6
    np.testing.assert_array_equal(results[0].segments, first)
    wanted = tracked(frames, first, memory)
    for result, painting in zip(results[1:], wanted, strict=True):
        # The same sums in another order, of colours up to 255.
        np.testing.assert_allclose(result.painting, painting, atol=0.05)
    # Several objects are remembered at once, where the released engine keeps one.
    assert max(len(result.scores) for result in results[1:-1]) > 1


def test_tracking_starts_from_prompts_too():
    ours, frames = predictor(), [picture(seed=i) for i in range(3)]
    without = list(ours.track(frames, memory=0))
    for result, frame in zip(without, frames, strict=True):
        np.testing.assert_allclose(result.painting, ours(frame).painting, atol=0.01)
    assert len(list(ours.track(frames, memory=2))) == 3
    # A frame is never cut into tiles, whose memories would be others.
    for result, whole in zip(
        predictor(tile=16).track(frames, memory=0), without, strict=True
    ):
        np.testing.assert_array_equal(result.painting, whole.painting)


def test_the_first_frame_is_its_own_result():
    first = label_map((7, 300))
    result = next(Predictor(SMALL, PARAMS).track([picture()], first))
    np.testing.assert_array_equal(result.segments, first)
    for label in (0, 7, 300):
        assert (result.colors[first == label] == result.palette[label]).all()
    assert result.scores == {7: 1, 300: 1} and (result.confidence == 1).all()
    for label, share in result.shares.items():
        np.testing.assert_array_equal(share, first == label)


def test_a_video_of_any_length_takes_the_same_memory():
    """Frames are taken as results are, and none is kept."""
    taken: list[weakref.ref] = []

    def endless():
        for i in itertools.count():
            frame = picture(seed=i)
            taken.append(weakref.ref(frame))
            yield frame

    results = Predictor(SMALL, PARAMS).track(endless(), label_map(), memory=2)
    for number in range(1, 13):
        next(results)
        assert len(taken) <= number + 3
        assert sum(frame() is not None for frame in taken) <= 4


def test_a_video_file_is_decoded_as_it_goes(tmp_path):
    frames = [picture(32, 48, seed=1)] * 5
    path = tmp_path / "x.mp4"
    write_clip(path, frames)
    assert video.probe(path) == (5, 5, True)
    results = list(Predictor(SMALL, PARAMS).track(path, label_map(h=32, w=48)))
    assert [result.time for result in results] == [0, 0.2, 0.4, 0.6, 0.8]
    assert {r.segments.shape for r in results} == {(32, 48)}


@pytest.mark.parametrize("turn, times", [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2)])
def test_a_video_is_shown_as_its_file_says(tmp_path, turn, times):
    """Telephones store frames on their side, with a matrix: to the right, or about."""
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[:, :24] = 255
    frame[:8] = 128
    path = tmp_path / "x.mp4"
    write_clip(path, [frame] * 3)
    a, b, c, d = (value << 16 for value in turn)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    wanted = np.rot90(frame, times).astype(int)
    for found, _ in video.read_frames(path):
        assert found.shape == wanted.shape
        assert abs(found - wanted).mean() < 8  # the codec's loss


@pytest.mark.parametrize(
    ("prompt", "target", "kind", "said"),
    [
        (picture(), label_map(), "categroy", "did you mean 'category'"),
        ([], [], "category", "0 prompt images, 0 targets"),
        ([picture()] * 2, [label_map()], "category", "2 prompt images, 1 target:"),
        (
            picture(40, 40),
            label_map(h=40, w=60),
            "category",
            "is 60 x 40, and its",
        ),
        (picture(), np.zeros((40, 30), int), "category", "they show no label at all"),
        ([picture()] * 2, [label_map(), picture()], "category", "labels and some col"),
    ],
)
def test_bad_prompts_are_named_and_the_old_ones_stay(prompt, target, kind, said):
    ours = predictor()
    before = ours(picture(seed=8))
    with pytest.raises(ValueError, match=said):
        ours.set_prompts(prompt, target, kind)
    np.testing.assert_array_equal(ours(picture(seed=8)).painting, before.painting)


def test_what_is_missing_or_out_of_range_is_named():
    with pytest.raises(ValueError, match="call set_prompts first"):
        Predictor(SMALL, PARAMS)(picture())
    with pytest.raises(ValueError, match=r"overlap = 1\.5: must be in \[0, 1\)"):
        Predictor(SMALL, PARAMS, overlap=1.5)
    with pytest.raises(ValueError, match="ensemble 'mean' is not one of"):
        Predictor(SMALL, PARAMS, ensemble="mean")
    with pytest.raises(ValueError, match="the video has no frames"):
        Predictor(SMALL, PARAMS).track([], label_map())
    with pytest.raises(ValueError, match="image 2 is float64"):
        predictor()([picture(), np.zeros((4, 4, 3))])


@pytest.mark.parametrize("ensemble", ["feature", "spatial", "both"])
def test_prompts_are_combined_as_the_setting_says(ensemble):
    ours = Predictor(SMALL, PARAMS, ensemble=ensemble)
    assert ours._encode is ours._engine.prompt_fns(ensemble).encode_prompts


def test_many_sets_of_prompts_are_held_at_once():
    """Each call is given its set; the prompts that are set stay."""
    ours, query = predictor(), picture(seed=8)
    shown = [(picture(seed=2), label_map((7, 9))), (picture(seed=3), label_map((1,)))]
    sets = [ours.encode_prompts(*each, names={7: "cat"}) for each in shown]
    for prompts, each in zip(sets, shown, strict=True):
        alone = Predictor(SMALL, PARAMS)
        alone.set_prompts(*each)
        for result in (ours(query, prompts), *ours([query], prompts)):
            np.testing.assert_array_equal(result.painting, alone(query).painting)
            assert result.palette == prompts.palette == alone.palette
    assert sets[0].names == {7: "cat"} and sets[0].kind == ours.kind
    np.testing.assert_array_equal(ours(query).painting, predictor()(query).painting)
    ours.search_prompts([picture(seed=2)], [label_map()], by="similarity")
    assert ours(query).choice and ours(query, sets[0]).choice is None


def test_half_precision_is_close():
    exact, half = predictor(), Predictor(SMALL.replace(dtype="bfloat16"), PARAMS)
    half.set_prompts(picture(seed=1), label_map())
    # 8 bits of mantissa through four blocks, on colours up to 255.
    a, b = (p(picture(seed=3)).painting for p in (exact, half))
    assert np.abs(a - b).mean() < 12


@settings(max_examples=25, deadline=None)
@given(count=st.integers(0, 150))
def test_palettes_are_far_apart(count):
    palette = colors.spread_palette(count)
    assert palette.shape == (count, 3)
    rows = np.concatenate([[[0, 0, 0]], palette]).astype(int)
    gaps = np.abs(rows[:, None] - rows[None]).sum(-1)
    gaps = gaps[~np.eye(len(rows), dtype=bool)]
    # As many balls of half the gap as fit; black and white are 765 apart.
    assert gaps.min(initial=765) >= (190 if count <= 12 else 60)
    np.testing.assert_array_equal(palette[:3], colors.spread_palette(150)[:3][:count])


def test_there_are_only_so_many_colours():
    with pytest.raises(ValueError, match="728"):
        colors.spread_palette(1000)
