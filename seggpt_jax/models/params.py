"""PyTorch weights <-> ours, on plain NumPy dicts: no torch needed.

Two layouts hold the same 354 tensors for ViT-L: `official` (baaivision/Painter) and
`hf` (transformers' SegGptForImageSegmentation). The table of names is `RULES`.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from seggpt_jax.models.seggpt import INITIALIZERS, SegGPTConfig
from seggpt_jax.trees import lines

LAYOUTS = ("official", "hf")
Turn = Callable[[np.ndarray, SegGPTConfig], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rule:
    """One tensor: its path here, its name in both layouts, and how to convert it.

    `#` in a name is the number of a block; the tensors of all blocks are stacked here.
    index: the tensor's row of a stacked array of tokens.
    """

    ours: str
    official: str
    hf: str
    to_jax: Turn = lambda x, c: x
    to_torch: Turn = lambda x, c: x
    index: int | None = None

    def name(self, layout: str) -> str:
        """The tensor's name in `official` or `hf` layout."""
        return self.official if layout == "official" else self.hf

    def names(self, layout: str, depth: int) -> list[str]:
        """The names in a model of `depth` blocks: one, or one for each block."""
        count = depth if "#" in self.official else 1
        return [self.name(layout).replace("#", str(i)) for i in range(count)]


def _token(ours: str, index: int | None, official: str, hf: str) -> Rule:
    return Rule(
        ours, official, f"model.embeddings.{hf}",
        lambda x, c: x.reshape(c.width), lambda x, c: x.reshape(1, 1, 1, c.width),
        index,
    )  # fmt: skip


def _norm(ours: str, official: str, hf: str) -> list[Rule]:
    return [
        Rule(f"{ours}/scale", f"{official}.weight", f"{hf}.weight"),
        Rule(f"{ours}/bias", f"{official}.bias", f"{hf}.bias"),
    ]


def _layer(ours: str, official: str, hf: str, to_jax: Turn, to_torch: Turn):
    return [
        Rule(f"{ours}/kernel", f"{official}.weight", f"{hf}.weight", to_jax, to_torch),
        Rule(f"{ours}/bias", f"{official}.bias", f"{hf}.bias"),
    ]


def _linear(ours: str, official: str, hf: str) -> list[Rule]:
    return _layer(ours, official, hf, lambda x, c: x.T, lambda x, c: x.T)


def _conv_in(x, c):  # OIHW -> HWIO
    return x.transpose(2, 3, 1, 0)


def _conv_out(x, c):
    return x.transpose(3, 2, 0, 1)


