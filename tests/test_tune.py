"""Tuned prompts: what is learned, what stays, and what is kept of it."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from configs import tune as tune_config
from seggpt_jax import canvas, colors, painter, tune
from seggpt_jax.cli import command
from seggpt_jax.config import plain
from seggpt_jax.data import augment
from seggpt_jax.inference import Predictor
from seggpt_jax.models.flops import training_flops
from seggpt_jax.predict import make_predict_fns
from seggpt_jax.prompts.file import load_prompts, save_prompts
from seggpt_jax.runs.sharding import put_replicated
from seggpt_jax.train import Loop, NonFinite, follow
from seggpt_jax.training.settings import read_settings
from seggpt_jax.trees import digest
from seggpt_jax.weights import names, release
from seggpt_jax.weights.pretrained import load
from tests import tiny
from tests.support import miniatures
from tests.support.models import SMALL, random_params, small

PARAMS = jax.device_get(random_params(small()))
SIZE = (16, 16)
NAMES = ("texture: checkered", "texture: plaid")


@pytest.fixture(scope="module", autouse=True)
def one_device():
    with pytest.MonkeyPatch.context() as patch:
        tiny.one_device(patch)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "release"
    release.export_params(path, PARAMS, SMALL.__dict__)
    return str(path)


def config(model, **settings):
    """Two prompts for two classes of drawn scenes, six steps."""
    c = tune_config.get_config("tiny")
    given = {
        "checkpoint": model, "tune__classes": NAMES, "tune__prompts": 2,
        "tune__images": 6, "stages__tune__steps": 6, "stages__tune__warmup": 1,
        "sources__shapes__size": (32, 32), "tune__heldout__size": (32, 32),
        "sources__shapes__length": 200, "tune__heldout__length": 200,
        "loader__batch_size": 4, "log_every": 1, "save_every": 2, "keep": 9,
        "eval_every": 3,
    }  # fmt: skip
    return tiny.replaced(c, given | settings)


def prepared(model, folder, **settings):
    """A loop whose data is open, and what it trains."""
    read = read_settings(config(model, **settings))
    trained = tune.TunedPrompt(read, load(model))
    loop = Loop(read, folder, trained)
    loop.open_data()
    return loop, trained


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """A finished run: its loop, and its last scores."""
    loops: list[Loop] = []

    class Kept(Loop):
        def __init__(self, *given):
            super().__init__(*given)
            loops.append(self)

    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "Loop", Kept)
        scores = tune.tune(config(model), str(folder))
    return loops[0], scores


@pytest.fixture(scope="module")
def finished(run):
    return run[0].workdir


def test_the_model_stays_and_both_canvases_are_learned(run):
    (loop, scores), trained = run, run[0].trained
    kept = jax.device_get(trained.frozen)
    jax.tree.map(np.testing.assert_array_equal, kept, PARAMS)
    assert set(loop.state.params) == {"image", "target"}
    for name, value in jax.device_get(loop.state.params).items():
        assert value.shape == (1, 2, *SIZE, 3)
        # Every pixel of every prompt has a gradient.
        assert (value != trained.initial[name]).mean() > 0.99
    assert set(scores) == {"tune/miou", "tune/fbiou"}


def test_what_it_paints_is_the_prediction(model, tmp_path):
    loop, trained = prepared(model, tmp_path)
    rng = np.random.default_rng(0)
    leaves = {n: rng.normal(size=x.shape).astype(np.float32)
              for n, x in trained.initial.items()}  # fmt: skip
    queries = rng.normal(size=(4, *SIZE, 3)).astype(np.float32)
    whole = canvas.stitch(np.zeros_like(queries), queries)
    kind = np.zeros(4, np.int32)
    hidden = np.broadcast_to(canvas.query_half(SMALL.grid), (4, *SMALL.grid))
    rows = {"images": whole, "targets": whole, "hidden": hidden, "kind": kind}
    painting = jax.jit(trained.paint)(leaves, trained.frozen, rows, None)
    placed = put_replicated(loop.mesh, leaves)
    prompts = trained.fns.encode_prompts(
        trained.frozen, placed["image"], placed["target"], trained.placed_kind
    )
    # As far as the plain model and the prompted form agree (tests/test_predict.py).
    predicted = trained.fns.predict(trained.frozen, prompts, trained.place(queries))
    np.testing.assert_allclose(painting, predicted, atol=2e-4)


def test_the_score_at_step_0_is_that_of_the_example(model, tmp_path):
    loop, trained = prepared(model, tmp_path, tune__classes=NAMES[:1], tune__prompts=1)
    counts = trained.count(put_replicated(loop.mesh, trained.initial))
    (label,), (record,) = trained.task.labels, trained.shown
    shown = augment.resize(trained.task.source[record], SIZE)
    predictor = Predictor(SMALL, PARAMS)
    predictor.set_prompts(shown.image, (shown.segments == label).astype(np.uint8))
    assert counts.shape == (6, 1, 2, 2)
    for index, ours in enumerate(counts):
        query = augment.resize(trained.heldout[index], SIZE)
        found, truth = predictor(query.image).segments == 1, query.segments == label
        wanted = (found & truth).sum(), (found | truth).sum()
        # Another batch size: a pixel halfway between two colours may tip over.
        np.testing.assert_allclose(ours[0, 0], wanted, atol=2)


def test_a_prompt_starts_as_a_random_example_of_a_random_class(model, tmp_path):
    _, trained = prepared(model, tmp_path, tune__prompts=1)
    shown = []
    for seed in range(12):
        trained.config = dataclasses.replace(trained.config, seed=seed)
        (record,) = trained._example()[2]
        shown.append(record)
    assert len(set(shown)) > 6
    members = [
        set(np.asarray(trained.task.source.by_class[label]).tolist())
        for label in trained.task.labels
    ]
    first, second = (set(shown) & own for own in members)
    assert first - second and second - first
    # Of two prompts each shows another class.
    trained.settings = dataclasses.replace(trained.settings, prompts=2)
    for seed in range(12):
        trained.config = dataclasses.replace(trained.config, seed=seed)
        shown = trained._example()[2]
        pairs = itertools.product(shown, members)
        held = [record in own for record, own in pairs]  # of each record both classes
        assert (held[0] and held[3]) or (held[1] and held[2])


def test_held_out_classes_are_those_of_the_same_names(model, tmp_path, monkeypatch):
    """With other numbers in that source, they keep their colours."""
    _, trained = prepared(model, tmp_path)

    class Other:
        name, same_image_only = "other", False
        class_names, by_class = {7: NAMES[1], 9: NAMES[0]}, {7: [0], 9: [1]}

        def __len__(self):
            return 2

        def __getitem__(self, index):
            raise AssertionError("nothing is decoded yet")

    monkeypatch.setattr(tune, "open_sources", lambda *_: {"heldout": Other()})
    task = trained._open_heldout(NAMES)
    assert task.labels == (9, 7) and task.records.tolist() == [0, 1]
    target, _ = task.paint(np.array([[9, 7, 3]]))
    black = np.zeros(3, np.uint8)
    np.testing.assert_array_equal(target[0], [*trained.palette, black])


def test_a_frozen_model_takes_two_thirds_of_the_operations(model, tmp_path):
    """Gradients of its weights are not computed; each prompt is a canvas."""
    _, trained = prepared(model, tmp_path)
    whole = training_flops(SMALL, query_only=True)
    assert trained.flops == pytest.approx(2 * whole * 2 / 3)


def test_noise_is_as_small_as_tokens_at_the_start(model, tmp_path):
    _, trained = prepared(model, tmp_path, tune__init="noise")
    for leaf in trained.initial.values():
        # 1536 values: a standard deviation of 2 % of the deviation.
        assert leaf.std() == pytest.approx(0.02, rel=0.1) and abs(leaf.mean()) < 0.003


def test_the_file_is_of_the_last_average_and_scores_are_paired(finished, model):
    content = load_prompts(finished / "prompt.safetensors", SIZE)
    assert list(content.names.values()) == list(NAMES)
    assert content.prompts.labels.tolist() == [0, *content.names]
    np.testing.assert_array_equal(content.prompts.palette[1:], colors.spread_palette(2))
    saved = tiny.checkpoint.restore_params(str(finished / "checkpoints"), "ema")[0]
    np.testing.assert_array_equal(content.prompts.images, saved["image"])
    np.testing.assert_array_equal(content.prompts.targets, saved["target"])
    assert content.weights["sha256"] == digest(PARAMS)
    scores = json.loads((finished / "scores.json").read_text())
    assert scores == content.about["scores"] and scores["images"] == 6
    gain = scores["tuned"]["miou"] - scores["initial"]["miou"]
    assert scores["difference"] == gain
    last = (finished / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["tune/miou"] == scores["tuned"]["miou"]


def test_a_stopped_run_goes_on_exactly(finished, model, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "6")
    (run / "prompt.safetensors").unlink()
    tune.tune(config(model), str(run))
    tiny.assert_same_run(finished, run)
    for name in ("prompt.safetensors", "scores.json"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()
    with pytest.raises(ValueError, match="tune.prompts: 2 -> 1"):
        tune.tune(config(model, tune__prompts=1), str(run))


def test_a_prompt_that_lost_is_said(finished, model, tmp_path, monkeypatch, caplog):
    run, counted = shutil.copytree(finished, tmp_path / "run"), []
    count = lambda self, leaves: counted.append(jax.device_get(leaves))  # noqa: E731
    monkeypatch.setattr(tune.TunedPrompt, "count", count)
    for gain in (0.1, -0.1):
        scores = {"initial": {"miou": 0.5}, "tuned": {"miou": 0.5 + gain}}
        scores |= {"difference": gain, "interval": [gain, gain]}
        monkeypatch.setattr(tune, "compare", lambda *args, scores=scores: scores)
        tune.tune(config(model), str(run))
        assert ("does no better than the example" in caplog.text) == (gain < 0)
    # It was scored as the file has it, beside the example that it began with.
    average = tiny.checkpoint.restore_params(str(run / "checkpoints"), "ema")[0]
    for name, leaf in average.items():
        np.testing.assert_array_equal(counted[1][name], leaf)
        assert (counted[0][name] != leaf).any()


def test_a_run_is_of_one_commit(finished, model, tmp_path, monkeypatch):
    """A branch of the hub moves, and frozen weights must not."""
    commit = "me/model@" + 40 * "a"
    monkeypatch.setattr(names.hub, "fetch", lambda name: (Path(model), commit))
    shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(ValueError, match=f'checkpoint: ".*" -> "{commit}"'):
        tune.tune(config("me/model"), str(tmp_path / "run"))


def test_a_tuned_prompts_workdir_is_no_model(finished, model):
    with pytest.raises(ValueError, match=f"tuned a prompt .* take that .*{model}"):
        load(str(finished))


def test_a_prompt_that_breaks_is_not_kept(model, tmp_path, monkeypatch):
    example = tune.TunedPrompt._example

    def too_large(trained):
        leaves, *others = example(trained)
        return {name: x * np.float32(1e38) for name, x in leaves.items()}, *others

    monkeypatch.setattr(tune.TunedPrompt, "_example", too_large)
    with pytest.raises(NonFinite, match="step 1: "):
        tune.tune(config(model), str(tmp_path))
    assert not (tmp_path / "prompt.safetensors").exists()


def test_palettes_of_painter(model, tmp_path):
    _, trained = prepared(model, tmp_path, tune__palette="painter")
    np.testing.assert_array_equal(trained.palette, painter.semantic_palette(2, 2))
    with pytest.raises(ValueError, match="tune.palette = 'painted' is unknown; did"):
        prepared(model, tmp_path, tune__palette="painted")


def test_instances_are_tuned_by_their_locations(model, tmp_path):
    miniatures.coco_instance(tmp_path / "coco", (48, 64), 3)
    source = {"type": "coco_instance", "folder": "coco", "split": "train"}
    c = config(model)
    del c.sources.shapes
    c.sources.coco, c.data_dir = source, str(tmp_path)
    c.tune.update({"classes": (), "palette": "locations"})
    c.tune.heldout = {}
    scored = read_settings(c)
    trained = tune.TunedPrompt(scored, load(model))
    loop = Loop(scored, tmp_path / "run", trained)
    loop.open_data()
    sample = augment.resize(trained.task[trained.shown[0]], SIZE)
    wanted = painter.paint_locations(sample.segments, augment.visible(sample.segments))
    target = colors.denormalize(trained.initial["target"])[0, 0]
    np.testing.assert_allclose(target, wanted, atol=1e-3)
    assert wanted.any() and trained.kind.tolist() == [1]
    follow(loop)
    tune._write(loop, trained, load(model))
    content = load_prompts(tmp_path / "run/prompt.safetensors", SIZE)
    assert content.names == {1: "instance"} and content.prompts.kind.tolist() == [1]
    with pytest.raises(ValueError, match="tune.heldout = .* scored by configs/eval.py"):
        prepared(model, tmp_path, tune__palette="locations", tune__classes=())
    with pytest.raises(ValueError, match="sources = .* must be one of instances"):
        c = config(model, tune__palette="locations", tune__classes=())
        c.tune.heldout = {}
        trained = tune.TunedPrompt(read_settings(c), load(model))
        trained.open_data(loop.mesh)


@pytest.mark.slow
def test_noise_becomes_a_prompt(tmp_path):
    """The bundled model, asked with noise, finds little; the tuned noise finds more."""
    c = tune_config.get_config("tiny")
    c.tune.init, c.stages.tune.steps, c.stages.tune.lr = "noise", 40, 0.3
    c.tune.images, c.eval_every, c.ema, c.log_every = 20, 0, 0.0, 1
    tune.tune(c, str(tmp_path))
    losses = [x[0] for x in tiny.metrics(tmp_path).values()]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["interval"][0] > 0, scores


def test_compare_draws_the_same_images_for_both():
    rng = np.random.default_rng(0)
    whole = rng.integers(50, 100, (30, 2, 2))
    before = np.stack([rng.integers(0, whole), whole], -1)
    assert tune.compare(before, before, 0)["interval"] == [0, 0]
    after = before.copy()
    after[..., 0] += 10  # the same gain everywhere: hardly any doubt
    found = tune.compare(before, np.minimum(after, after[..., 1:]), 0)
    low, high = found["interval"]
    assert 0 < low < found["difference"] < high < 0.3
    # Of draws that were not the same, the two means alone would differ by more.
    assert high - low < 0.04


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"checkpoint": ""}, "setting checkpoint = '': must be the model that"),
        ({"evals": {"a": {}}}, "setting evals = .*tune.heldout names"),
        ({"tune__init": "nois"}, "tune.init = 'nois' is unknown; did you mean 'noise'"),
        ({"tune__prompts": 0}, "tune.prompts = 0: must be at least 1"),
        ({"tune__classes": ("texture: plad",)}, "did you mean 'texture: plaid'"),
        ({"stages__tune__background_prob": 0.5}, "background_prob = 0.5: must be 0"),
        ({"tune__heldout__split": "heldout"}, "'shapes' has no 'texture: checkered'"),
    ],
)
def test_wrong_settings(model, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        tune.tune(config(model, **settings), str(tmp_path))
    assert not (tmp_path / "config.json").exists()


# The file.


def test_prompts_go_into_a_file_and_back(finished, tmp_path):
    content = load_prompts(finished / "prompt.safetensors", SIZE)
    save_prompts(tmp_path / "new" / "b.safetensors", content)
    assert (tmp_path / "new" / "b.safetensors").read_bytes() == (
        finished / "prompt.safetensors"
    ).read_bytes()
    again = load_prompts(tmp_path / "new" / "b.safetensors", SIZE)
    for one, other in zip(content.prompts, again.prompts, strict=True):
        np.testing.assert_array_equal(one, other)
    assert again[1:] == content[1:]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["b.safetensors"]


def test_files_that_are_refused(finished, tmp_path):
    path = tmp_path / "p.safetensors"

    def refused(kind, message):
        with pytest.raises(kind, match=message) as raised:
            load_prompts(path, SIZE)
        assert str(path) in str(raised.value)

    refused(FileNotFoundError, "no such prompt file")
    good = (finished / "prompt.safetensors").read_bytes()
    for damaged in (good[: len(good) // 2], b"", b"no tensors at all"):
        path.write_bytes(damaged)
        refused(ValueError, "is damaged")
    save_file({"x": np.zeros(3, np.float32)}, path)
    refused(ValueError, "is no prompt file")
    path.write_bytes(good)
    with pytest.raises(ValueError, match="is 16 x 16, and the model's images are 8 x"):
        load_prompts(path, (8, 8))
    content = load_prompts(path, SIZE)
    wrong = {
        "kind is 7": {"kind": np.array([7])},
        "labels .* must rise": {"labels": content.prompts.labels[::-1]},
        "targets is": {"targets": content.prompts.targets[:, :1]},
        "not finite": {"images": content.prompts.images * np.nan},
    }
    for message, change in wrong.items():
        prompts = content.prompts._replace(**change)
        save_prompts(path, content._replace(prompts=prompts))
        refused(ValueError, f"is damaged: .*{message}")
    save_prompts(path, content._replace(names={"cat": "cat"}))
    refused(ValueError, "is damaged: the label 'cat' of a name is no whole number")
    for part in ("names", "model", "weights", "about"):
        save_prompts(path, content._replace(**{part: [3]}))
        refused(ValueError, f"is damaged: its part '{part}' holds no names and values")


def test_the_predictor_takes_a_prompt_file(finished, caplog):
    path = finished / "prompt.safetensors"
    predictor, prompts = Predictor(SMALL, PARAMS), load_prompts(path, SIZE).prompts
    names = predictor.load_prompt(path)
    assert list(names.values()) == list(NAMES) and not caplog.records
    query = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    fns = make_predict_fns(small())
    encoded = fns.encode_prompts(PARAMS, *prompts[:3])
    painting = fns.predict(PARAMS, encoded, colors.normalize(query[None]))
    wanted = np.clip(colors.denormalize(np.asarray(painting[0])), 0, 255)
    result = predictor(query)
    np.testing.assert_array_equal(result.painting, wanted)
    assert set(np.unique(result.segments)) <= {0, *names}
    # Files of before model.one_way are for two-way models.
    content = load_prompts(path, SIZE)
    save_prompts(finished / "old.safetensors", content._replace(model={}))
    for one_way in (False, True):
        other = Predictor(SMALL.replace(one_way=one_way), PARAMS)
        other._encode = lambda *given: None  # compiles nothing
        other.load_prompt(finished / "old.safetensors")
        assert ("one_way False, and this one has True" in caplog.text) == one_way
    # The encoding is the same, which is compiled already.
    Predictor(SMALL.replace(decoder_width=4), PARAMS).load_prompt(path)
    assert "decoder_width 8, and this one has 4" in caplog.text
    assert "weights" not in caplog.text
    others = jax.tree.map(lambda leaf: leaf * 2, PARAMS)
    Predictor(SMALL, others).load_prompt(path)
    assert "a model of weights sha256 " in caplog.text


def test_the_command_tunes_and_segments(tmp_path, monkeypatch, capsys, model):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "cache_compiled", lambda: "elsewhere")
    # The program of the other tests, on one device.
    how = {name: plain(config(model))[name] for name in tune.learning(2, 4)}
    monkeypatch.setattr(tune, "learning", lambda steps, batch, lr: how)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    (tmp_path / "pets").mkdir()
    rows = ["split\timage\tmask\twidth\theight\tclasses"]
    rng = np.random.default_rng(0)
    for n in range(6):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(
            f"pets/{n}.png"
        )
        mask = np.zeros((20, 20), np.uint8)
        mask[:10, :10] = 1 + n % 2
        Image.fromarray(mask).save(f"pets/m{n}.png")
        split = "train" if n < 4 else "val"
        rows.append(f"{split}\t{n}.png\tm{n}.png\t20\t20\t{1 + n % 2}")
    (tmp_path / "pets/index.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "pets/classes.tsv").write_text(
        "id\tname\timages\n1\tdog\t3\n2\tcat\t3\n"
    )

    def run(*argv):
        with pytest.raises(SystemExit) as stopped:
            command.main(list(argv))
        return int(stopped.value.code), capsys.readouterr()

    argv = ["tune", "--model", model, "--data", "pets", "--classes", "cat",
            "--prompts", "2", "--out", "cat.safetensors"]  # fmt: skip
    status, said = run(*argv)
    assert status == 0 and "wrote cat.safetensors" in said.out, said.err
    assert load_prompts("cat.safetensors", SIZE).names == {2: "cat"}
    assert json.loads((tmp_path / "cat.run/scores.json").read_text())["images"] == 1
    argv = ["segment", "--model", model, "pets/4.png", "--as", "segments", "--out", "o"]
    assert run(*argv, "--prompt", "cat.safetensors")[0] == 0
    predictor = Predictor(SMALL, PARAMS)
    predictor.load_prompt("cat.safetensors")
    with Image.open("o/4.png") as image:
        np.testing.assert_array_equal(np.array(image), predictor("pets/4.png").segments)
    both = ["--prompt", "cat.safetensors", "--prompt", "a.png:b.png"]
    status, said = run(*argv, *both)
    assert status == 2 and "a tuned prompt goes alone" in said.err
    status, said = run("tune", "--model", model, "--data", "pets", "--out", "cat.pth")
    assert status == 2 and "ends in .safetensors" in said.err


def test_held_out_classes_keep_their_colours():
    """Numbers differ between sets; names do not."""
    names = {1: "dog", 2: "cat"}
    assert tune.chosen(names, ("cat", "dog"), "held out") == [2, 1]
    assert tune.chosen(names, (), "held out") == [1, 2]
    assert tune.chosen(names, (2, "cat"), "held out") == [2]
    with pytest.raises(ValueError, match="source 'x' has no 'cow'.*cat, dog"):
        tune.chosen(names, ("cow",), "x")
