"""Chat rendering that only ever appends: the ids of a turn are a prefix of the ids of the next.

A chat template is reduced to frames: for each message the fixed text before and after its content.
Frames are found by rendering marker contents, so any template works that is prefix-stable (one more
message leaves the text before it alone) and writes contents verbatim or stripped; others are
refused. Each message is tokenised by itself and sampled ids are kept as they were sampled, so that
history is never decoded and encoded again. Knows messages and ids; not steps, weights or models.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eef_jax.errors import PolicyError
from eef_jax.text import tokenizer as tokenizer_lib
from eef_jax.types import Message, Role


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """What stands around a message's content.

    Attributes:
        head: ids before the content; of an assistant's message, the generation prompt.
        end: ids after the content up to the first special token: how the speaker ends a turn.
        rest: ids between the end of the turn and the next message (ChatML's newline).
        text: the rendered conversation with marker contents, this message included.
        strips: whether the template strips the content's outer white space.
    """

    head: tuple[int, ...]
    end: tuple[int, ...]
    rest: tuple[int, ...]
    text: str
    strips: bool


class ChatTokenizer:
    """Conversations to ids and back, for one tokenizer and its chat template.

    Example:
        >>> chat = ChatTokenizer.load("assets/nano")
        >>> ids = chat.prompt((Message(role="user", content="hello"),))
        >>> chat.decode(ids)

    Attributes:
        tokenizer: text and ids.
        fingerprint: hash of tokenizer and template: sampled ids are valid under equal ones.
        stop_ids: ids that end an assistant's message.
        vocab_size: number of ids.
    """

    def __init__(self, tokenizer: tokenizer_lib.Tokenizer):
        """Reduce the template to frames.

        Raises:
            PolicyError: when the template is not prefix-stable or rewrites contents.
        """
        self.tokenizer = tokenizer
        self.fingerprint = tokenizer.fingerprint
        self.vocab_size = tokenizer.vocab_size
        self._frames: dict[tuple[Role, ...], tuple[_Frame, ...]] = {(): ()}
        end = self._frame(("user", "assistant", "user", "assistant"))[1].end
        if not end or end[-1] not in tokenizer.special_ids:
            raise PolicyError(
                "the chat template ends an assistant's message without a special token, so a model "
                "cannot be seen to stop; use a template with an end-of-turn token"
            )
        stops = (end[-1],) if tokenizer.eos_id is None else (end[-1], tokenizer.eos_id)
        self.stop_ids = tuple(dict.fromkeys(stops))

    @classmethod
    def load(cls, path: str | Path) -> "ChatTokenizer":
        """Read a Hugging Face folder (see `tokenizer.load`)."""
        return cls(tokenizer_lib.load(path))

    def prompt(
        self, messages: Sequence[Message], tokens: Sequence[Sequence[int]] | None = None
    ) -> np.ndarray:
        """Ids of a conversation up to where the assistant begins to speak.

        Args:
            messages: the conversation, ending with a message that is not the assistant's.
            tokens: for each message the ids it was sampled as (empty: encode its content).

        Returns:
            int32[t]; a prefix of the ids of any longer conversation that begins alike.
        """
        ids, _ = self.example(messages, tokens)
        roles = tuple(message.role for message in messages)
        head = self._frame((*roles, "assistant"))[-1].head
        return np.concatenate([ids, np.asarray(head, np.int32)])

    def example(
        self, messages: Sequence[Message], tokens: Sequence[Sequence[int]] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids of a whole conversation, and whose learnable words they are.

        Args:
            messages: the conversation.
            tokens: for each message the ids it was sampled as (empty: encode its content).

        Returns:
            ids: int32[t].
            speaker: int32[t]; for the tokens an assistant decides (its content and its end-of-turn
                token) the index of its message in `messages`, else -1.
        """
        sampled = tokens if tokens is not None else ((),) * len(messages)
        frames = self._frame(tuple(message.role for message in messages))
        ids: list[int] = []
        speaker: list[int] = []
        for index, (message, kept, frame) in enumerate(zip(messages, sampled, frames, strict=True)):
            said = self._said(message, kept, frame)
            ids += [*frame.head, *said, *frame.rest]
            who = index if message.role == "assistant" else -1
            speaker += [-1] * len(frame.head) + [who] * len(said) + [-1] * len(frame.rest)
        return np.asarray(ids, np.int32), np.asarray(speaker, np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids without special tokens."""
        return self.tokenizer.decode(ids)

    def _said(self, message: Message, kept: Sequence[int], frame: _Frame) -> tuple[int, ...]:
        """Content and end of turn; sampled ids stand as they are, only a missing end is added."""
        if kept:
            return tuple(kept) + (() if kept[-1] in self.stop_ids else frame.end)
        content = message.content.strip() if frame.strips else message.content
        return self.tokenizer.encode(content) + frame.end

    def _frame(self, roles: tuple[Role, ...]) -> tuple[_Frame, ...]:
        """Frames of a conversation of these roles; found once for each sequence of roles."""
        if roles not in self._frames:
            known = self._frame(roles[:-1])
            self._frames[roles] = (*known, self._measure(roles, known[-1].text if known else ""))
        return self._frames[roles]

    def _measure(self, roles: tuple[Role, ...], before: str) -> _Frame:
        place = len(roles) - 1
        marker = _marker(place)
        after = self._render(roles)
        _check_prefix(before, after, f"adding message {place} ({roles[-1]})")
        piece = after[len(before) :]
        if piece.count(marker) != 1:
            raise PolicyError(
                f"the chat template writes the content of message {place} ({roles[-1]}) "
                f"{piece.count(marker)} times, expected once: {piece!r}; use another template"
            )
        head, tail = piece.split(marker)
        if roles[-1] == "assistant":
            asked = self._render(roles[:-1], generate=True) if place else head
            _check_prefix(asked, after, f"answering the generation prompt of message {place}")
            if place and asked != before + head:
                raise PolicyError(
                    f"the generation prompt {asked[len(before) :]!r} differs from how the chat "
                    f"template begins an assistant's message in history, {head!r}: sampled ids "
                    "could not be kept; use another template"
                )
        padded = self._render(roles, pad=place)
        if padded not in (after, f"{before}{head} {marker} {tail}"):
            raise PolicyError(
                "the chat template rewrites contents (more than stripping white space): it turns "
                f"{' ' + marker + ' '!r} into {padded[len(before) :]!r}; use another template"
            )
        end, rest = self._turn_end(tail)
        head_ids = self.tokenizer.encode(head, special=True)
        return _Frame(head=head_ids, end=end, rest=rest, text=after, strips=padded == after)

    def _turn_end(self, tail: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        ids = self.tokenizer.encode(tail, special=True)
        special = [i for i, token in enumerate(ids) if token in self.tokenizer.special_ids]
        cut = special[0] + 1 if special else len(ids)
        return ids[:cut], ids[cut:]

    def _render(
        self, roles: Sequence[Role], *, generate: bool = False, pad: int | None = None
    ) -> str:
        contents = [f" {_marker(i)} " if i == pad else _marker(i) for i in range(len(roles))]
        messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
        return self.tokenizer.template(messages, generate=generate)


def _marker(index: int) -> str:
    # Private-use characters: no template trims, tests or rewrites them.
    return f"\ue000{index}\ue001"


def _check_prefix(before: str, after: str, doing: str) -> None:
    if after.startswith(before):
        return
    at = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after)
    )
    raise PolicyError(
        f"the chat template is not prefix-stable: {doing} changes the text before it from "
        f"{before[at : at + 60]!r} to {after[at : at + 60]!r}; KV caches and sampled ids could not "
        "be kept across turns, use a template that only appends"
    )
