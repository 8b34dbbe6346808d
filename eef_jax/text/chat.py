"""Chat rendering that only ever appends: the ids of a turn are a prefix of the ids of the next.

A chat template is reduced to frames: for each message the fixed text before and after its content.
Frames are found by rendering marker contents in the form messages have as history, so any template
works that is prefix-stable there (a later message does not change the text before it) and writes
contents verbatim or stripped; others are refused when the tokenizer is loaded. Each message is
tokenized separately and sampled ids are kept as they were sampled, so that history is never decoded
and encoded again: what a template would drop from earlier turns (Qwen3: their thinking) stays.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from eef_jax.errors import PolicyError
from eef_jax.text import tokenizer as tokenizer_lib
from eef_jax.types import Message, Role

_MARKER = re.compile("\ue000(\\d+)\ue001")  # private use: no template trims or rewrites these
# How a template treats a content's outer white space, by its rendering of " content ".
_STRIPS: dict[str, Callable[[str], str]] = {
    " {} ": str,
    "{}": str.strip,
    "{} ": str.lstrip,
    " {}": str.rstrip,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """The fixed text around a message's content.

    Attributes:
        head: ids between the previous message and the content; of an assistant's message, the
            generation prompt.
        lead: text that an assistant's message begins with (a space, in some templates).
        end: ids that end an assistant's turn, up to and including the first special token.
        text: the conversation with marker contents, up to the end of this message.
        strip: strips a content's outer white space as the template does.
    """

    head: tuple[int, ...]
    lead: str
    end: tuple[int, ...]
    text: str
    strip: Callable[[str], str]


class ChatTokenizer:
    """Renders conversations to ids and decodes ids, for one tokenizer and its chat template.

    Example:
        >>> chat = ChatTokenizer.load("assets/nano")
        >>> ids = chat.prompt((Message(role="user", content="hello"),))
        >>> chat.decode(ids)

    Attributes:
        tokenizer: text and ids.
        fingerprint: hash of tokenizer and template; sampled ids are valid under equal ones only.
        stop_ids: ids that end an assistant's message: the template's end of turn, the tokenizer's
            end of sequence, and what the generation config names.
        vocab_size: number of ids.
    """

    def __init__(self, tokenizer: tokenizer_lib.Tokenizer):
        """Reduce the template to frames.

        Raises:
            PolicyError: the template is not prefix-stable or rewrites contents.
        """
        self.tokenizer = tokenizer
        self.fingerprint = tokenizer.fingerprint
        self.vocab_size = tokenizer.vocab_size
        self._frames: dict[tuple[Role, ...], tuple[_Frame, ...]] = {(): ()}
        self._merges_system = False
        self._check_system()
        end = self._frame(("user", "assistant", "user", "assistant"))[-1].end
        stops = (end[-1], tokenizer.eos_id, *tokenizer.stop_ids)
        self.stop_ids = tuple(dict.fromkeys(stop for stop in stops if stop is not None))

    @classmethod
    def load(cls, path: str | Path) -> "ChatTokenizer":
        """Read a Hugging Face tokenizer folder (`tokenizer.json`, `tokenizer_config.json`)."""
        return cls(tokenizer_lib.load(path))

    def prompt(
        self, messages: Sequence[Message], tokens: Sequence[Sequence[int]] | None = None
    ) -> np.ndarray:
        """Return the ids of a conversation, ending with the generation prompt.

        Args:
            messages: the conversation, ending with a message that is not the assistant's.
            tokens: for each message the ids it was sampled as (empty: encode its content).

        Returns:
            int32[t]; a prefix of the ids of every longer conversation with the same beginning.
        """
        ids, _ = self.example(messages, tokens)
        roles = tuple(message.role for message in messages)
        head = self._frame((*roles, "assistant"))[-1].head
        return np.concatenate([ids, np.asarray(head, np.int32)])

    def example(
        self, messages: Sequence[Message], tokens: Sequence[Sequence[int]] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of a whole conversation, and which assistant message each belongs to.

        Args:
            messages: the conversation.
            tokens: for each message the ids it was sampled as (empty: encode its content).

        Returns:
            ids: int32[t].
            speaker: int32[t]; for tokens that the assistant generates (content and end-of-turn
                token) the index of the message in `messages`, else -1.
        """
        sampled = tokens if tokens is not None else ((),) * len(messages)
        frames = self._frame(tuple(message.role for message in messages))
        ids: list[int] = []
        speaker: list[int] = []
        for index, (message, kept, frame) in enumerate(zip(messages, sampled, frames, strict=True)):
            body = self._body(message, kept, frame)
            ids += [*frame.head, *body]
            owner = index if message.role == "assistant" else -1
            speaker += [-1] * len(frame.head) + [owner] * len(body)
        return np.asarray(ids, np.int32), np.asarray(speaker, np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids without special tokens."""
        return self.tokenizer.decode(ids)

    def _body(self, message: Message, kept: Sequence[int], frame: _Frame) -> tuple[int, ...]:
        """Ids of content and end of turn; sampled ids are kept, only a missing end is added."""
        if kept:
            return tuple(kept) + (() if kept[-1] in self.stop_ids else frame.end)
        content = frame.lead + frame.strip(message.content)
        return self.tokenizer.encode(content) + frame.end

    def _check_system(self) -> None:
        """Find out whether the template renders a system message in a fixed place.

        If it does not, the system message is prepended to the first user message, as Gemma 3's
        template does.
        """
        roles: tuple[Role, ...] = ("system", "user", "assistant", "user", "assistant")
        try:
            self._frame(roles)
        except PolicyError:
            self._frames = {(): ()}
            self._merges_system = True

    def _frame(self, roles: tuple[Role, ...]) -> tuple[_Frame, ...]:
        """Frames of a conversation with these roles; measured once for each sequence of roles."""
        if roles not in self._frames:
            known = self._frame(roles[:-1])
            self._frames[roles] = (*known, self._measure(roles, known))
        return self._frames[roles]

    def _measure(self, roles: tuple[Role, ...], known: tuple[_Frame, ...]) -> _Frame:
        """The frame of the last message, as the template renders it before a user message.

        Templates may render a conversation's last message differently; in history it is fixed.
        """
        place, last = len(roles) - 1, roles[-1]
        before = known[-1].text if known else ""
        probe: tuple[Role, ...] = () if last == "user" else ("user",)
        text = self._render(roles + probe)
        _check_prefix(before, text, f"adding message {place} ({last})")
        markers = list(_MARKER.finditer(text))
        order = [int(found[1]) for found in markers]
        if order != list(range(len(roles + probe))):
            raise PolicyError(
                f"the chat template writes the content of message {place} ({last}) "
                f"{order.count(place)} times, expected each message's once and in order: "
                f"{text[len(before) :]!r}; use another template"
            )
        start, stop = markers[place].span()
        head, lead, end = text[len(before) : start], "", ""
        if last == "assistant":
            head, lead = self._generation_prompt(roles, before, head)
            end = self._turn_end(roles)
            _check_prefix(text[:stop] + end, text, f"answering message {place} ({last})")
        return _Frame(
            head=self.tokenizer.encode(head, special=True),
            lead=lead,
            end=self.tokenizer.encode(end, special=True),
            text=text[:stop] + end,
            strip=self._strip(roles + probe, place, text),
        )

    def _generation_prompt(
        self, roles: tuple[Role, ...], before: str, head: str
    ) -> tuple[str, str]:
        """The generation prompt, and the text between it and an assistant's content."""
        if len(roles) == 1:
            return head, ""
        prompted = self._render(roles[:-1], generate=True)
        _check_prefix(before, prompted, f"the generation prompt of message {len(roles) - 1}")
        prompt = prompted[len(before) :]
        lead = head.removeprefix(prompt)
        if not head.startswith(prompt) or lead.strip():
            raise PolicyError(
                f"the generation prompt {prompt!r} differs from how the chat template begins an "
                f"assistant's message in history, {head!r}: sampled ids could not be kept; use "
                "another template"
            )
        return prompt, lead

    def _turn_end(self, roles: tuple[Role, ...]) -> str:
        """The text after an assistant's content, up to and including the first special token."""
        tail = self._render(roles).rpartition(_marker(len(roles) - 1))[2]
        ends = [tail.find(text) + len(text) for text in self.tokenizer.special_text if text in tail]
        if not ends:
            raise PolicyError(
                "the chat template ends an assistant's message without a special token, so the end "
                "of a turn cannot be detected; use a template with an end-of-turn token"
            )
        return tail[: min(ends)]

    def _strip(self, roles: tuple[Role, ...], place: int, text: str) -> Callable[[str], str]:
        marker = _marker(place)
        padded = self._render(roles, pad=place)
        for form, strip in _STRIPS.items():
            if padded == text.replace(marker, form.format(marker)):
                return strip
        raise PolicyError(
            "the chat template rewrites contents (more than stripping white space): with "
            f"{' ' + marker + ' '!r} in {text!r} it gives {padded!r}; use another template"
        )

    def _render(
        self, roles: Sequence[Role], *, generate: bool = False, pad: int | None = None
    ) -> str:
        contents = [f" {_marker(i)} " if i == pad else _marker(i) for i in range(len(roles))]
        messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
        if self._merges_system and roles[:2] == ("system", "user"):
            system, user, *rest = messages
            joined = f"{system['content']}\n\n{user['content']}"
            messages = [{"role": "user", "content": joined}, *rest]
        return self.tokenizer.template(messages, generate=generate)


def _marker(index: int) -> str:
    return f"\ue000{index}\ue001"


def _check_prefix(before: str, after: str, action: str) -> None:
    if after.startswith(before):
        return
    at = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after)
    )
    raise PolicyError(
        f"the chat template is not prefix-stable: {action} changes the text before it from "
        f"{before[at : at + 60]!r} to {after[at : at + 60]!r}; KV caches and sampled ids could not "
        "be kept across turns, use a template that only appends"
    )
