"""The axes of a mesh, and one ordered table: which axes cut which array."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
from jax.sharding import PartitionSpec as P

from seggpt_jax.trees import first_match

S = TypeVar("S")
T = TypeVar("T")
U = TypeVar("U")
AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")  # the axes that cut the rows of a batch

# Parameters and optimizer state: heads and MLP are cut over `tensor`, the other large
# axis over `fsdp`; small arrays stay whole. The first axis of a block's array is its
# layer. Activations: rows are cut over `data` and `fsdp`. Without these rules XLA would
# cut the width of tokens over `fsdp`, as in kernels. `tensor` cuts the decoder's pixels
# by their rows. `...`: any number of axes.
RULES: list[tuple[str, tuple]] = [
    (r"activations/tokens", (ROWS, ...)),
    (r"activations/hidden", (ROWS, ..., "tensor")),
    (r"activations/heads", (ROWS, "tensor", ...)),
    (r"activations/qkv", (None, ROWS, "tensor", ...)),
    (r"activations/(patches|pixels)", (ROWS, "tensor", ...)),
    (r"blocks/attn/qkv/kernel", (None, "fsdp", None, "tensor", None)),
    (r"blocks/attn/qkv/bias", (None, None, "tensor", None)),
    (r"blocks/attn/proj/kernel", (None, "tensor", None, "fsdp")),
    (r"blocks/mlp/fc1/kernel", (None, "fsdp", "tensor")),
    (r"blocks/mlp/fc1/bias", (None, "tensor")),
    (r"blocks/mlp/fc2/kernel", (None, "tensor", "fsdp")),
    (r"patch_embed/kernel", (None, "fsdp")),
    (r"decoder/embed/kernel", ("fsdp", "tensor")),
    (r"decoder/embed/bias", ("tensor",)),
    (r".*", ()),
]


def spec(name: str, ndim: int) -> P:
    """The table's entry for an array of so many axes."""
    names = first_match(RULES, name) if ndim else ()
    if ... in names:
        at = names.index(...)
        rest = names[at + 1 :]
        names = (*names[:at], *(None,) * (ndim - at - len(rest)), *rest)
    return P(*names)


def ways(mesh_shape: Mapping[str, int], names: Any) -> int:
    """Number of parts that the mesh axes `names` of a spec cut an array's axis into."""
    names = (names,) if isinstance(names, str) else names or ()
    return math.prod(mesh_shape[name] for name in names)


def fitting(name: str, shape: tuple[int, ...]) -> P:
    """`spec` on the current mesh (`jax.set_mesh`), without mesh axes that do not divide
    the shape: for example every device then holds a whole batch of one row. Inside
    `sum_over_data` the rows are cut over `data` already."""
    mesh = jax.sharding.get_abstract_mesh()

    def kept(names, length):
        names = (names,) if isinstance(names, str) else names or ()
        names = tuple(name for name in names if name not in mesh.manual_axes)
        return names if length % ways(mesh.shape, names) == 0 else None

    return P(*map(kept, spec(name, len(shape)), shape))


def sum_over_data(function: Callable[[S, T], U]) -> Callable[[S, T], U]:
    """`function(rows, whole)` by every part of the mesh axis `data` for its own rows,
    and the sum of the results: one exchange, after all that the function does. Without
    `data` the function itself. Arrays that it reads must be its arguments."""
    if jax.sharding.get_abstract_mesh().shape.get("data", 1) == 1:
        return function
    return jax.shard_map(
        lambda rows, whole: jax.lax.psum(function(rows, whole), "data"),
        in_specs=(P("data"), P()), out_specs=P(), axis_names={"data"}, check_vma=False,
    )  # fmt: skip


def draw_rows(draw: Callable[[int], jax.Array], count: int) -> jax.Array:
    """`draw(n)`, random numbers for n rows of a batch. Inside `sum_over_data` all rows
    are drawn, and the own `count` of them kept: so every mesh draws the same."""
    mesh = jax.sharding.get_abstract_mesh()
    if "data" not in mesh.manual_axes:
        return draw(count)
    first = jax.lax.axis_index("data") * count
    return jax.lax.dynamic_slice_in_dim(draw(count * mesh.shape["data"]), first, count)


def axis_ways(name: str, axis: int) -> int:
    """Number of parts that the current mesh cuts an axis of an activation into."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else ways(mesh.shape, spec(f"activations/{name}", 4)[axis])


def constrain(x: jax.Array, name: str) -> jax.Array:
    """Cuts an activation as the table says; returns `x` unchanged without a mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    place = fitting(f"activations/{name}", x.shape)
    return jax.lax.with_sharding_constraint(x, place)
