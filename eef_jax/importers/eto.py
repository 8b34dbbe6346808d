"""ETO's files: `{"id", "conversations": [{"from": "human", "value": "..."}, ...], "reward"}`."""

from collections.abc import Mapping
from typing import Any

from eef_jax.importers.base import Conversation, Reader, number, said


def make() -> Reader:
    """The reader of a record."""
    return read


def read(record: Mapping[str, Any]) -> Conversation:
    """Read a record; `source` says who played."""
    return Conversation(
        messages=tuple(map(said, record["conversations"])),
        name=str(record.get("id", "")),
        agent=str(record.get("source") or ""),
        reward=number(record.get("reward")),
    )
