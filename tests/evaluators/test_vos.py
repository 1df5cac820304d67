"""The video evaluator, on videos whose answers are known."""

import functools
import io
from zipfile import ZipFile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import eval as eval_config
from seggpt_jax import colors
from seggpt_jax.data.sample import IGNORE, INSTANCE, BadRecord, Sample
from seggpt_jax.evaluators import vos
from seggpt_jax.evaluators.cases import Cases
from seggpt_jax.evaluators.vos import Evaluator
from seggpt_jax.predict import TrackFns, make_track_fns
from tests.support import blocks
from tests.support.layouts import mask, photo, raw, stripes, write_json, write_lines
from tests.support.models import small_of

SIZE = (24, 32)


def copier(memory):
    """Paints what it was shown first, whatever the frame."""

    def start(params, images, targets, kind):
        assert kind.tolist() == [INSTANCE]  # objects are not categories
        return targets[:, 0]

    return TrackFns(
        start,
        lambda params, state, frame, palette: (params * state, state),
    )


def follower(memory):
    """Paints the frame's own pixels: a target where frames are painted targets."""
    return TrackFns(
        lambda params, images, targets, kind: None,
        lambda params, state, frame, palette: (frame, state),
    )


@pytest.fixture
def davis(tmp_path):
    """A video that stands still and one whose object leaves to the right."""
    root = tmp_path / "DAVIS"
    for video, moves in (("still", 0), ("away", 1)):
        for k in range(5):
            values = np.roll((1, 1, 0, 0, 0, 0, 0, 2), moves * k)
            photo(root / f"JPEGImages/480p/{video}/{k:05}.jpg", k, SIZE)
            mask(root / f"Annotations/480p/{video}/{k:05}.png", values, "P", SIZE)
    write_lines(root / "ImageSets/2017/val.txt", "still", "away")
    return raw("davis2017", tmp_path, "val")


def run(source, make=copier, params=1.0, cases=None, **settings):
    engine = blocks.engine(SIZE, track=make)
    evaluator = Evaluator(
        engine, name="vos", source=source, memories=(0, 3), **settings
    )
    return dict(evaluator.run(params, cases)), evaluator


def test_the_first_mask_copied_scores_as_the_baseline(davis):
    """Objects count alike: two that stand still (1), one of four columns that moves by
    one each frame, and one column that leaves at once."""
    scores, evaluator = run(davis)
    columns = {1: 2, 2: 1}
    expected = []
    for width in columns.values():
        frames = [max(0, width - k) / (width + min(width, k)) for k in (1, 2, 3)]
        expected.append(np.mean(frames))
    j = (1 + 1 + sum(expected)) / 4
    for arm in ("K0", "K3", "copy"):
        assert scores[f"vos/{arm}/j"] == pytest.approx(j)
        both = (scores[f"vos/{arm}/j"] + scores[f"vos/{arm}/f"]) / 2
        assert scores[f"vos/{arm}/jf"] == pytest.approx(both)
    assert evaluator.ranked() == [0, 1]
    rows = evaluator.rows(1.0, [1, 0])
    assert [row.caption.split()[0] for row in rows] == ["away", "still"]
    assert "J 1.00" in rows[1].caption
    ends, _ = run(davis, skip_ends=False)
    assert ends["vos/K0/j"] != scores["vos/K0/j"]
    still, _ = run(davis, videos=1)
    assert still["vos/K3/j"] == still["vos/K3/f"] == 1


def test_a_stopped_run_goes_on_where_it_was(davis, tmp_path):
    reference, _ = run(davis)

    def broken(memory):
        fns = copier(memory)

        def start(params, images, *rest):
            broken.starts += 1
            if broken.starts > 2:  # of the second video
                raise RuntimeError("stopped")
            return fns.start(params, images, *rest)

        return TrackFns(start, fns.step)

    broken.starts = 0
    folder = tmp_path / "cases"
    with pytest.raises(RuntimeError, match="stopped"), Cases(folder) as cases:
        run(davis, broken, cases=cases)
    broken.starts = 0
    with Cases(folder) as cases:
        assert cases.left(2) == [1]
        assert run(davis, broken, cases=cases)[0] == reference


