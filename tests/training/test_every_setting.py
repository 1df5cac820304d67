"""Every row of the tables of docs/training.md has a value that changes what the row is
about, and nothing else, on its way from the command to data, model and loop.

`ROWS` has for each setting another value, and the parts that it reaches. What a step
computes is held by test_step.py, what a pair shows by test_effects.py, and the rows of
`tune` by tests/test_tune.py.
"""

import re
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from seggpt_jax import evaluate, main
from seggpt_jax import train as module
from seggpt_jax.runs import hosts
from seggpt_jax.training import mixture
from seggpt_jax.training.train_step import TrainState
from seggpt_jax.weights.checkpoint import Checkpoints
from tests import tiny
from tests.training.test_effects import Ramps
from tests.training.test_settings import DOCUMENT

SCORE = "heldout/miou"
FLAGS = ("_DISTRIBUTED", "_COORDINATOR", "_NUM_PROCESSES", "_PROCESS_ID", "_HEARTBEAT",
         "_STOPPED")  # fmt: skip
SIZES = {"a": 8, "b": 12, "c": 4}  # of sources; two records of each are bad
BASE = {
    "sources": {"a": {"weight": 1.0}, "both": {"weight": 2.0}},
    "loader__batch_size": 16, "mesh__data": 2, "mesh__fsdp": -1, "bad_share": 0.5,
    "context__min_share": 0.15, "save_every": 5, "eval_every": 6, "log_every": 3,
}  # fmt: skip
EVERYTHING = (
    "model mesh opened pairs scored loader steps logged saved evaluated keep folder"
)
# Setting -> another value, and the parts that it reaches. One stage stands for all.
ROWS = {
    "mode": ("evaluate", EVERYTHING),
    "seed": (7, "pairs"),  # and the parameters: tests/test_train.py
    "data_dir": ("elsewhere", "opened scored"),
    "checkpoint": ("elsewhere", ""),  # of other modes
    "init_from": ("shapes", "start"),
    "log_every": (4, "logged"),
    "save_every": (4, "saved"),
    "keep": (1, "keep"),
    "best": (SCORE, "best saved"),
    "checkpoints": ("elsewhere", "folder"),
    "eval_every": (4, "evaluated"),
    "evals": ({"more": {"type": "fewshot"}}, "scored"),
    "mesh.data": (4, "mesh"),
    "mesh.fsdp": (2, "mesh"),
    "mesh.tensor": (2, "mesh"),
    "cpu_devices": (3, "devices"),
    "model.size": ("s16", "model"),
    "model.canvas": ((96, 48), "model pairs"),
    "model.drop_path": (0.4, "model"),
    "model.dtype": ("bfloat16", "model"),
    "model.remat": ("full", "model"),
    "model.attention": ("xla", "model"),
    "model.one_way": (True, "model"),
    "sources": ({"a": {"weight": 9.0}, "both": {"weight": 1.0}}, "pairs"),
    "skip_missing": (True, "opened"),
    "group_power": (0.0, "pairs"),
    "bad_share": (0.01, "pairs"),
    "fixed_pairs": (3, "pairs"),
    "context.same_image": (1.0, "pairs"),
    "context.prompts": (2, "pairs steps"),
    "context.one_prompt": (1.0, ""),  # of several prompts: tests/data/test_context.py
    "context.absent_prob": (1.0, "pairs"),
    "context.mix_prob": (1.0, "pairs"),
    "context.mix_grid": ((1, 3), "pairs"),
    "context.tries": (1, "pairs"),
    "context.min_share": (0.0, "pairs"),
    "view.crop_scale": ((0.2, 0.3), "pairs"),
    "view.crop_ratio": ((1.0, 1.0), "pairs"),
    "view.flip": (1.0, "pairs"),
    "view.vertical_flip": (1.0, "pairs"),
    "view.jitter": ((0.1, 0.1, 0.1, 0.1), "pairs"),
    "view.jitter_prob": (0.0, "pairs"),
    "view.swap_sides": (False, "pairs"),
    "recolor.max_colors": (1, "pairs"),
    "recolor.all_prob": (1.0, "pairs"),
    "recolor.min_distance": (250.0, "pairs"),
    "recolor.fixed": (True, "pairs"),
    "masking.share": (0.25, "pairs"),
    "masking.half_prob": (0.5, "pairs"),
    "masking.block_share": ((0.1, 0.1), "pairs"),
    "masking.aspect": ((1.0, 1.0), "pairs"),
    "optim.algorithm": ("muon", "steps"),
    "optim.weight_decay": (0.5, "steps"),
    "optim.betas": ((0.5, 0.5), "steps"),
    "optim.eps": (0.5, "steps"),
    "optim.clip": (0.5, "steps"),
    "optim.layer_decay": (0.5, "steps"),
    "optim.trainable": ("decoder/.*", "steps"),
    "loader.batch_size": (32, "loader"),
    "loader.threads": (5, "loader"),
    "loader.workers": (5, "loader"),
    "loader.prefetch": (5, "loader"),
    "accumulate": (2, "steps"),
    "ema": (0.5, "steps"),
    "stages.*.steps": (4, "steps logged saved evaluated"),
    "stages.*.lr": (0.5, "steps"),
    "stages.*.warmup": (2, "steps"),
    "stages.*.end_lr": (1e-4, "steps"),
    "stages.*.loss": ("smooth_l1", "steps"),
    "stages.*.beta": (0.5, "steps"),
    "stages.*.max_foreground_weight": (3.0, "steps"),
    "stages.*.background_prob": (0.1, "steps"),
    "stages.*.weights": ({"a": 9.0}, "steps pairs"),
}


