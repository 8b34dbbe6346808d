"""The importer protocol: a file format of conversations between an environment and an agent.

An importer is one module in `eef_jax/importers/` that exports `make() -> Reader`. A reader turns
one record of a file into a `Conversation`; that files are JSON lists, single objects or JSON lines
is settled here. Readers operate on messages; tasks and actions are found by replay (`_replay`).
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from eef_jax.errors import DataError
from eef_jax.types import Role

ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "tool": "user",
    "environment": "user",
    "assistant": "assistant",
    "agent": "assistant",
    "gpt": "assistant",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One message of a conversation.

    Attributes:
        role: who spoke.
        content: the text.
        thought: what the agent thought, where the format keeps that apart from the text.
        action: the action, where the format keeps that apart from the text.
    """

    role: Role
    content: str
    thought: str = ""
    action: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One attempt as a file tells it.

    Attributes:
        messages: all messages, prompt included; neighbours have different roles.
        name: its id in the file; "": none.
        agent: who played; "": the file does not say.
        reward: what the file says it was paid, 0-1; None: it does not say.
        place: file and number of the record, for messages.
    """

    messages: tuple[Said, ...]
    name: str = ""
    agent: str = ""
    reward: float | None = None
    place: str = ""


Reader = Callable[[Mapping[str, Any]], Conversation]


def conversations(path: str, reader: Reader, *, format: str) -> Iterator[Conversation]:
    """The conversations of a file, in its order.

    Args:
        path: the file.
        reader: reads one record.
        format: name of the reader's format, for error messages.

    Raises:
        DataError: the file cannot be read or is not JSON, or a record has another form.
    """
    for number, record in enumerate(records(path)):
        place = f"{path}, record {number}"
        try:
            found = reader(record)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"{place} is not of format {format} ({said}); is --format right? "
                "docs/experts.md shows the formats"
            ) from error
        yield dataclasses.replace(found, place=place, messages=_merge(found.messages))


def records(path: str) -> list[Mapping[str, Any]]:
    """The JSON objects of a file: a list of them, one alone, or one a line.

    A UTF-8 byte order mark and a missing last line break are accepted.

    Raises:
        DataError: it is missing, not UTF-8, or not JSON (the line is named).
    """
    try:
        text = epath.Path(path).expanduser().read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"cannot read {path} ({error.strerror or error}): give the path of a file (--file)"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}; save it so") from error
    try:
        whole = json.loads(text)
        return list(whole) if isinstance(whole, list) else [whole]
    except ValueError:
        pass
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise DataError(
                    f"{path}, line {number} is not JSON ({error}); expected a JSON list, one "
                    "object, or one object a line"
                ) from error
    return found


def said(row: Mapping[str, Any]) -> Said:
    """A message as most formats write it: `role` or `from`, `content` or `value`.

    Raises:
        ValueError: the role is unknown, or the content is not text.
    """
    role = row["role"] if "role" in row else row["from"]
    content = row["content"] if "content" in row else row["value"]
    if isinstance(content, list):  # parts, as chat APIs have them
        content = "\n".join(part["text"] for part in content if part.get("type") == "text")
    if role not in ROLES:
        raise ValueError(f"role {role!r}, expected one of {', '.join(ROLES)}")
    if content is not None and not isinstance(content, str):
        raise ValueError(f"content {content!r}, expected text")
    return Said(role=ROLES[role], content=content or "", thought=row.get("reasoning_content") or "")


def number(value: Any) -> float | None:
    """A reward as a float; None where the record has none."""
    return None if value is None else float(value)


def _merge(messages: Sequence[Said]) -> tuple[Said, ...]:
    """Join neighbours of one role, so that user and agent take turns."""
    merged: list[Said] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            before = merged.pop()
            message = dataclasses.replace(
                message,
                content=f"{before.content}\n{message.content}".strip("\n"),
                thought=f"{before.thought}\n{message.thought}".strip("\n"),
            )
        merged.append(message)
    return tuple(merged)
