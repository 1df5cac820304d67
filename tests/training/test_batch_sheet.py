"""The contact sheet of a batch shows the batch that training sees."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from configs import shapes, vitl
from seggpt_jax import canvas
from seggpt_jax.pictures.sheets import Row
from seggpt_jax.training import batch_sheet, train_step
from seggpt_jax.training.settings import read_settings
from seggpt_jax.training.train_step import make_train_step
from seggpt_jax.weights.build import build_model
from tests import tiny


def test_rows_are_those_of_the_training_batch():
    config = vitl.get_config("tiny")
    config.stages.find.background_prob = 0.0
    sources, batch = tiny.batch_of(config, 5)
    for i, row in enumerate(batch_sheet.batch_rows(config, step=5, rows=3)):
        assert row.caption.startswith(f"{sources[0].name} #{batch['record'][i]}, ")
        prompt, target, query, other = row.cells
        np.testing.assert_array_equal(canvas.stitch(prompt, query), batch["images"][i])
        shown = canvas.stitch(target, other)
        hidden = canvas.to_pixels(batch["hidden"][i], 8)
        counted = batch["valid"][i]
        seen = ~hidden & counted
        np.testing.assert_array_equal(shown[seen], batch["targets"][i][seen])
        # Greyed: what is hidden differs from its target unless that is grey itself.
        grey = (batch["targets"][i] == 128).all(-1)
        changed = (shown != batch["targets"][i]).any(-1)
        assert changed[hidden & counted & ~grey].all()


def test_invalid_pixels_are_hatched():
    pair = {
        "images": np.zeros((8, 4, 3), np.uint8),
        "targets": np.zeros((8, 4, 3), np.uint8),
        "hidden": np.zeros((2, 1), bool),
        "valid": np.ones((8, 4), bool),
        "foreground": np.zeros((8, 4), bool),
        "background": np.array([9, 9, 9], np.uint8),
        "kind": np.int32(1),
        "record": np.int64(3),
        "source": np.int32(0),
        "labels": np.array([4, 2, 0]),
    }
    pair["valid"][:2] = False
    source = types.SimpleNamespace(name="pets", class_names={2: "cat", 4: "dog"})
    row = batch_sheet._row(pair, 4, [source], repainted=True)
    assert isinstance(row, Row) and row.caption == "pets #3, instance: 2 objects"
    assert {tuple(c) for c in row.cells[1][:2].reshape(-1, 3)} == {
        (255, 0, 0),
        (255, 255, 255),
    }
    assert (row.cells[1][2:] == 9).all() and (row.cells[3] == 9).all()
    pair["kind"] = np.int32(0)
    row = batch_sheet._row(pair, 4, [source], repainted=True)
    assert row.caption == "pets #3, category: dog, cat"


@pytest.mark.parametrize("prompts", [1, 2])
def test_repainted_backgrounds_are_those_of_the_train_step(monkeypatch, prompts):
    """The step's own draw, caught where it paints, at a step of the second stage."""
    config = shapes.get_config("steps=20")
    settings = read_settings(config)
    stage = dataclasses.replace(settings.stages["compare"], background_prob=0.9)
    start = settings.spans[1].start
    step, b = start + 2, 64

    class Caught(Exception):
        pass

    def catch(key, targets, foreground, background, prob, group):
        drawn = jax.random.bernoulli(key, prob, (b // group,))
        raise Caught(np.repeat(np.asarray(drawn), group))

    with monkeypatch.context() as patch:
        patch.setattr(train_step, "repaint_background", catch)
        one = make_train_step(
            build_model(settings.model),
            stage,
            settings.optim,
            start=start,
            accumulate=1,
            ema=0.0,
            prompts=prompts,
        )
        state = train_step.TrainState(jax.numpy.int32(step), None, None, None)
        names = ("targets", "foreground", "background")
        with pytest.raises(Caught) as caught:
            one(state, dict.fromkeys(names), jax.random.key(config.seed))
    done = (step - start) / stage.steps
    rows = batch_sheet._repainted_rows(config.seed, stage, step, done, b, prompts)
    np.testing.assert_array_equal(rows, caught.value.args[0])
    assert 0 < rows.sum() < b


def test_refuses_what_is_not_there():
    config = vitl.get_config("tiny")
    with pytest.raises(ValueError, match=r"--step = 1000: must be in \[0, 1000\)"):
        batch_sheet.draw_batch(config, step=1000)
    with pytest.raises(ValueError, match=r"--rows = 9: must be in \[1, 8\]"):
        batch_sheet.draw_batch(config, rows=9)
