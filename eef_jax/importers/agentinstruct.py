"""AgentInstruct's files: `{"id", "conversations": [{"role", "content"}, ...]}`, wins of GPT-4."""

from collections.abc import Mapping
from typing import Any

from eef_jax.importers.base import Conversation, Reader, said


def make() -> Reader:
    """The reader of a record."""
    return read


def read(record: Mapping[str, Any]) -> Conversation:
    """Read a record; it holds no reward."""
    return Conversation(
        messages=tuple(map(said, record["conversations"])),
        name=str(record.get("id", "")),
        agent=str(record.get("model") or "agentinstruct"),
    )
