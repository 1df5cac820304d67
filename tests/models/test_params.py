"""Weights both ways: exact round trips, and every problem of a state dict at once."""

import numpy as np
import pytest
from transformers import SegGptConfig, SegGptForImageSegmentation

from seggpt_jax.models.params import RULES, from_torch, read_geometry, to_torch
from seggpt_jax.trees import named_leaves


def make_state(layout="official", seed=0) -> dict[str, np.ndarray]:
    """A state dict with the very names and shapes of transformers' model, random."""
    model = SegGptForImageSegmentation(
        SegGptConfig(
            hidden_size=24, num_hidden_layers=12, num_attention_heads=2,
            image_size=(32, 16), patch_size=4, pretrain_image_size=12,
            decoder_hidden_size=8, intermediate_hidden_state_indices=(2, 5, 8, 11),
        )
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    state = {
        name: rng.normal(size=tuple(value.shape)).astype(np.float32)
        for name, value in model.state_dict().items()
    }
    state["model.embeddings.position_embeddings"][:, 0] = 0  # never read: dropped
    return state if layout == "hf" else to_torch(*from_torch(state), "official")


@pytest.mark.parametrize("layout", ["official", "hf"])
def test_round_trip_is_exact(layout):
    state = make_state(layout)
    config, params = from_torch(state)
    back = to_torch(config, params, layout)
    assert set(back) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_geometry_is_read_from_shapes():
    for layout in ("official", "hf"):
        read, config = read_geometry(make_state(layout))
        assert read == layout
        assert (config.width, config.depth, config.heads) == (24, 12, 2)
        assert (config.patch, config.canvas, config.pos_grid) == (4, (32, 16), 3)
        assert (config.taps, config.merge_after) == ((2, 5, 8, 11), 2)
        assert config.decoder_width == 8


def test_both_layouts_name_the_354_tensors_of_vit_large():
    """docs/parity.md: 14 tensors in each of 24 blocks, and 18 others."""
    for layout in ("official", "hf"):
        names = [rule.name(layout) for rule in RULES]
        assert len(set(names)) == len(names)
        in_blocks = [name for name in names if "#" in name]
        assert len(in_blocks) == 14
        assert 24 * len(in_blocks) + len(names) - len(in_blocks) == 354


def test_tensors_of_one_shape_have_the_right_name_in_both_layouts():
    """As transformers' script, which read the authors' file, renames them: a wrong pair
    would go back and forth without a trace."""
    theirs = {rule.official: rule.hf for rule in RULES}
    tokens, block = "model.embeddings.", "model.encoder.layers.#."
    for name, other in {
        "segment_token_x": f"{tokens}segment_token_input",
        "segment_token_y": f"{tokens}segment_token_prompt",
        "type_token_cls": f"{tokens}type_token_semantic",
        "type_token_ins": f"{tokens}type_token_instance",
        "blocks.#.norm1.weight": f"{block}layernorm_before.weight",
        "blocks.#.norm2.weight": f"{block}layernorm_after.weight",
        "blocks.#.norm1.bias": f"{block}layernorm_before.bias",
        "blocks.#.norm2.bias": f"{block}layernorm_after.bias",
        "blocks.#.attn.rel_pos_h": f"{block}attention.rel_pos_h",
        "blocks.#.attn.rel_pos_w": f"{block}attention.rel_pos_w",
    }.items():
        assert theirs[name] == other


def test_every_parameter_is_filled():
    config, params = from_torch(make_state())
    for name, leaf in named_leaves(params).items():
        assert leaf.dtype == np.float32
        assert np.isfinite(leaf).all() and leaf.size, name


def test_half_precision_loads_as_float32():
    half = {name: value.astype(np.float16) for name, value in make_state().items()}
    _, params = from_torch(half)
    assert all(leaf.dtype == np.float32 for leaf in named_leaves(params).values())


def test_all_problems_are_listed_together():
    state = make_state()
    del state["norm.bias"]
    del state["blocks.7.attn.proj.bias"]
    state["head.weight"] = np.zeros(3)
    state["mask_token"] = np.zeros((1, 1, 1, 25))
    with pytest.raises(ValueError) as error:
        from_torch(state)
    text = str(error.value)
    for problem in (
        "missing: norm.bias", "missing: blocks.7.attn.proj.bias",
        "unexpected: head.weight", "wrong shape: mask_token is (1, 1, 1, 25)",
    ):  # fmt: skip
        assert problem in text


def test_something_else_is_refused():
    with pytest.raises(ValueError, match="not a SegGPT state dict"):
        from_torch({"layer.weight": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="one of official, hf"):
        to_torch(*from_torch(make_state()), "keras")


def test_one_way_models_have_no_form_for_pytorch():
    config, params = from_torch(make_state())
    with pytest.raises(ValueError, match="model.one_way = True: no model in PyTorch"):
        to_torch(config.replace(one_way=True), params)