def test_a_black_painting_scores_nothing(davis):
    black = colors.normalize(np.zeros((1, 1, 1, 3), np.uint8))

    def make(memory):
        step = lambda p, s, frame, palette: (jnp.zeros_like(frame) + black, s)  # noqa: E731
        return TrackFns(lambda *_: None, step)

    scores, _ = run(davis, make)
    # An object that is gone counts as found by an empty mask; here none is ever gone.
    assert scores["vos/K0/j"] == 0 and scores["vos/K0/f"] == 0
    assert scores["vos/copy/j"] > 0


def test_objects_at_their_own_resolution(tmp_path):
    """Frames of twice the model's size, painted as their targets: edges within a pixel
    of the model's."""
    root = tmp_path / "DAVIS"
    for k in range(4):
        values = np.roll((1, 1, 0, 2, 2, 0), k)
        labels = stripes(values, (48, 64))
        mask(root / f"Annotations/480p/v/{k:05}.png", values, "P", (48, 64))
        target, _ = colors.paint(
            labels.astype(np.int32), (1, 2), colors.spread_palette(2)
        )
        path = root / f"JPEGImages/480p/v/{k:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(target).save(path, quality=100, subsampling=0)
    write_lines(root / "ImageSets/2017/val.txt", "v")
    scores, _ = run(raw("davis2017", tmp_path, "val"), follower)
    assert scores["vos/K0/j"] > 0.9 and scores["vos/K0/f"] > 0.95
    assert scores["vos/copy/j"] < 0.5


@pytest.fixture
def youtube(tmp_path):
    """The second object, of an unseen class, appears in the third frame of five."""
    root = tmp_path / "train"
    for k in range(5):
        photo(root / f"JPEGImages/v/{k:05}.jpg", k, SIZE)
        values = (1, 0, 0, 7) if k > 1 else (1, 0, 0, 0)
        mask(root / f"Annotations/v/{k:05}.png", values, "P", SIZE)
    objects = {"1": {"category": "dog"}, "7": {"category": "kite"}}
    write_json(root / "meta.json", {"videos": {"v": {"objects": objects}}})
    return raw("youtube_vos", tmp_path, "train")


def test_objects_that_appear_later_and_g(youtube):
    scores, _ = run(youtube, appear=True, seen=["dog"])
    assert scores["vos/K0/g"] == scores["vos/K0/j_seen"] == 1
    assert scores["vos/K3/f_unseen"] == 1
    late = run(youtube, appear=True)[1]
    assert len(late.rows(1.0, late.ranked())) == 1
    first, _ = run(youtube)
    assert "vos/K0/g" not in first and first["vos/K0/j"] == 1
    with pytest.raises(ValueError, match=r"seen: the source has no class \['cat'\]"):
        run(youtube, seen=["cat"])


def test_arms_objects_and_groups_are_kept_apart(youtube):
    """Painted in full: with the longer memory the first object, with the shorter one
    nothing; the second object is never painted."""

    def make(memory):
        starts: list = []

        def start(params, images, targets, kind):
            starts.append(len(starts))
            dark = starts[-1] > 0 or memory == 0
            return targets[:, 0] * 0 + black if dark else targets[:, 0]

        return TrackFns(start, lambda p, state, frame, palette: (state, state))

    black = colors.normalize(np.zeros((1, 1, 1, 3), np.uint8))
    scores, _ = run(youtube, make, appear=True, seen=["dog"])
    for arm, seen, unseen in (("K3", 1, 0), ("K0", 0, 0), ("copy", 1, 1)):
        for name in "jf":
            assert scores[f"vos/{arm}/{name}_seen"] == seen
            assert scores[f"vos/{arm}/{name}_unseen"] == unseen
        assert scores[f"vos/{arm}/g"] == (seen + unseen) / 2


