"""State dicts of Painter and MAE, SegGPT's ancestors, completed to one of SegGPT.

Painter has no kind tokens; MAE has only an encoder. The missing tensors are filled in,
so that `params.from_torch` checks the result as strictly as a state dict of SegGPT.
"""

import re
from collections.abc import Mapping

import jax
import numpy as np

from seggpt_jax.models.params import to_torch
from seggpt_jax.models.seggpt import SIZES, SegGPT, SegGPTConfig, init_params
from seggpt_jax.runs.runtime import quick_compile

_KIND_TOKENS = "type_token_cls", "type_token_ins"
_MAE_ONLY = r"cls_token|mask_token|decoder_.*"
_ENCODER = r"patch_embed\..*|pos_embed|blocks\.\d+\.(?!attn\.rel_pos).*|norm\..*"
_BLOCK = re.compile(r"blocks\.(\d+)\.norm1\.weight")


def complete(state: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """A state dict of SegGPT, Painter or MAE -> one of SegGPT, and a note for the user.

    Names and shapes alone tell which model it is. The note says which tensors were
    filled in, and how; it is empty for SegGPT.
    """
    state = dict(state)
    if any(name.startswith("model.") for name in state):
        return state, ""
    if not any(".attn.rel_pos_" in name for name in state):
        return _complete_mae(state)
    pos = state.get("pos_embed")
    if pos is not None and pos.ndim and not any(name in state for name in _KIND_TOKENS):
        width = state["pos_embed"].shape[-1]
        zeros = np.zeros((1, 1, 1, width), np.float32)
        return state | dict.fromkeys(_KIND_TOKENS, zeros), (
            "Painter: it has no kind tokens; both start at zero, so that the function "
            "is Painter's"
        )
    return state, ""


def _complete_mae(state: dict[str, np.ndarray]):
    numbers = [int(m[1]) for name in state if (m := _BLOCK.fullmatch(name))]
    patch_embed, pos = state.get("patch_embed.proj.weight"), state.get("pos_embed")
    if not numbers or patch_embed is None or pos is None:
        return state, ""  # of no known model: from_torch lists the missing tensors
    if patch_embed.ndim != 4 or pos.ndim != 3:
        return state, ""
    width, _, patch, _ = patch_embed.shape
    depth = max(numbers) + 1
    known = {(w, d): heads for w, d, heads in SIZES.values()}
    known |= {(1280, 32): 16}  # MAE's ViT-H
    if (width, depth) not in known:
        sizes = ", ".join(f"{w} x {d}" for w, d in known)
        raise ValueError(
            f"MAE of width {width} and {depth} blocks: the number of heads is not in "
            f"its tensors, and known only for {sizes}"
        )
    config = SegGPTConfig(
        width, depth, known[width, depth], patch, canvas=(56 * patch, 28 * patch),
        pos_grid=round((pos.shape[1] - 1) ** 0.5), merge_after=min(2, depth // 4 - 1),
    )  # fmt: skip
    init = jax.jit(
        lambda key: init_params(SegGPT(config), key), compiler_options=quick_compile()
    )
    fresh = to_torch(config, jax.device_get(init(jax.random.key(0))))
    kept = {n: x for n, x in state.items() if not re.fullmatch(_MAE_ONLY, n)}
    filled = {n: x for n, x in fresh.items() if not re.fullmatch(_ENCODER, n)}
    return filled | kept, (
        "MAE: only the encoder; relative positions start at zero, tokens and decoder "
        "at random (seed 0). For training, not for use"
    )
