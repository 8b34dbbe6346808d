"""How environments address an agent: prompt presets, split limits, and index files of splits.

An environment keeps only its texts and its action grammar; reading and rendering messages, and
what a config may say about splits, is the same for all of them.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from eef_jax.errors import DataError, check_at_least
from eef_jax.storage.files import read_json
from eef_jax.types import Message

ROLES = ("system", "user", "assistant")

T = TypeVar("T")


_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)


def without_thoughts(message: str) -> str | None:
    """A reasoning model's message without its `<think>...</think>`; None if one does not end.

    A thought may quote the form of an action; only what stands outside counts. Templates that begin
    the answer with `<think>` leave an end without a beginning.
    """
    rest = _THOUGHT.sub("", message)
    rest = rest.rpartition("</think>")[2]
    return None if "<think>" in rest else rest


def first_line(text: str) -> str | None:
    """The first line that is not blank, stripped; None if there is none."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line), None)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A prompt convention: the texts an agent reads, and where its messages hold the action.

    Attributes:
        messages: the conversation before the first observation.
        instructions: what `messages` would tell an agent that was not tuned on this convention; for
            served models, where `messages` is empty.
        opening: template of the first observation, over `{task}` and `{room}` (simulators in Java).
        observation: text before every observation (before every later one where `opening` is used).
        listing: text between a page and its admissible actions; "": the actions are not listed.
        thought: template of the thought before the marker, over `{thought}`; "": the convention has
            no thoughts.
        marker: text before the action in a message, after the thought; "": the message is the
            action.
        gap: text between marker and action in a rendered message.
        end: text after the action; "": nothing.
        invalid: observation after a message without an action; such a message costs a step.
        max_steps: default cap on an agent's actions; 0: the environment's default.
        grammar: finds the action in the text between marker and end.
    """

    messages: tuple[Message, ...] = ()
    instructions: str
    opening: str = "{task}\n{room}"
    observation: str = ""
    listing: str = ""
    thought: str = ""
    marker: str = ""
    gap: str = ""
    end: str = ""
    invalid: str
    max_steps: int = 0
    grammar: Callable[[str], str | None] = first_line

    def parse(self, message: str) -> str | None:
        """Return the action in an agent's message, or None if there is none.

        The action stands after the first marker outside of thoughts, and before the first end after
        that.
        """
        text = without_thoughts(message)
        if text is None:
            return None
        if self.marker:
            _, found, text = text.partition(self.marker)
            if not found:
                return None
        return self.grammar(text.partition(self.end)[0] if self.end else text)

    def render(self, action: str, thought: str = "") -> str:
        """Return a message that `parse` turns into `action`.

        Args:
            action: the action.
            thought: why it is done; left out if it is empty or the convention has no thoughts.
        """
        before = self.thought.replace("{thought}", thought) if thought else ""
        return before + self.marker + self.gap + action + self.end

    def untold(self) -> str:
        """The instructions, where the conversation does not begin with any; else ""."""
        return "" if self.messages else self.instructions


def told(instructions: str, *, answer: str = "OK") -> tuple[Message, ...]:
    """Instructions and their answer, so that the first observation is a message of the user's."""
    return (
        Message(role="user", content=instructions),
        Message(role="assistant", content=answer),
    )


def parse_messages(rows: Any) -> tuple[Message, ...]:
    """Read the messages before the first observation from parsed JSON.

    Args:
        rows: a list of `{"role": ..., "content": ...}`. The last role is not `user`: the first
            observation is the user's message, and chat templates expect roles to alternate.

    Raises:
        TypeError: a row is not a message.
        ValueError: the last message is the user's.
    """
    if not isinstance(rows, list):
        raise TypeError(f"a JSON {type(rows).__name__}, expected a list of messages")
    messages = tuple(map(_parse_message, rows))
    if messages and messages[-1].role == "user":
        raise ValueError(
            "the last message is the user's, and so is the first observation that follows; "
            "end with the assistant's"
        )
    return messages


def _parse_message(row: Any) -> Message:
    valid = isinstance(row, dict) and row.get("role") in ROLES
    if not valid or not isinstance(row.get("content"), str):
        raise TypeError(
            f"message {row!r}, expected an object with role ({', '.join(ROLES)}) and content"
        )
    return Message(role=row["role"], content=row["content"])


def split_limits(*, train_tasks: int, dev_tasks: int, test_tasks: int) -> dict[str, int]:
    """Check the numbers of tasks that a config takes from each split.

    Returns:
        Split -> number of tasks; 0: all.

    Raises:
        ConfigError: a number is negative or not whole.
    """
    limits = {"train": train_tasks, "dev": dev_tasks, "test": test_tasks}
    for split, limit in limits.items():
        check_at_least(f"env.{split}_tasks", limit, 0)
    return limits


def read_index_file(
    path: str, parse_entry: Callable[[Any], T], *, what: str, remedy: str
) -> Iterator[T]:
    """Read an index file, a JSON list that names the tasks of a split, entry by entry.

    Args:
        path: the file.
        parse_entry: turns an entry into a task's index; raises `ValueError` with the end of the
            error message, e.g. `" is -1, expected ..."`.
        what: what the entries are, for error messages.
        remedy: what the user can do if the file cannot be read.

    Raises:
        DataError: the file is missing or damaged, or an entry names no task.
    """
    for place, entry in enumerate(read_json(path, list, what=what, remedy=remedy)):
        try:
            yield parse_entry(entry)
        except ValueError as error:
            raise DataError(f"{path}: entry {place}{error}") from error
