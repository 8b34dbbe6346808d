"""Other data to learn: chats from JSON lines, encoded like a method's selections.

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...]}

The assistant's messages are learned by likelihood, whatever the round's loss.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from eef_jax.data.encode import Chat
from eef_jax.errors import DataError
from eef_jax.storage import files
from eef_jax.types import Example, Message

ROLE = "conversation"
_ROLES = ("system", "user", "assistant")


def read_examples(
    paths: str, chat: Chat, *, weight: float, max_length: int, columns: Sequence[str] = ()
) -> list[Example]:
    """Read and encode chats, in the files' order.

    Args:
        paths: files, with commas between them; "" for none.
        chat: renders messages to ids.
        weight: loss weight of the assistant's tokens.
        max_length: longest example in tokens (the length of a training row).
        columns: columns that the examples get, filled with 0.

    Raises:
        DataError: a file cannot be read, or a line is no chat or is longer than a row.
    """
    examples = []
    for path in filter(None, (part.strip() for part in paths.split(","))):
        for number, messages in _read(files.to_path(path)):
            place = f"{path}, line {number}"
            ids, message_of_token = chat.example(messages, ((),) * len(messages))
            weights = np.where(np.asarray(message_of_token) >= 0, weight, 0.0)
            if len(ids) > max_length or not weights[1:].any():
                raise DataError(
                    f"{place}: {len(ids)} tokens, {np.count_nonzero(weights)} of them an "
                    f"assistant's; expected one of these at least, and {max_length} tokens at "
                    "most: raise config.train.seq_len or leave the line out"
                )
            examples.append(
                Example(
                    id=f"{ROLE}:{path}:{number}",
                    tokens=np.asarray(ids, np.int32),
                    weights=weights.astype(np.float32),
                    columns={name: np.zeros(len(ids), np.float32) for name in columns},
                    provenance={"role": ROLE, "trajectory": place},
                )
            )
    return examples


def _read(path: epath.Path) -> Iterator[tuple[int, tuple[Message, ...]]]:
    """The chats of a file, each with the number of its line."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"config.train.conversations: cannot read {path} ({error})") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, _messages(line, f"{path}, line {number}")


def _messages(line: str, place: str) -> tuple[Message, ...]:
    try:
        messages = tuple(_message(message) for message in json.loads(line)["messages"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{place}: expected {{"messages": [{{"role": ..., "content": ...}}, ...]}} with the '
            f"roles {', '.join(_ROLES)} and text as content, got {line[:80]!r} ({error!r})"
        ) from error
    return messages


def _message(value: Any) -> Message:
    role, content = value["role"], value["content"]
    if role not in _ROLES or not isinstance(content, str):
        raise ValueError(f"role {role!r}, content of type {type(content).__name__}")
    return Message(role=role, content=content)
