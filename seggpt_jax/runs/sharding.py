"""The mesh, and arrays placed on it by the table of `partition`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from seggpt_jax.config import counted
from seggpt_jax.runs.partition import AXES, ROWS, spec, ways
from seggpt_jax.trees import map_named, named_leaves, table

BATCH = P(ROWS)


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """A mesh over `devices`, by default all.

    One size may be -1: this axis takes all devices that the others leave. Raises
    ValueError if the sizes do not fit the number of devices or their wiring."""
    devices = jax.devices() if devices is None else devices
    sizes, count = [data, fsdp, tensor], len(devices)
    given = dict(zip(AXES, sizes, strict=True))
    if any(size == 0 or size < -1 for size in sizes) or sizes.count(-1) > 1:
        raise ValueError(f"mesh {given}: sizes are positive, and at most one is -1")
    known = math.prod(size for size in sizes if size != -1)
    if count % known or (-1 not in sizes and known != count):
        raise ValueError(f"mesh {given} does not fit {counted(count, 'device')}")
    shape = tuple(count // known if size == -1 else size for size in sizes)
    auto = (AxisType.Auto,) * len(AXES)
    try:
        return jax.make_mesh(shape, AXES, axis_types=auto, devices=devices)
    except NotImplementedError as error:
        # On TPUs an axis is a product of axes of the torus.
        raise ValueError(f"mesh {given} does not fit the wiring: {error}") from error


def check_batch(mesh: Mesh, batch_size: int, accumulate: int = 1, prompts: int = 1):
    """Refuses a batch that the mesh cannot cut into equal parts of whole groups of
    `prompts` rows."""
    least = ways(mesh.shape, ROWS) * accumulate * prompts
    if batch_size < 1 or accumulate < 1 or batch_size % least:
        several = (" x context.prompts", f" x {prompts}") if prompts > 1 else ("", "")
        raise ValueError(
            f"loader.batch_size {batch_size} is not divisible by data x fsdp x "
            f"accumulate{several[0]} = {mesh.shape['data']} x {mesh.shape['fsdp']} x "
            f"{accumulate}{several[1]}"
        )


def place(tree, mesh: Mesh):
    """A NamedSharding for every leaf of a tree of parameters or training state."""

    def sharding(name, leaf):
        own = spec(name, leaf.ndim)
        for axis, names in enumerate(own):
            if leaf.shape[axis] % ways(mesh.shape, names):
                raise ValueError(
                    f"{name} {leaf.shape}: axis {axis} is not divisible by mesh axis "
                    f"{names} = {ways(mesh.shape, names)}"
                )
        return NamedSharding(mesh, own)

    return map_named(sharding, tree)


def abstract(tree, places):
    """Shapes and types of arrays, with their shardings: a tree, or one for all."""
    return jax.tree.map(
        lambda x, own: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=own),
        tree, jax.tree.broadcast(places, tree),
    )  # fmt: skip


def describe(state, places) -> str:
    """A table for the log, of an abstract training state: how the mesh cuts each
    parameter, and the bytes per device of each parameter and of each other part."""
    sharded, lines, parts = named_leaves(places), [], dict[str, int]()
    for name, leaf in named_leaves(state).items():
        place = sharded[name]
        size = math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        part, _, own = name.partition("/")
        parts[part] = parts.get(part, 0) + size
        if part == "params":
            cut = ["+".join([n] if isinstance(n, str) else n) for n in place.spec if n]
            shape = "x".join(map(str, leaf.shape))
            lines.append((own, shape, " x ".join(cut) or "whole", f"{size:,}"))
    lines += [(f"({part})", "", "", f"{size:,}") for part, size in parts.items()]
    return table(("parameter", "shape", "cut over", "bytes per device"), lines)


def own_rows(mesh: Mesh, batch_size: int) -> list[int]:
    """The rows of a batch on this process's devices, which this process must feed."""
    places = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch_size,))
    slices = [index[0].indices(batch_size) for index in places.values() if index]
    return sorted({row for start, stop, _ in slices for row in range(start, stop)})


def put_batch(
    mesh: Mesh, batch: Mapping[str, np.ndarray], batch_size: int
) -> dict[str, jax.Array]:
    """This process's rows of a batch (`own_rows`) -> global arrays of `batch_size`."""
    sharding, rows = NamedSharding(mesh, BATCH), own_rows(mesh, batch_size)

    def put(own: np.ndarray) -> jax.Array:
        def part(index) -> np.ndarray:
            start, stop, _ = index[0].indices(batch_size)
            first = rows.index(start)
            return own[first : first + stop - start]

        return _make((batch_size, *own.shape[1:]), sharding, part)

    return {name: put(np.asarray(own)) for name, own in batch.items()}


def _make(shape, sharding: NamedSharding, part) -> jax.Array:
    # The train loop forbids implicit transfers, and jax counts this call as one.
    with jax.transfer_guard_host_to_device("allow"):
        return jax.make_array_from_callback(shape, sharding, part)


def put_key(mesh: Mesh, seed: int) -> jax.Array:
    """A random key that every device holds."""
    return jax.jit(jax.random.key, out_shardings=NamedSharding(mesh, P()))(seed)


def put(tree, places):
    """Host values, the same on every process -> arrays on devices. places: a tree of
    shardings, or one for all."""

    def place(x, sharding):
        x = np.asarray(jax.device_get(x))
        return _make(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(place, tree, jax.tree.broadcast(places, tree))


def put_replicated(mesh: Mesh, tree):
    """Host values -> arrays that every device holds whole."""
    return put(tree, NamedSharding(mesh, P()))


def put_rows(mesh: Mesh, tree):
    """Host values with a leading batch axis -> arrays cut over data x fsdp."""
    return put(tree, NamedSharding(mesh, BATCH))
