"""PyTorch weights <-> ours, on plain NumPy dicts: no torch needed.

Two layouts hold the same 354 tensors for ViT-L: `official` (baaivision/Painter) and
`hf` (transformers' SegGptForImageSegmentation). The table is docs/parity.md.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from seggpt_jax.models.seggpt import SegGPTConfig

LAYOUTS = ("official", "hf")


def _conv_in(x):  # OIHW -> HWIO
    return x.transpose(2, 3, 1, 0)


def _conv_out(x):
    return x.transpose(3, 2, 0, 1)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One tensor: its path here, its name in both layouts, and how to turn it.

    `#` in a name is the number of a block, whose tensors are stacked here. index picks
    a row of a stacked token array.
    """

    ours: str
    official: str
    hf: str
    to_jax: Callable[[np.ndarray, SegGPTConfig], np.ndarray] = lambda x, c: x
    to_torch: Callable[[np.ndarray, SegGPTConfig], np.ndarray] = lambda x, c: x
    index: int | None = None

    def name(self, layout: str) -> str:
        """The tensor's name in `official` or `hf` layout."""
        return self.official if layout == "official" else self.hf


def _linear(ours: str, official: str, hf: str) -> list[Rule]:
    turn = lambda x, c: x.T  # noqa: E731
    return [
        Rule(f"{ours}/kernel", f"{official}.weight", f"{hf}.weight", turn, turn),
        Rule(f"{ours}/bias", f"{official}.bias", f"{hf}.bias"),
    ]


def _norm(ours: str, official: str, hf: str) -> list[Rule]:
    return [
        Rule(f"{ours}/scale", f"{official}.weight", f"{hf}.weight"),
        Rule(f"{ours}/bias", f"{official}.bias", f"{hf}.bias"),
    ]


def _token(ours: str, index: int | None, official: str, hf: str) -> Rule:
    flat = lambda x, c: x.reshape(c.width)  # noqa: E731
    full = lambda x, c: x.reshape(1, 1, 1, c.width)  # noqa: E731
    return Rule(ours, official, f"model.embeddings.{hf}", flat, full, index)


def _block_rules() -> list[Rule]:
    here, official, hf = "blocks", "blocks.#", "model.encoder.layers.#"

    def heads(c):
        return c.heads, c.width // c.heads

    return [
        *_norm(f"{here}/norm1", f"{official}.norm1", f"{hf}.layernorm_before"),
        *_norm(f"{here}/norm2", f"{official}.norm2", f"{hf}.layernorm_after"),
        *(
            Rule(
                f"{here}/attn/rel_pos_{axis}",
                f"{official}.attn.rel_pos_{axis}",
                f"{hf}.attention.rel_pos_{axis}",
            )
            for axis in "hw"
        ),
        Rule(
            f"{here}/attn/qkv/kernel",
            f"{official}.attn.qkv.weight",
            f"{hf}.attention.qkv.weight",
            # torch keeps q, k and v of all heads in one axis, (3, heads, k)
            lambda x, c: x.T.reshape(c.width, 3, *heads(c)),
            lambda x, c: x.reshape(c.width, 3 * c.width).T,
        ),
        Rule(
            f"{here}/attn/qkv/bias",
            f"{official}.attn.qkv.bias",
            f"{hf}.attention.qkv.bias",
            lambda x, c: x.reshape(3, *heads(c)),
            lambda x, c: x.reshape(3 * c.width),
        ),
        Rule(
            f"{here}/attn/proj/kernel",
            f"{official}.attn.proj.weight",
            f"{hf}.attention.proj.weight",
            lambda x, c: x.T.reshape(*heads(c), c.width),
            lambda x, c: x.reshape(c.width, c.width).T,
        ),
        Rule(
            f"{here}/attn/proj/bias",
            f"{official}.attn.proj.bias",
            f"{hf}.attention.proj.bias",
        ),
        *_linear(f"{here}/mlp/fc1", f"{official}.mlp.fc1", f"{hf}.mlp.lin1"),
        *_linear(f"{here}/mlp/fc2", f"{official}.mlp.fc2", f"{hf}.mlp.lin2"),
    ]


def _drop_cls(x, c):
    return x[0, 1:].reshape(c.pos_grid, c.pos_grid, c.width)


def _add_cls(x, c):
    # The model never reads the cls position; what it held was dropped on the way in.
    return np.pad(x.reshape(1, c.pos_grid**2, c.width), ((0, 0), (1, 0), (0, 0)))


