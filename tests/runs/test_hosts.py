"""Several processes on this machine as one run.

Without the slow tests only the start of two processes is tried. What each of them does
is tested elsewhere in one process: the same step on any mesh (`test_sharding.py`), the
rows of two hosts (`test_faults.py`), a stop and what follows (`test_resume.py`).
"""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from seggpt_jax.data.sources import shapes
from seggpt_jax.evaluate import evaluate
from tests import tiny
from tests.conftest import REPOSITORY

# Adam makes whole steps of gradients that are 0 but for rounding; small steps keep what
# comes of that small.
# One stage: every process compiles the step of each.
RUN = "steps=6,first=6,batch=4,lr=1e-4,evals=True"
COMMAND = f"--config=tests/tiny.py:{RUN}"
DEVICES = 4  # of the whole run, whatever the number of processes
# Two processes hold different parts of the parameters, and save them together.
SHARDED = "--config.mesh.fsdp=2", "--config.mesh.tensor=2"
HEARTBEAT = 10


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def launch(
    workdir, cache, processes, *arguments, send=None, command=COMMAND, program=None
):
    """Runs the main command in so many processes; their exit statuses and what they
    said. send: process, and what `tiny.signalled` is given. program: text to run in its
    place."""
    environment = tiny.environment(JAX_COMPILATION_CACHE_DIR=str(cache))
    port, running = free_port(), []
    for number in range(processes):
        started = ["-c", program] if program else ["-m", "seggpt_jax.main"]
        if send and send[0] == number:
            started = tiny.signalled(*send[1:])
        several = [
            f"--coordinator=localhost:{port}", f"--num_processes={processes}",
            f"--process_id={number}", f"--heartbeat_s={HEARTBEAT}",
        ]  # fmt: skip
        running.append(
            subprocess.Popen(
                [sys.executable, *started, command, f"--workdir={workdir}",
                 f"--config.cpu_devices={DEVICES // processes}",
                 *(several if processes > 1 else []), *arguments],
                cwd=REPOSITORY, env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
        )  # fmt: skip
    said = [process.communicate(timeout=300)[0] for process in running]
    return [process.returncode for process in running], said


def assert_close(one, other):
    """The same history but for the order of float32 sums."""
    a, b = tiny.metrics(one), tiny.metrics(other)
    assert a.keys() == b.keys()
    for step, values in a.items():
        np.testing.assert_allclose(values, b[step], rtol=2e-5, err_msg=str(step))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(scope="module")
def alone(folder):
    (status,), (said,) = launch(folder / "alone", folder / "cache-alone", 1)
    assert status == 0, said
    return folder / "alone"


@pytest.fixture(scope="module")
def stopped(folder):
    """A run of two processes after a SIGTERM to the second."""
    run = folder / "stopped"
    # Early: it is noticed within seconds, of which only compiling takes any.
    send = 1, signal.SIGTERM, 1
    status, said = launch(
        run, folder / "cache", 2, *SHARDED, "--stopped_status=75", send=send
    )
    assert status == [75, 75], said
    assert "is saved, the same command goes on" in said[0]
    assert " M parameters" in said[0] and " M parameters" not in said[1]
    return run


@pytest.fixture(scope="module")
def finished(folder, stopped):
    """That run, which went on."""
    run = shutil.copytree(stopped, folder / "finished")
    saved = max(int(p.name) for p in (run / "checkpoints").iterdir())
    status, said = launch(run, folder / "cache", 2, *SHARDED)
    assert status == [0, 0], said
    assert f"resumed at step {saved}" in said[0]
    return run


@pytest.mark.slow
def test_one_sigterm_stops_all_and_another_number_of_processes_goes_on(
    alone, stopped, tmp_path
):
    run = shutil.copytree(stopped, tmp_path / "run")
    assert max(int(p.name) for p in (run / "checkpoints").iterdir()) < 6
    (status,), (said,) = launch(run, alone.parent / "cache-alone", 1)
    assert status == 0 and "resumed at step" in said
    assert_close(alone, run)


@pytest.mark.slow
def test_a_stopped_sharded_run_of_two_processes_is_the_run_of_one(alone, finished):
    assert_close(alone, finished)


@pytest.mark.slow
def test_a_killed_process_ends_all_and_the_run_goes_on(alone, folder, tmp_path):
    """The process that the others report to."""
    run = tmp_path / "run"
    began = time.monotonic()
    send = (0, signal.SIGKILL, 4, run / "checkpoints/2/SHA256SUMS")
    status, said = launch(run, folder / "cache", 2, *SHARDED, send=send)
    assert time.monotonic() - began < 120
    assert status[0] == -signal.SIGKILL
    assert status[1] != 0, said
    status, said = launch(run, folder / "cache", 2, *SHARDED)
    assert status == [0, 0], said
    assert "resumed at step 2" in said[0]
    assert_close(alone, run)


def test_wrong_input_is_one_error_everywhere(tmp_path):
    (tmp_path / "file").write_text("")
    status, said = launch(tmp_path / "file", tmp_path / "cache", 2)
    assert status == [2, 2]
    for text in said:
        assert "error: " in text and "cannot be written" in text


@pytest.mark.slow
def test_a_prompt_is_tuned_as_by_one_process(alone, tmp_path):
    settings = [
        "--config.stages.tune.steps=4", "--config.stages.tune.warmup=1",
        "--config.tune.images=8", f"--config.checkpoint={alone}/checkpoints",
    ]  # fmt: skip
    command, found = "--config=configs/tune.py:tiny", []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        status, said = launch(
            run, tmp_path / "cache", processes, *settings, command=command
        )
        assert status == [0] * processes, said
        scores = json.loads((run / "scores.json").read_text())
        prompts = load_file(run / "prompt.safetensors")
        found.append((scores["initial"], scores["tuned"], prompts))
    (initial, tuned, prompts), (other_initial, other_tuned, others) = found
    assert initial == other_initial  # the same example
    # Adam divides by the size of the gradient: rounding of small ones is not small.
    assert abs(tuned["miou"] - other_tuned["miou"]) < 0.01
    assert prompts.keys() == others.keys()
    for name, value in prompts.items():
        np.testing.assert_allclose(value, others[name], atol=5e-3, err_msg=name)


@pytest.mark.slow
def test_evaluation_finds_the_same_and_goes_on(finished, tmp_path, monkeypatch):
    """In training, and of its checkpoint. Four processes finish what one began, and
    together make the scenes that one process makes."""
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    in_training = json.loads(lines[-1])
    assert list((finished / "pictures").rglob("*.png"))

    tiny.one_device(monkeypatch)
    made, make = [], shapes.Shapes.__getitem__
    monkeypatch.setattr(
        shapes.Shapes, "__getitem__", lambda s, i: made.append(i) or make(s, i)
    )
    settings = {"mode": "evaluate", "checkpoint": str(finished)}
    scores = evaluate(tiny.config(RUN, **settings), str(tmp_path / "one"))
    assert scores == {name: in_training.get(name) for name in scores}
    cases = [
        tmp_path / run / "results/heldout-shapes/cases.jsonl"
        for run in ("one", "again", "four")
    ]
    done = cases[0].read_text().splitlines(True)
    for path in cases[1:]:  # as if they had been stopped after three cases
        path.parent.mkdir(parents=True)
        path.write_text("".join(done[:4]))
    made.clear()
    evaluate(tiny.config(RUN, **settings), str(tmp_path / "again"))
    status, said = launch(
        tmp_path / "four", finished.parent / "cache", 4, "--config.mode=evaluate",
        f"--config.checkpoint={finished}", program=tiny.READING,
    )  # fmt: skip
    assert status == [0] * 4, said
    assert cases[2].read_text().splitlines(True)[:4] == done[:4]  # not done again
    scenes = [re.findall(r"^scene (\d+)$", text, re.MULTILINE) for text in said]
    assert all(scenes)
    assert sorted(int(index) for own in scenes for index in own) == sorted(made)
    results = [
        json.loads((tmp_path / run / "results/heldout.json").read_text())
        for run in ("one", "again", "four")
    ]
    assert results[0]["scores"] == results[1]["scores"] == results[2]["scores"]