def stand_still(state, batch, key, frozen):
    return state, {name: jnp.ones(()) for name in ("loss", "grad_norm", "lr")}


class Watched(module.Loop):
    """A loop that notes its parts, and whose steps do nothing."""

    places = None

    def open_data(self):
        super().open_data()
        self.noted |= {"mesh": dict(self.mesh.shape), "model": self.trained.model}
        try:
            pairs = [self.dataset[k] for k in range(16)]
            names = ("images", "targets", "hidden", "labels", "source")
            self.noted["pairs"] = [[pair[n].tobytes() for n in names] for pair in pairs]
        except ValueError as error:  # too many bad records
            self.noted["pairs"] = str(error)

    def prepare(self, checkpoints):
        self.trained.start(self.mesh)
        self.key = module.sharding.put_key(self.mesh, 0)
        self.state = TrainState(jnp.zeros((), jnp.int32), {"x": jnp.zeros(1)}, (), None)

    def report(self, unread, writer, *args):
        scalars = writer.scalars
        writer.scalars = lambda step, _: self.noted["logged"].append(step)
        super().report(unread, writer, *args)
        writer.scalars = scalars


class Kept(Checkpoints):
    """Stands for the checkpoints of a run."""

    def __init__(self, noted, folder, keep):
        self.noted, self.best = noted, None
        noted |= {"folder": Path(folder).name, "keep": keep}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.noted["best"] = self.best

    def save(self, step, state, meta):
        self.noted["saved"].append(step)

    def steps(self):
        return self.noted["saved"]

    def wait(self):
        pass


@pytest.fixture
def reached(tmp_path, monkeypatch):
    """The parts that a config, changed so, reaches: name -> what it is there."""

    def run(config):
        noted = {"logged": [], "saved": [], "evaluated": [], "steps": []}
        workdir = str(tmp_path / str(len([*tmp_path.iterdir()])))

        def open_groups(specs, data_dir, skip_missing):
            noted["opened"] = data_dir, skip_missing
            found = {n: Ramps(n, k, bad=(1, 2)) for n, k in SIZES.items()}
            return {"a": {"a": found.pop("a")}, "both": found}

        def build_groups(evals, data_dir, engine, **_):
            noted["scored"] = evals, data_dir
            return []

        def run_groups(groups, params, step, writer):
            noted["evaluated"].append(step)
            writer.scalars(step, {SCORE: -step})
            return {SCORE: -float(step)}

        def iterate(dataset, batch_size, *, start_step, rows, **how):
            noted["loader"] = batch_size, [*rows], how
            names = ("x", "source", "record")
            while True:
                yield {name: np.zeros(len(rows), np.int32) for name in names}

        def make_train_step(model, *settings, paint, **how):
            noted["steps"].append((*settings, how))
            return stand_still

        def place_params(weights, *_):
            noted["start"] = weights.name

        def train(settings, workdir):
            loop = Watched(settings, Path(workdir), module.Whole(settings))
            loop.noted = noted
            module.follow(loop)

        for place, name, value in [
            (mixture, "open_groups", open_groups),
            (evaluate, "run_groups", run_groups),
            (evaluate, "build_groups", build_groups),
            (module, "make_iterator", iterate),
            (module, "make_train_step", make_train_step),
            (module, "place_params", place_params),
            (module, "enter_stage", lambda state, tx: state),
            (module, "Checkpoints", lambda folder, keep: Kept(noted, folder, keep)),
            (main, "MODES", {"train": train, "evaluate": lambda *_: None}),
            (main, "_CONFIG", types.SimpleNamespace(value=config)),
            (main, "_WORKDIR", types.SimpleNamespace(value=workdir)),
            *((main, name, types.SimpleNamespace(value=0)) for name in FLAGS),
            (main, "cut_cpu", lambda count: noted.update(devices=count)),
            (main, "cache_compiled", lambda: ""),
            (hosts, "join", lambda *_: None), (hosts, "leave", lambda *_: None),
        ]:  # fmt: skip
            monkeypatch.setattr(place, name, value)
        assert main.main([]) == 0
        return noted

    return run


@pytest.fixture(scope="module")
def base():
    """The parts of the config without a change, kept for all rows."""
    return {}


def unchanged():
    config = tiny.config("steps=12,first=6", **BASE)
    del config.model["width"], config.model["heads"]  # those of its size
    return config


def changed(name, value):
    config = unchanged()
    also = {"mesh.fsdp": {"mesh__data": -1}}.get(name, {})  # one axis takes the rest
    setting = name.replace("stages.*", "stages.find").replace(".", "__")
    return tiny.replaced(config, also | {setting: value})


@pytest.mark.parametrize("name", ROWS)
def test_a_setting_changes_what_its_row_says_and_nothing_else(name, reached, base):
    base = base or base.update(reached(unchanged())) or base
    value, parts = ROWS[name]
    found = reached(changed(name, value))
    differ = {p for p in base.keys() | found.keys() if base.get(p) != found.get(p)}
    assert differ == set(parts.split())


def test_every_stage_is_told_where_it_begins(reached):
    assert [how["start"] for *_, how in reached(unchanged())["steps"]] == [0, 6]


def test_every_row_has_a_value():
    rows = re.findall(r"^\| `([\w.*]+)` \| .* \| (?:paper|Painter|ours|run) \|",
                      DOCUMENT.read_text(), re.MULTILINE)  # fmt: skip
    assert {row for row in rows if not row.startswith("tune.")} == set(ROWS)
