"""A device's own part of attention: how q, k and v are split over the mesh for a fused kernel.

Rows go along data and fsdp, heads along tensor, queries along context; every device holds all keys
and values of its rows. The partitioner cannot look into a kernel, so the parts are made explicitly.
Knows no kernel.
"""

from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec as P

from eef_jax import sharding
from eef_jax.errors import ConfigError

# (q, k, v, ids of the queries, ids of the keys, number of the context part) -> heads
LocalAttention = Callable[
    [jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array
]


def axis_size(axis: str) -> int:
    """Size of a mesh axis of the mesh that is set; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape.get(axis, 1)


def use_interpreter() -> bool:
    """Whether a program is traced for CPUs: a mesh of other devices says its platform."""
    mesh = jax.sharding.get_abstract_mesh()
    device = None if mesh.empty else getattr(mesh, "abstract_device", None)
    if device is not None:
        return "TPU" not in device.device_kind
    return jax.default_backend() == "cpu"


def shard_attention(
    local: LocalAttention,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array,
    *,
    evenly: bool = True,
) -> jax.Array:
    """Attend part by part: [b, n, t, h], twice [b, k, t, h] and i32[b, t] -> [b, n, t, h].

    What the mesh does not divide every device computes whole, unless it is to divide `evenly`.

    Raises:
        ConfigError: the mesh does not divide rows, heads or tokens.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return local(q, k, v, segment_ids, segment_ids, jax.numpy.zeros((1,), jax.numpy.int32))
    rows = sharding.partition_spec(("batch",), q.shape[:1], mesh)[0]
    heads = sharding.partition_spec(("kv_heads",), k.shape[1:2], mesh)[0]
    tokens = sharding.partition_spec(("sequence",), q.shape[2:3], mesh)[0]
    if evenly:
        _check(q, k, heads, tokens)
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


def _check(
    q: jax.Array,
    k: jax.Array,
    heads: tuple[str, ...] | None,
    tokens: tuple[str, ...] | None,
) -> None:
    """What no axis divides would silently be computed whole on every device."""
    wanted = {"tensor": (heads, k.shape[1], "key/value heads"), "context": (tokens, q.shape[2], "")}
    for axis, (got, size, what) in wanted.items():
        if axis_size(axis) > 1 and not got:
            raise ConfigError(
                f"a mesh axis {axis} of {axis_size(axis)} does not divide {size} "
                f"{what or 'tokens'}: change config.mesh.{axis}, or config.model.attention to 'xla'"
            )
    ways = axis_size("data") * axis_size("fsdp")
    if q.shape[0] % ways:
        raise ConfigError(
            f"{q.shape[0]} rows do not spread over {ways} devices of the axes data and fsdp: set "
            "config.train.micro_batch or config.mesh so that they do"
        )
