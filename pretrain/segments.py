"""Segments of a conversation, of which exercises are made, and the labels learned on them."""

import dataclasses
import random

from pretrain.tokenizer import ASSISTANT, END, USER


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuxiliaryLabel:
    """What a reader should know at one position of a text.

    The label is predicted at that position in place of the next token and is not part of the text,
    so pages look as they do in the environment. Answers to questions alone teach too little: three
    tokens out of several hundred. With auxiliary labels each page gives some fifty targets.

    Attributes:
        index: index of the character whose token predicts the label.
        text: the label; its first token is the target.
        loss_weight: weight of the target in the loss.
    """

    index: int
    text: str
    loss_weight: float


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """A part of a conversation.

    Attributes:
        text: its text, role tokens included.
        loss_weight: weight of predicting each of its tokens; 0: only read.
        labels: auxiliary labels on its text.
    """

    text: str
    loss_weight: float = 0.0
    labels: tuple[AuxiliaryLabel, ...] = ()


Exercise = list[Segment]


def user(text: str) -> Segment:
    """Return a user message, which is read and not learned."""
    return Segment(f"{USER}{text}{END}")


def assistant(text: str, loss_weight: float = 1.0) -> Exercise:
    """Return an assistant message: the role token is read, the content and the end are learned."""
    return [Segment(ASSISTANT), Segment(f"{text}{END}", loss_weight)]


def copy_exercise(rng: random.Random, words: list[str]) -> Exercise:
    """Return an exercise that repeats a random sequence of 6 to 40 words."""
    sequence = " ".join(rng.choices(words, k=rng.randint(6, 40)))
    return [user(sequence), *assistant(sequence)]
