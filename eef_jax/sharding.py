"""The device mesh, and the rules that map logical axes to mesh axes.

Parameters name their logical axes in their metadata (`nnx.Param(value, axes=(...))`); `RULES` maps
those to mesh axes, for every model.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Shaped

from eef_jax.errors import ConfigError, did_you_mean

MESH_AXES = ("data", "fsdp", "tensor", "context")

# Logical axis -> mesh axes. Other axes are replicated.
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "replica": ("data",),  # rows where another dimension is sharded over fsdp
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
        sizes: size of each axis; a missing one is 1, and one of them may be -1 (all remaining).
        devices: devices to arrange; None for all.

    Raises:
        ConfigError: for an unknown axis, or sizes that do not give the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    shape = mesh_shape(sizes, len(devices))
    grid = _arranged(devices, shape)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def plan_mesh(sizes: Mapping[str, int], count: int) -> AbstractMesh:
    """The mesh of `count` devices that need not be here: enough for shapes and shardings.

    Args:
        sizes: size of each axis; a missing one is 1, and one of them may be -1 (all remaining).
        count: number of devices.

    Raises:
        ConfigError: for an unknown axis, or sizes that do not give the number of devices.
    """
    shape = tuple(mesh_shape(sizes, count))
    return AbstractMesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def mesh_shape(sizes: Mapping[str, int], count: int) -> list[int]:
    """Sizes of all axes of a mesh of `count` devices (see `make_mesh`)."""
    for axis in sizes:
        if axis not in MESH_AXES:
            raise ConfigError(f"unknown mesh axis {axis!r}: {did_you_mean(axis, MESH_AXES)}")
    shape = [sizes.get(axis, 1) for axis in MESH_AXES]
    fixed = math.prod(size for size in shape if size != -1)
    if shape.count(-1) > 1 or fixed < 1 or min(shape) < -1 or count % fixed:
        raise ConfigError(f"mesh {dict(sizes)} {_expected(count)}")
    shape = [count // fixed if size == -1 else size for size in shape]
    if math.prod(shape) != count:
        raise ConfigError(f"mesh {dict(sizes)} {_expected(count)}")
    return shape


def _arranged(devices: Sequence[jax.Device], shape: Sequence[int]) -> np.ndarray:
    """Devices in the shape of the mesh; on TPUs, neighbours in it are neighbours on the torus."""
    if devices[0].platform == "tpu" and len(devices) > 1:
        return mesh_utils.create_device_mesh(
            shape, devices, contiguous_submeshes=False, allow_split_physical_axes=True
        )
    return np.array(devices, dtype=object).reshape(shape)


def partition_spec(axes: Sequence[str | None], shape: Sequence[int], mesh: Any) -> PartitionSpec:
    """Map logical axes to a partition spec of the same rank that divides `shape`.

    A mesh axis that does not divide a dimension, or that an earlier dimension uses, is left out:
    the dimension is replicated over it.
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
    """The sharding of each leaf of a tree by its `axes`; leaves without them are replicated.

    Optimizer states keep the metadata of their parameters, so this works for them, too.
    """

    def of(leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Variable):
            return NamedSharding(mesh, PartitionSpec())
        axes = leaf.get_metadata().get("axes", (None,) * leaf.ndim)
        return leaf.replace(NamedSharding(mesh, partition_spec(axes, leaf.shape, mesh)))

    return jax.tree.map(of, tree, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


def place_tree(tree: Any, mesh: Mesh) -> Any:
    """Put every array of a tree on the mesh with its sharding from `tree_shardings`."""
    return jax.device_put(tree, tree_shardings(tree, mesh))


def abstract_tree(tree: Any, mesh: Mesh) -> Any:
    """Shapes and types of a tree's arrays, each with its sharding from `tree_shardings`."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        tree_shardings(tree, mesh),
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch [b, t]."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"], RULES["sequence"]))


def process_rows(mesh: Mesh, rows: int) -> tuple[int, ...]:
    """Indices of the rows of a batch that are on this process's devices, ascending."""
    row_sharding = NamedSharding(mesh, PartitionSpec(RULES["batch"]))
    indices = row_sharding.addressable_devices_indices_map((rows,)).values()
    return tuple(
        sorted({row for index in indices for row in range(rows)[(index or (slice(None),))[0]]})
    )


def constrain(x: Shaped[Array, "*x"], axes: Sequence[str | None]) -> Shaped[Array, "*x"]:
    """Constrain the sharding of an activation under `jax.set_mesh`; without a mesh do nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(axes, x.shape, mesh))


def all_gather_fsdp(weight: Float[Array, "*x"], axes: Sequence[str | None]) -> Float[Array, "*x"]:
    """All-gather a weight along fsdp for its product; it stays sharded along tensor.

    Args:
        weight: in the type that the product is computed in.
        axes: its logical axes.
    """
    # This is what makes fsdp communicate weights, in the compute type. Left to the partitioner,
    # activations may be communicated instead.
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape.get("fsdp", 1) == 1:
        return weight
    parts = [_without(part, "fsdp") for part in partition_spec(axes, weight.shape, mesh)]
    return jax.lax.with_sharding_constraint(weight, PartitionSpec(*parts))


def _without(part: tuple[str, ...] | str | None, axis: str) -> tuple[str, ...] | None:
    """Mesh axes of one dimension, without one of them."""
    names = (part,) if isinstance(part, str) else part or ()
    return tuple(name for name in names if name != axis) or None


def constrain_tree(tree: Any) -> Any:
    """Constrain the sharding of each leaf of a tree by its `axes`, see `constrain`."""

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
