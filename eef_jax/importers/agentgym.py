"""AgentGym's files: `{"item_id", "conversations": [...], "reward", "model", "sample_idx"}`.

Messages have `from` and `value` (AgentTraj-L, with `loss`), or `role`, `content` and
`reasoning_content` (rollouts of its trainers).
"""

from collections.abc import Mapping
from typing import Any

from eef_jax.importers.base import Conversation, Reader, number, said


def make() -> Reader:
    """The reader of a record."""
    return read


def read(record: Mapping[str, Any]) -> Conversation:
    """Read a record; attempts at one item are told apart by `sample_idx`."""
    sample = record.get("sample_idx")
    return Conversation(
        messages=tuple(map(said, record["conversations"])),
        name=str(record["item_id"]) + (f"-{sample}" if sample is not None else ""),
        agent=str(record.get("model") or ""),
        reward=number(record.get("reward")),
    )
