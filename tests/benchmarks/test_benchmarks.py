"""The benchmarks run, small, and their rows hold what they promise."""

import json
import re
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from benchmarks import carry, cost, kernels, run_cost, soak
from configs import eval as eval_config
from configs import vitl
from seggpt_jax.weights.checkpoint import Checkpoints

ROOT = Path(__file__).parents[2]


def test_costs_are_listed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cost"])
    cost.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(cost.ROWS)
    assert lines[1].split()[:4] == ["fss1000,", "1", "shot", "4800"]
    counted = {name.split(",")[0] for name in cost.ROWS}
    assert counted == eval_config.ROWS.keys() - {"ytvos18", "mose", "indexed"}
    hours = [float(line.split()[-1]) for line in lines[1:]]
    assert max(hours) == hours[list(cost.ROWS).index("ade20k_examples, N = 32")]


def test_the_document_has_the_costs_of_the_whole_run(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run_cost"])
    run_cost.main()
    printed = capsys.readouterr().out.splitlines()
    shown = (ROOT / "docs/scaling.md").read_text()
    for name in run_cost.CLUSTERS:
        (line,) = [line for line in printed if line.startswith(f"{name} ")]
        row = " | ".join(re.split(r"  +", line.strip()))
        assert f"| {row} |" in shown, row
    for ema in (False, True):
        assert f"{run_cost.checkpoint_bytes(ema) / 1e9:.2f} GB" in shown


def test_the_whole_run_costs_what_its_operations_take():
    run = run_cost.run_of(vitl.get_config())
    assert (run.steps, run.batch) == (9000, 2048)
    few, many = (run_cost.CLUSTERS[f"{n} x H100"] for n in (8, 64))
    one, other = run_cost.cost(run, few, 0.4), run_cost.cost(run, many, 0.4)
    assert one["hours"] == pytest.approx(8 * other["hours"])
    assert one["dollars"] == pytest.approx(other["dollars"])
    assert one["hours"] * 3600 * 8 * 0.4 * 989e12 == pytest.approx(run.total)
    assert one["host_pairs_s"] * one["step_s"] == pytest.approx(2048)
    v5p = run_cost.CLUSTERS["v5p-64"]  # not taken for a v5e, nor cores for chips
    hours = run_cost.cost(run, v5p, 0.4)["hours"]
    assert hours * 3600 * 32 * 0.4 * 459e12 == pytest.approx(run.total)


def test_time_is_told_apart_by_kinds_of_kernels():
    def event(pid, name, dur):
        return {"ph": "X", "pid": pid, "name": name, "dur": dur, "args": {}}

    names = {1: "/device:GPU:0", 2: "/host:CPU"}
    events = [
        {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}
        for pid, name in names.items()
    ]
    events += [
        event(1, "nvjet_hsh_128x128", 50),
        event(1, "cudnn_generated_fort_native_sdpa_sm90", 25),
        event(1, "ncclDevKernel_AllReduce", 15),
        event(1, "input_add_fusion_3", 10),
        event(2, "gemm that the host waits for", 1000),
    ]
    assert kernels.shares_of(events) == {
        "products": 0.5,
        "attention": 0.25,
        "collectives": 0.15,
        "optimizer and elementwise": 0.1,
    }


@pytest.mark.parametrize(("format", "mode"), [("JPEG", "RGB"), ("PNG", "P")])
def test_pictures_are_carried_small_and_masks_keep_their_values(format, mode, tmp_path):
    values = np.kron([[3, 7], [0, 255]], np.ones((40, 60))).astype(np.uint8)
    picture = Image.fromarray(values).convert(mode)
    if mode == "P":
        picture.putdata(values.ravel().tolist())
    picture.save(tmp_path / "large", format)
    carry.shrink(tmp_path / "large", tmp_path / "small", 60)
    with Image.open(tmp_path / "small") as small:
        assert small.size == (60, 40) and (small.format, small.mode) == (format, mode)
        if mode == "P":
            assert (np.asarray(small) == values[1::2, 1::2]).all()
    carry.shrink(tmp_path / "small", tmp_path / "same", 60)
    assert (tmp_path / "same").read_bytes() == (tmp_path / "small").read_bytes()


def test_a_killed_run_is_held_against_one_that_was_left_alone(tmp_path, monkeypatch):
    """Not with the main command, which test_resume kills: with one that is at once at
    work, dies of its own accord and may end otherwise."""
    lives = tmp_path / "lives"
    script = "import pathlib, sys, time; p = pathlib.Path(sys.argv[1]); p.mkdir("
    script += "exist_ok=True); f = p / 'n'; n = len(f.read_text()) if f.exists() else 0"
    script += "; f.write_text('x' * (n + 1)); time.sleep(0 if n > 1 else 60)"
    real = soak.subprocess.Popen

    def popen(command, **streams):
        return real([sys.executable, "-c", script, lives], **streams)

    monkeypatch.setattr(soak.subprocess, "Popen", popen)
    found = soak.live([], tmp_path / "run", 0.5, seed=0)
    assert found["kills"] >= 2 and (lives / "n").read_text() == "xxx"

    for name, loss in (("one", 1.0), ("other", 1.0), ("wrong", 2.0)):
        folder = tmp_path / name
        with Checkpoints(folder / "checkpoints") as saver:
            saver.save(1, {"params": {"x": jnp.full(2, loss)}}, {})
        line = {"step": 1, "loss": 1.0}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert soak.same(tmp_path / "one", tmp_path / "other")
    assert not soak.same(tmp_path / "one", tmp_path / "wrong")
    (tmp_path / "one/metrics.jsonl").write_text('{"step": 1, "loss": 1.5}\n')
    assert not soak.same(tmp_path / "one", tmp_path / "other")
