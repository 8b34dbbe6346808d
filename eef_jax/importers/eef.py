"""Our own files (`eef_jax/storage/records.py`), made with another prompt, view or seed."""

from collections.abc import Mapping
from typing import Any

from eef_jax.importers.base import Conversation, Reader, Said
from eef_jax.storage.records import from_json
from eef_jax.types import Step


def make() -> Reader:
    """The reader of a record."""
    return read


def read(record: Mapping[str, Any]) -> Conversation:
    """Read a record; its task is found again by what the agent read."""
    trajectory = from_json(record)
    messages = [message for step in trajectory.steps for message in _messages(step)]
    return Conversation(
        messages=(*messages, Said(role="user", content=trajectory.final_observation)),
        name=trajectory.id,
        agent=trajectory.agent,
        reward=trajectory.reward,
    )


def _messages(step: Step) -> tuple[Said, Said]:
    return (
        Said(role="user", content=step.observation),
        Said(role="assistant", content=step.message, action=step.action),
    )
