"""Measures what a nano base can read: `python -m pretrain.probe [--path=DIR] [--count=300]`.

Prints for each skill how many unseen questions are answered right by greedy decoding. With
`--curriculum=scienceworld` the questions are about made-up rooms, goals and orders. Otherwise they
are about WebShop's pages: random ones, and those that the embedded shop shows for its train goals
(products the base has never seen). For the question which item fits, it also prints how often the
base says that some item fits or none does (presence), and how often it names a fitting item where
there is one (selection).
"""

import dataclasses
import random
from collections.abc import Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from absl import flags

from eef_jax import bases, cli
from eef_jax.envs import webshop
from eef_jax.envs.webshop.embedded import is_winning
from eef_jax.models.huggingface import folder as hf
from pretrain.curricula import CURRICULA
from pretrain.scienceworld import exercises as scienceworld_exercises
from pretrain.scienceworld import walks as scienceworld_walks
from pretrain.segments import Exercise, assistant, copy_exercise, user
from pretrain.tokenizer import ASSISTANT, BOS, END
from pretrain.webshop import exercises as webshop_exercises
from pretrain.webshop import pages

FLAGS = flags.FLAGS
MAX_TOKENS = 1024
BATCH_SIZE = 16
NONE = f"none{END}"


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A conversation up to the answer, and the accepted answers."""

    text: str
    accepted: tuple[str, ...]


def questions(curriculum: str, count: int) -> dict[str, list[Question]]:
    """Return `count` questions for each skill of a curriculum; always the same ones."""
    rng = random.Random("probe")
    if curriculum == "scienceworld":
        exercises, words = scienceworld_exercises, scienceworld_exercises.copy_words()
        return {
            "a room": [_last_answer(exercises.read_rooms(rng, 1)) for _ in range(count)],
            "where something was": [
                _last_answer(exercises.read_rooms(rng, 3)) for _ in range(count)
            ],
            "a goal": [_last_answer(exercises.read_goal(rng)) for _ in range(count)],
            "an order": [
                _last_answer(scienceworld_walks.walk(rng, 6, ordered=1)[:-1]) for _ in range(count)
            ],
            "copies": [_last_answer(copy_exercise(rng, words)) for _ in range(count)],
        }
    return {
        "which, one page": [_which(rng, 1) for _ in range(count)],
        "which, third page": [_which(rng, 3) for _ in range(count)],
        "which, embedded shop": list(_embedded_shop(rng, count)),
        "options": [_last_answer(webshop_exercises.options(rng)) for _ in range(count)],
        "keywords": [_last_answer(webshop_exercises.keywords(rng)) for _ in range(count)],
    }


def _last_answer(exercise: Exercise) -> Question:
    *before, answer = exercise
    return Question(BOS + "".join(segment.text for segment in before), (answer.text,))


def _which(rng: random.Random, num_pages: int) -> Question:
    """Ask on the last of several results pages; no item of the earlier ones fits."""
    goal = pages.make_goal(rng)
    text = BOS
    for page in range(1, num_pages):
        items = pages.make_items(rng, goal, 0.0)
        turn = [pages.results_message(goal, page, items), *assistant("click[next >]")]
        text += "".join(segment.text for segment in turn)
    items = pages.make_items(rng, goal, 0.65)
    text += pages.results_message(goal, num_pages, items, "which?").text + ASSISTANT
    return Question(text, _accepted(i.asin for i in items if pages.fits(goal, i)))


def _embedded_shop(rng: random.Random, count: int) -> Iterator[Question]:
    """Ask about results pages of the embedded shop; the products on them that win are accepted."""
    env = webshop.make(webshop.Config())
    shop = env.dataset
    product_by_asin = {product.asin.lower(): product for product in shop.products}
    for task in rng.sample(list(env.tasks("train")), count):
        goal = shop.goals[int(task.payload.split(":")[1].strip(" }"))]
        game = env.game()
        game.reset(task)
        page = game.step(f"search[{' '.join(goal.attributes)} {goal.query}]").observation
        for _ in range(rng.randrange(2)):
            page = game.step("click[next >]").observation
        shown = [product_by_asin[n] for n in game.clickables() if n in product_by_asin]
        text = BOS + user(page + " [SEP] which?").text + ASSISTANT
        yield Question(text, _accepted(p.asin for p in shown if is_winning(shop, goal, p)))


def _accepted(asins: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{asin.lower()}{END}" for asin in asins) or (NONE,)


class Reader:
    """Tells whether a base gives certain answers.

    Args:
        path: folder of the base.
    """

    def __init__(self, path: str):
        self._tokenizer = tokenizers.Tokenizer.from_file(f"{path}/tokenizer.json")
        decoder = hf.load(path).decoder

        @jax.jit
        def predict(tokens: jax.Array) -> jax.Array:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
            hidden = decoder(tokens, positions, (tokens > 0).astype(jnp.int32))
            return decoder.logits(hidden).argmax(-1)

        self._predict = predict

    def gives(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Return for each conversation and answer whether greedy decoding gives that answer.

        A single forward pass over both is enough: greedy decoding gives the answer exactly if each
        of its tokens is the most probable one after those before it.
        """
        given = []
        for start in range(0, len(pairs), BATCH_SIZE):
            tokens = np.zeros((BATCH_SIZE, MAX_TOKENS), np.int32)
            spans = []
            for row, (text, answer) in enumerate(pairs[start : start + BATCH_SIZE]):
                text_ids, answer_ids = self._encode(text), self._encode(answer)
                end = len(text_ids) + len(answer_ids)
                tokens[row, :end] = text_ids + answer_ids
                spans.append(slice(len(text_ids), end))
            predicted = np.roll(np.asarray(self._predict(tokens)), 1, axis=1)
            given += [bool((predicted[i, s] == tokens[i, s]).all()) for i, s in enumerate(spans)]
        return given

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def main() -> None:
    """Ask the questions and print one line for each skill."""
    reader = Reader(bases.find(FLAGS.path))
    for skill, asked in questions(FLAGS.curriculum, FLAGS.count).items():
        print(_report(reader, skill, asked), flush=True)


def _report(reader: Reader, skill: str, asked: list[Question]) -> str:
    given = iter(reader.gives([(q.text, answer) for q in asked for answer in q.accepted]))
    right = np.array([sum(next(given) for _ in q.accepted) > 0 for q in asked])
    line = f"{skill:22} right {right.mean():6.1%}"
    if skill.startswith("which"):
        said_none = np.array(reader.gives([(q.text, NONE) for q in asked]))
        present = np.array([q.accepted != (NONE,) for q in asked])
        line += f"  presence: seen when there {1 - said_none[present].mean():6.1%}"
        line += f", none when not {said_none[~present].mean():6.1%}"
        line += f"  selection {right[present].mean():6.1%}"
    return line


if __name__ == "__main__":
    flags.DEFINE_enum("curriculum", "webshop", list(CURRICULA), "What the base was taught.")
    cli.define_path("path", "", "Folder of the base, or nano:NAME; by default WebShop's.")
    flags.DEFINE_integer("count", 300, "Number of questions for each skill.")
    cli.run(main)
