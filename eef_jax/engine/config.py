"""Sizes of the cache and of the dispatches, and how many pages fit a device.

Knows configs, bytes and devices; knows no sessions.
"""

import dataclasses
import os
from pathlib import Path

import jax

from eef_jax.errors import ConfigError
from eef_jax.kernels import PAGED, SUITED, block
from eef_jax.models.cache import page_bytes
from eef_jax.models.config import ModelConfig

BUCKETS = 8  # depths of a prefill that are compiled
SHARE = 0.8  # of what is free on the device, for pages
MOST_SLOTS = {"cpu": 64, "": 256}  # that are taken of themselves, by platform; "": any other
FILLED = 0.8  # of all that the slots could fill, where a decode reads the whole pool
MEMINFO = Path("/proc/meminfo")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Sizes of the cache and of the dispatches.

    Attributes:
        slots: answers drawn at once: rows of a decode step; 0 for as many conversations of
            `max_context` as memory holds, up to `MOST_SLOTS`.
        max_context: tokens a conversation can hold.
        page: positions in a page. Products of 64 columns run at the memory's speed on CPU, of 128
            at two thirds of it; accelerators want 128.
        pages: pages of the cache; 0 for as many as the slots can fill and memory holds, or a fifth
            fewer where every decode reads them all.
        tokens: tokens of a prefill.
        rows: conversations that a prefill can serve.
        chunk: tokens of one conversation that a prefill can hold.
        steps: tokens that a dispatch may draw for each row.
        attention: name in `kernels.PAGED`; empty for what suits the device.
    """

    slots: int = 0
    max_context: int = 1024
    page: int = 64
    pages: int = 0
    tokens: int = 384
    rows: int = 4
    chunk: int = 96
    steps: int = 2
    attention: str = ""

    def __post_init__(self) -> None:
        for name in ("max_context", "page", "tokens", "rows", "chunk", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"engine.{name} = {getattr(self, name)}: expected 1 or more")
        for name in ("slots", "pages"):
            if getattr(self, name) < 0:
                raise ConfigError(f"engine.{name} = {getattr(self, name)}: expected 0 or more")
        if self.pages and self.pages < self.width:
            raise ConfigError(
                f"engine.pages = {self.pages} of {self.page} positions cannot hold "
                f"one conversation of max_context {self.max_context}: set it to {self.width} or "
                "more, or to 0"
            )

    @property
    def width(self) -> int:
        """Pages of the longest conversation."""
        return -(-self.max_context // self.page)

    @property
    def widths(self) -> tuple[int, ...]:
        """How many pages a prefill may look at: the buckets that are compiled."""
        blocks = -(-self.width // block(self.page))
        part = -(-blocks // BUCKETS) * block(self.page)
        return tuple(sorted({min(part * i, self.width) for i in range(1, BUCKETS + 1)}))

    def bucket(self, end: int) -> int:
        """The narrowest bucket whose pages hold all positions below `end`."""
        return next(width for width in self.widths if width * self.page >= end)


def fitted(shapes: Shapes, config: ModelConfig, *, dtype: str, device: jax.Device) -> Shapes:
    """Fill in what is left open: the kernel by the device, slots and pages by its memory.

    Raises:
        ConfigError: when a conversation's pages do not fit, or is longer than the model can.
    """
    if shapes.max_context > config.max_positions:
        raise ConfigError(
            f"max_context {shapes.max_context} exceeds the model's {config.max_positions} "
            "positions: lower config.engine.max_context"
        )
    attention = shapes.attention or SUITED.get(device.platform, "gathered")
    bytes_each = page_bytes(config, page=shapes.page, dtype=dtype)
    free = free_bytes(device)
    held = int(SHARE * free) // bytes_each
    most = MOST_SLOTS.get(device.platform, MOST_SLOTS[""])
    slots = shapes.slots or min(max(held // shapes.width, 1), most)
    # Every slot may be filled to the brim; what is left over keeps prefixes for later.
    wanted = slots * shapes.width
    if one_reader(attention):
        wanted = max(int(FILLED * wanted), shapes.width)
    pages = shapes.pages or min(wanted, held)
    if pages < shapes.width or pages * bytes_each > free:
        raise ConfigError(
            f"{max(pages, shapes.width)} pages of {bytes_each:,} bytes do not fit the "
            f"{free:,} bytes that are free on {device}: lower config.engine.pages or max_context, "
            "or put the model on a larger mesh"
        )
    return dataclasses.replace(shapes, attention=attention, slots=slots, pages=pages)


def one_reader(attention: str) -> bool:
    """Whether the kernel wants every page in one row's table only."""
    return PAGED[attention].one_reader


def free_bytes(device: jax.Device) -> int:
    """Memory of a device that nothing holds yet, in bytes."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return _host_bytes()


def _host_bytes() -> int:
    """Memory of this machine that can be had: page cache, which gives way, counts as free."""
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].removesuffix("kB")) * 1024
    except (OSError, KeyError):  # no Linux: half of what there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
