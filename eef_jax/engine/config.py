"""Sizes of the KV cache and of the engine's dispatches; open ones are resolved by free memory."""

import dataclasses
import os
from pathlib import Path

import jax

from eef_jax.errors import ConfigError
from eef_jax.kernels import DEFAULT_PAGED, PAGED_IMPLEMENTATIONS, pages_per_block
from eef_jax.models.cache import page_bytes
from eef_jax.models.config import ModelConfig

MAX_PREFILL_BUCKETS = 8
MEMORY_FRACTION = 0.8  # of a device's free memory, for the page pool
MAX_NUM_SEQS = {"cpu": 64, "": 256}  # rows that `max_num_seqs=0` stops at; "": other platforms
POOL_FRACTION = 0.8  # of the pages that all rows can fill, where a decode reads the whole pool
MEMINFO = Path("/proc/meminfo")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Sizes of the KV cache and of the dispatches.

    Attributes:
        max_num_seqs: rows of a decode dispatch, so sequences generated at once; 0: as many
            conversations of `max_context` tokens as memory holds, at most `MAX_NUM_SEQS`.
        max_context: tokens a conversation can hold.
        page_size: positions in a page. Accelerators want 128.
        num_pages: pages of the cache; 0: as many as the rows can fill and memory holds, a fifth
            fewer where every decode reads the whole pool.
        prefill_tokens: tokens of a prefill dispatch.
        prefill_seqs: conversations that one prefill dispatch can serve.
        prefill_chunk: tokens of one conversation that a row of a prefill dispatch can hold.
        decode_steps: tokens that a decode dispatch can generate for each row.
        attention: name in `kernels.PAGED_IMPLEMENTATIONS`; empty: the one suited to the device.
    """

    max_num_seqs: int = 0
    max_context: int = 1024
    # On CPU a decode's scores of a page are a product [3, 64] x [64, 64], which reads the cache at
    # 31 GB/s; with pages of 128 positions it read at 19.
    page_size: int = 64
    num_pages: int = 0
    # Four whole chunks: 19.2 s for 48 episodes of SmolLM2 on a Zen 5, with three 20.8.
    prefill_tokens: int = 384
    prefill_seqs: int = 4
    # With chunks of 96 tokens the products of a prefill's attention ran at 120 to 146 GFLOP/s on
    # two cores, with chunks of 32 at 53.
    prefill_chunk: int = 96
    decode_steps: int = 2
    attention: str = ""

    def __post_init__(self) -> None:
        sizes = ("max_context", "page_size", "prefill_tokens", "prefill_seqs", "prefill_chunk")
        for name in (*sizes, "decode_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"engine.{name} = {getattr(self, name)}: expected 1 or more")
        for name in ("max_num_seqs", "num_pages"):
            if getattr(self, name) < 0:
                raise ConfigError(f"engine.{name} = {getattr(self, name)}: expected 0 or more")
        if self.num_pages and self.num_pages < self.pages_per_seq:
            raise ConfigError(
                f"engine.num_pages = {self.num_pages} of {self.page_size} positions cannot hold "
                f"one conversation of max_context {self.max_context}: set it to "
                f"{self.pages_per_seq} or more, or to 0"
            )

    @property
    def pages_per_seq(self) -> int:
        """Pages of the longest conversation."""
        return -(-self.max_context // self.page_size)

    @property
    def prefill_buckets(self) -> tuple[int, ...]:
        """Widths in pages of the block tables that prefills are compiled for, ascending."""
        unit = pages_per_block(self.page_size)
        blocks = -(-self.pages_per_seq // unit)
        step = -(-blocks // MAX_PREFILL_BUCKETS) * unit
        widths = (step * i for i in range(1, MAX_PREFILL_BUCKETS + 1))
        return tuple(sorted({min(width, self.pages_per_seq) for width in widths}))

    def prefill_bucket(self, end: int) -> int:
        """Return the narrowest bucket, in pages, that covers all positions below `end`."""
        return next(width for width in self.prefill_buckets if width * self.page_size >= end)


def resolve(
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
    if config.max_context > model_config.max_positions:
        raise ConfigError(
            f"max_context {config.max_context} exceeds the model's {model_config.max_positions} "
            "positions: lower config.engine.max_context"
        )
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
