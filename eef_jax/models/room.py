"""Whether a model fits a mesh, in bytes on a device: counted, not tried.

Knows shapes, where the rules place them and what a device reports of its memory; knows no program's
temporary buffers and no cache.
"""

import math
from typing import Any

import jax
from jax.sharding import Mesh

from eef_jax import sharding
from eef_jax.errors import ConfigError
from eef_jax.models.base import Model

_GIB = 2**30


def needed(model: Model, mesh: Mesh) -> int:
    """Bytes that the model's parameters take on one device of a mesh (not on that it lies on)."""
    tree = (model.frozen, model.trainable)
    leaves = jax.tree.leaves(tree)
    places = jax.tree.leaves(sharding.shardings(tree, mesh))
    return sum(
        math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, place in zip(leaves, places, strict=True)
    )


def check(model: Model, mesh: Mesh) -> None:
    """Check that a second copy of a model fits beside what the devices of a mesh hold already.

    Devices that report no limit (CPUs) pass.

    Raises:
        ConfigError: it does not; with the numbers.
    """
    wanted = needed(model, mesh)
    for device in mesh.devices.flat:
        memory: dict[str, Any] = device.memory_stats() or {}
        limit, used = memory.get("bytes_limit"), memory.get("bytes_in_use", 0)
        if limit is not None and used + wanted > limit:
            raise ConfigError(
                f"each process plays on its own {mesh.devices.size} devices "
                f"(local_mesh {dict(mesh.shape)}), where the base takes {wanted / _GIB:.2f} GiB a "
                f"device, but {used / _GIB:.2f} of the {limit / _GIB:.2f} GiB of {device} are in "
                "use: spread it over more of them (config.local_mesh.tensor or .fsdp), quantise it "
                "(config.model.quantise), store it in config.model.param_dtype = bfloat16, or take "
                "machines with more devices"
            )
