"""Engine sizes: what is refused, and what is resolved by the device's memory."""

import dataclasses

import jax
import pytest

from eef_jax.config.sections import EngineConfig
from eef_jax.engine import config as config_lib
from eef_jax.errors import ConfigError
from eef_jax.models.cache import page_bytes
from tests.engine import toymodel


def test_invalid_configs_are_refused(model):
    with pytest.raises(ConfigError, match="64 positions"):
        toymodel.engine(model, config=EngineConfig(max_context=128))
    with pytest.raises(ConfigError, match="cannot hold one conversation"):
        EngineConfig(max_context=64, page_size=16, num_pages=3)
    with pytest.raises(ConfigError, match=r"engine\.max_num_seqs is -1"):
        EngineConfig(max_num_seqs=-1)
    with pytest.raises(ConfigError, match=r"engine\.decode_steps is 0"):
        EngineConfig(decode_steps=0)


def test_rows_and_pages_are_resolved_by_free_memory(model, monkeypatch, tmp_path):
    page = page_bytes(model.config, page_size=16, dtype="float32")
    open_config = EngineConfig(max_context=64, page_size=16)  # four pages a conversation
    for affordable, rows, pages in ((41, 10, 32), (4, 1, 4), (10_000, 64, 204)):
        free = affordable * page / config_lib.MEMORY_FRACTION
        monkeypatch.setattr(config_lib, "free_bytes", lambda _, free=free: free)
        found = config_lib.resolve_config(
            open_config, model.config, dtype="float32", device=jax.devices()[0]
        )
        assert (found.max_num_seqs, found.num_pages) == (rows, pages)
    monkeypatch.undo()
    monkeypatch.setattr(config_lib, "MEMINFO", tmp_path / "meminfo")
    config_lib.MEMINFO.write_text("MemFree: 9 kB\nMemAvailable:  2048 kB\n")
    assert config_lib.free_bytes(jax.devices()[0]) == 2048 * 1024
    config_lib.MEMINFO.unlink()
    assert config_lib.free_bytes(jax.devices()[0]) > 2**30
    gathered = dataclasses.replace(open_config, attention="gathered", max_num_seqs=100)
    found = config_lib.resolve_config(
        gathered, model.config, dtype="float32", device=jax.devices()[0]
    )
    assert (found.max_num_seqs, found.num_pages) == (100, 400)
