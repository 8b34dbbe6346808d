"""What exercises are made of: conversations in pieces, what is learned of them, and copying.

Knows roles and texts, no environment, no tokens.
"""

import dataclasses
import random

from pretrain.vocabulary import ASSISTANT, END, USER


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """A reader's knowledge at one place of a text.

    Attributes:
        at: index of the character whose token predicts the mark.
        says: the mark; its first token is what is predicted.
        weight: loss weight.
    """

    at: int
    says: str
    weight: float


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A part of a conversation: its text, the loss weight of predicting it, and its marks."""

    text: str
    weight: float = 0.0
    marks: tuple[Mark, ...] = ()


Pieces = list[Piece]


def user(text: str) -> Piece:
    """A user message that is not learned."""
    return Piece(f"{USER}{text}{END}")


def assistant(text: str, weight: float = 1.0) -> Pieces:
    """An assistant message; the role is given, content and end are learned."""
    return [Piece(ASSISTANT), Piece(f"{text}{END}", weight)]


def copy(rng: random.Random, words: list[str]) -> Pieces:
    """A random sequence, said twice."""
    chosen = " ".join(rng.choices(words, k=rng.randint(6, 40)))
    return [user(chosen), *assistant(chosen)]
