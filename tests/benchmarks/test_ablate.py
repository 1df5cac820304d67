"""The ablation of `configs/mini.py`: changes are accepted, rows compare with a base."""

import argparse
import json
import sys

import numpy as np
import pytest

from benchmarks import ablate
from benchmarks.run_cost import run_of
from seggpt_jax.config import plain
from seggpt_jax.training.settings import read_settings
from seggpt_jax.weights.build import build_model
from tests import tiny


def settings(**others):
    given = {"init": "", "steps": 80, "data": "", "episodes": 3, "base": "base"}
    given["equal_compute"] = False
    return argparse.Namespace(**given | others)


@pytest.mark.parametrize("name", sorted(set(ablate.CHANGES) - {"base"}))
@pytest.mark.parametrize("init", ["", "runs/mini"])
def test_every_change_is_one_that_the_run_accepts(name, init):
    args = settings(init=init)
    base, changed = (plain(ablate.configure(n, args)) for n in ("base", name))
    assert changed != base
    config = ablate.configure(name, args)
    build_model(read_settings(config).model)
    assert all(source.weight > 0 for source in config.sources.values())


def test_changes_are_joined():
    both = ablate.configure("smooth_l1+no_mix", settings())
    assert both.stages.paint.loss == "smooth_l1" and both.context.mix_prob == 0
    assert list(both.stages) == ["find", "paint"]
    more = ablate.configure("base", settings(init="runs/mini"))
    assert list(more.stages) == ["paint"]


@pytest.mark.parametrize("name", ["base", "patch_12", "width_128", "no_mix"])
def test_equal_compute_changes_the_steps(name):
    args = settings(steps=800, equal_compute=True)
    base, changed = (ablate.configure(n, args) for n in ("base", name))
    base, changed = run_of(base), run_of(changed)
    assert changed.total == pytest.approx(base.total, rel=2e-3)
    steps = {"patch_12": 1917, "width_128": 502}.get(name, 800)
    assert changed.steps == steps


def test_only_runs_that_can_be_are_compared(tmp_path):
    args = settings()
    found = ablate.about(ablate.configure("base", args), args)
    path = tmp_path / "base" / ablate.REPLICATES
    assert ablate.read_base(path, found) is None
    path.parent.mkdir()
    np.savez(path, about=json.dumps(found), x=np.ones(3))
    assert list(ablate.read_base(path, found)) == ["x"]
    other = ablate.about(ablate.configure("canvas_128", args), args)
    assert ablate.read_base(path, other) is None  # other episodes
    with pytest.raises(SystemExit, match="base has steps 80, not 90: take another"):
        ablate.read_base(path, found | {"steps": 90})


def test_an_unknown_change_is_refused(monkeypatch, capsys):
    argv = ["ablate", "base+magic", "--data", "x", "--workdir", "y"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit):
        ablate.main()
    assert "unknown changes: magic" in capsys.readouterr().err


@pytest.mark.slow
def test_rows_compare_with_the_base(tmp_path, monkeypatch, capsys):
    tiny.one_device(monkeypatch)

    def small(argument):
        config = tiny.get_config("evals=True,steps=4,first=4,batch=8")
        config.stages = {"paint": config.stages.find}
        shapes = config.evals.heldout.sources.shapes
        config.evals.heldout.sources = {"a": shapes, "b": shapes}
        return config

    monkeypatch.setattr(ablate.mini, "get_config", small)
    monkeypatch.setattr(ablate, "cache_compiled", lambda: "elsewhere")
    out = tmp_path / "rows.jsonl"
    argv = (
        f"ablate base weight_2 --steps 4 --episodes 5 --workdir {tmp_path} --out {out}"
    )
    monkeypatch.setattr(sys, "argv", [*argv.split(), "--data", ""])
    ablate.main()
    base, other = (json.loads(line) for line in out.read_text().splitlines())
    assert base["right - base"] == [0, 0] and len(other["right - base"]) == 2
    assert other["settings"] == {"stages.paint.max_foreground_weight": 2.0}
    assert set(base["mean"]) == {"right", "wrong", "copy", "color"}
    assert base["mean"]["copy"] == other["mean"]["copy"]  # the same episodes
    longer = small("")
    for stage in longer.stages.values():
        stage.steps *= 2
    with pytest.raises(SystemExit, match="base is at step 4 of 8"):  # it was stopped
        ablate.score(longer, tmp_path / "base")
