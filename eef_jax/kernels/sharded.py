"""How q, k and v are split over the mesh for a fused attention kernel.

Rows are sharded over data and fsdp, heads over tensor, queries over context; each device holds all
keys and values of its rows. The partitioner cannot see into a kernel, so the split is explicit.
"""

from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from eef_jax import sharding
from eef_jax.errors import ConfigError

# (q, k, v, segment ids of the queries, those of the keys, number of the context part) -> heads
LocalAttention = Callable[
    [
        Float[Array, "b n t h"],
        Float[Array, "b k s h"],
        Float[Array, "b k s h"],
        Int[Array, "b t"],
        Int[Array, "b s"],
        Int[Array, "1"],
    ],
    Float[Array, "b n t h"],
]


def axis_size(axis: str) -> int:
    """Size of an axis of the current mesh; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape.get(axis, 1)


def use_interpreter() -> bool:
    """Whether Pallas kernels are traced for a CPU; ahead of time, the mesh names the platform."""
    mesh = jax.sharding.get_abstract_mesh()
    device = None if mesh.empty else getattr(mesh, "abstract_device", None)
    if device is not None:
        return "TPU" not in device.device_kind
    return jax.default_backend() == "cpu"


def shard_attention(
    local: LocalAttention,
    q: Float[Array, "b n t h"],
    k: Float[Array, "b k t h"],
    v: Float[Array, "b k t h"],
    segment_ids: Int[Array, "b t"],
    *,
    evenly: bool = True,
) -> Float[Array, "b n t h"]:
    """Run attention on each device's part of the arrays.

    Args:
        local: attention of one part.
        q: queries.
        k: keys.
        v: values.
        segment_ids: of queries and keys.
        evenly: whether the mesh must divide rows, heads and tokens; if not, each device computes
            the whole of a dimension that the mesh does not divide.

    Raises:
        ConfigError: the mesh does not divide rows, heads or tokens, and `evenly` is set.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return local(q, k, v, segment_ids, segment_ids, jax.numpy.zeros((1,), jax.numpy.int32))
    rows = sharding.partition_spec(("batch",), q.shape[:1], mesh)[0]
    heads = sharding.partition_spec(("kv_heads",), k.shape[1:2], mesh)[0]
    tokens = sharding.partition_spec(("sequence",), q.shape[2:3], mesh)[0]
    if evenly:
        _check_divides(q, k, heads, tokens)
    number = jax.numpy.arange(axis_size("context"), dtype=jax.numpy.int32)
    return jax.shard_map(
        local,
        in_specs=(
            P(rows, heads, tokens),
            P(rows, heads),
            P(rows, heads),
            P(rows, tokens),
            P(rows),
            P(tokens),
        ),
        out_specs=P(rows, heads, tokens),
        check_vma=False,
    )(q, k, v, segment_ids, segment_ids, number)


def _check_divides(
    q: Float[Array, "b n t h"],
    k: Float[Array, "b k t h"],
    heads: tuple[str, ...] | str | None,
    tokens: tuple[str, ...] | str | None,
) -> None:
    """A dimension that no axis divides would silently be computed whole on each device."""
    wanted = {"tensor": (heads, k.shape[1], "key/value heads"), "context": (tokens, q.shape[2], "")}
    for axis, (axes, size, what) in wanted.items():
        if axis_size(axis) > 1 and not axes:
            raise ConfigError(
                f"a mesh axis {axis} of {axis_size(axis)} does not divide {size} "
                f"{what or 'tokens'}: change config.mesh.{axis}, or config.model.attention to 'xla'"
            )
    devices = axis_size("data") * axis_size("fsdp")
    if q.shape[0] % devices:
        raise ConfigError(
            f"{q.shape[0]} rows cannot be sharded evenly over the {devices} devices of the axes "
            "data and fsdp: change config.train.micro_batch or config.mesh"
        )
