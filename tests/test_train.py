"""The loop: what it waits for, what it refuses, what it leaves behind."""

import dataclasses
import json
import shutil
import types

import jax
import numpy as np
import pytest

from seggpt_jax import canvas, evaluate
from seggpt_jax import train as module
from seggpt_jax.config import plain
from seggpt_jax.runs import sharding
from seggpt_jax.runs.workdir import check_workdir
from seggpt_jax.runs.writer import Clock, Progress, Writer
from seggpt_jax.train import NonFinite, train
from seggpt_jax.training.settings import read_settings
from seggpt_jax.weights import build, checkpoint, pretrained, release
from tests import tiny
from tests.support import blocks
from tests.support.models import random_params
from tests.training.test_settings import leaves


@pytest.fixture(scope="module", autouse=True)
def one_device():
    with pytest.MonkeyPatch.context() as patch:
        tiny.one_device(patch)
        yield


def steps(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("[0-9]*"))


def test_numbers_are_read_while_the_next_step_runs(tmp_path, monkeypatch):
    events = []

    class Watched(module.Loop):
        def begin_stage(self, index):
            step_fn = super().begin_stage(index)

            def dispatch(*args):
                events.append(("dispatch", self.step + 1))
                return step_fn(*args)

            return dispatch

        def report(self, unread, *args):
            events.append(("read", unread[0]))
            super().report(unread, *args)

    monkeypatch.setattr(module, "Loop", Watched)
    train(tiny.config(save_every=4), str(tmp_path))
    dispatch, read = ([(kind, n) for n in range(7)] for kind in ("dispatch", "read"))
    assert events == [
        dispatch[1], dispatch[2], read[1], dispatch[3], read[2],
        dispatch[4], read[3], read[4],  # before the state is saved
        dispatch[5], dispatch[6], read[5], read[6],
    ]  # fmt: skip


@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_hidden_patches_of_the_prompt_are_learned_too(tmp_path, prob):
    """Their targets, which the model does not see, are part of the loss, but where the
    query half is all that is ever hidden."""
    config = read_settings(tiny.config(masking__half_prob=prob))
    loop = module.Loop(config, tmp_path, module.Whole(config))
    loop.open_data()
    batches = loop.batches()
    batch = next(batches)
    batches.close()
    hidden = canvas.to_pixels(batch["hidden"], 8)
    hidden[:, 32:] = False
    assert hidden.any() == (prob == 0) != loop.trained.query_only
    if prob:
        return
    with checkpoint.Checkpoints(tmp_path / "checkpoints") as checkpoints:
        loop.prepare(checkpoints)
    step = loop.begin_stage(0)
    del batch["source"], batch["record"]
    other = 255 - batch["targets"]
    targets = np.where(hidden[..., None], other, batch["targets"])
    losses = []
    for rows in (batch, batch | {"targets": targets}):
        state = jax.tree.map(jax.numpy.copy, loop.state)  # a step takes it
        placed = sharding.put_batch(loop.mesh, rows, 2)
        with jax.set_mesh(loop.mesh):
            losses.append(float(step(state, placed, loop.key, None)[1]["loss"]))
    assert losses[0] != losses[1]


@pytest.mark.parametrize("place", ["batch", "episodes"])
def test_implicit_transfers_are_errors(tmp_path, monkeypatch, place):
    """By a step and by a model that compile at once."""
    if place == "batch":
        monkeypatch.setattr(sharding, "put_batch", lambda mesh, batch, size: batch)
        step = jax.jit(lambda state, *given: (state, {}), keep_unused=True)
        monkeypatch.setattr(module.Loop, "begin_stage", lambda loop, index: step)
    else:
        paint = jax.jit(lambda params, images, *given: images[:, 0], keep_unused=True)
        engine = blocks.engine((32, 32), predict=paint, put=lambda rows: rows)
        monkeypatch.setattr(module, "Engine", lambda model, mesh: engine)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train(tiny.config("evals", eval_every=1), str(tmp_path))


