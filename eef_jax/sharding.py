"""The device mesh and the one place that says which logical axis lies on which mesh axis.

Parameters name their logical axes in their metadata (`nnx.Param(value, axes=(...))`); `RULES` turns
those into mesh axes. Knows no model: only axis names and sizes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from eef_jax.errors import ConfigError, did_you_mean

MESH_AXES = ("data", "fsdp", "tensor", "context")

# Logical axis -> mesh axes. What is not named here is replicated.
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "replica": ("data",),  # rows while fsdp spreads something else
    "sequence": ("context",),
    "embed": ("fsdp",),
    "vocab": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
}


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arrange devices in a mesh with the axes data, fsdp, tensor and context.

    Args:
        sizes: size of each axis; what is left out is 1, and one axis may be -1: it takes the rest.
        devices: the devices to arrange; all of them by default.

    Raises:
        ConfigError: for an unknown axis, or sizes that do not give the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    for axis in sizes:
        if axis not in MESH_AXES:
            raise ConfigError(f"unknown mesh axis {axis!r}: {did_you_mean(axis, MESH_AXES)}")
    shape = [sizes.get(axis, 1) for axis in MESH_AXES]
    fixed = math.prod(size for size in shape if size != -1)
    if shape.count(-1) > 1 or fixed < 1 or min(shape) < -1 or len(devices) % fixed:
        raise ConfigError(f"mesh {dict(sizes)} {_expected(len(devices))}")
    shape = [len(devices) // fixed if size == -1 else size for size in shape]
    if math.prod(shape) != len(devices):
        raise ConfigError(f"mesh {dict(sizes)} {_expected(len(devices))}")
    grid = _arranged(devices, shape)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _arranged(devices: Sequence[jax.Device], shape: Sequence[int]) -> np.ndarray:
    """Devices in the mesh's shape; a TPU's so that neighbours in it are neighbours on the torus."""
    if devices[0].platform == "tpu" and len(devices) > 1:
        return mesh_utils.create_device_mesh(
            shape, devices, contiguous_submeshes=False, allow_split_physical_axes=True
        )
    return np.array(devices, dtype=object).reshape(shape)


def partition_spec(axes: Sequence[str | None], shape: Sequence[int], mesh: Any) -> PartitionSpec:
    """Turn logical axes into a partition spec of the same rank that divides `shape`.

    A mesh axis that does not divide a dimension is left out there (it replicates), and so
    is one that an earlier dimension already uses.
    """
    used: set[str] = set()
    parts: list[tuple[str, ...] | None] = []
    for axis, size in zip(axes, shape, strict=True):
        part: list[str] = []
        for name in RULES.get(axis, ()) if axis is not None else ():
            if name in used or mesh.shape.get(name, 1) == 1 or size % mesh.shape[name]:
                continue
            part.append(name)
            size //= mesh.shape[name]
        used.update(part)
        parts.append(tuple(part) or None)
    return PartitionSpec(*parts)


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """The sharding of each leaf of a tree, by its own `axes`; leaves without any are replicated.

    Optimizer states keep their parameters' metadata, so they may be passed too.
    """

    def of(leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Variable):
            return NamedSharding(mesh, PartitionSpec())
        axes = leaf.get_metadata().get("axes", (None,) * leaf.ndim)
        return leaf.replace(NamedSharding(mesh, partition_spec(axes, leaf.shape, mesh)))

    return jax.tree.map(of, tree, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


def place_tree(tree: Any, mesh: Mesh) -> Any:
    """Move every array of a tree to where `tree_shardings` says."""
    return jax.device_put(tree, tree_shardings(tree, mesh))


def abstract_tree(tree: Any, mesh: Mesh) -> Any:
    """Shapes and types of a tree's arrays, each with the place that `tree_shardings` says."""
    return jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at),
        tree,
        tree_shardings(tree, mesh),
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Where a batch [rows, length] lies."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"], RULES["sequence"]))


def process_rows(mesh: Mesh, rows: int) -> tuple[int, ...]:
    """Numbers of the rows of a batch that this process's devices hold, ascending."""
    lies = NamedSharding(mesh, PartitionSpec(RULES["batch"]))
    held = lies.addressable_devices_indices_map((rows,)).values()
    return tuple(
        sorted({row for index in held for row in range(rows)[(index or (slice(None),))[0]]})
    )


def constrain(x: jax.Array, axes: Sequence[str | None]) -> jax.Array:
    """Keep an activation where the rules say, under `jax.set_mesh`; without a mesh do nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(axes, x.shape, mesh))


def all_gather_fsdp(weight: jax.Array, axes: Sequence[str | None]) -> jax.Array:
    """A weight as its product wants it: whole along fsdp, still in parts along tensor.

    Said where the weight is used, it fixes what fsdp means: weights travel, in the type they are
    used in, and activations stay. Left to the partitioner, the latter may travel instead.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape.get("fsdp", 1) == 1:
        return weight
    parts = [_without(part, "fsdp") for part in partition_spec(axes, weight.shape, mesh)]
    return jax.lax.with_sharding_constraint(weight, PartitionSpec(*parts))


def _without(part: tuple[str, ...] | str | None, axis: str) -> tuple[str, ...] | None:
    """One dimension's mesh axes less one of them."""
    names = (part,) if isinstance(part, str) else part or ()
    return tuple(name for name in names if name != axis) or None


def constrain_tree(tree: Any) -> Any:
    """Constrain each parameter-like leaf of a tree to where its own `axes` say."""

    def of(leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Variable):
            return leaf
        axes = leaf.get_metadata().get("axes", (None,) * leaf.ndim)
        return leaf.replace(constrain(leaf.get_value(), axes))

    return jax.tree.map(of, tree, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


def _expected(count: int) -> str:
    return (
        f"does not fit {count} devices: sizes are positive, one at most is -1 (takes the rest), "
        "and their product is the number of devices; change config.mesh"
    )
