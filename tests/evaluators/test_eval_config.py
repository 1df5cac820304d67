"""configs/eval.py: every row loads, and runs with the checkpoint's own model."""

import pytest

from configs import eval as eval_config
from configs import mini
from seggpt_jax import evaluate
from seggpt_jax.data.sources import open_sources
from seggpt_jax.predict import Engine
from seggpt_jax.runs.sharding import make_mesh
from seggpt_jax.training.settings import read_settings
from seggpt_jax.weights import build, pretrained


@pytest.mark.parametrize("name", eval_config.ROWS)
def test_rows_load(name):
    config = eval_config.get_config(name)
    assert config.mode == "evaluate" and [*config.evals] == [name]
    assert config.evals[name].type in evaluate.EVALUATORS


def test_a_row_takes_arguments():
    row = eval_config.get_config("fss1000,shots=4,ensemble=spatial").evals.fss1000
    assert row.shots == (4,) and row.ensemble == "spatial"
    row = eval_config.get_config("lvis92i,shots=5").evals.lvis92i
    assert {spec.shots for spec in row.sources.values()} == {*row.shots} == {5}
    for name in ("davis16", "davis17", "ytvos18", "mose"):
        row = eval_config.get_config(f"{name},memory=7").evals[name]
        assert row.memories == (7,)
    for form in ("coco_panoptic_tuned,side=560", "all,side=560"):
        assert eval_config.get_config(form).model.canvas == (1120, 560)
    assert not eval_config.get_config("coco_panoptic_tuned").model
    with pytest.raises(ValueError, match="'k' is unknown; choices: memory, side"):
        eval_config.get_config("davis17,k=7")


def test_unknown_rows_are_named():
    said = "eval.py:davis15 is unknown; did you mean 'davis1"
    with pytest.raises(ValueError, match=said):
        eval_config.get_config("davis15")
    with pytest.raises(ValueError, match="as :davis17; choices: ade20k_examples, ade"):
        eval_config.get_config()


TRAINED = {"type": "indexed", "folder": "*", "split": "train"}


@pytest.mark.slow
def test_the_results_of_the_bundled_model_can_all_be_drawn(data_dir):
    """Building the evaluators draws an episode of each."""
    config = mini.get_config("results")
    config.data_dir = str(data_dir)
    settings = read_settings(config)
    model = build.build_model(settings.model, pretrained.load(settings.checkpoint))
    groups = evaluate.build_groups(
        settings.evals, settings.data_dir, Engine(model, make_mesh())
    )
    assert [group.name for group in groups] == [*config.evals]
    where = {
        name: {*group.evaluators}
        for name, group in zip(config.evals, groups, strict=True)
    }
    assert where["feature"] == where["spatial"] < where["seen"]
    assert where["folds"] == {"coco-mini", *mini.PASCAL_FOLD}
    twin = mini.get_config("results,twin")
    assert "folds" in twin.evals and set(twin.evals) < set(config.evals)
    assert not twin.checkpoint  # it is not the bundled one
    trained = {s.name for s in open_sources({"t": TRAINED}, str(data_dir)).values()}
    assert {name.split("/")[-1] for name in where["seen"]} <= trained
    with pytest.raises(ValueError, match="goes with `twin` only, not steps"):
        mini.get_config("results,steps=5")


def test_the_twin_never_sees_the_classes_of_its_folds(data_dir):
    photos = mini.get_config("twin").sources.photos.to_dict()
    del photos["weight"]
    opened = open_sources({"photos": photos}, str(data_dir))
    shown = {n for source in opened.values() for n in source.class_names.values()}
    assert len(opened) > 20 and {"cat", "turtle"} <= shown
    assert not shown & {*mini.COCO_FOLD, "motorbike", "diningtable", "horse"}
