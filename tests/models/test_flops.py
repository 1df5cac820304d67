"""Counted operations, against those that XLA counts in the program it makes."""

import jax
import pytest

from seggpt_jax.models.flops import (
    PEAK_FLOPS,
    painting_flops,
    peak_flops,
    training_flops,
)
from seggpt_jax.models.seggpt import SegGPT, SegGPTConfig
from seggpt_jax.predict import make_predict_fns
from seggpt_jax.training.train_step import paint_model
from seggpt_jax.weights.build import abstract_params

# Unrolled, for XLA counts the body of a loop once.
CONFIG = SegGPTConfig(
    width=256, depth=2, heads=4, patch=4, canvas=(64, 32), merge_after=0,
    taps=(0, 1), decoder_width=8, attention="xla", scan=False,
)  # fmt: skip


def shape(*sizes, dtype="float32"):
    return jax.ShapeDtypeStruct(sizes, dtype)


@pytest.mark.parametrize(
    ("prompts", "one_way"),
    [pytest.param(1, False, marks=pytest.mark.slow), (3, False), (3, True)],
)
def test_painting(prompts, one_way):
    # Its loop over blocks runs the last one too.
    one_block = {"one_way": True, "depth": 1, "taps": (0,)}
    config = CONFIG.replace(**one_block) if one_way else CONFIG
    model = SegGPT(config)
    params, shown = abstract_params(model), shape(1, prompts, 32, 32, 3)
    encode, predict = make_predict_fns(model)
    encoded = jax.eval_shape(encode, params, shown, shown, shape(1, dtype="int32"))
    compiled = predict.lower(params, encoded, shape(1, 32, 32, 3)).compile()
    counted = painting_flops(config, prompts)
    # XLA counts what is no product, too: norms, softmax, GELU and the head.
    assert 0.9 < counted / compiled.cost_analysis()["flops"] < 1.02


@pytest.mark.parametrize(
    ("query_only", "one_way"),
    [pytest.param(False, False, marks=pytest.mark.slow), (True, False),
     pytest.param(True, True, marks=pytest.mark.slow)],
)  # fmt: skip
def test_training(query_only, one_way):
    config = CONFIG.replace(one_way=one_way)
    model = SegGPT(config)
    paint = paint_model(model, query_only)
    rows = {
        "images": shape(2, 64, 32, 3),
        "targets": shape(2, 64, 32, 3),
        "hidden": shape(2, 16, 8, dtype="bool"),
        "kind": shape(2, dtype="int32"),
    }

    def loss(params, rows):
        return (paint(params, None, rows, jax.random.key(0)) ** 2).sum()

    step = jax.jit(jax.grad(loss))
    compiled = step.lower(abstract_params(model), rows).compile()
    counted = 2 * training_flops(config, query_only)
    # As above; nothing flows back into the pixels, which is counted.
    assert 0.9 < counted / compiled.cost_analysis()["flops"] < 1.05


def test_the_released_model():
    """ViT-L: 2 x 304 million parameters of blocks, most of it, times 3."""
    c = SegGPTConfig.of("l16")
    tokens, blocks = 1568, 12 * 1024**2 * (24 + 3)
    assert 1 < training_flops(c) / (3 * 2 * blocks * tokens) < 1.5


@pytest.mark.parametrize(
    "kind, name",
    [
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100"),
        ("NVIDIA H100 PCIe", "NVIDIA H100 PCIe"),
        ("TPU v5 lite", "TPU v5 lite"),
        ("TPU v5", "TPU v5"),
    ],
)
def test_devices_are_known_by_the_longest_name(kind, name):
    assert peak_flops(kind) == PEAK_FLOPS[name]


def test_peaks_are_those_of_the_makers():
    """Dense bfloat16 in TFLOP/s: NVIDIA's data sheets without sparsity, and the system
    pages of Cloud TPU."""
    stated = {
        "NVIDIA A100": 312, "NVIDIA H100 PCIe": 756, "NVIDIA H100": 989,
        "NVIDIA H200": 989, "TPU v4": 275, "TPU v5 lite": 197, "TPU v5": 459,
        "TPU v6 lite": 918,
    }  # fmt: skip
    assert {name: peak / 1e12 for name, peak in PEAK_FLOPS.items()} == stated


def test_a_cpu_has_no_stated_peak():
    assert peak_flops(jax.devices()[0].device_kind) is None
