"""Videos frame by frame: corrections, objects that come and go, errors."""

import jax
import numpy as np
import pytest
from PIL import Image

from seggpt_jax import colors
from seggpt_jax.inference import Predictor
from seggpt_jax.inference.result import Decoded
from seggpt_jax.inference.session import _join
from seggpt_jax.pictures import images, tiles
from seggpt_jax.pictures.video import Frame
from seggpt_jax.predict import make_predict_fn, make_track_fns
from seggpt_jax.prompts.read import read_prompts
from tests.support.models import SMALL, random_params, small
from tests.support.pictures import label_map, picture

PARAMS = jax.device_get(random_params(small()))
FRAMES = [picture(seed=i) for i in range(6)]
FIRST = label_map()
MEMORY = 2


def session(first=FIRST):
    return Predictor(SMALL, PARAMS).video(first, memory=MEMORY)


def track(**given):
    ours = Predictor(SMALL, PARAMS)
    return ours.track(iter(FRAMES), FIRST, memory=MEMORY, **given)


def part(label, rows=slice(0, 20)):
    """An object that fills some rows of the left half."""
    mask = np.zeros((40, 30), np.uint8)
    mask[rows, :15] = label
    return mask


def same(one, other):
    for name in ("segments", "colors", "confidence", "painting"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.scores, one.palette) == (other.scores, other.palette)


def test_without_corrections_nothing_is_new():
    """Bit for bit the painting of `make_track_fns`, and the decoding of an image."""
    prompts = read_prompts([FRAMES[0]], [FIRST], "instance", (16, 16))
    start, step = make_track_fns(small(), MEMORY)
    state = start(PARAMS, prompts.images, prompts.targets, prompts.kind)
    by_step, results = session(), {ahead: list(track(ahead=ahead)) for ahead in (0, 1)}
    for number, frame in enumerate(FRAMES):
        result = by_step.step(frame)
        for ahead in (0, 1):
            same(result, results[ahead][number])
        if not number:
            np.testing.assert_array_equal(result.segments, FIRST)
            continue
        query = colors.normalize(images.resize_image(frame, (16, 16)))[None]
        painting, state = step(PARAMS, state, query, prompts.palette)
        whole = np.clip(colors.denormalize(np.asarray(painting)), 0, 255)[0]
        np.testing.assert_array_equal(result.painting, whole)
        shares = colors.Memberships(whole, prompts.palette)
        found, confidence = tiles.blend([shares], [tiles.Box(0, 0, 40, 30)], (40, 30))
        np.testing.assert_array_equal(result.segments, prompts.labels[found])
        np.testing.assert_array_equal(result.confidence, confidence)


def painted(segments, palette):
    """A target at the model's size, normalised."""
    rgb = np.array([palette[k] for k in range(3)], np.uint8)[segments]
    small = Image.fromarray(rgb).resize((16, 16), Image.Resampling.NEAREST)
    return colors.normalize(np.asarray(small))