@pytest.mark.parametrize("surer", [0, 1])
def test_objects_of_two_groups_share_pixels_by_their_shares(youtube, surer):
    """Both are painted everywhere: all pixels are those of the surer one."""

    def make(memory):
        starts: list = []

        def start(*_):
            starts.append(len(starts))
            return starts[-1]

        def step(params, group, frame, palette):
            color = palette[1] * (1.0 if group == surer else 0.8)
            painting = colors.normalize(np.asarray(color, np.float32))
            return jnp.broadcast_to(painting, frame.shape), group

        return TrackFns(start, step)

    scores, _ = run(youtube, make, appear=True, seen=["dog"], skip_ends=False)
    # The last two of five frames have both; a quarter of a frame is the object.
    assert scores["vos/K0/j_unseen"] == (0.25 if surer else 0)


@pytest.fixture
def valid(tmp_path):
    """The owners' valid: an object is shown where it begins and nowhere else."""
    root = tmp_path / "valid"
    for k in range(5):
        photo(root / f"JPEGImages/v/{k:05}.jpg", k, SIZE)
    mask(root / "Annotations/v/00000.png", (1, 0, 0, 0), "P", SIZE)
    mask(root / "Annotations/v/00002.png", (0, 0, 0, 7), "P", SIZE)
    frames = [f"{k:05}" for k in range(5)]
    objects = {
        "1": {"category": "dog", "frames": frames},
        "7": {"category": "kite", "frames": frames[2:]},
    }
    write_json(root / "meta.json", {"videos": {"v": {"objects": objects}}})
    return raw("youtube_vos", tmp_path, "valid")


@pytest.mark.parametrize("appear", [True, False])
def test_a_frame_without_an_objects_truth_does_not_score_it(valid, appear):
    """In the third frame the first object has no truth; it is followed there."""
    scores, evaluator = run(valid, appear=appear, seen=["dog"], skip_ends=False)
    assert {name.split("/")[1] for name in scores} == {"K0", "K3", "copy"}
    assert all(np.isnan(value) for value in scores.values())
    assert evaluator.ranked() == []
    (row,) = evaluator.rows(1.0, [0])  # the third frame
    assert row.caption == "v   not annotated"


def test_an_object_that_is_shown_again_is_scored(valid, tmp_path):
    """By whoever adds truth to a later frame: the other object is not scored there."""
    mask(tmp_path / "valid/Annotations/v/00003.png", (0, 1, 0, 0), "P", SIZE)
    scores, _ = run(raw("youtube_vos", tmp_path, "valid"), appear=True, seen=["dog"])
    assert scores["vos/K0/j_seen"] == 0 and scores["vos/copy/j"] == 0
    assert "vos/K0/j_unseen" not in scores


def test_ignored_pixels_are_of_no_object():
    """Half of what is painted is void: all of the rest is right."""
    segments = np.zeros((20, 20), np.int32)
    segments[5:15, 5:10], segments[5:15, 10:15] = 1, IGNORE
    pred = np.where(segments == IGNORE, 1, segments)
    sample = Sample(np.zeros((20, 20, 3), np.uint8), segments, INSTANCE, (1,))
    values: dict = {}
    vos._score(values, [1], {"K1": pred}, sample)
    assert values == {1: {"K1": [(1.0, 1.0)]}}


def test_the_zip_file_is_of_the_longest_memory(youtube, tmp_path):
    """With the shorter memory nothing is painted."""
    black = colors.normalize(np.zeros((1, 1, 1, 3), np.uint8))

    def make(memory):
        light = jnp.float32(memory > 0)
        return TrackFns(
            lambda params, images, targets, kind: targets[:, 0],
            lambda p, state, *_: (light * state + (1 - light) * black, state),
        )

    with Cases(tmp_path / "cases") as cases:
        run(youtube, make, cases=cases, export="x.zip")
    with ZipFile(tmp_path / "cases/x.zip") as archive:
        picture = Image.open(io.BytesIO(archive.read("v/00001.png")))
        np.testing.assert_array_equal(picture, stripes((1, 0, 0, 0), SIZE))


