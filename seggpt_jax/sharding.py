"""The mesh, and one ordered table that places every array on it."""

import math
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from seggpt_jax.trees import first_match, map_named

AXES = ("data", "fsdp", "tensor")
BATCH = P(("data", "fsdp"))

# Parameters and optimizer state: heads and MLP over `tensor`, the other large axis over
# `fsdp`; what is small is kept whole. The first axis of a block's array is its layer.
RULES = [
    (r"blocks/attn/qkv/kernel", P(None, "fsdp", None, "tensor", None)),
    (r"blocks/attn/qkv/bias", P(None, None, "tensor", None)),
    (r"blocks/attn/proj/kernel", P(None, "tensor", None, "fsdp")),
    (r"blocks/mlp/fc1/kernel", P(None, "fsdp", "tensor")),
    (r"blocks/mlp/fc1/bias", P(None, "tensor")),
    (r"blocks/mlp/fc2/kernel", P(None, "tensor", "fsdp")),
    (r"patch_embed/kernel", P(None, "fsdp")),
    (r"decoder/embed/kernel", P("fsdp", "tensor")),
    (r"decoder/embed/bias", P("tensor")),
    (r".*", P()),
]


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh over all devices; one axis may be -1 and takes what is left."""
    sizes, devices = [data, fsdp, tensor], jax.device_count()
    given = dict(zip(AXES, sizes, strict=True))
    if any(size == 0 or size < -1 for size in sizes) or sizes.count(-1) > 1:
        raise ValueError(f"mesh {given}: sizes are positive, and at most one is -1")
    known = math.prod(size for size in sizes if size != -1)
    if devices % known or (-1 not in sizes and known != devices):
        raise ValueError(f"mesh {given} does not fit {devices} devices")
    sizes = [devices // known if size == -1 else size for size in sizes]
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_batch(mesh: Mesh, batch_size: int, accumulate: int = 1):
    """Refuses a batch that the mesh cannot cut into equal rows."""
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size < 1 or accumulate < 1 or batch_size % (rows * accumulate):
        raise ValueError(
            f"batch_size {batch_size} is not divisible by data x fsdp x accumulate = "
            f"{mesh.shape['data']} x {mesh.shape['fsdp']} x {accumulate}"
        )


def place(tree, mesh: Mesh):
    """A NamedSharding for every leaf of a tree of parameters or training state."""

    def sharding(name, leaf):
        spec = first_match(RULES, name) if leaf.ndim else P()
        for axis, names in enumerate(spec):
            if names and leaf.shape[axis] % mesh.shape[names]:
                raise ValueError(
                    f"{name} {leaf.shape}: axis {axis} is not divisible by mesh axis "
                    f"{names} = {mesh.shape[names]}"
                )
        return NamedSharding(mesh, spec)

    return map_named(sharding, tree)


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's rows of a batch -> global arrays, cut over data x fsdp."""
    sharding = NamedSharding(mesh, BATCH)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(rows))
        for name, rows in batch.items()
    }


def put_replicated(mesh: Mesh, tree):
    """Host values -> arrays that every device holds whole."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def put_rows(mesh: Mesh, tree):
    """Host values with a leading batch axis -> arrays cut over data x fsdp."""
    return jax.device_put(tree, NamedSharding(mesh, BATCH))