def test_evaluations_are_done_once_and_made_up_for(tmp_path, monkeypatch, caplog):
    config = tiny.config("evals", eval_every=3)
    with caplog.at_level("INFO", logger="absl"):
        scores = train(config, str(tmp_path))
    said = [line for line in caplog.messages if line.startswith("compiling")]
    assert said == [f"compiling the stage {name}" for name in config.stages]
    text = (tmp_path / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [x["step"] for x in lines if "loss" not in x] == [3, 6]
    assert scores == {k: float(v) for k, v in lines[-1].items() if k in scores}
    timed = [x for x in lines if "steps_per_s" in x]
    assert len(timed) > 2 and all(0 <= x["data_wait"] <= 1 for x in timed)

    # A kill between the last save and its evaluation.
    (tmp_path / "metrics.jsonl").write_text(text.rsplit("\n", 2)[0] + "\n")
    monkeypatch.setattr(sharding, "put_batch", None)  # no step may be made
    assert train(config, str(tmp_path)) == scores
    # Finished: it only reports.
    monkeypatch.setattr(evaluate, "run_groups", None)
    assert train(config, str(tmp_path)) == scores


def test_the_best_checkpoint_stays(tmp_path, monkeypatch):
    """The second of three evaluations scores highest; the log says so after a stop."""
    name, scores = "heldout/shapes/1shot/miou", {2: 0.1, 4: 0.9, 6: 0.5}

    def run_groups(groups, params, step, writer):
        writer.scalars(step, {name: scores[step]})
        return {name: scores[step]}

    monkeypatch.setattr(evaluate, "run_groups", run_groups)
    settings = {"eval_every": 2, "save_every": 100, "keep": 1}
    train(tiny.config("evals", **settings, best=name), str(tmp_path))
    kept = tmp_path / "checkpoints"
    assert sorted(p.name for p in kept.iterdir()) == ["4", "6"]
    # Found again by a run that goes on, as if it had been killed after step 4.
    shutil.rmtree(kept / "6")
    train(tiny.config("evals", **settings, best=name), str(tmp_path))
    assert sorted(p.name for p in kept.iterdir()) == ["4", "6"]


def test_the_best_is_one_of_the_checkpoints_that_are_there(tmp_path):
    """A step that was scored and is gone cannot be kept in its place."""
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": n, "x": x}) + "\n"
                for n, x in ((2, 0.9), (4, 0.5), (6, "nan"), (8, 0.1)))
    )  # fmt: skip
    config = read_settings(tiny.config(best="x"))
    loop = module.Loop(config, tmp_path, module.Whole(config))
    for step in (4, 6, 8):
        (tmp_path / f"checkpoints/{step}").mkdir(parents=True)
    kept = checkpoint.Checkpoints(tmp_path / "checkpoints")
    loop.find_best(kept, {"x": 0.1})
    assert kept.best == 4


def test_the_share_of_the_peak_is_of_all_devices(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "peak_flops", lambda kind: 5e9)
    config = read_settings(tiny.config(model__dtype="bfloat16"))
    loop = module.Loop(config, tmp_path, module.Whole(config))
    loop.mesh = types.SimpleNamespace(size=8)
    loop.trained.flops = 1e9
    used = loop.used(images_per_s=3.0)
    assert used["tflops_per_s"] == pytest.approx(0.003)
    assert used["mfu"] == pytest.approx(3e9 / (8 * 5e9))
    assert used["peak_gib"] > 0


def test_a_best_that_is_no_score_names_the_choices(tmp_path):
    config = tiny.config("evals", eval_every=6, best="heldout/shapes/miou")
    with pytest.raises(ValueError, match="best: 'heldout/shapes/miou' is no score"):
        train(config, str(tmp_path))


def test_start_from_released_parameters(tmp_path):
    model = build.build_model(tiny.config().model)
    params = random_params(model)
    release.export_params(tmp_path / "release", params, tiny.config().model.to_dict())
    config = read_settings(tiny.config(init_from=str(tmp_path / "release")))
    loop = module.Loop(config, tmp_path / "run", module.Whole(config))
    with checkpoint.Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        loop.prepare(checkpoints)
    for tree in (loop.state.params, loop.state.ema):
        jax.tree.map(np.testing.assert_array_equal, tree, params)


