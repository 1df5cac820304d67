"""Attention with decomposed relative positions (MViTv2) over a grid of tokens.

`attend` is a pure function of arrays. Its `xla` body is the definition; any other
implementation is tested against it, forward and backward.
"""

import functools
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seggpt_jax.models import kernels
from seggpt_jax.models.resample import linear_matrix
from seggpt_jax.runs.partition import fitting

IMPLEMENTATIONS: Mapping[str, Callable[..., jax.Array]] = MappingProxyType({
    "xla": kernels.attend_xla,
    "heads": kernels.attend_heads,
    "cudnn": kernels.attend_cudnn,
    "cudnn_bias": kernels.attend_cudnn_bias,
    "splash": kernels.attend_splash,
})  # fmt: skip
CHOICES = ("auto", *IMPLEMENTATIONS)
# The choice of `auto` on each platform, and why (measured: benchmarks/results). Other
# platforms get the definition.
_NO_LOGITS = "the one that keeps no logits; not measured"
_AUTO = {
    "cpu": ("heads", "the fastest measured"),
    "tpu": ("splash", _NO_LOGITS),
    "hopper": ("cudnn", _NO_LOGITS),
}
# NVIDIA's Hopper: H100, H200, H800, H20, GH200. Of all GPUs only these have a backward
# pass of cuDNN for heads wider than 128, up to 256 (support matrix of cuDNN 9.18.1,
# "Attention"); a widened head of ViT-L has 152 features.
_HOPPER = re.compile(r"NVIDIA G?H\d")
_WIDEST = 256
_NEEDS = {"cudnn": "gpu", "cudnn_bias": "gpu", "splash": "tpu"}
_WHERE = {"gpu": "bfloat16 on NVIDIA GPUs", "tpu": "TPUs"}


def relative_positions(
    table: Float[Array, "length k"], size: int
) -> Float[Array, "size size k"]:
    """Embedding of every (query, key) distance along one axis of `size` tokens.

    A table made for another size is interpolated linearly, as the released code does.
    """
    length = 2 * size - 1
    if table.shape[0] != length:
        table = jnp.asarray(linear_matrix(table.shape[0], length), table.dtype) @ table
    # Row `i - j + size - 1` of the table is for a query at i and a key at j.
    distance = np.arange(size)[:, None] - np.arange(size)[None, :] + size - 1
    return table[distance]


def attend(
    q: Float[Array, "b n q k"],
    k: Float[Array, "b n t k"],
    v: Float[Array, "b n t k"],
    rel_h: Float[Array, "qh h k"],
    rel_w: Float[Array, "qw w k"],
    *,
    impl: str = "auto",
) -> Float[Array, "b n q k"]:
    """softmax(q k / sqrt(width) + q rel_h + q rel_w) v, softmax in float32.

    Tokens run row by row: queries over a grid of `qh * qw`, perhaps the lower rows of
    the canvas only, keys over `h * w`. Only the
    q k term is scaled; the positional terms use q as it is (docs/parity.md).
    impl: one of `CHOICES`.
    """
    if impl not in CHOICES:
        raise ValueError(f"attention {impl!r} is not one of {', '.join(CHOICES)}")
    where, _ = device()
    if impl == "auto":
        wide = kernels.widened(q.shape[-1], rel_h.shape[1], rel_w.shape[1])
        impl = automatic(q.dtype, wide)
    needed = _NEEDS.get(impl)
    if needed and (needed != where or (needed == "gpu" and q.dtype == jnp.float32)):
        raise ValueError(
            f"attention {impl!r} is for {_WHERE[needed]}, and this is {q.dtype} on "
            f"{where}: choose auto, xla or heads"
        )
    function = IMPLEMENTATIONS[impl]
    if impl != "xla":
        function = _on_mesh(function, q)
    return function(q, k, v, rel_h, rel_w)


def gives_sums(impl: str, dtype: DTypeLike) -> bool:
    """Whether this choice computes here what `attend_summed` gives, at its cost."""
    return (automatic(dtype) if impl == "auto" else impl) == "heads"


def attend_summed(
    q: Float[Array, "b n q k"],
    k: Float[Array, "b n t k"],
    v: Float[Array, "b n t k"],
    rel_h: Float[Array, "qh h k"],
    rel_w: Float[Array, "qw w k"],
) -> tuple[Float[Array, "b n q k"], Float[Array, "b n q"]]:
    """`attend` by `heads`, and the logarithm of every query's sum of exponentials:
    `kernels.merge_keys` makes attention to several grids of keys of both."""
    summed = _on_mesh(kernels.attend_heads_summed, q, summed=True)
    return summed(q, k, v, rel_h, rel_w)


def _on_mesh(function: Callable[..., Any], q, summed: bool = False):
    """The function on every device's heads. Each device has whole heads of whole rows;
    kernels cannot be cut by XLA."""
    if jax.sharding.get_abstract_mesh().size <= 1:
        return function
    heads = fitting("activations/heads", q.shape)
    return jax.shard_map(
        function, in_specs=(heads, heads, heads, P(), P()),
        out_specs=(heads, P(*heads[:3])) if summed else heads, check_vma=False,
    )  # fmt: skip


def device() -> tuple[str, str]:
    """Platform, "cpu", "gpu" or "tpu", and kind of the devices to compile for.

    They are the devices of the current mesh, perhaps of absent hardware; without a
    mesh, jax's default devices.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device:
        return device.platform, device.device_kind
    return jax.default_backend(), jax.devices()[0].device_kind


def automatic(dtype: DTypeLike, widened: int = 0) -> str:
    """The implementation that `auto` takes here, for heads of `widened` features."""
    where, kind = device()
    hopper = where == "gpu" and _HOPPER.match(kind) and jnp.dtype(dtype) == jnp.bfloat16
    return choose("hopper" if hopper and widened <= _WIDEST else where)


@functools.cache
def choose(platform: str) -> str:
    """The implementation that `auto` takes on a platform; logged once.

    platform: as of `device`, or "hopper": bfloat16 on NVIDIA's Hopper GPUs.
    """
    impl, why = _AUTO.get(platform, ("xla", "none measured yet"))
    logging.info("attention on %s: %s (%s)", platform, impl, why)
    return impl
