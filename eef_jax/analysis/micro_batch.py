"""`train.micro_batch`: how many rows a device computes at a time, "auto" by the compiler's account.

Larger micro-batches gather sharded weights less often. Sizes are compiled from the largest down,
and the first that fits is taken: nothing is estimated. Knows a model, a mesh and a batch's sizes.
"""

import math
import os
from typing import Any

import jax
from jax.sharding import Mesh

from eef_jax.analysis import chips, programs
from eef_jax.config.sections import OptimizerConfig
from eef_jax.data.batches import empty_batch
from eef_jax.errors import ConfigError
from eef_jax.models.model import Model
from eef_jax.train import step as step_lib
from eef_jax.train.optim import make_optimizer


def accumulation_steps(
    micro_batch: int | str,
    model: Model,
    *,
    mesh: Mesh,
    batch_size: int,
    seq_len: int,
    max_loss_positions: int,
    optimizer: OptimizerConfig,
    reserved: int = 0,
) -> int:
    """Number of micro-batches that a batch is computed in.

    Args:
        micro_batch: rows that one device (of the axes data and fsdp) computes at a time; 0 for all;
            "auto" for as many as fit.
        model: may be abstract.
        mesh: the devices.
        batch_size: rows of the global batch.
        seq_len: tokens of a row.
        max_loss_positions: learned tokens of a row at most.
        optimizer: whose moments need memory too.
        reserved: bytes of a device that something else holds meanwhile.

    Raises:
        ConfigError: rows do not spread over the devices or micro-batches, or not one row fits.
    """
    step_lib.check_batch_size(batch_size, mesh=mesh, accumulation_steps=1)
    devices = step_lib.data_parallel_size(mesh)
    each = batch_size // devices
    if micro_batch == "auto":
        if each == 1:
            return 1  # nothing to choose: an error of memory comes from the program itself
        limit = memory_limit(mesh.devices.flat[0]) - reserved
        return each // _largest(
            model, mesh, each, batch_size, seq_len, max_loss_positions, optimizer, limit
        )
    if not isinstance(micro_batch, int) or micro_batch < 0 or each % (micro_batch or each):
        raise ConfigError(
            f"train.micro_batch = {micro_batch!r}: expected 'auto', 0 (all rows at once), or a "
            f"divisor of the {each} rows that each of {devices} devices has of "
            f"train.batch_size = {batch_size}"
        )
    return each // (micro_batch or each)


def _largest(
    model: Model,
    mesh: Mesh,
    each: int,
    batch_size: int,
    seq_len: int,
    max_loss_positions: int,
    optimizer: OptimizerConfig,
    limit: float,
) -> int:
    """The largest divisor of a device's rows whose step fits."""
    transform = make_optimizer(optimizer, 1000)
    for size in (n for n in range(each, 0, -1) if each % n == 0):
        parts, batch = each // size, empty_batch(batch_size, seq_len, max_loss_positions)
        lowered = step_lib.lower(model, transform, batch, mesh=mesh, accumulation_steps=parts)
        try:
            program = programs.compile_lowered("train", lowered)
        except programs.OutOfMemory:
            if size == 1:
                raise
            continue
        needed = programs.memory_usage(program).total
        if needed <= limit:
            return size
    raise programs.OutOfMemory(
        f"one row of {seq_len} tokens needs {needed / 2**30:.2f} GiB on a device of "
        f"{limit / 2**30:.2f} GiB that are free: {programs.HELP['train']}"
    )


def memory_limit(device: Any) -> float:
    """Bytes that programs may use on a device; infinite where nothing says how many."""
    if device.platform == "tpu":  # also one that is only described
        return chips.chip_spec([device]).hbm_bytes
    if device.platform == "cpu":  # virtual devices share the machine's
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return total / jax.local_device_count()
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit", math.inf)