def test_the_zip_file_for_a_server(youtube, tmp_path):
    """Every frame's labels as a PNG with a palette; what was given is the answer."""
    folder = tmp_path / "cases"
    settings = dict(appear=True, export="answers.zip")
    for _ in range(2):  # the second time there is nothing left to do
        with Cases(folder) as cases:
            scores, _ = run(youtube, cases=cases, **settings)
        assert scores["vos/K3/j"] == 1
    with pytest.raises(ValueError, match="export answers.zip: there is no folder"):
        run(youtube, **settings)
    with ZipFile(folder / "answers.zip") as archive:
        assert archive.namelist() == [f"v/{k:05}.png" for k in range(5)]
        for k in range(5):
            picture = Image.open(io.BytesIO(archive.read(f"v/{k:05}.png")))
            values = (1, 0, 0, 7) if k > 1 else (1, 0, 0, 0)
            assert picture.mode == "P" and picture.size == SIZE[::-1]
            np.testing.assert_array_equal(np.asarray(picture), stripes(values, SIZE))
    assert [p.name for p in folder.rglob("*") if "part" in p.name] == []
    with Cases(tmp_path / "other") as cases:
        run(youtube, cases=cases, **settings, export_folder="Annotations")
    with ZipFile(tmp_path / "other/answers.zip") as archive:
        names = [f"Annotations/v/{k:05}.png" for k in range(5)]
        assert archive.namelist() == names


def test_the_rows_of_servers_pack_as_public_code_does():
    """YouTube-VOS: github.com/hkchengrex/XMem, eval.py; both: github.com/hkchengrex/
    Cutie, make_zip of cutie/inference/utils/results_utils.py."""
    folders = {
        name: eval_config.get_config(name).evals[name].export_folder
        for name in ("ytvos18", "mose")
    }
    assert folders == {"ytvos18": "Annotations", "mose": ""}


def test_frames_that_nobody_annotated_are_not_scored(tmp_path):
    root = tmp_path / "valid"
    for k in range(4):
        photo(root / f"JPEGImages/v/{k:05}.jpg", k, SIZE)
    mask(root / "Annotations/v/00000.png", (1, 0), "P", SIZE)
    scores, _ = run(raw("mose", tmp_path, "valid"))
    assert all(np.isnan(value) for value in scores.values())


def test_what_cannot_be_followed(davis, tmp_path):
    for path in (tmp_path / "DAVIS/Annotations/480p/away").glob("00000.png"):
        mask(path, (0, 255), "P", SIZE)
    with pytest.raises(ValueError, match="the first frame of away shows no object"):
        run(raw("davis2017", tmp_path, "val"))
    photo(tmp_path / "images/a.jpg")
    mask(tmp_path / "masks/a.jpg", (0, 255))
    with pytest.raises(ValueError, match="source 'kvasir_seg' has no videos"):
        run(raw("kvasir_seg", tmp_path, "all"))
    with pytest.raises(ValueError, match=r"memories is \(3, 3\), must list"):
        Evaluator(blocks.engine(SIZE), name="v", source=davis, memories=(3, 3))


@pytest.mark.slow  # test_rows.py scores videos on eight devices
def test_the_jitted_model_on_any_devices(davis):
    """The real tracking functions, parameters on one device and on eight."""
    model, params = small_of(SIZE)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = jax.NamedSharding(mesh, jax.sharding.PartitionSpec())
    results = []
    for where in (jax.devices()[0], everywhere):
        put = functools.partial(jax.device_put, device=where)
        track = functools.partial(make_track_fns, model)
        engine = blocks.engine(SIZE, track=track, put_everywhere=put)
        evaluator = Evaluator(engine, name="vos", source=davis, memories=(2,))
        results.append(dict(evaluator.run(put(params))))
    assert results[0] == results[1]


def test_a_frame_that_cannot_be_scored_is_named(davis, tmp_path):
    """DAVIS annotates every frame: a score without one would be another score."""
    kinds = {"Annotations": ".png", "JPEGImages": ".jpg"}
    for kind, suffix in kinds.items():
        path = tmp_path / f"DAVIS/{kind}/480p/away/00002{suffix}"
        whole = path.read_bytes()
        for change in (path.unlink, lambda: path.write_bytes(whole[:40])):  # noqa: B023
            change()
            with pytest.raises(BadRecord, match=f"away/00002{suffix}"):
                run(raw("davis2017", tmp_path, "val"))
            path.write_bytes(whole)