def test_a_correction_is_a_prompt_that_stays():
    """Against the plain prediction function, given first frame, corrections, and the
    last frames, of which the corrected one has its right target."""
    right = {2: label_map((2, 1)), 3: part(1)}
    by_step, fn = session(), make_predict_fn(small())
    small_frames = [
        colors.normalize(images.resize_image(frame, (16, 16))) for frame in FRAMES
    ]
    palette = by_step.step(FRAMES[0]).palette
    stay, last = [(small_frames[0], painted(FIRST, palette))], []
    for number, query in enumerate(small_frames[1:5], start=1):
        result = by_step.step(FRAMES[number])
        shown = [np.stack(x)[None] for x in zip(*stay, *last[-MEMORY:], strict=True)]
        # All as often as gives 20 prompts: the same mean, and one program.
        assert 20 % shown[0].shape[1] == 0
        shown = [np.tile(x, (1, 20 // x.shape[1], 1, 1, 1)) for x in shown]
        wanted = np.asarray(fn(PARAMS, *shown, query[None], np.ones(1, np.int32)))[0]
        wanted = colors.denormalize(wanted)
        # The same sums in another order, of colours up to 255.
        np.testing.assert_allclose(result.painting, np.clip(wanted, 0, 255), atol=0.05)
        labels = colors.decode(wanted, np.array([palette[k] for k in range(3)]))
        target = colors.normalize(
            np.array([palette[k] for k in range(3)], np.uint8)[labels]
        )
        if number in right:
            if number == 3:  # of two corrections of a frame the second counts
                by_step.correct(FIRST)
            given = by_step.correct(right[number])
            np.testing.assert_array_equal(given.segments, right[number])
            assert given.palette == palette and set(given.scores.values()) <= {1.0}
            target = painted(right[number], palette)
            stay.append((query, target))
        last.append((query, target))
    assert not by_step.correct(np.zeros((40, 30), int)).segments.any()


def test_a_correction_of_the_first_frame_replaces_its_mask():
    first, other = label_map((2, 1)), session()
    other.step(FRAMES[0])
    other.correct(first)
    plain = session(first)
    plain.step(FRAMES[0])
    for frame in FRAMES[1:4]:
        same(other.step(frame), plain.step(frame))


def test_new_objects_that_vanish_at_the_models_size_are_said(caplog):
    video = session()
    video.step(FRAMES[0])
    video.add(part(255))
    video.correct(np.where(part(3) > 0, 3, FIRST))
    assert not caplog.records
    video.add(part(255, rows=slice(2, 3)))  # between two rows of the 16 that are seen
    (said,) = caplog.messages
    assert "never found" in said and "frame 0 (label 4 at 16 x 16)" in said


def test_added_objects_are_followed_apart():
    both, old = session(), session()
    for frame in FRAMES[:3]:
        before = both.step(frame)
        old.step(frame)
    added = both.add(part(255))  # a binary mask: the next free label
    new = part(1) > 0
    np.testing.assert_array_equal(added.segments, np.where(new, 3, before.segments))
    assert both.labels == [1, 2, 3] and (added.confidence[new] == 1).all()
    assert {k: added.palette[k] for k in (0, 1, 2)} == before.palette
    apart = Predictor(SMALL, PARAMS).video(part(3), memory=MEMORY)
    apart.step(FRAMES[2])
    apart._groups[0].palette[1] = added.palette[3]  # the colour it was painted in
    apart._colors[3] = added.palette[3]
    apart.correct(part(3))
    for frame in FRAMES[3:]:
        result, one, other = both.step(frame), old.step(frame), apart.step(frame)
        assert result.painting.shape == (2, 16, 16, 3)
        # Alone and beside others the same sums are made.
        np.testing.assert_array_equal(result.painting[0], one.painting)
        np.testing.assert_array_equal(result.painting[1], other.painting)
        wins = (other.segments == 3) & (
            (one.segments == 0) | (other.confidence > one.confidence)
        )
        wanted = np.where(wins, 3, one.segments)
        np.testing.assert_array_equal(result.segments, wanted)
        assert (wanted == 3).any()
        total = sum(result.shares.values())
        np.testing.assert_allclose(total, 1, atol=1e-5)
        own = np.stack(list(result.shares.values()))
        np.testing.assert_array_equal(own.argmax(0), result.segments)
        np.testing.assert_allclose(own.max(0), result.confidence, atol=1e-6)


def test_a_pixel_goes_to_the_largest_share():
    one = np.array([[0, 0, 1, 1, 1]]), np.float32([[0.9, 0.6, 0.5, 0.7, 0.4]])
    two = np.array([[0, 2, 2, 2, 0]]), np.float32([[0.8, 0.5, 0.6, 0.6, 0.9]])
    found, share = colors.strongest([one, two])
    assert found.tolist() == [[0, 2, 2, 1, 1]]
    np.testing.assert_array_equal(share, np.float32([[0.9, 0.5, 0.6, 0.7, 0.4]]))
    swapped, again = colors.strongest([two, one])
    assert (swapped == found).all() and (again == share).all()


@pytest.mark.parametrize("dropped", [False, True])
def test_shares_of_groups_are_made_to_sum_to_one(dropped):
    """By hand: of two pixels all say that the first is background. A share of what is
    followed no longer is background's."""
    one = np.float32([[[0.6, 0.3]], [[0.4, 0.7]]])
    two = np.float32([[[0.5, 0.4]], [[0.3, 0.5]], [[0.2, 0.1]]])
    joined = _join([
        (Decoded(shares.argmax(0), shares.max(0), shares.__getitem__), np.array(places))
        for shares, places in ((one, [0, 1]), (two, [0, 0 if dropped else 3, 2]))
    ])  # fmt: skip
    assert joined.found.tolist() == [[0, 1]]
    none, third = ([0.8, 0.3], [0, 0]) if dropped else ([0.6, 0.3], [0.3, 0.5])
    shares = np.array([none, [0.4, 0.7], [0.2, 0.1], third])
    shares /= shares.sum(0)
    for k in range(3 if dropped else 4):
        np.testing.assert_allclose(joined.share(k)[0], shares[k], rtol=1e-6)
    np.testing.assert_allclose(joined.confidence[0], shares[[0, 1], [0, 1]], rtol=1e-6)


def test_a_dropped_label_is_background_and_its_number_is_free():
    ours, plain = session(), session()
    for frame in FRAMES[:2]:
        ours.step(frame)
        colors_before = plain.step(frame).palette
    ours.drop(1)
    assert ours.labels == [2]
    result, whole = ours.step(FRAMES[2]), plain.step(FRAMES[2])
    np.testing.assert_array_equal(result.painting, whole.painting)
    wanted = np.where(whole.segments == 1, 0, whole.segments)
    np.testing.assert_array_equal(result.segments, wanted)
    assert result.palette == {k: colors_before[k] for k in (0, 2)}
    np.testing.assert_allclose(sum(result.shares.values()), 1, atol=1e-5)
    again = ours.add(part(1))
    assert again.palette == colors_before and ours.labels == [1, 2]
    ours.drop(2)  # the first group has nothing left to follow
    assert ours.step(FRAMES[3]).painting.shape == (16, 16, 3)
    assert ours.labels == [1]
    # Dropped and added in one frame: no pixel of before is the new object's.
    ours.add(part(2, slice(30, 40)))
    ours.drop(1)
    result = ours.add(part(1, slice(0, 5)))
    np.testing.assert_array_equal(result.segments == 1, part(1, slice(0, 5)) == 1)
    np.testing.assert_allclose(sum(result.shares.values()), 1, atol=1e-5)


def test_a_whole_video_takes_corrections_and_additions():
    by_step, wanted = session(), []
    for number, frame in enumerate(FRAMES):
        result = by_step.step(frame)
        if number == 1:
            by_step.correct(label_map((2, 1)))
            result = by_step.add(part(7))
        if number == 3:
            result = by_step.correct(part(7))
        wanted.append(result)
    given = {1: label_map((2, 1)), 3: part(7)}
    for ahead in (0, 1):
        results = track(corrections=given, additions={1: part(7)}, ahead=ahead)
        for result, each in zip(results, wanted, strict=True):
            same(result, each)


@pytest.mark.parametrize("ahead", [0, 1])
def test_results_carry_the_time_of_their_frame(ahead):
    times = [0.0, 0.5, 0.7, None, 9.25]
    frames = [Frame(*each) for each in zip(FRAMES, times, strict=False)]
    results = Predictor(SMALL, PARAMS).track(
        frames, FIRST, memory=MEMORY, ahead=ahead, corrections={2: FIRST}
    )
    assert [result.time for result in results] == times


def test_with_nothing_ahead_no_frame_is_read_before_its_turn():
    taken = []

    def camera():
        for frame in FRAMES:
            taken.append(frame)
            yield frame

    results = Predictor(SMALL, PARAMS).track(camera(), FIRST, memory=MEMORY, ahead=0)
    for number, _ in enumerate(results, start=1):
        assert len(taken) == number


@pytest.mark.parametrize(
    ("call", "given", "said"),
    [
        ("correct", part(5), "correction of frame 1: label 5 is not followed; followed "
         "are 1, 2, and `add` is for new objects"),
        ("correct", FIRST.T, "correction of frame 1 is 40 x 30, and its image 30 x 40"),
        ("correct", np.full((40, 30, 3), (200, 0, 90), np.uint8), "no label has th"),
        ("add", part(2), "new objects of frame 1: label 2 is followed already"),
        ("add", FIRST.T * 3, "new objects of frame 1 is 40 x 30"),
        ("add", part(0), "new objects of frame 1 shows no object"),
        ("add", FRAMES[0], "new objects of frame 1 has colours"),
        ("drop", 5, "label 5 is not followed; followed are 1, 2"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_the_session_goes_on(call, given, said):
    ours, plain = session(), session()
    for frame in FRAMES[:2]:
        ours.step(frame)
        plain.step(frame)
    with pytest.raises(ValueError, match=said):
        getattr(ours, call)(given)
    same(ours.step(FRAMES[2]), plain.step(FRAMES[2]))


def test_a_video_follows_something_from_its_first_frame_on():
    ours = session(part(1))
    with pytest.raises(ValueError, match="no frame yet: call step before correct"):
        ours.correct(part(1))
    ours.step(FRAMES[0])
    with pytest.raises(ValueError, match="label 1 is the last one"):
        ours.drop(1)
    with pytest.raises(ValueError, match="ahead = 2: must be 0 or 1"):
        track(ahead=2)
    with pytest.raises(ValueError, match="no frame -1: the first one is 0"):
        track(corrections={-1: FIRST})
    # Labels of later frames are known before these are segmented.
    with pytest.raises(ValueError, match="objects of frame 4: label 2 is followed al"):
        track(additions={4: part(2)})
    with pytest.raises(ValueError, match="of frame 4: label 7 is followed already"):
        track(additions={2: part(7), 4: part(7)})
    with pytest.raises(ValueError, match="of frame 4: label 3 is followed already"):
        track(additions={2: part(255), 4: part(3)})
    with pytest.raises(ValueError, match="correction of frame 2: label 7 is not foll"):
        track(corrections={2: part(7)}, additions={2: part(7)})
    track(corrections={3: part(7)}, additions={2: part(7)})
    late = track(additions={6: part(9)})
    with pytest.raises(ValueError, match="no frame 6 for a mask: .* frames 0 to 5"):
        list(late)


def test_painted_corrections_are_read_by_their_colours():
    ours = session()
    result = ours.step(FRAMES[0])
    ours.step(FRAMES[1])
    same(ours.correct(result.colors), ours.correct(FIRST))
