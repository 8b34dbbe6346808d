"""Pieces of a rendered conversation to ids: the template's text and contents, in their context.

The ids of a piece are those it has in the whole rendered conversation: how text is divided into
tokens depends on what is before it, and some tokenizers put a space before the text that they are
given. Contents come from others, and never become control tokens whatever they spell.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence

from eef_jax.text.tokenizer import Tokenizer, cut

Piece = tuple[str, bool]  # a text, and whether it is a content
_WORD = "go"  # ordinary text, which no template or vocabulary treats apart


class Segments:
    """Encodes pieces, for one tokenizer and its control tokens.

    Args:
        tokenizer: text to ids.
        control: from id to text, the tokens that contents must not become.
    """

    def __init__(self, tokenizer: Tokenizer, control: Mapping[int, str]):
        self._tokenizer = tokenizer
        self._control = dict(control)
        longest_first = sorted(control.values(), key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        # Conversations grow, and the forks of one trajectory share their beginning.
        self.encode = functools.lru_cache(maxsize=8192)(self._encode)
        self._stand_in = functools.lru_cache(maxsize=256)(self._find_stand_in)

    def _encode(self, before: str, pieces: tuple[Piece, ...]) -> tuple[int, ...]:
        """Encode pieces as they follow a text.

        Args:
            before: the conversation before them, at least from its last control token on; "" at
                the head of a conversation.
            pieces: the template's texts and contents, in their order.
        """
        whole = "".join(text for text, _ in pieces)
        ids = self._following(before, whole, special=True)
        # The template contains control tokens, so they are searched; contents may add none.
        plain = "".join(_WORD if content else text for text, content in pieces)
        expected = self._controls(self._tokenizer.find(plain, special=True))
        if ids is not None and self._controls(ids) == expected:
            return ids
        return self._one_by_one(before, pieces)

    def from_last_control(self, text: str) -> str | None:
        """The end of a text, from its last control token on; None without one."""
        found = list(self._spelled.finditer(text))
        return text[found[-1].start() :] if found else None

    def _controls(self, ids: Iterable[int]) -> list[int]:
        return [i for i in ids if i in self._control]

    def _following(self, before: str, text: str, *, special: bool) -> tuple[int, ...] | None:
        """The ids of a text after another; None where tokens cross the boundary."""
        head = self._tokenizer.find(before, special=special)
        ids = self._tokenizer.find(before + text, special=special)
        return ids[len(head) :] if ids[: len(head)] == head else None

    def _one_by_one(self, before: str, pieces: Sequence[Piece]) -> tuple[int, ...]:
        """Encode each piece apart: contents that spell control tokens, tokens across boundaries."""
        ids: list[int] = []
        for text, content in pieces:
            ids += self._content(before, text) if content else self._apart(before, text, True)
            before = text or before
        return tuple(ids)

    def _content(self, before: str, text: str) -> list[int]:
        """Encode a content; where it becomes a control token it is cut in the token's middle."""
        ids: list[int] = []
        rest = [text]
        while rest:
            text = rest.pop(0)
            now = self._apart(before, text, False)
            controls = self._controls(now)
            if controls:
                rest = [*cut(text, self._control[controls[0]]), *rest]
            else:
                ids += now
                before = text or before
        return ids

    def _apart(self, before: str, text: str, special: bool) -> tuple[int, ...]:
        """The ids of a text after another, without tokens that cross the boundary."""
        stand_in = self._stand_in(before)
        ids = self._following(stand_in, text, special=special)
        return self._tokenizer.find(text, special=special) if ids is None else ids

    def _find_stand_in(self, before: str) -> str:
        """A text without control tokens, after which words have the ids that they have here.

        Some tokenizers put a space before the head of a text, which there is none of after a line.
        """
        here = self._following(before, _WORD, special=True)
        same = [c for c in ("", "\n") if self._following(c, _WORD, special=False) == here]
        return same[0] if same else "\n"