def _qkv_in(x, c):  # torch keeps q, k and v of all heads in one axis, (3, heads, k)
    return x.T.reshape(*x.shape[1:], 3, c.heads, c.width // c.heads)


def _qkv_out(x, c):
    return x.reshape(*x.shape[:-3], 3 * c.width).T


def _block(ours: str, official: str, hf: str) -> list[Rule]:
    return [
        *_norm(f"{ours}/norm1", f"{official}.norm1", f"{hf}.layernorm_before"),
        *_norm(f"{ours}/norm2", f"{official}.norm2", f"{hf}.layernorm_after"),
        *(
            Rule(f"{ours}/attn/{n}", f"{official}.attn.{n}", f"{hf}.attention.{n}")
            for n in ("rel_pos_h", "rel_pos_w")
        ),
        *(
            Rule(
                f"{ours}/attn/qkv/{leaf}", f"{official}.attn.qkv.{name}",
                f"{hf}.attention.qkv.{name}", _qkv_in, _qkv_out,
            )
            for leaf, name in (("kernel", "weight"), ("bias", "bias"))
        ),
        *_layer(
            f"{ours}/attn/proj", f"{official}.attn.proj", f"{hf}.attention.proj",
            lambda x, c: x.T.reshape(c.heads, -1, c.width),
            lambda x, c: x.reshape(c.width, c.width).T,
        ),
        *_linear(f"{ours}/mlp/fc1", f"{official}.mlp.fc1", f"{hf}.mlp.lin1"),
        *_linear(f"{ours}/mlp/fc2", f"{official}.mlp.fc2", f"{hf}.mlp.lin2"),
    ]  # fmt: skip


def _drop_cls(x, c):
    return x[0, 1:].reshape(c.pos_grid, c.pos_grid, c.width)


def _add_cls(x, c):
    # The model never reads the position of the cls token, and `_drop_cls` dropped it.
    return np.pad(x.reshape(1, c.pos_grid**2, c.width), ((0, 0), (1, 0), (0, 0)))


RULES = [
    _token("mask_token", None, "mask_token", "mask_token"),
    _token("stream_tokens", 0, "segment_token_x", "segment_token_input"),
    _token("stream_tokens", 1, "segment_token_y", "segment_token_prompt"),
    _token("kind_tokens", 0, "type_token_cls", "type_token_semantic"),
    _token("kind_tokens", 1, "type_token_ins", "type_token_instance"),
    Rule("pos_embed", "pos_embed", "model.embeddings.position_embeddings",
         _drop_cls, _add_cls),
    *_layer(
        "patch_embed", "patch_embed.proj",
        "model.embeddings.patch_embeddings.projection",
        lambda x, c: _conv_in(x, c).reshape(-1, c.width),
        lambda x, c: _conv_out(x.reshape(c.patch, c.patch, 3, c.width), c),
    ),
    *_block("blocks", "blocks.#", "model.encoder.layers.#"),
    *_norm("norm", "norm", "model.encoder.layernorm"),
    *_linear("decoder/embed", "decoder_embed", "decoder.decoder_embed"),
    *_layer("decoder/conv", "decoder_pred.0", "decoder.decoder_pred.conv",
            _conv_in, _conv_out),
    *_norm("decoder/norm", "decoder_pred.1", "decoder.decoder_pred.layernorm"),
    *_layer(
        "decoder/head", "decoder_pred.3", "decoder.decoder_pred.head",
        lambda x, c: x[:, :, 0, 0].T, lambda x, c: x.T[:, :, None, None],
    ),
]  # fmt: skip


def read_geometry(state: Mapping[str, np.ndarray]) -> tuple[str, SegGPTConfig]:
    """Layout and configuration of a state dict, from its names and shapes alone.

    Taps and the merge are not stored in weights: quarters of the depth and block 2,
    as every released size has them.
    """
    layout = "hf" if any(name.startswith("model.") for name in state) else "official"
    names = {rule.ours: rule.name(layout) for rule in RULES}
    needed = ["patch_embed/kernel", "pos_embed", "decoder/embed/kernel",
              "decoder/conv/kernel"]  # fmt: skip
    per_block = ["blocks/attn/rel_pos_h", "blocks/attn/rel_pos_w",
                 "blocks/mlp/fc1/kernel"]  # fmt: skip
    wanted = [names[n] for n in needed] + [
        names[n].replace("#", "0") for n in per_block
    ]
    if missing := [name for name in wanted if name not in state]:
        raise ValueError(
            "not a SegGPT state dict (official or transformers names): the geometry "
            f"cannot be read without {', '.join(missing)}"
        )
    ranks = (4, 3, 2, 4, 2, 2, 2)
    if wrong := [
        f"{name} is {state[name].shape}"
        for name, rank in zip(wanted, ranks, strict=True)
        if state[name].ndim != rank or 0 in state[name].shape
    ]:
        raise ValueError(f"the geometry cannot be read: {', '.join(wrong)}")
    patch_embed, pos, embed, conv, rel_h, rel_w, fc1 = (state[n].shape for n in wanted)
    pattern = re.escape(names["blocks/norm1/scale"]).replace(r"\#", r"(\d+)")
    numbers = [int(m[1]) for name in state if (m := re.fullmatch(pattern, name))]
    width, patch = patch_embed[0], patch_embed[2]
    depth = max(numbers, default=-1) + 1
    if depth > 2 * len(numbers) + 1:  # else the missing ones are listed
        raise ValueError(
            f"the geometry cannot be read: blocks are numbered up to {depth - 1}, and "
            f"there are {len(numbers)}"
        )
    count = embed[1] // width  # taps: the decoder reads them side by side
    if count < 1 or rel_h[1] > width:
        raise ValueError(
            f"the geometry cannot be read: width {width}, but {wanted[2]} is {embed} "
            f"and {wanted[4]} {rel_h}"
        )
    taps = tuple(depth * (i + 1) // count - 1 for i in range(count))
    config = SegGPTConfig(
        width=width,
        depth=depth,
        heads=width // rel_h[1],
        patch=patch,
        canvas=((rel_h[0] + 1) // 2 * patch, (rel_w[0] + 1) // 2 * patch),
        pos_grid=round((pos[1] - 1) ** 0.5),
        mlp_ratio=fc1[0] // width,
        merge_after=min(2, taps[0]),
        taps=taps,
        decoder_width=conv[0],
    )
    return layout, config


def from_torch(
    state: Mapping[str, np.ndarray],
) -> tuple[SegGPTConfig, dict[str, Any]]:
    """A PyTorch state dict of NumPy arrays -> configuration and float32 parameters.

    Strict: one ValueError lists missing, unexpected and wrong-shape tensors.
    """
    layout, config = read_geometry(state)
    shapes = {name: x.shape for name, x in _convert(_zeros(config), config, layout)}
    problems = []
    for name, shape in shapes.items():
        if name not in state:
            problems.append(f"missing: {name} {shape}")
        elif state[name].shape != shape:
            problems.append(f"wrong shape: {name} is {state[name].shape}, not {shape}")
    problems += [f"unexpected: {name}" for name in state if name not in shapes]
    if problems:
        raise ValueError(
            f"state dict ({layout} names) does not fit:\n  " + lines(problems)
        )
    params: dict[str, Any] = {}
    for rule in RULES:
        names = rule.names(layout, config.depth)
        leaves = [rule.to_jax(np.asarray(state[n], np.float32), config) for n in names]
        if rule.index is not None:  # the rows of a stacked array come in order
            leaves = [*params.get(rule.ours, []), *leaves]
        stacked = "#" in rule.official or rule.index is not None
        params[rule.ours] = np.stack(leaves) if stacked else leaves[0]
    return config, traverse_util.unflatten_dict(params, sep="/")


def to_torch(
    config: SegGPTConfig, params: Mapping[str, Any], layout: str = "official"
) -> dict[str, np.ndarray]:
    """Parameters -> a PyTorch state dict of NumPy arrays. Undoes `from_torch`; raises
    ValueError for a one-way model.

    The position of the unused cls token, which we do not keep, comes back as zeros.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r} is not one of {', '.join(LAYOUTS)}")
    if config.one_way:
        raise ValueError(
            "model.one_way = True: no model in PyTorch computes this function, so its "
            "weights have no form for PyTorch; a release (--to=ours) holds them"
        )
    converted = _convert(params, config, layout)
    return {name: np.ascontiguousarray(x) for name, x in converted}


def _convert(params, config: SegGPTConfig, layout: str):
    """Name and tensor of every parameter in a PyTorch layout."""
    flat = traverse_util.flatten_dict(params, sep="/")
    for rule in RULES:
        leaf = np.asarray(flat[rule.ours])
        if "#" not in rule.official:
            leaf = leaf[None] if rule.index is None else leaf[rule.index :]
        names = rule.names(layout, config.depth)
        for name, x in zip(names, leaf, strict=False):
            yield name, rule.to_torch(x, config)


def _zeros(config: SegGPTConfig):
    """Parameters of a geometry as zeros that take no memory."""
    shapes = jax.eval_shape(
        lambda key: {name: init(key, config) for name, init in INITIALIZERS.items()},
        jax.random.key(0),
    )
    return jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
