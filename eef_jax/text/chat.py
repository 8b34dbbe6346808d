"""Chat rendering that only ever appends: the ids of a turn are a prefix of the ids of the next.

A chat template is reduced to `frames`. What an assistant's messages leave between them (the end of
a turn, observations, the next prompt) is tokenized as it is in the whole conversation, and sampled
ids are kept as they were sampled, so that history is never decoded and encoded again: what a
template would drop from earlier turns (Qwen3: their thinking) stays.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eef_jax.errors import ConfigError
from eef_jax.text import tokenizer as tokenizer_lib
from eef_jax.text.frames import Frames
from eef_jax.text.segments import Piece, Segments
from eef_jax.types import Message, Role

_TURNS: tuple[Role, ...] = ("user", "assistant", "user", "assistant")


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
        vocab_size: one more than the largest id.
    """

    def __init__(self, tokenizer: tokenizer_lib.Tokenizer):
        """Reduce the template to frames.

        Raises:
            PolicyError: the template is not prefix-stable or rewrites contents.
        """
        self.tokenizer = tokenizer
        self.fingerprint = tokenizer.fingerprint
        self.vocab_size = tokenizer.vocab_size
        self._frames = Frames(tokenizer)
        end = self._frames.of(_TURNS)[-1].end
        turn_end = tokenizer.encode(end, special=True)[-1]
        stops = (turn_end, tokenizer.eos_id, *tokenizer.stop_ids)
        self.stop_ids = tuple(dict.fromkeys(stop for stop in stops if stop is not None))
        self._written = self._written_tokens()
        # Blank tokens are ordinary text (Gemma has some for empty lines), and so is a token of the
        # vocabulary that a generation config stops at.
        control = {*tokenizer.special, *self._written, *self.stop_ids} & tokenizer.added.keys()
        self._control = {i: tokenizer.added[i] for i in control if tokenizer.added[i].strip()}
        self._segments = Segments(tokenizer, self._control)
        self._turn_end = tokenizer.added[turn_end]
        self._end_ids = self._segments.encode("x", ((end, False),))

    @classmethod
    def load(cls, path: str | Path) -> "ChatTokenizer":
        """Read a Hugging Face tokenizer folder; its errors are those of `tokenizer.load`."""
        return cls(tokenizer_lib.load(path))

    def prompt(
        self, messages: Sequence[Message], tokens: Sequence[Sequence[int]] | None = None
    ) -> np.ndarray:
        """Return the ids of a conversation, ending with the generation prompt.

        Args:
            messages: the conversation, ending with a message that is not the assistant's.
            tokens: for each message the ids it was sampled as (empty: encode its content).

        Returns:
            int32[t]; a prefix of the ids of every longer conversation with the same beginning and
            an assistant's message next.
        """
        return self._render(messages, tokens, generate=True)[0]

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
        return self._render(messages, tokens, generate=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids without control tokens."""
        return self.tokenizer.decode([i for i in ids if i not in self._control])

    def check_vocabulary(self, rows: int) -> None:
        """Refuse a model whose embedding has no row for some id that a conversation may contain.

        Special tokens that the template does not write are never encoded (Gemma 3's for images).

        Args:
            rows: rows of the model's embedding, `vocab_size` of its config.

        Raises:
            ConfigError: the tokenizer has such an id.
        """
        never = self.tokenizer.special.keys() - self._written
        beyond = sorted(i for i in self.tokenizer.ids if i >= rows and i not in never)
        if beyond:
            raise ConfigError(
                f"the tokenizer has {len(beyond)} ids from {beyond[0]} to {beyond[-1]} for which "
                f"the model has no row: its vocab_size is {rows}. Tokenizer and weights are not of "
                "one model, or tokens were added and the embedding was not resized: use a folder "
                "in which both fit"
            )

    def _render(
        self,
        messages: Sequence[Message],
        tokens: Sequence[Sequence[int]] | None,
        *,
        generate: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids and speakers of a conversation, as `example`; with the generation prompt or not."""
        sampled = tokens if tokens is not None else ((),) * len(messages)
        roles = [message.role for message in messages]
        frames = self._frames.of([*roles, "assistant"] if generate else roles)
        ids: list[int] = []
        speaker: list[int] = []
        before = ""  # the last control token of what is encoded
        pieces: list[Piece] = []  # what follows it and is not encoded yet
        for index, (message, kept) in enumerate(zip(messages, sampled, strict=True)):
            frame, content = frames[index], frames[index].strip(message.content)
            pieces.append((frame.head, False))
            if message.role != "assistant":
                pieces.append((content, True))
                continue
            prompt = self._segments.encode(before, tuple(pieces))
            body = self._sampled(kept)
            if not kept:
                said = ((frame.lead, False), (content, True), (frame.end, False))
                body = self._segments.encode(self._context(before, pieces), said)
            ids += [*prompt, *body]
            speaker += [-1] * len(prompt) + [index] * len(body)
            before, pieces = self._turn_end, []
        if generate:
            pieces.append((frames[-1].head, False))
        rest = self._segments.encode(before, tuple(pieces))
        return (
            np.asarray([*ids, *rest], np.int32),
            np.asarray(speaker + [-1] * len(rest), np.int32),
        )

    def _sampled(self, kept: Sequence[int]) -> tuple[int, ...]:
        """Sampled ids as they are; only a missing end of turn is added."""
        return tuple(kept) + (() if kept and kept[-1] in self.stop_ids else self._end_ids)

    def _context(self, before: str, pieces: Sequence[Piece]) -> str:
        """What an assistant's tokens depend on: the text from the last control token on.

        It begins in the generation prompt, or, in templates whose roles are ordinary text, where
        the assistant's last turn ended.
        """
        prompt = self._segments.from_last_control(pieces[-1][0])
        return before + "".join(text for text, _ in pieces) if prompt is None else prompt

    def _written_tokens(self) -> frozenset[int]:
        """The added tokens that the template writes."""
        texts = [
            frame.text
            for roles in (_TURNS, ("system", *_TURNS))
            for frame in self._frames.of(roles)
        ]
        ids = {i for text in texts for i in self.tokenizer.encode(text, special=True)}
        return frozenset(ids & self.tokenizer.added.keys())
