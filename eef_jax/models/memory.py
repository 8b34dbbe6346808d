"""Whether a model's parameters fit the devices of a mesh, counted before anything is allocated.

Temporary buffers of programs and the key/value cache are not counted.
"""

import math
from typing import Any

import jax
from jax.sharding import Mesh

from eef_jax import sharding
from eef_jax.errors import ConfigError
from eef_jax.models.model import Model

_GIB = 2**30


def bytes_per_device(model: Model, mesh: Mesh) -> int:
    """Bytes per device that the model's parameters would take on a mesh, wherever they are now."""
    tree = (model.frozen, model.trainable)
    leaves = jax.tree.leaves(tree)
    places = jax.tree.leaves(sharding.tree_shardings(tree, mesh))
    return sum(
        math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, place in zip(leaves, places, strict=True)
    )


def check_fits(model: Model, mesh: Mesh) -> None:
    """Check that a second copy of a model fits next to what the devices of a mesh hold already.

    Devices that report no limit (CPUs) pass.

    Raises:
        ConfigError: it does not fit; with the numbers.
    """
    wanted = bytes_per_device(model, mesh)
    # Each device is asked: others of the process may hold more.
    for device in mesh.devices.flat:
        memory: dict[str, Any] = device.memory_stats() or {}
        if (limit := memory.get("bytes_limit")) is not None:
            check_bytes(wanted, mesh, used=memory.get("bytes_in_use", 0), limit=limit)


def check_bytes(wanted: int, mesh: Mesh, *, used: int, limit: float) -> None:
    """Check that the rollouts' copy of the base fits the devices of one process.

    Args:
        wanted: bytes per device of the copy.
        mesh: mesh of the devices of one process.
        used: bytes per device that are in use already.
        limit: bytes that a device has.

    Raises:
        ConfigError: it does not fit; with the numbers.
    """
    if used + wanted > limit:
        raise ConfigError(
            f"each process plays on its own {mesh.devices.size} devices "
            f"(rollout_mesh {dict(mesh.shape)}), where the base takes {wanted / _GIB:.2f} GiB a "
            f"device, but {used / _GIB:.2f} of {limit / _GIB:.2f} GiB are in use there: spread it "
            "over more of them (config.rollout_mesh.tensor or .fsdp), quantize it "
            "(config.model.quantization), store it in config.model.param_dtype = bfloat16, or take "
            "machines with more devices"
        )
