"""Measures what a nano base can read: `python -m pretrain.probe [--path=DIR] [--count=300]`.

With `--course=scienceworld` it asks about made-up rooms and goals and gives orders; else it asks
about WebShop's pages: greedy answers to questions it has not seen, on random pages and on the pages
that the embedded shop shows for its own train goals (products the base never met). Presence:
whether the page holds what is asked for, seen where it does and denied where it does not.
Selection: the id of a fitting product where there is one. Prints one line a skill; knows no agent.
"""

import dataclasses
import random
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from absl import app, flags

from eef_jax import bases
from eef_jax.envs import webshop
from eef_jax.envs.webshop.embedded import is_winning
from eef_jax.models.huggingface import folder as hf
from pretrain import exercises, science, walks
from pretrain.pieces import Pieces, assistant, copy, user
from pretrain.vocabulary import ASSISTANT, BOS, END

FLAGS = flags.FLAGS
LENGTH = 1024
BATCH = 16
NONE = f"none{END}"


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A conversation up to the answer, and the answers that are right."""

    text: str
    right: tuple[str, ...]


def questions(course: str, count: int) -> dict[str, list[Question]]:
    """Questions for each skill of a course."""
    rng = random.Random("probe")
    if course == "scienceworld":
        return {
            "a room": [_ask(science.ask(rng, 1)) for _ in range(count)],
            "where something was": [_ask(science.ask(rng, 3)) for _ in range(count)],
            "a goal": [_ask(science.understand(rng)) for _ in range(count)],
            "an order": [_ask(walks.walk(rng, 6, ordered=1)[:-1]) for _ in range(count)],
            "copies": [_ask(copy(rng, science.words())) for _ in range(count)],
        }
    return {
        "which, one page": [_which(rng, 1) for _ in range(count)],
        "which, third page": [_which(rng, 3) for _ in range(count)],
        "which, embedded shop": list(_shop_pages(rng, count)),
        "options": [_ask(exercises.options(rng)) for _ in range(count)],
        "keywords": [_ask(exercises.keywords(rng)) for _ in range(count)],
    }


def _ask(pieces: Pieces) -> Question:
    *before, answer = pieces
    return Question(BOS + "".join(piece.text for piece in before), (answer.text,))


def _which(rng: random.Random, pages: int) -> Question:
    goal = exercises.make_goal(rng)
    text = BOS
    for page in range(1, pages):
        items = exercises.make_page(rng, goal, 0.0)
        turn = [exercises.results(goal, page, items), *assistant("click[next >]")]
        text += "".join(piece.text for piece in turn)
    items = exercises.make_page(rng, goal, 0.65)
    text += exercises.results(goal, pages, items, "which?").text + ASSISTANT
    return Question(text, _names(i.asin for i in items if exercises.fits(goal, i)))


def _shop_pages(rng: random.Random, count: int) -> Iterator[Question]:
    """Results pages of the embedded shop, and the products on them that win."""
    env = webshop.make()
    shop = env.dataset
    asins = {product.asin.lower(): product for product in shop.products}
    for task in rng.sample(list(env.tasks("train")), count):
        goal = shop.goals[int(task.payload.split(":")[1].strip(" }"))]
        game = env.game()
        game.reset(task)
        page = game.step(f"search[{' '.join(goal.attributes)} {goal.query}]").observation
        for _ in range(rng.randrange(2)):
            page = game.step("click[next >]").observation
        shown = [asins[name] for name in game.clickables() if name in asins]
        text = BOS + user(page + " [SEP] which?").text + ASSISTANT
        yield Question(text, _names(p.asin for p in shown if is_winning(shop, goal, p)))


def _names(asins: Iterator[str]) -> tuple[str, ...]:
    return tuple(f"{asin.lower()}{END}" for asin in asins) or (NONE,)


class Reader:
    """The base as it answers: which of some answers it would say.

    Args:
        path: folder of the base.
    """

    def __init__(self, path: str):
        self._tokenizer = tokenizers.Tokenizer.from_file(f"{path}/tokenizer.json")
        decoder = hf.load(path).decoder

        @jax.jit
        def best(tokens: jax.Array) -> jax.Array:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
            hidden = decoder(tokens, positions, (tokens > 0).astype(jnp.int32))
            return decoder.logits(hidden).argmax(-1)

        self._best = best

    def says(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """For each conversation and answer, whether decoding greedily gives that answer."""
        said = []
        for start in range(0, len(pairs), BATCH):
            tokens = np.zeros((BATCH, LENGTH), np.int32)
            spans = []
            for row, (text, answer) in enumerate(pairs[start : start + BATCH]):
                asked, reply = self._ids(text), self._ids(answer)
                tokens[row, : len(asked) + len(reply)] = asked + reply
                spans.append(slice(len(asked), len(asked) + len(reply)))
            guess = np.roll(np.asarray(self._best(tokens)), 1, axis=1)
            said += [bool((guess[i, s] == tokens[i, s]).all()) for i, s in enumerate(spans)]
        return said

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def main(argv: list[str]) -> None:
    """Ask and count."""
    del argv
    reader = Reader(bases.find(FLAGS.path))
    for name, asked in questions(FLAGS.course, FLAGS.count).items():
        pairs = [(q.text, answer) for q in asked for answer in q.right]
        said = iter(reader.says(pairs))
        right = np.array([sum(next(said) for _ in q.right) > 0 for q in asked])
        line = f"{name:22} right {right.mean():6.1%}"
        if name.startswith("which"):
            none = np.array(reader.says([(q.text, NONE) for q in asked]))
            there = np.array([q.right != (NONE,) for q in asked])
            line += f"  presence: seen when there {1 - none[there].mean():6.1%}"
            line += f", none when not {none[~there].mean():6.1%}"
            line += f"  selection {right[there].mean():6.1%}"
        print(line, flush=True)


if __name__ == "__main__":
    flags.DEFINE_enum("course", "webshop", ("webshop", "scienceworld"), "What it was taught.")
    flags.DEFINE_string("path", "", "Folder of the base; by default WebShop's.")
    flags.DEFINE_integer("count", 300, "Questions of each kind.")
    app.run(main)
