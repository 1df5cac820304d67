"""Choosing prompts: the best by construction is found, ties, errors, counted work."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from seggpt_jax import colors
from seggpt_jax.canvas import query_half, stitch
from seggpt_jax.cli import command, prompt_args
from seggpt_jax.data.sample import Sample
from seggpt_jax.evaluators import candidates
from seggpt_jax.evaluators.episodes import Episodes
from seggpt_jax.inference import Predictor
from seggpt_jax.predict import make_features_fn
from seggpt_jax.prompts import search
from seggpt_jax.prompts.read import Prompts
from seggpt_jax.runs.paths import locate
from tests.support.models import SMALL, random_params, small
from tests.support.pictures import label_map, picture

PARAMS = jax.device_get(random_params(small()))
FEATURES = make_features_fn(small())
PALETTE = np.array([[0, 0, 0], [255, 255, 255]], np.uint8)
SIDE = 8
KIND = np.zeros(1, np.int32)


def stripe(rows: int) -> np.ndarray:
    """A target of that many white rows."""
    target = np.zeros((SIDE, SIDE, 3), np.uint8)
    target[:rows] = 255
    return target


class Copying:
    """A model that pastes the prompt's target on the query, and counts its calls; the
    features of an image are its mean colour."""

    def __init__(self):
        self.encoded, self.painted, self.sizes = 0, 0, set()

    @property
    def functions(self):
        return search.Functions(self._features, self._encode, self._paint)

    def _features(self, images, kind):
        assert kind.shape == (len(images),)
        self.sizes.add(len(images))
        return images.mean((1, 2))

    def _encode(self, images, targets, kind):
        assert images.shape == targets.shape and kind.shape == (1,)
        self.encoded += 1
        return targets[0].mean(0)

    def _paint(self, prompts, queries):
        self.painted += len(queries)
        self.sizes.add(len(queries))
        return np.repeat(colors.denormalize(prompts)[None], len(queries), 0)


def candidates_of(rows):
    targets = colors.normalize(np.stack([stripe(r) for r in rows]))
    labels = np.arange(len(PALETTE))
    return Prompts(np.zeros_like(targets[None]), targets[None], KIND, labels, PALETTE)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_the_prompt_that_suits_the_others_scores_best(batch_size):
    model = Copying()
    scores = search.leave_one_out(
        model.functions, candidates_of([1, 4, 5, 4]), batch_size
    )
    np.testing.assert_allclose(scores[1], (1 / 4 + 4 / 5 + 1) / 3)
    np.testing.assert_allclose(scores[0], (1 / 4 + 1 / 5 + 1 / 4) / 3)
    assert search.best(scores, 1).places == (1,)  # of a tie, the first
    assert search.best(scores, 3).places == (1, 3, 2)
    assert model.encoded == 4  # each once
    assert model.sizes == {min(batch_size, 3)}  # one size is compiled


def test_ties_take_the_lower_place_and_nan_comes_last():
    found = search.best(np.array([0.5, np.nan, 0.7, 0.5]), 4)
    assert found.places == (2, 0, 3, 1)
    assert found.scores[0] == 0.7 and np.isnan(found.scores[3])


def test_similarity_is_the_angle():
    pool = np.array([[1, 0], [0, 9], [5, 5], [2, 2]], np.float32)
    found = search.similar(np.array([3, 3], np.float32), pool, 3)
    assert found.places == (2, 3, 0)
    np.testing.assert_allclose(found.scores, [1, 1, 0.5**0.5], atol=1e-6)
    assert search.similar(np.zeros(2, np.float32), pool, 2).places == (0, 1)


@pytest.mark.parametrize(
    "by, count, candidates, said",
    [
        ("luck", 1, 3, "by 'luck' is unknown"),
        ("score", 4, 3, "count is 4, must be 1 to 3"),
        ("similarity", 0, 3, "count is 0, must be 1 to 3"),
        ("score", 1, 1, "needs 2 candidates or more"),
    ],
)
def test_impossible_searches_are_refused(by, count, candidates, said):
    with pytest.raises(ValueError, match=said):
        search.check(by, count, candidates)


def test_features_tell_images_apart_and_do_not_see_the_batch():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
    found = np.asarray(FEATURES(PARAMS, images, np.zeros(2, np.int32)))
    assert found.shape == (2, 9 * SMALL.width) and np.isfinite(found).all()
    alone = np.asarray(FEATURES(PARAMS, images[1:2], KIND))
    np.testing.assert_allclose(found[1:2], alone, atol=1e-5)
    for i, own in enumerate(found):
        assert search.similar(own, found, 1).places == (i,)


def test_features_are_means_of_the_first_tap_over_a_prompt():
    """By the plain model: an image above itself, with black targets, the lower hidden;
    of 4 x 4 patches the first two rows and columns are one cell."""
    rng = np.random.default_rng(0)
    images, kind = rng.normal(size=(2, 16, 16, 3)).astype(np.float32), np.arange(2)
    found = FEATURES(PARAMS, images, kind.astype(np.int32))
    black = colors.normalize(np.zeros((2, *SMALL.canvas, 3), np.uint8))
    hidden = np.broadcast_to(query_half(SMALL.grid), (2, *SMALL.grid))
    shown = stitch(images, images), black, hidden, kind.astype(np.int32)
    _, out = jax.jit(small().apply)({"params": PARAMS}, *shown)
    tapped = np.asarray(out["tapped"])[:, :4, :, : SMALL.width]
    cells = [slice(0, 2), slice(2, 3), slice(3, 4)]
    means = [tapped[:, row, col].mean((1, 2)) for row in cells for col in cells]
    np.testing.assert_allclose(found, np.concatenate(means, 1), atol=1e-5)


POOL = [picture(seed=i) for i in range(5)]
MASKS = [np.roll(label_map(), i, 1) for i in range(5)]


@pytest.fixture(scope="module")
def ours():
    """One predictor for all: its functions are compiled once."""
    return Predictor(SMALL, PARAMS)


def test_a_predictor_keeps_the_best_scoring_prompts(ours):
    choice = ours.search_prompts(POOL, MASKS, 2)
    assert len(choice.places) == 2 and choice.scores[0] >= choice.scores[1]
    query = picture(seed=9)
    found = ours(query)
    assert found.choice is None
    assert ours.search_prompts(POOL, MASKS, 2) == choice
    places = list(choice.places)
    ours.set_prompts([POOL[k] for k in places], [MASKS[k] for k in places])
    np.testing.assert_array_equal(found.painting, ours(query).painting)


def test_each_query_gets_the_prompts_that_look_like_it(ours, monkeypatch):
    (encode, paint), calls = ours._engine.prompt_fns("feature"), []
    counted, ensembles = ((lambda *args: calls.append(1) or encode(*args)), paint), []
    asked = lambda ensemble: ensembles.append(ensemble) or counted  # noqa: E731
    monkeypatch.setattr(ours._engine, "prompt_fns", asked)
    monkeypatch.setattr(ours, "_ensemble", "spatial")
    assert ours.search_prompts(POOL, MASKS, 1, "similarity") is None
    assert ensembles == ["spatial"]  # as of the predictor's own prompts
    results = ours([POOL[3], POOL[1], POOL[3]])
    assert [result.choice.places for result in results] == [(3,), (1,), (3,)]
    assert results[0].choice.scores[0] == pytest.approx(1, abs=1e-4)
    assert len(calls) == 2  # one for each set
    with pytest.raises(
        ValueError, match="'similarity' cannot start a video: choose by 'score'"
    ):
        next(ours.track([POOL[0]]))
    ours.set_prompts(POOL[1], MASKS[1])
    by_hand = ours(POOL[1])
    assert by_hand.choice is None
    np.testing.assert_array_equal(results[1].painting, by_hand.painting)


def test_a_label_that_no_chosen_prompt_shows_is_not_found(ours):
    masks = [np.where(mask > 0, i + 1, 0) for i, mask in enumerate(MASKS)]
    ours.search_prompts(POOL, masks, 1, "similarity")
    assert set(ours.palette) == {0, 1, 2, 3, 4, 5}
    found = ours(POOL[2])
    assert set(np.unique(found.segments).tolist()) <= {0, 3}
    assert found.palette == {label: ours.palette[label] for label in (0, 3)}


def test_a_wrong_search_leaves_the_prompts(ours):
    ours.set_prompts(POOL[0], MASKS[0])
    before = ours(POOL[1]).painting
    with pytest.raises(ValueError, match="count is 6, must be 1 to 5"):
        ours.search_prompts(POOL, MASKS, 6)
    np.testing.assert_array_equal(ours(POOL[1]).painting, before)


class Scenes:
    """A class in images of random colours, as stripes of random width."""

    name, same_image_only = "scenes", False
    class_names, by_class = {1: "stripe", 2: "none"}, {1: range(12), 2: range(12, 20)}

    def __len__(self):
        return 20

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        image = np.broadcast_to(rng.integers(0, 256, 3), (SIDE, SIDE, 3))
        segments = np.zeros((SIDE, SIDE), np.int32)
        segments[: rng.integers(3, 7)] = 1 if index < 12 else 2
        return Sample(image.astype(np.uint8), segments, 0, (1 if index < 12 else 2,))


@pytest.mark.parametrize("how", ["score", "similarity"])
def test_episodes_show_the_best_of_their_pool_first(how):
    episodes = Episodes(Scenes(), (SIDE, SIDE), shots=6)
    drawn = episodes.draw(2)[0]
    model = Copying()
    found = candidates.sort_prompts(drawn, how, model.functions, 4)
    again = candidates.sort_prompts(episodes.draw(2)[0], how, Copying().functions, 3)
    assert found.records == again.records and found.records[0] == drawn.records[0]
    assert sorted(found.records) == sorted(drawn.records)
    assert found.records[0] not in found.records[1:]
    first = drawn.records[1:].index(found.records[1])
    assert first > 0  # it was not drawn first
    np.testing.assert_array_equal(found.images[0], drawn.images[first])
    np.testing.assert_array_equal(found.targets[0], drawn.targets[first])
    if how == "score":
        assert model.encoded == 6
    else:
        means = colors.normalize(np.stack([drawn.query, *drawn.images])).mean((1, 2))
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        assert first == np.argmax(means[1:] @ means[0])


def test_settings_of_a_pool_are_checked():
    candidates.check("none", 0, 4)
    with pytest.raises(ValueError, match="search 'luck' is unknown"):
        candidates.check("luck", 8, 1)
    with pytest.raises(ValueError, match="pool is 4, must be more than shots, 4"):
        candidates.check("score", 4, 4)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A pool of drawn examples in two folders, and images, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "cache_compiled", lambda: "elsewhere")
    for name in ("images", "masks", "photos"):
        Path(name).mkdir()
    for i in range(4):
        Image.fromarray(picture(48, 48, seed=i)).save(f"images/{i}.jpg")
        mask = label_map(h=48, w=48).astype(np.uint8)
        Image.fromarray(mask).save(f"masks/{i}.png")
    Path("images/notes.txt").write_text("no picture")
    Image.fromarray(picture(48, 48, seed=2)).save("photos/two.jpg")
    return tmp_path


def run(*argv: str) -> int:
    given = ("--model", "shapes", "--out", "out", "photos")
    with pytest.raises(SystemExit) as stopped:
        command.main(["segment", *given, *argv])
    return int(stopped.value.code)


def test_the_command_chooses_and_remembers(here, capsys):
    assert run("--prompt", "images:masks", "--prompts=auto:2") == 0
    said = [x for x in capsys.readouterr().out.splitlines() if x.startswith("prompts:")]
    assert said[0].count(".jpg (") == 2
    stored = json.loads(Path("out/config.json").read_text())
    assert stored["search"]["by"] == "score" and stored["search"]["count"] == 2
    assert len(stored["search"]["chosen"]) == 2 and len(stored["prompts"]) == 8
    assert run("--prompt", "images:masks", "--prompt", "auto:1") == 2
    assert "search" in capsys.readouterr().err


def test_the_command_chooses_for_each_image(here, capsys):
    assert run("--prompt", "auto:1:similarity", "--prompt", "images:masks") == 0
    assert "photos/two.jpg: images/2.jpg (1.000)" in capsys.readouterr().out
    stored = json.loads(Path("out/config.json").read_text())
    assert stored["search"] == {"by": "similarity", "count": 1}


@pytest.mark.parametrize(
    "prompts, said",
    [
        (["auto:2"], "beside the examples to choose from"),
        (["auto:1", "auto:2", "images:masks"], "auto:K once"),
        (["auto", "images:masks"], "--prompt auto: auto:K:score or auto:K:similarity"),
        (["auto:x", "images:masks"], "auto:K:score or auto:K:similarity is wanted"),
        (["auto:0", "images:masks"], "K 1 or more"),
        (["auto:2:score:3", "images:masks"], "auto:K:score"),
        (["auto:2:scores", "images:masks"], "did you mean 'score'"),
        (["images:masks/0.png"], "takes two folders, and masks/0.png is none"),
        (["images:photos"], "no mask of the same name for images/0.jpg, images/1.jpg"),
        (["images"], "IMAGE:MASK is wanted"),
        (["a.safetensors", "auto:2"], "a tuned prompt goes alone"),
    ],
)
def test_what_is_wrong_with_a_prompt_is_said(here, prompts, said):
    with pytest.raises(ValueError, match=said):
        prompt_args.read(prompts)


def test_a_tuned_prompt_in_a_bucket_is_one(bucket):
    path = f"{bucket}/tuned.safetensors"
    locate(path).write_bytes(b"")
    given = prompt_args.read([path])
    assert given.images == [path] and not given.masks


def test_names_with_colons(tmp_path, monkeypatch):
    """As cameras name pictures by the time of the day."""
    monkeypatch.chdir(tmp_path)
    for name in ("12:30.png", "12:30-mask.png", "b.png"):
        Image.fromarray(np.eye(9, dtype=np.uint8)).save(name)
    for image, mask in (("12:30.png", "12:30-mask.png"), ("b.png", "12:30-mask.png")):
        given = prompt_args.read([f"{image}:{mask}"])
        assert [*map(str, given.images)] == [image]
        assert [*map(str, given.masks)] == [mask]


def test_images_and_masks_without_partner_or_of_one_name_are_named(here):
    Image.fromarray(label_map().astype(np.uint8)).save("masks/7.png")
    with pytest.raises(ValueError, match="no image of the same name for masks/7.png"):
        prompt_args.read(["images:masks"])
    Image.fromarray(picture()).save("images/3.png")
    with pytest.raises(ValueError, match="3.jpg and images/3.png have the same name"):
        prompt_args.read(["images:masks"])


def test_more_than_the_pool_is_one_line(here, capsys):
    assert run("--prompt", "images:masks", "--prompt", "auto:9") == 2
    assert "auto:9: count is 9, must be 1 to 4" in capsys.readouterr().err