def test_a_model_without_a_size_is_like_its_weights(tmp_path):
    """The geometry is that of `init_from`, also on resume and for who reads the run;
    and the given weights are scored before the first step."""
    config = tiny.config("evals", init_from=str(tmp_path / "first"), eval_every=6)
    model = build.build_model(config.model)
    first = dataclasses.asdict(model.config.replace(drop_path=0.1))
    release.export_params(tmp_path / "first", random_params(model), first)
    # With this one setting it is the model that other tests train.
    config = plain(config) | {"model": {"drop_path": 0.2}}
    scores = train(config, str(tmp_path / "second"))
    assert pretrained.load(tmp_path / "second").config == model.config
    lines = (tmp_path / "second/metrics.jsonl").read_text().splitlines()
    lines = [json.loads(text) for text in lines]
    scored = [line["step"] for line in lines if "heldout/shapes/1shot/miou" in line]
    assert scored == [0, 6]
    assert train(config, str(tmp_path / "second")) == scores


def test_a_run_enters_its_second_stage_from_the_average(tmp_path, monkeypatch):
    seen = []

    class Watched(module.Loop):
        def begin_stage(self, index):
            before = jax.device_get(self.state)
            step_fn = super().begin_stage(index)
            seen.append((self.step, before, jax.device_get(self.state)))
            return step_fn

    monkeypatch.setattr(module, "Loop", Watched)
    train(tiny.config(), str(tmp_path))
    (_, same, begun), (step, before, entered) = seen
    assert step == 3
    jax.tree.map(np.testing.assert_array_equal, begun, same)
    jax.tree.map(np.testing.assert_array_equal, entered.params, before.ema)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.params, before.ema)
    assert max(jax.tree.leaves(moved)) > 1e-5


def test_the_seed_is_of_the_first_parameters_and_of_all_draws(tmp_path):
    drawn = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = read_settings(tiny.config(seed=seed))
        loop = module.Loop(config, tmp_path / name, module.Whole(config))
        with checkpoint.Checkpoints(tmp_path / name) as checkpoints:
            loop.prepare(checkpoints)
        table = loop.state.params["pos_embed"]
        drawn.append((jax.random.key_data(loop.key).tolist(), table.tolist()))
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))


def test_start_from_parameters_of_another_model(tmp_path):
    train(tiny.config(), str(tmp_path / "run"))
    settings = {"init_from": str(tmp_path / "run" / "checkpoints")}
    config = tiny.config(model__decoder_width=8, **settings)
    with pytest.raises(ValueError, match=r"shape: decoder/head/kernel is \(4, 3\)"):
        train(config, str(tmp_path / "other"))
    # Nothing binds the workdir to that config: with the model put right it works.
    train(tiny.config(**settings), str(tmp_path / "other"))


