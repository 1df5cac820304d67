"""A run that was stopped, however it was, goes on bit for bit."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from seggpt_jax.runs import sharding
from seggpt_jax.train import train
from tests import tiny
from tests.conftest import REPOSITORY

COMMAND = ["--config=tests/tiny.py:steps=6,first=3"]


def start(workdir, *arguments, send=None):
    program = ["-m", "seggpt_jax.main"]
    if send:
        program = tiny.signalled(*send)
    command = [sys.executable, *program, *COMMAND, f"--workdir={workdir}", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=tiny.environment(), capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_command_is_killed_and_preempted_and_goes_on_bit_exactly(tmp_path):
    """Two stages, EMA, drop path and repainted backgrounds are all on."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = start(whole)
    assert done.returncode == 0, done.stderr
    assert list(tiny.metrics(whole)) == [1, 2, 3, 4, 5, 6]

    # SIGTERM saves where the stages meet, which is no multiple of save_every.
    preempted = start(broken, send=(signal.SIGTERM, 3))
    assert preempted.returncode == 0, preempted.stderr
    assert "step 3 is saved" in preempted.stderr
    assert sorted(os.listdir(broken / "checkpoints")) == ["2", "3"]

    killed = start(broken, send=(signal.SIGKILL, 2))
    assert killed.returncode == -signal.SIGKILL
    assert not (broken / "checkpoints" / "6").exists()

    other = ["--config.loader.workers=1", "--config.loader.threads=1"]
    resumed = start(broken, *other)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at step" in resumed.stderr
    tiny.assert_same_run(whole, broken)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        tiny.one_device(patch)
        train(tiny.config(), str(folder / "run"))
        yield folder / "run"


def stop(monkeypatch, at, how):
    """From now on `how` is called when batch number `at` is placed."""
    put_batch, calls = sharding.put_batch, []

    def put(*args):
        calls.append(None)
        if len(calls) == at:
            how()
        return put_batch(*args)

    monkeypatch.setattr(sharding, "put_batch", put)


def crash():
    raise RuntimeError("crashed")


def test_preempted_and_broken_runs_go_on_bit_exactly(
    finished, tmp_path, monkeypatch, caplog
):
    """As above, in this process: SIGTERM, then an error."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        # Saves where the stages meet, which is no multiple of save_every.
        stop(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train(tiny.config(), str(run)) is None
    assert sorted(os.listdir(run / "checkpoints")) == ["2", "3"]
    with monkeypatch.context() as patch, caplog.at_level("INFO", logger="absl"):
        stop(patch, 2, crash)
        with pytest.raises(RuntimeError, match="crashed"):
            train(tiny.config(), str(run))
    assert "resumed at step 3" in caplog.text
    assert not (run / "checkpoints" / "6").exists()
    train(tiny.config(), str(run))
    tiny.assert_same_run(finished, run)


def torn(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [torn, emptied, flipped])
def test_damaged_newest_checkpoint_is_skipped(finished, tmp_path, caplog, damage):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "6")
    files = [p for p in (run / "checkpoints" / "4" / "state").rglob("*") if p.is_file()]
    damage(max(files, key=lambda path: path.stat().st_size))
    with caplog.at_level("INFO"):
        train(tiny.config(), str(run))
    assert "skipped the checkpoint of step 4" in caplog.text
    tiny.assert_same_run(finished, run)


def test_stop_asked_before_the_first_step_changes_nothing(
    finished, tmp_path, monkeypatch
):
    """SIGTERM while the program compiles ends the run at once."""
    run = tmp_path / "run"
    from seggpt_jax import train as module

    class Stopped(module.Loop):
        def prepare(self, checkpoints):
            super().prepare(checkpoints)
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(module, "Loop", Stopped)
        assert train(tiny.config(), str(run)) is None
    assert not (run / "checkpoints" / "1").exists()
    train(tiny.config(), str(run))
    tiny.assert_same_run(finished, run)
