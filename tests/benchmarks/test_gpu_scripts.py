"""The scripts that wait for a GPU, with a `python` that notes how it is called: each
call is one that its benchmark takes, and one that fails takes nothing else with it. The
benchmarks themselves run in `python -m benchmarks.all --quick`."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seggpt_jax.models.attention import CHOICES
from seggpt_jax.models.transformer import REMAT
from seggpt_jax.training import config_file
from seggpt_jax.training.settings import read_settings

ROOT = Path(__file__).parents[2]
SMALL = {"SIZE": "ti16", "DTYPE": "float32", "CANVAS": "64 32", "SHAPES": "shapes",
         "BATCHES": "1", "PORT_BATCHES": "1", "PROMPTS": "1", "STEPS": "1",
         "REPEATS": "1", "ATTENTION": "heads", "REMAT": "full",
         "FLAGS": "deterministic", "PATIENCE": "9"}  # fmt: skip
# Training leaves a workdir, converting the release of ten million parameters.
FAKE = """
import json, os, pathlib, sys

with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
given = dict(zip(sys.argv, sys.argv[1:]))
for name in sys.argv:
    if name.startswith("--workdir=") and "FAILS" not in os.environ:
        workdir = pathlib.Path(name.removeprefix("--workdir="))
        (workdir / "checkpoints").mkdir(parents=True)
        (workdir / "metrics.jsonl").write_text("{}\\n")
if release := given.get("--output"):
    os.mkdir(release)
    pathlib.Path(release, "params").write_bytes(os.urandom(40_000_000))
sys.exit(3 if os.environ.get("FAILS") in sys.argv else 0)
"""


@pytest.fixture
def play(tmp_path):
    """Runs a script. Returns its status, and the arguments of each call of Python."""
    fake, calls = tmp_path / "bin/python", tmp_path / "calls"
    fake.parent.mkdir()
    fake.write_text(f"#!{sys.executable}{FAKE}")
    fake.chmod(0o755)

    def run(script, *arguments, **settings):
        calls.unlink(missing_ok=True)
        path = f"{fake.parent}:{os.environ['PATH']}"
        done = subprocess.run(
            [f"benchmarks/{script}", tmp_path / "out", *arguments], cwd=ROOT,
            env={**os.environ, **settings, "PATH": path, "CALLS": str(calls)},
        )  # fmt: skip
        return done.returncode, [json.loads(x) for x in calls.read_text().splitlines()]

    return run


def taken(call, monkeypatch):
    """The arguments of a call as its benchmark reads them."""
    _, name, *_ = call
    module, found = importlib.import_module(name), []
    rows = "rows_of" if name == "benchmarks.train" else "rows"
    monkeypatch.setattr(module, rows, found.append)
    monkeypatch.setattr(module, "report", lambda *_: None)
    monkeypatch.setattr(sys, "argv", call[1:])
    module.main()
    return found[0]


@pytest.mark.parametrize("settings", [{}, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("script", ["gpu.sh", "gpu_train.sh"])
def test_each_call_is_one_that_its_benchmark_takes(
    script, settings, play, tmp_path, monkeypatch
):
    status, calls = play(script, **settings)
    assert status == 0 and len(calls) >= 3
    for call in calls:
        args = taken(call, monkeypatch)
        assert args.dtype == settings.get("DTYPE", "bfloat16")
        assert args.out.parent == tmp_path / "out"
        kinds, remats = (getattr(args, n, []) for n in ("attention", "remat"))
        assert {*([kinds] if isinstance(kinds, str) else kinds)} <= {*CHOICES}
        assert {*remats} <= {*REMAT}
        if hasattr(args, "size"):
            assert args.size == settings.get("SIZE", "l16")


@pytest.mark.parametrize(
    "script, name",
    [("gpu.sh", "benchmarks.attention"), ("gpu_train.sh", "--profile")],
)
def test_a_call_that_fails_is_noted_and_the_others_run(script, name, play, tmp_path):
    _, calls = play(script)
    status, others = play(script, FAILS=name)
    assert status == 1 and others == calls
    (line,) = (tmp_path / "out/failed.txt").read_text().splitlines()
    assert line.startswith("3: ") and name in line


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_release_comes_back_in_pieces(play, tmp_path):
    status, ((_, main, *given), convert) = play("gpu_mini.sh", "carried")
    assert status == 0 and main == "seggpt_jax.main" and "convert" in convert
    (form,) = (x.partition("=")[2] for x in given if x.startswith("--config="))
    changes = [x for x in given if x.startswith("--config.")]
    settings = read_settings(config_file.read(form, changes))
    assert (settings.steps, settings.loader.batch_size) == (3000, 256)
    assert settings.data_dir == "carried"
    pieces = sorted((tmp_path / "out").glob("release.tar.*"))
    assert len(pieces) == 3
    assert all(piece.stat().st_size <= 15 * 2**20 for piece in pieces)
    whole = b"".join(piece.read_bytes() for piece in pieces)
    subprocess.run(["tar", "-C", tmp_path, "-x"], input=whole, check=True)
    assert (tmp_path / "release/params").stat().st_size == 40_000_000
    assert (tmp_path / "out/metrics.jsonl").read_text()


def test_without_a_checkpoint_there_is_no_release(play, tmp_path):
    status, calls = play("gpu_mini.sh", "carried", FAILS="seggpt_jax.main")
    assert status == 1 and len(calls) == 1
    assert "ended with status 3" in (tmp_path / "out/log.txt").read_text()
