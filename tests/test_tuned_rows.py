"""The paper's tuned rows from command to score, on miniatures: a prompt is learned by
configs/tune.py and scored by configs/eval.py."""

import argparse

import numpy as np
import pytest

from configs import eval as eval_config
from configs import tune as tune_config
from seggpt_jax import colors, evaluate
from seggpt_jax.cli import tune_command
from seggpt_jax.prompts.file import load_prompts, save_prompts
from seggpt_jax.training.settings import read_settings
from seggpt_jax.tune import PROMPT, tune
from tests import tiny
from tests.support import blocks, miniatures, row_miniatures
from tests.support.layouts import write_lines

SIDE = 64  # of the model's images: half of the miniatures'


@pytest.fixture
def data(tmp_path, monkeypatch):
    tiny.one_device(monkeypatch)
    root = tmp_path / "data"
    for name in ("ade20k", "coco_panoptic"):
        row_miniatures.SETS[name](root / name)
    miniatures.coco_instance(root / "coco_instance", (48, 64), 3)
    return root


def learned(form, data, lr):
    """The file of a prompt after two steps."""
    given = f"{form},steps=2,batch=2,side={SIDE}"
    config = tune_config.get_config(given)
    config.checkpoint, config.data_dir = "shapes", str(data)
    config.model.dtype, config.stages.tune.lr = "float32", lr
    workdir = data.parent / form
    scores = tune(config, str(workdir))
    assert bool(scores) == (form != "coco_instance")  # its scores are the evaluation's
    return str(workdir / PROMPT)


def scored(row, data, **settings):
    """By the row's command."""
    config = eval_config.get_config(f"{row},side={SIDE}")
    config.checkpoint, config.data_dir = "shapes", str(data)
    config.evals[row].update(settings)
    scores = evaluate.evaluate(config, str(data.parent / row))
    return {name.rpartition("/")[2]: value for name, value in scores.items()}


def read_by(functions, row, data, **settings):
    """By the row's evaluator, with an engine of known answers."""
    config = eval_config.get_config(row)
    config.evals[row].update(settings)
    engine = blocks.engine((SIDE, SIDE), **functions)
    groups = evaluate.build_groups(config.evals, str(data), engine)
    (evaluator,) = groups[0].evaluators.values()
    found = dict(evaluator.run(None))
    return {name.rpartition("/")[2]: value for name, value in found.items()}


def exchanged(path, first, second):
    """The file of a prompt whose target paints two labels in each other's colour."""
    content = load_prompts(path, (SIDE, SIDE))
    prompts = content.prompts
    order = np.arange(len(prompts.labels))
    places = [int(np.flatnonzero(prompts.labels == x)[0]) for x in (first, second)]
    order[places] = order[places[::-1]]
    target = colors.denormalize(prompts.targets)
    labels = colors.decode(target, prompts.palette)
    targets = colors.normalize(prompts.palette[order[labels]])
    other = f"{path.removesuffix('.safetensors')}-exchanged.safetensors"
    save_prompts(other, content._replace(prompts=prompts._replace(targets=targets)))
    return other


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
    """Three classes fill a quarter, a half and a quarter. A rate of almost 0 leaves the
    example that tuning starts from: a reader sees all of it. With the first two in each
    other's colour, only the third is right."""
    row, reader = "ade20k_tuned", row_miniatures.reader(set())
    prompt = learned("ade20k", data, lr=1e-12)
    right = read_by(reader, row, data, prompt=prompt)
    assert right["miou"] > 0.9 and right["macc"] > 0.9
    other = exchanged(prompt, 50, 100)
    wrong = read_by(reader, row, data, prompt=other)
    assert wrong["miou"] == pytest.approx(1 / 3, abs=0.04)
    assert wrong["pacc"] == pytest.approx(1 / 4, abs=0.04)
    found = scored(row, data, prompt=prompt)
    assert found.keys() == right.keys() and 0 <= found["miou"] <= 1


@pytest.mark.slow
def test_coco_panoptic(data):
    """Persons and a rug. With both in each other's colour no stuff is found, and the
    things are of a wrong class."""
    row, reader = "coco_panoptic_tuned", row_miniatures.reader(set())
    prompts = {
        name: learned(f"coco_{name}", data, lr=1e-12)
        for name in ("semantic", "instance")
    }
    right = read_by(reader, row, data, **prompts)
    assert right["rq"] == 1 and right["sq"] > 0.85
    other = prompts | {"semantic": exchanged(prompts["semantic"], 1, 200)}
    assert read_by(reader, row, data, **other)["pq"] == 0
    found = scored(row, data, **prompts)
    assert found.keys() == right.keys() and 0 <= found["pq"] <= 1
