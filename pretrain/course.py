"""What a nano base is taught: its exercises, its tokenizer's text, its size and its curriculum.

One course for each environment that has a base of its own. Knows texts, no model.
"""

import dataclasses
import random
import re
from collections.abc import Callable, Iterator

from eef_jax.envs.webshop import generate
from pretrain import exercises, science, vocabulary
from pretrain.pieces import Pieces

_ROLE = re.compile(r"<\|\w+\|>")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A course.

    Attributes:
        words: what its copy exercise repeats.
        draw: makes an exercise of (generator, words, whether long, share of copies).
        texts: what its tokenizer is trained on, from a seed.
        furniture: what is one token a piece.
        vocab: number of tokens of the model.
        layers: of the model.
        short: rows and tokens of most batches.
        long: rows and tokens of every fourth batch at the end, for exercises as long as episodes.
        copies: number of the first batch from which every other one is a tiny one of copies. Before
            it all lessons weigh the same, so that the easy ones, which are most, come first.
        everything: number of the batch from which all is as it stays.
    """

    words: Callable[[], list[str]]
    draw: Callable[[random.Random, list[str], bool, float], Pieces]
    texts: Callable[[int], Iterator[str]]
    furniture: tuple[str, ...]
    vocab: int
    layers: int
    short: tuple[int, int]
    long: tuple[int, int]
    copies: int
    everything: int


def shop_words() -> list[str]:
    """Every word and id of made-up WebShop pages."""
    compounds = [f"{left}-{right}" for left in generate.LEFT for right in generate.RIGHT]
    values = [v for group in generate.VALUES.values() for v in group]
    ids = [f"b{n:04d}" for n in range(generate.IDS)]
    return [*compounds, *generate.NOUNS, *generate.BRANDS, *values, *ids]


def shop_texts(seed: int) -> Iterator[str]:
    """Exercises, and a catalogue of another seed."""
    rng, known = random.Random(f"vocabulary {seed}"), shop_words()
    for _ in range(12_000):
        yield _plain(exercises.draw(rng, known, False, 0.2))
    for product in generate.generate(seed + 1000)[0]:
        bullets = " ".join(product["small_description"])
        yield f"{product['full_description']} [SEP] {bullets}"
    for _ in range(100):
        yield "click[buy now] click[description] click[features] click[reviews] click[attributes]"
        yield "yes no none"


def science_texts(seed: int) -> Iterator[str]:
    """Exercises alone: they have all words of the chosen kinds of tasks."""
    rng, known = random.Random(f"science vocabulary {seed}"), science.words()
    for _ in range(4_000):
        yield _plain(science.draw(rng, known, False, 0.2))
    yield from ["wait1 inventory open close activate deactivate pour mix eat read use"] * 100


def _plain(pieces: Pieces) -> str:
    return _ROLE.sub(" [SEP] ", "".join(piece.text for piece in pieces))


COURSES = {
    "webshop": Course(
        words=shop_words,
        draw=exercises.draw,
        texts=shop_texts,
        furniture=vocabulary.FURNITURE,
        vocab=4096,
        layers=7,
        short=(12, 384),
        long=(4, 1024),
        copies=500,
        everything=1300,
    ),
    "scienceworld": Course(
        words=science.words,
        draw=science.draw,
        texts=science_texts,
        furniture=science.FIXED,
        vocab=1024,
        layers=7,
        short=(8, 320),
        long=(4, 640),
        copies=150,
        everything=1300,
    ),
}
