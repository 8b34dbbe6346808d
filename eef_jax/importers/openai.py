"""Chat files as OpenAI's fine-tuning takes them: `{"messages": [{"role", "content"}, ...]}`.

`id`, `model` and `reward` are read where they are given. Calls of tools are not read as actions: an
environment's actions are text.
"""

from collections.abc import Mapping
from typing import Any

from eef_jax.importers.base import Conversation, Reader, number, said


def make() -> Reader:
    """The reader of a record."""
    return read


def read(record: Mapping[str, Any]) -> Conversation:
    """Read a record."""
    return Conversation(
        messages=tuple(map(said, record["messages"])),
        name=str(record.get("id", "")),
        agent=str(record.get("model") or ""),
        reward=number(record.get("reward")),
    )
