"""The curriculum of each nano base: its exercises, its tokenizer's texts, its size and its phases.

Training has three phases. At first all targets weigh the same, so that the easy ones, which are
most, are learned first: while the answer to a question weighed 40 times an auxiliary label, its
noise hid what could be learned. With equal weights and the initialisation of `pretrain/model.py`,
over 95 % of the words were judged right after 430 batches; with neither, half of them after 600.
From `copy_start` on, every other batch is a small one of copies only: as a quarter of each batch,
copies were not learned in 500 batches; as separate batches, in 300. From `final_start` on, batches
are as the base will meet text: the exercises' own weights, and every fourth batch with exercises as
long as episodes.
"""

import dataclasses
import random
import re
from collections.abc import Callable, Iterator

from eef_jax.envs.webshop import generate
from pretrain.scienceworld import exercises as scienceworld_exercises
from pretrain.segments import Exercise
from pretrain.webshop import exercises as webshop_exercises
from pretrain.webshop import pages

_ROLE_TOKEN = re.compile(r"<\|\w+\|>")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Curriculum:
    """What a nano base is taught, and how.

    Attributes:
        copy_words: returns the material of copy exercises.
        sample: draws an exercise; its arguments are the random generator, the material of copy
            exercises, whether the exercise is long, and the probability of a copy exercise.
        tokenizer_texts: returns the tokenizer's training texts for a seed.
        fixed_phrases: phrases that are one token each.
        vocab_size: number of tokens of the model.
        n_layers: number of layers of the model.
        short_shape: rows and tokens of most batches.
        long_shape: rows and tokens of a batch of long exercises.
        copy_start: number of the first batch of the second phase.
        final_start: number of the first batch of the third phase.
    """

    copy_words: Callable[[], list[str]]
    sample: Callable[[random.Random, list[str], bool, float], Exercise]
    tokenizer_texts: Callable[[int], Iterator[str]]
    fixed_phrases: tuple[str, ...]
    vocab_size: int
    n_layers: int
    short_shape: tuple[int, int]
    long_shape: tuple[int, int]
    copy_start: int
    final_start: int


def webshop_texts(seed: int) -> Iterator[str]:
    """Yield exercises, and the texts of a generated catalogue with another seed than any task's."""
    rng, words = random.Random(f"vocabulary {seed}"), webshop_exercises.copy_words()
    for _ in range(12_000):
        yield _plain_text(webshop_exercises.sample(rng, words, False, 0.2))
    for product in generate.generate_catalogue(seed + 1000)[0]:
        bullets = " ".join(product["small_description"])
        yield f"{product['full_description']} [SEP] {bullets}"
    for _ in range(100):
        yield "click[buy now] click[description] click[features] click[reviews] click[attributes]"
        yield "yes no none"


def scienceworld_texts(seed: int) -> Iterator[str]:
    """Yield exercises, which contain every word of the chosen task types, and further verbs."""
    rng, words = random.Random(f"science vocabulary {seed}"), scienceworld_exercises.copy_words()
    for _ in range(4_000):
        yield _plain_text(scienceworld_exercises.sample(rng, words, False, 0.2))
    yield from ["wait1 inventory open close activate deactivate pour mix eat read use"] * 100


def _plain_text(exercise: Exercise) -> str:
    return _ROLE_TOKEN.sub(" [SEP] ", "".join(segment.text for segment in exercise))


CURRICULA = {
    "webshop": Curriculum(
        copy_words=webshop_exercises.copy_words,
        sample=webshop_exercises.sample,
        tokenizer_texts=webshop_texts,
        fixed_phrases=pages.FIXED_PHRASES,
        vocab_size=4096,
        # With five layers, the verdict on an item took all of them and none was left to name it.
        n_layers=7,
        short_shape=(12, 384),
        long_shape=(4, 1024),
        copy_start=500,
        final_start=1300,
    ),
    "scienceworld": Curriculum(
        copy_words=scienceworld_exercises.copy_words,
        sample=scienceworld_exercises.sample,
        tokenizer_texts=scienceworld_texts,
        fixed_phrases=scienceworld_exercises.FIXED_PHRASES,
        vocab_size=1024,
        n_layers=7,  # as many as its backbone, the WebShop base
        short_shape=(8, 320),
        long_shape=(4, 640),
        copy_start=150,
        final_start=1300,
    ),
}
