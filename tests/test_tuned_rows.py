"""The paper's tuned rows from command to score, on miniatures: a prompt is learned by
configs/tune.py and scored by configs/eval.py."""

import argparse

import pytest

from configs import eval as eval_config
from configs import tune as tune_config
from seggpt_jax.cli import tune_command
from seggpt_jax.evaluate import evaluate
from seggpt_jax.training.settings import read_settings
from seggpt_jax.tune import PROMPT, tune
from tests import tiny
from tests.support import miniatures
from tests.support.layouts import write_lines


@pytest.fixture
def data(tmp_path, monkeypatch):
    tiny.one_device(monkeypatch)
    for name in ("ade20k", "coco_panoptic", "coco_instance"):
        miniatures.SETS[name](tmp_path / "data" / name, (48, 64), 3)
    return tmp_path / "data"


def learned(form, data, train="train"):
    """The file of a prompt after two steps."""
    config = tune_config.get_config(f"{form},steps=2,batch=2,heldout={train}")
    config.checkpoint, config.data_dir = "shapes", str(data)
    config.model.dtype = "float32"
    workdir = data.parent / form
    scores = tune(config, str(workdir))
    assert bool(scores) == (form != "coco_instance")  # its scores are the evaluation's
    return str(workdir / PROMPT)


def scored(row, data, **settings):
    config = eval_config.get_config(row)
    config.checkpoint, config.data_dir = "shapes", str(data)
    for name, value in settings.items():
        config.evals[row][name] = value
    return evaluate(config, str(data.parent / row))


@pytest.mark.parametrize("form", tune_config.ROWS)
def test_forms_are_read(form):
    settings = read_settings(tune_config.get_config(f"{form},steps=20"))
    assert settings.steps == 20 and settings.loader.batch_size == 16
    wanted = "locations" if form == "coco_instance" else "painter"
    assert settings.tune.palette == wanted


def test_the_command_takes_a_palette(tmp_path):
    write_lines(tmp_path / "classes.tsv", "id\tname", "1\tcat")
    write_lines(tmp_path / "index.tsv", "split\timage\tmask\twidth\theight\tclasses")
    parser = argparse.ArgumentParser()
    tune_command.add_arguments(parser)
    given = ["--data", str(tmp_path), "--out", "x.safetensors", "--palette", "painter"]
    args = parser.parse_args(given)
    args.model, args.bits, args.dtype, args.attention = "shapes", 16, "float32", "auto"
    assert tune_command.settings(args, tmp_path)["tune"]["palette"] == "painter"


@pytest.mark.slow
def test_ade20k(data):
    prompt = learned("ade20k", data, "val")
    scores = scored("ade20k_tuned", data, prompt=prompt)
    assert 0 <= scores["ade20k_tuned/ade20k/miou"] <= 1


@pytest.mark.slow
def test_coco_panoptic(data):
    prompts = {name: learned(f"coco_{name}", data) for name in ("semantic", "instance")}
    kind = {"type": "coco_panoptic_segments", "folder": "coco_panoptic"}
    source = {"coco_panoptic": kind | {"split": "train"}}
    scores = scored(
        "coco_panoptic_tuned", data, **prompts, things=1, sources=source, stuff_area=1
    )
    assert 0 <= scores["coco_panoptic_tuned/coco_panoptic/pq"] <= 1
