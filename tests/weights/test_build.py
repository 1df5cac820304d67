"""Models of settings and of weights."""

import dataclasses

import jax
import numpy as np
import pytest

from seggpt_jax.models.seggpt import init_params
from seggpt_jax.trees import named_leaves
from seggpt_jax.weights import build, release
from seggpt_jax.weights.pretrained import Weights
from tests.support.models import SMALL, inputs, random_params, small

PARAMS = jax.device_get(random_params(small()))
# Every setting that leaves the function of a model as it is, changed.
HOW = {"drop_path": 0.1, "dtype": "bfloat16", "attention": "heads", "remat": "full",
       "scan": False}  # fmt: skip


def test_weights_give_the_geometry_that_settings_leave_out():
    weights = Weights(SMALL, PARAMS)
    assert build.build_model({}, weights).config == SMALL
    assert build.build_model(HOW, weights).config == SMALL.replace(**HOW)
    assert build.build_model({"size": "s16"}, weights).config.width == 384
    with pytest.raises(ValueError, match="setting model.size = None: must be given"):
        build.build_model({})
    with pytest.raises(ValueError, match="model.dtyp is unknown; did you mean 'dtype'"):
        build.build_model({"dtyp": "float32"}, weights)


def test_shapes_are_those_of_initial_parameters():
    model = small()
    initial = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    assert build.abstract_params(model) == initial


def test_geometry_is_every_setting_but_how_it_is_computed():
    assert SMALL.replace(**HOW).geometry == SMALL.geometry
    assert {*SMALL.geometry, *HOW} == {f.name for f in dataclasses.fields(SMALL)}
    assert SMALL.half == (16, 16)


def test_a_model_is_loaded_with_its_notes(tmp_path, caplog, monkeypatch):
    release.export_params(tmp_path / "release", PARAMS, dataclasses.asdict(SMALL))
    model, weights = build.load_model(tmp_path / "release", dtype="bfloat16")
    assert model.config == SMALL.replace(dtype="bfloat16")
    jax.tree.map(np.testing.assert_array_equal, weights.params, PARAMS)
    noted = weights._replace(notes=("the moon was full",), name="somewhere.pth")
    monkeypatch.setattr(build.pretrained, "load", lambda name: noted)
    with caplog.at_level("INFO", logger="absl"):
        build.load_model("somewhere.pth")
    assert "somewhere.pth: the moon was full" in caplog.text


def test_weights_fit_another_canvas():
    """Their tables become what the model would make of them for that canvas."""
    depth = {"depth": 2, "taps": (1,)}  # one kind of block: compiles faster
    model, large = small(**depth), small(**depth, canvas=(48, 24))
    params = random_params(model)
    weights = build.resize_tables(Weights(model.config, params), large.config)
    build.check_fit(weights, build.abstract_params(large))
    shown = inputs(large.config)
    expected, _ = jax.jit(model.apply)({"params": params}, *shown)
    got, _ = jax.jit(large.apply)({"params": weights.params}, *shown)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    own, changed = named_leaves(params), named_leaves(weights.params)
    names = {n for n in own if own[n].shape != changed[n].shape}
    assert names == {f"blocks/attn/rel_pos_{axis}" for axis in "hw"}
    other = small(canvas=(48, 24), patch=8).config  # no table of that model's
    assert build.resize_tables(Weights(SMALL, PARAMS), other).params is PARAMS


def test_only_kernels_are_cast_for_inference():
    cast = named_leaves(build.inference_params(small(dtype="bfloat16"), PARAMS))
    for name, leaf in named_leaves(PARAMS).items():
        kind = "bfloat16" if name.endswith("kernel") else "float32"
        assert cast[name].dtype == kind, name
        np.testing.assert_array_equal(cast[name], leaf.astype(kind))
    kept = named_leaves(build.inference_params(small(), PARAMS))
    assert {leaf.dtype.name for leaf in kept.values()} == {"float32"}
