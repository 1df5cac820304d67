"""configs/eval.py: every row loads, and runs with the checkpoint's own model."""

import shutil

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


def test_unknown_rows_are_named():
    with pytest.raises(ValueError, match="eval.py:davis15; did you mean 'davis1"):
        eval_config.get_config("davis15")
    with pytest.raises(ValueError, match="choices: ade20k_examples, ade20k_tuned"):
        eval_config.get_config()


def test_a_row_runs_with_the_checkpoints_model(data_dir, tmp_path):
    """On two videos, with the model that comes with the package."""
    davis = tmp_path / "data" / "davis2016" / "DAVIS"
    small = data_dir / "davis2016-val" / "DAVIS-small"
    for name in ("camel", "dog"):
        for kind in ("JPEGImages", "Annotations"):
            shutil.copytree(small / kind / "480p" / name, davis / kind / "480p" / name)
    lists = davis / "ImageSets" / "2016"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("camel\ndog\n")
    config = eval_config.get_config("davis16")
    config.data_dir, config.checkpoint = str(tmp_path / "data"), "shapes"
    config.evals.davis16.memories = (2,)
    scores = evaluate.evaluate(config, str(tmp_path / "run"))
    assert {f"davis16/davis2016/{arm}/jf" for arm in ("K2", "copy")} <= {*scores}
    assert all(0 < value < 1 for value in scores.values())
    assert (tmp_path / "run/pictures/0000000/davis16-davis2016.png").exists()
    config.model.dtype, config.model.width = "bfloat16", 4
    with pytest.raises(ValueError, match="shapes does not fit the model"):
        evaluate.evaluate(config, str(tmp_path / "other"))


TRAINED = {"type": "indexed", "folder": "*", "split": "train"}


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
