"""Prediction computes the plain model's function, at less cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seggpt_jax import predict
from seggpt_jax.models import halves, kernels
from seggpt_jax.predict import make_predict_fns, tile
from tests.support.models import definition, episode, random_params, small

make_predict_fn = functools.cache(predict.make_predict_fn)  # traced once

# The same sums in another order, on outputs of scale 1.
EXACT = {"atol": 1e-5, "rtol": 0}


@pytest.mark.parametrize(
    ("b", "p", "size"),
    [(1, 1, (4, 24)), (1, 2, (28, 36)), (1, 8, (20, 12)), (3, 1, (24, 4)),
     (4, 8, (16, 16))],
)  # fmt: skip
@pytest.mark.slow
def test_equals_the_plain_model(b, p, size):
    """Both kinds, and canvases that the tables must be interpolated for."""
    model = small()
    params, args = random_params(model), episode(b, p, size)
    np.testing.assert_allclose(
        make_predict_fn(model)(params, *args),
        definition(model, params, *args), **EXACT,
    )  # fmt: skip


@pytest.mark.parametrize(
    "geometry",
    [
        {"depth": 1, "merge_after": 0, "taps": (0,)},
        {"depth": 4, "merge_after": 2, "taps": (2, 3)},
        *(pytest.param(geometry, marks=pytest.mark.slow) for geometry in [
            {"depth": 4, "merge_after": 0, "taps": (1,)},
            {"depth": 2, "merge_after": 0, "taps": (0, 1)},
        ]),
    ],
)  # fmt: skip
def test_equals_the_plain_model_wherever_it_merges_and_taps(geometry):
    """Both kinds, on a canvas that the tables must be interpolated for."""
    model = small(**geometry)
    params, args = random_params(model), episode(4, 3, (28, 36))
    np.testing.assert_allclose(
        make_predict_fn(model)(params, *args),
        definition(model, params, *args), **EXACT,
    )  # fmt: skip


@pytest.mark.parametrize("p", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_cpu_computes_part_by_part_and_changes_nothing(p, monkeypatch):
    """Head by head, each half by itself, blocks of queries, and the query's attention
    to itself once for all prompts: what a ViT-L of 448 pixels needs, of a small one."""
    args, params = episode(2, p), random_params(small())
    wanted = make_predict_fn(small(attention="xla"))(params, *args)
    monkeypatch.setattr(halves, "_TOKENS", 1)
    monkeypatch.setattr(kernels, "_CACHED", 1)
    shared, calls = halves.attend_shared, []
    note = lambda *args: calls.append(args) or shared(*args)  # noqa: E731
    monkeypatch.setattr(halves, "attend_shared", note)
    got = predict.make_predict_fn(small(attention="heads"))(params, *args)
    np.testing.assert_allclose(got, wanted, **EXACT)
    assert bool(calls) == (p > 1)


def test_encoded_prompts_serve_any_query():
    model = small()
    params, (images, targets, queries, kind) = random_params(model), episode(4, 3)
    encode, predict = make_predict_fns(model)
    prompts = encode(params, images[:1], targets[:1], kind[:1])
    got = predict(params, prompts, queries)
    for query, painting in zip(queries, got, strict=True):
        alone = definition(
            model, params, images[:1], targets[:1], query[None], kind[:1]
        )
        np.testing.assert_allclose(painting, alone[0], **EXACT)


def test_encoding_never_sees_a_query_and_painting_no_prompt():
    """The shapes say what is computed once: nothing of the query is in `prompts`."""
    model = small()
    images, targets, queries, kind = episode(1, 2)
    encode, predict = make_predict_fns(model)
    params = random_params(model)
    prompts = jax.eval_shape(encode, params, images, targets, kind)
    assert prompts.target.shape == (1, 3, 4, 4, 24)  # two prompts, and a hidden target
    assert jax.eval_shape(predict, params, prompts, queries).shape == (1, 16, 16, 3)


def test_copies_of_a_prompt_are_that_prompt():
    model = small()
    params, (images, targets, queries, kind) = random_params(model), episode(1, 1)
    paint = make_predict_fn(model)
    copies = (np.repeat(x, 3, axis=1) for x in (images, targets))
    np.testing.assert_allclose(
        paint(params, *copies, queries, kind),
        paint(params, images, targets, queries, kind), **EXACT,
    )  # fmt: skip


def test_order_of_prompts_only_matters_at_the_seam():
    """The first pixel row sees the first prompt through the decoder's convolution."""
    model = small()
    params, (images, targets, queries, kind) = random_params(model), episode(1, 3)
    paint = make_predict_fn(model)
    first = paint(params, images, targets, queries, kind)
    other = paint(params, images[:, ::-1], targets[:, ::-1], queries, kind)
    np.testing.assert_allclose(first[:, 1:], other[:, 1:], **EXACT)
    assert np.abs(first[:, 0] - other[:, 0]).max() > 1e-4


def test_a_grid_shows_every_prompt_in_its_cell():
    """Prompts of one colour each: quarters, and what is left over starts again."""
    x = np.arange(6, dtype=np.float32)[None, :, None, None, None]
    x = np.broadcast_to(x, (1, 6, 8, 8, 3))
    for method in ("linear", "nearest"):
        grids = np.asarray(tile(x, 2, method))
        assert grids.shape == (1, 2, 8, 8, 3)
        corners = grids[0, :, 1::6, 1::6, 0]
        np.testing.assert_allclose(
            corners, [[[0, 1], [2, 3]], [[4, 5], [0, 1]]], **EXACT
        )


@pytest.mark.parametrize(
    ("ensemble", "b", "p", "side"), [("spatial", 1, 5, 3), ("both", 2, 5, 2)]
)
def test_spatial_ensembles_are_prompts_of_tiles(ensemble, b, p, side):
    model = small()
    params, (images, targets, queries, kind) = random_params(model), episode(b, p)
    tiles = tile(images, side, "linear"), tile(targets, side, "nearest")
    assert tiles[0].shape[1] == (1 if ensemble == "spatial" else 2)
    np.testing.assert_allclose(
        make_predict_fn(model, ensemble)(params, images, targets, queries, kind),
        make_predict_fn(model)(params, *tiles, queries, kind), **EXACT,
    )  # fmt: skip


@pytest.mark.parametrize("ensemble", ["none", "feature", "spatial", "both"])
def test_one_prompt_needs_no_ensemble(ensemble):
    model = small()
    params, args = random_params(model), episode(1, 1)
    np.testing.assert_allclose(
        make_predict_fn(model, ensemble)(params, *args),
        definition(model, params, *args), **EXACT,
    )  # fmt: skip


def test_bad_ensembles_are_named():
    with pytest.raises(ValueError, match="one of none, feature, spatial, both"):
        make_predict_fn(small(), "mean")
    with pytest.raises(ValueError, match="2 prompts need an ensemble: feature, spat"):
        make_predict_fn(small(), "none")(random_params(small()), *episode(1, 2))


def test_bfloat16_is_close_to_float32():
    """bf16 keeps 8 bits: errors of a percent of the outputs' scale through 4 blocks."""
    params, args = random_params(small(), scale=0.1), episode(2, 2)
    exact = make_predict_fn(small(attention="xla"))(params, *args)
    fast = make_predict_fn(small(dtype="bfloat16"))(params, *args)
    assert fast.dtype == jnp.float32
    assert np.abs(fast - exact).max() < 0.05 * np.abs(exact).max()
