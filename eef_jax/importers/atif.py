"""ATIF, the agent trajectory interchange format of Harbor: one object a trajectory.

    {"schema_version": "ATIF-v1.4", "session_id": "...", "agent": {"name", "model_name"}, "steps": [
        {"source": "user", "message": "..."},
        {"source": "agent", "message": "...", "reasoning_content": "...",
         "observation": {"results": [{"content": "..."}]}}, ...], "extra": {"reward": 1.0}}

An agent's step may hold what came of it (`observation`), or the next step says it (`user`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from eef_jax.importers.base import Conversation, Reader, Said, number, said


def make() -> Reader:
    """The reader of a record."""
    return read


def read(record: Mapping[str, Any]) -> Conversation:
    """Read a record.

    Raises:
        ValueError: it is of another schema.
    """
    schema = record.get("schema_version")
    if not isinstance(schema, str) or not schema.startswith("ATIF-v1"):
        raise ValueError(f"schema_version {schema!r}, expected ATIF-v1")
    agent = record.get("agent") or {}
    extra = record.get("extra") or {}
    return Conversation(
        messages=tuple(message for step in record["steps"] for message in _messages(step)),
        name=str(record.get("session_id") or ""),
        agent=str(agent.get("model_name") or agent.get("name") or ""),
        reward=number(extra.get("reward")),
    )


def _messages(step: Mapping[str, Any]) -> Iterator[Said]:
    yield said({**step, "role": step["source"], "content": step.get("message")})
    results = (step.get("observation") or {}).get("results") or ()
    for result in results:
        yield said({"role": "user", "content": result.get("content")})
