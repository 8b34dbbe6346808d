"""`train.micro_batch`: rows per device and accumulation step; "auto" takes the most that fit.

Larger micro-batches gather sharded weights less often. "auto" compiles sizes from the largest down
and takes the first whose memory, by the compiler's own figure, fits: nothing is estimated.
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
from eef_jax.train.losses.base import Loss
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
    loss: Loss = step_lib.SFT,
    reserved: int = 0,
) -> int:
    """Number of gradient-accumulation steps (micro-batches) of one optimizer step.

    Args:
        micro_batch: rows per step on one device of the axes data and fsdp; 0 for all of its rows;
            "auto" for as many as fit.
        model: the model to train; may be abstract.
        mesh: devices of training.
        batch_size: rows of the global batch.
        seq_len: tokens per row.
        max_loss_positions: most learned tokens per row.
        optimizer: the optimizer, whose state takes memory too.
        loss: what is minimized.
        reserved: bytes per device that are allocated to something else during training.

    Raises:
        ConfigError: the rows are not divisible by the devices or by `micro_batch`, or a single row
            does not fit.
    """
    step_lib.check_batch_size(batch_size, mesh=mesh, accumulation_steps=1)
    devices = step_lib.data_parallel_size(mesh)
    rows_per_device = batch_size // devices
    if micro_batch == "auto":
        if rows_per_device == 1:
            return 1  # no choice to make; if it does not fit, the program itself says so
        return _fewest_steps(
            model,
            mesh=mesh,
            rows_per_device=rows_per_device,
            sizes=(batch_size, seq_len, max_loss_positions),
            optimizer=optimizer,
            loss=loss,
            limit=memory_limit(mesh.devices.flat[0]) - reserved,
        )
    rows = (micro_batch or rows_per_device) if isinstance(micro_batch, int) else 0
    if rows <= 0 or rows_per_device % rows:
        raise ConfigError(
            f"train.micro_batch = {micro_batch!r}: expected 'auto', 0 (all rows at once), or a "
            f"divisor of the {rows_per_device} rows that each of {devices} devices has of "
            f"train.batch_size = {batch_size}"
        )
    return rows_per_device // rows


def _fewest_steps(
    model: Model,
    *,
    mesh: Mesh,
    rows_per_device: int,
    sizes: tuple[int, int, int],
    optimizer: OptimizerConfig,
    loss: Loss,
    limit: float,
) -> int:
    """The fewest accumulation steps whose program fits `limit` bytes per device."""
    transform = make_optimizer(optimizer, programs.ANY_STEPS)
    batch = empty_batch(*sizes, loss.columns)
    # Fewer steps mean larger micro-batches, which gather sharded weights less often.
    for steps in (n for n in range(1, rows_per_device + 1) if rows_per_device % n == 0):
        lowered = step_lib.lower(
            model, transform, batch, mesh=mesh, loss=loss, accumulation_steps=steps
        )
        try:
            program = programs.compile_lowered("train", lowered)
        except programs.OutOfMemory:  # TPUs refuse while compiling; other devices only report
            if steps == rows_per_device:
                raise
            continue
        needed = programs.memory_usage(program).total
        if needed <= limit:
            return steps
    raise programs.OutOfMemory(
        f"one row of {sizes[1]} tokens needs {needed / 2**30:.2f} GiB on a device of which "
        f"{limit / 2**30:.2f} GiB are free: {programs.HELP['train']}"
    )


def memory_limit(device: Any) -> float:
    """Bytes that programs may use on a device; infinite where the device reports no limit."""
    if device.platform == "tpu":  # also one of a topology that is not attached
        return chips.chip_spec([device]).hbm_bytes
    if device.platform == "cpu":  # virtual devices share the machine's memory
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return total / jax.local_device_count()
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit", math.inf)
