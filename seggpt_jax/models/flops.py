"""Floating-point operations of the paper's function, for model FLOPs utilisation (MFU).

Only matrix products count, but for the decoder's small last one: 2 operations for a
multiplication and an addition. Extra work of a kernel or of remat does not count. So
the MFU of different settings can be compared.
"""

from seggpt_jax.models.seggpt import SegGPTConfig

# Dense operations per second of one device in bfloat16, as its maker states them, by
# jax's name of the device.
PEAK_FLOPS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,  # v5p
    "TPU v6 lite": 918e12,
}


def peak_flops(kind: str) -> float | None:
    """Operations per second in bfloat16 of a `device_kind`; None if it is not known."""
    known = [name for name in PEAK_FLOPS if kind.startswith(name)]
    return PEAK_FLOPS[max(known, key=len)] if known else None


def painting_flops(c: SegGPTConfig, prompts: int) -> float:
    """Operations to paint one query with encoded prompts in a feature ensemble (paper,
    "Context Ensemble"). The plain model takes 2.8e12 at ViT-L and 8 prompts."""
    rows, cols = c.grid[0] // 2, c.grid[1]
    half, d = rows * cols, c.width
    painted = half + cols  # tokens that the decoder reads
    attention = _attention(c, c.grid)
    if c.one_way:  # the query's tokens alone
        block = 24 * d**2 * half + prompts * half * attention
        return float(c.depth * block + _decoder(c, painted))
    block = 24 * d**2 * (prompts + 1) * half + prompts * 2 * half * attention
    last = 6 * d**2 * (prompts + 1) * half + 18 * d**2 * painted
    last += prompts * painted * attention
    return float((c.depth - 1) * block + last + _decoder(c, painted))


def training_flops(c: SegGPTConfig, query_only: bool = False) -> float:
    """Operations to train on one pair: forward, and twice as many backward. query_only:
    as in `SegGPT.__call__`."""
    rows, cols = c.grid
    tokens, d = rows * cols, c.width
    embed = 2 * 2 * 3 * c.patch**2 * d * tokens
    blocks = c.depth + c.merge_after + 1  # both streams run the blocks up to the merge
    attention: float = _attention(c, c.grid)
    if c.one_way:  # of the prompt's tokens to their own half
        attention = (attention + _attention(c, (rows // 2, cols))) / 2
    each = tokens * (24 * d**2 + attention)
    painted = (rows // 2 + 1) * cols if query_only else tokens
    return 3.0 * (embed + blocks * each + _decoder(c, painted))


def _attention(c: SegGPTConfig, grid: tuple[int, int]) -> int:
    """Attention of one token to a grid: logits, weighted values, positions."""
    rows, cols = grid
    return 4 * rows * cols * c.width + 2 * (rows + cols) * c.width


def _decoder(c: SegGPTConfig, tokens: int) -> int:
    pixels, w = tokens * c.patch**2, c.decoder_width  # without the 1 x 1 head
    return 2 * tokens * len(c.taps) * c.width * c.patch**2 * w + pixels * 18 * w**2
