"""The smallest run there is, as a config file: `--config=tests/tiny.py:steps=6`."""

import json
import os
from pathlib import Path

import jax
import numpy as np

from configs import common
from seggpt_jax.config import parse_argument
from seggpt_jax.data.pipeline import make_iterator
from seggpt_jax.models.seggpt import SegGPTConfig
from seggpt_jax.runs import sharding
from seggpt_jax.training.mixture import build_dataset
from seggpt_jax.training.settings import read_settings
from seggpt_jax.weights import checkpoint

# On the path of processes that train. tensorboardX imports PyTorch where it is found,
# and that would be half of the time that the program takes to start.
WITHOUT_TORCH = str(Path(__file__).parent / "support/without_torch")

# The program itself, but that it sends itself a signal when it places batch number AT,
# once the file WRITTEN is there, if one is named.
SIGNALLED = """
import os, sys, time
from absl import app
from seggpt_jax import main
from seggpt_jax.runs import sharding

signal_number, at, written = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
del sys.argv[1:4]
put_batch, calls = sharding.put_batch, []

def put(*args):
    calls.append(None)
    if len(calls) == at:
        while written and not os.path.exists(written):
            time.sleep(0.1)
        os.kill(os.getpid(), signal_number)
    return put_batch(*args)

sharding.put_batch = put
app.run(main.main, flags_parser=main.parse_flags)
"""


def signalled(number: int, at: int, written: str | os.PathLike = "") -> list[str]:
    """The arguments of Python for `SIGNALLED`, before those of the program."""
    return ["-c", SIGNALLED, str(int(number)), str(at), str(written)]


# The program itself, but that it says which drawn scenes it makes.
READING = """
import sys
from absl import app
from seggpt_jax import main
from seggpt_jax.data.sources import shapes

make = shapes.Shapes.__getitem__

def told(self, index):
    sys.stdout.write(f"scene {index}\\n")  # whole lines, from any thread
    return make(self, index)

shapes.Shapes.__getitem__ = told
app.run(main.main, flags_parser=main.parse_flags)
"""


def environment(**more: str) -> dict[str, str]:
    """Of a process that trains."""
    paths = [WITHOUT_TORCH, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | more


def get_config(argument=None):
    """Two stages of drawn scenes, with everything random switched on; one stage where
    `first` is all of the steps."""
    arg = parse_argument(
        argument, steps=6, first=3, batch=2, lr=1e-3, ema=0.9, evals=False
    )
    c = common.base()
    c.optim.layer_decay = 1.0  # the parameters are random
    # Two blocks of one kind, unrolled: they compile in half the time of two kinds.
    c.model = {
        "size": "ti16", "width": 16, "depth": 2, "heads": 2, "patch": 8,
        "canvas": (64, 32), "pos_grid": 4, "merge_after": 1, "taps": (1,),
        "scan": False, "decoder_width": 4, "drop_path": 0.2, "dtype": "float32",
        "remat": "none",
    }  # fmt: skip
    scenes = {"type": "shapes", "size": (32, 32), "length": 100}
    c.sources.shapes = {**scenes, "weight": 1.0}
    c.loader = {"batch_size": arg["batch"], "threads": 2, "workers": 0, "prefetch": 2}
    stages = {
        "find": common.stage(
            steps=arg["first"], lr=arg["lr"], warmup=1, loss="l2",
            max_foreground_weight=12.0, background_prob=0.9,
        ),
    }  # fmt: skip
    if arg["steps"] > arg["first"]:
        rest = arg["steps"] - arg["first"]
        stages["paint"] = common.stage(steps=rest, lr=arg["lr"])
    c.stages = common.ordered(**stages)
    c.ema = arg["ema"]
    c.log_every = 1
    c.save_every = 2
    c.keep = 9
    c.eval_every = 0
    if arg["evals"]:
        c.evals.heldout = {
            "type": "fewshot",
            "sources": {"shapes": {**scenes, "seed": 2, "tasks": {"colour": 1}}},
            "episodes": 10,
            "batch_size": 4,
        }
    return c


def config(argument=None, **settings):
    """The config with settings replaced: `model__width=8` is `model.width`."""
    return replaced(get_config(argument), settings)


def replaced(config, settings):
    """The config, changed in place."""
    for name, value in settings.items():
        *parents, last = name.split("__")
        here = config
        for parent in parents:
            here = here[parent]
        with here.ignore_type():
            here[last] = value
    return config


def batch_of(config, step):
    """The sources of a config, and the batch of a step."""
    config = read_settings(config)
    model = SegGPTConfig.read(config.model)
    sources, dataset = build_dataset(config, model.half, model.patch)
    batches = make_iterator(dataset, config.loader.batch_size, start_step=step)
    batch = next(batches)
    batches.close()
    return list(sources.values()), batch


def metrics(workdir):
    """step -> (loss, gradient norm, learning rate), as written."""
    lines = [
        json.loads(t) for t in (workdir / "metrics.jsonl").read_text().splitlines()
    ]
    names = ("loss", "grad_norm", "lr")
    return {x["step"]: tuple(x[n] for n in names) for x in lines if "loss" in x}


def saved_state(workdir):
    """The parameters of the newest checkpoint, and their moving average."""
    folder = workdir / "checkpoints"
    parts = [checkpoint.restore_params(folder, name)[0] for name in ("params", "ema")]
    return jax.tree.leaves(parts)


def assert_same_run(a, b):
    """Two workdirs tell one history and end in one state, bit for bit."""
    assert metrics(a) == metrics(b)
    for x, y in zip(saved_state(a), saved_state(b), strict=True):
        np.testing.assert_array_equal(x, y)


def one_device(monkeypatch):
    """Meshes of one of this process's devices."""
    axes = (jax.sharding.AxisType.Auto,) * 3
    one = jax.make_mesh(
        (1, 1, 1), sharding.AXES, axis_types=axes, devices=jax.devices()[:1]
    )
    monkeypatch.setattr(
        sharding, "make_mesh", lambda data=-1, fsdp=1, tensor=1, devices=None: one
    )