def test_a_workdir_of_a_config_that_leaves_settings_out_goes_on(tmp_path):
    """Stored before a setting was added, or by a shorter config of the same run."""
    config = plain(tiny.config())
    train(config, str(tmp_path))
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored == json.loads(json.dumps(config))  # as it was given, every setting
    for section in ("context", "view", "tune"):
        del stored[section], config[section]
    del stored["optim"]["algorithm"], stored["masking"]["aspect"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert train(config, str(tmp_path)) == {}
    config["context"] = {"mix_prob": 0.5}
    with pytest.raises(ValueError, match=r"context.mix_prob: 0.2 -> 0.5\nUse"):
        train(config, str(tmp_path))


# docs/training.md: a run goes on with other values of these alone.
MAY_CHANGE = {
    "log_every", "save_every", "eval_every", "keep", "best", "evals", "data_dir",
    "bad_share", "cpu_devices", "mesh.data", "mesh.fsdp", "mesh.tensor",
    "loader.threads", "loader.workers", "loader.prefetch",
}  # fmt: skip


def test_a_run_goes_on_with_other_settings_only_where_they_change_no_result(tmp_path):
    before = plain(read_settings(tiny.config()))
    (tmp_path / "config.json").write_text(json.dumps(before))
    for name, value in leaves(before):
        after = json.loads(json.dumps(before))
        *parents, last = name.split(".")
        here = after
        for parent in parents:
            here = here[parent]
        here[last] = {"x": 1} if value == {} else "another"
        changed = json.dumps(after)
        if name in MAY_CHANGE:
            check_workdir(tmp_path, changed, module.MAY_CHANGE)
            continue
        with pytest.raises(ValueError, match=f"  {name}"):
            check_workdir(tmp_path, changed, module.MAY_CHANGE)


def test_non_finite_start_stops_at_the_first_step(tmp_path):
    model = build.build_model(tiny.config().model)
    params = random_params(model)
    params["mask_token"] = np.full_like(params["mask_token"], 3e38)
    release.export_params(tmp_path / "release", params, tiny.config().model.to_dict())
    config = tiny.config(init_from=str(tmp_path / "release"), save_every=1)
    with pytest.raises(NonFinite, match="step 1: loss (nan|inf)"):
        train(config, str(tmp_path / "run"))
    assert not steps(tmp_path / "run")


def test_non_finite_loss_is_named_and_not_saved(tmp_path, monkeypatch):
    @jax.jit
    def large(params):
        return jax.tree.map(lambda leaf: jax.numpy.full_like(leaf, 3e38), params)

    class Overflows(module.Loop):
        """Step 4 makes parameters that are too large for step 5."""

        def begin_stage(self, index):
            step_fn = super().begin_stage(index)

            def step(state, *args):
                state, metrics = step_fn(state, *args)
                if self.step + 1 == 4:
                    state = dataclasses.replace(state, params=large(state.params))
                return state, metrics

            return step

    monkeypatch.setattr(module, "Loop", Overflows)
    config = tiny.config(save_every=3)
    for _ in range(2):  # Doing it again fails again, and still leaves the good one.
        with pytest.raises(NonFinite, match=r"step 5: .*nonfinite_0000005.json"):
            train(config, str(tmp_path))
        assert steps(tmp_path) == [3]
    listed = json.loads((tmp_path / "nonfinite_0000005.json").read_text())
    assert listed["step"] == 5
    assert [row["source"] for row in listed["records"]] == ["shapes"] * 2
    # The numbers of a step are read while the next runs: its records are not meant.
    batch = tiny.batch_of(config, 4)[1]
    assert [row["record"] for row in listed["records"]] == batch["record"].tolist()


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_one_number_that_is_not_finite_stops_the_run(tmp_path, name):
    """A gradient may overflow where the loss does not, and the other way round."""
    config = read_settings(tiny.config())
    loop = module.Loop(config, tmp_path, module.Whole(config))
    loop.names = ["a", "b"]
    numbers = {"loss": 1.0, "grad_norm": 2.0} | {name: np.inf}
    metrics = {key: jax.numpy.asarray(value) for key, value in numbers.items()}
    records = np.array([1, 0]), np.array([3, 5])
    silent = Writer(tmp_path, active=False), Clock(2), Progress(6, active=False)
    with pytest.raises(NonFinite, match="step 4: .* inf"):
        loop.report((4, metrics, records), *silent)
    listed = json.loads((tmp_path / "nonfinite_0000004.json").read_text())["records"]
    assert [(row["source"], row["record"]) for row in listed] == [("b", 3), ("a", 5)]


def test_non_finite_state_after_a_finite_loss_is_not_saved(tmp_path, monkeypatch):
    values = {"a": jax.numpy.ones(3), "b": jax.numpy.arange(3)}
    assert module.all_finite(values)
    assert not module.all_finite(values | {"c": jax.numpy.array([0.0, np.inf])})
    monkeypatch.setattr(
        module, "all_finite", lambda state: jax.device_get(state.step) < 4
    )
    with pytest.raises(NonFinite, match="step 4: the state is not finite"):
        train(tiny.config(), str(tmp_path))
    assert steps(tmp_path) == [2]