RULES = [
    _token("mask_token", None, "mask_token", "mask_token"),
    _token("stream_tokens", 0, "segment_token_x", "segment_token_input"),
    _token("stream_tokens", 1, "segment_token_y", "segment_token_prompt"),
    _token("kind_tokens", 0, "type_token_cls", "type_token_semantic"),
    _token("kind_tokens", 1, "type_token_ins", "type_token_instance"),
    Rule(
        "pos_embed",
        "pos_embed",
        "model.embeddings.position_embeddings",
        _drop_cls,
        _add_cls,
    ),
    Rule(
        "patch_embed/kernel",
        "patch_embed.proj.weight",
        "model.embeddings.patch_embeddings.projection.weight",
        lambda x, c: _conv_in(x).reshape(-1, c.width),
        lambda x, c: _conv_out(x.reshape(c.patch, c.patch, 3, c.width)),
    ),
    Rule(
        "patch_embed/bias",
        "patch_embed.proj.bias",
        "model.embeddings.patch_embeddings.projection.bias",
    ),
    *_block_rules(),
    *_norm("norm", "norm", "model.encoder.layernorm"),
    *_linear("decoder/embed", "decoder_embed", "decoder.decoder_embed"),
    Rule(
        "decoder/conv/kernel",
        "decoder_pred.0.weight",
        "decoder.decoder_pred.conv.weight",
        lambda x, c: _conv_in(x),
        lambda x, c: _conv_out(x),
    ),
    Rule("decoder/conv/bias", "decoder_pred.0.bias", "decoder.decoder_pred.conv.bias"),
    *_norm("decoder/norm", "decoder_pred.1", "decoder.decoder_pred.layernorm"),
    Rule(
        "decoder/head/kernel",
        "decoder_pred.3.weight",
        "decoder.decoder_pred.head.weight",
        lambda x, c: x[:, :, 0, 0].T,
        lambda x, c: x.T[:, :, None, None],
    ),
    Rule("decoder/head/bias", "decoder_pred.3.bias", "decoder.decoder_pred.head.bias"),
]


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

    Strict: one ValueError lists every missing, unexpected and wrong-shape tensor.
    """
    layout, config = read_geometry(state)
    problems: list[str] = []
    params: dict[str, Any] = {}
    used = set()
    shapes = _torch_shapes(config, layout)
    for name, shape in shapes.items():
        if name not in state:
            problems.append(f"missing: {name} {shape}")
        elif tuple(state[name].shape) != shape:
            problems.append(
                f"wrong shape: {name} is {tuple(state[name].shape)}, not {shape}"
            )
        used.add(name)
    problems += [f"unexpected: {name}" for name in state if name not in used]
    if problems:
        raise ValueError(
            f"state dict ({layout} names) does not fit:\n  " + "\n  ".join(problems)
        )
    for rule in RULES:
        names = _expand(rule.name(layout), config.depth)
        leaves = [rule.to_jax(np.asarray(state[n], np.float32), config) for n in names]
        leaf = np.stack(leaves) if rule.ours.startswith("blocks/") else leaves[0]
        _put(params, rule.ours, leaf, rule.index)
    return config, params


def to_torch(
    config: SegGPTConfig, params: Mapping[str, Any], layout: str = "official"
) -> dict[str, np.ndarray]:
    """Parameters -> a PyTorch state dict of NumPy arrays. Undoes `from_torch`.

    The position of the unused cls token, which we do not keep, comes back as zeros.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r} is not one of {', '.join(LAYOUTS)}")
    state = {}
    for rule in RULES:
        leaf = _get(params, rule.ours)
        if rule.ours.startswith("blocks/"):
            for i, name in enumerate(_expand(rule.name(layout), config.depth)):
                state[name] = np.ascontiguousarray(rule.to_torch(leaf[i], config))
            continue
        leaf = leaf if rule.index is None else leaf[rule.index]
        state[rule.name(layout)] = np.ascontiguousarray(rule.to_torch(leaf, config))
    return state


def _torch_shapes(c: SegGPTConfig, layout: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that a model of this geometry has."""
    d, k, m = c.width, c.width // c.heads, c.mlp_ratio * c.width
    w, p, taps = c.decoder_width, c.patch, len(c.taps) * c.width
    shapes = {
        "pos_embed": (1, c.pos_grid**2 + 1, d),
        "patch_embed/kernel": (d, 3, p, p),
        "blocks/attn/rel_pos_h": (2 * c.grid[0] - 1, k),
        "blocks/attn/rel_pos_w": (2 * c.grid[1] - 1, k),
        "blocks/attn/qkv/kernel": (3 * d, d),
        "blocks/attn/qkv/bias": (3 * d,),
        "blocks/attn/proj/kernel": (d, d),
        "blocks/mlp/fc1/kernel": (m, d),
        "blocks/mlp/fc1/bias": (m,),
        "blocks/mlp/fc2/kernel": (d, m),
        "decoder/embed/kernel": (p * p * w, taps),
        "decoder/embed/bias": (p * p * w,),
        "decoder/conv/kernel": (w, w, 3, 3),
        "decoder/conv/bias": (w,),
        "decoder/norm/scale": (w,),
        "decoder/norm/bias": (w,),
        "decoder/head/kernel": (3, w, 1, 1),
        "decoder/head/bias": (3,),
    }
    full = {}
    for rule in RULES:
        default = (1, 1, 1, d) if rule.ours.endswith(("token", "tokens")) else (d,)
        for name in _expand(rule.name(layout), c.depth):
            full[name] = shapes.get(rule.ours, default)
    return full


def _expand(name: str, depth: int) -> list[str]:
    return [name.replace("#", str(i)) for i in range(depth)] if "#" in name else [name]


def _get(params: Mapping[str, Any], path: str):
    for part in path.split("/"):
        params = params[part]
    return np.asarray(params)


def _put(params: dict[str, Any], path: str, leaf: np.ndarray, index: int | None):
    *folders, last = path.split("/")
    for part in folders:
        params = params.setdefault(part, {})
    if index is None:
        params[last] = leaf
    else:  # rows of a stacked array come in order
        rows = [*params[last], leaf] if last in params else [leaf]
        params[last] = np.stack(rows)
