"""Sizes of the KV cache and of the engine's dispatches; open ones are resolved by free memory."""

import dataclasses
import os
from pathlib import Path

import jax

from eef_jax.config.sections import EngineConfig
from eef_jax.errors import ConfigError
from eef_jax.kernels import DEFAULT_PAGED, PAGED_IMPLEMENTATIONS, pages_per_block
from eef_jax.models.cache import page_bytes
from eef_jax.models.config import ModelConfig

MAX_PREFILL_BUCKETS = 8
MEMORY_FRACTION = 0.8  # of a device's free memory, for the page pool
MAX_NUM_SEQS = {"cpu": 64, "": 256}  # rows that `max_num_seqs=0` stops at; "": other platforms
POOL_FRACTION = 0.8  # of the pages that all rows can fill, where a decode reads the whole pool
OPEN_SIZES = ("max_num_seqs", "num_pages", "attention")  # what `resolve_config` fills in
MEMINFO = Path("/proc/meminfo")


def prefill_buckets(config: EngineConfig) -> tuple[int, ...]:
    """Widths in pages of the block tables that prefills are compiled for, ascending."""
    unit = pages_per_block(config.page_size)
    blocks = -(-config.pages_per_seq // unit)
    step = -(-blocks // MAX_PREFILL_BUCKETS) * unit
    widths = (step * i for i in range(1, MAX_PREFILL_BUCKETS + 1))
    return tuple(sorted({min(width, config.pages_per_seq) for width in widths}))


def prefill_bucket(config: EngineConfig, end: int) -> int:
    """The narrowest bucket, in pages, that covers all positions below `end`."""
    return next(width for width in prefill_buckets(config) if width * config.page_size >= end)


def resolve_config(
    config: EngineConfig, model_config: ModelConfig, *, dtype: str, device: jax.Device
) -> EngineConfig:
    """Fill in the open sizes: the kernel by the device, rows and pages by its free memory.

    Args:
        config: sizes, of which `max_num_seqs`, `num_pages` and `attention` may be open.
        model_config: decides the bytes of a page and the most positions.
        dtype: of keys and values.
        device: holds the cache, or this process's part of it.

    Returns:
        The same sizes with none left open.

    Raises:
        ConfigError: one conversation's pages do not fit the memory, or `max_context` exceeds the
            model's positions.
    """
    check_positions(config, model_config)
    attention = config.attention or DEFAULT_PAGED.get(device.platform, "gathered")
    bytes_each = page_bytes(model_config, page_size=config.page_size, dtype=dtype)
    free = free_bytes(device)
    affordable = int(MEMORY_FRACTION * free) // bytes_each
    cap = MAX_NUM_SEQS.get(device.platform, MAX_NUM_SEQS[""])
    rows = config.max_num_seqs or min(max(affordable // config.pages_per_seq, 1), cap)
    # Enough for every row at full context; pages that rows leave free cache prefixes.
    wanted = rows * config.pages_per_seq
    if has_exclusive_pages(attention):
        wanted = max(int(POOL_FRACTION * wanted), config.pages_per_seq)
    pages = config.num_pages or min(wanted, affordable)
    if pages < config.pages_per_seq or pages * bytes_each > free:
        raise ConfigError(
            f"{max(pages, config.pages_per_seq)} pages of {bytes_each:,} bytes do not fit the "
            f"{free:,} bytes that are free on {device}: lower config.engine.num_pages or "
            "max_context, or put the model on a larger mesh"
        )
    return dataclasses.replace(config, attention=attention, max_num_seqs=rows, num_pages=pages)


def check_positions(config: EngineConfig, model_config: ModelConfig) -> None:
    """Check that the model has a position for each token of the longest conversation.

    Raises:
        ConfigError: it has not.
    """
    if config.max_context > model_config.max_positions:
        raise ConfigError(
            f"max_context {config.max_context} exceeds the model's {model_config.max_positions} "
            "positions: lower config.engine.max_context"
        )


def has_exclusive_pages(attention: str) -> bool:
    """Return whether a kernel requires each page to be in one row's block table only."""
    return PAGED_IMPLEMENTATIONS[attention].exclusive_pages


def free_bytes(device: jax.Device) -> int:
    """Return the unallocated memory of a device, in bytes."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return _host_free_bytes()


def _host_free_bytes() -> int:
    """Memory available on this machine; the page cache, which can be reclaimed, counts as free."""
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].removesuffix("kB")) * 1024
    except (OSError, KeyError):  # not Linux: half of the physical memory
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
