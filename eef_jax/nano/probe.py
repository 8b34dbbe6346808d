"""Measures what the nano base can read: `python -m eef_jax.nano.probe [--path=DIR] [--count=300]`.

Greedy answers to questions it has not seen: on random pages, and on the pages that the embedded
shop shows for its own train goals (products the base never met). Presence: whether the page holds
what is asked for. Selection: the right id where it does. Prints one line a skill; knows no agent.
"""

import pathlib
import random
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from absl import app, flags

from eef_jax.envs import webshop
from eef_jax.envs.webshop.embedded import wins
from eef_jax.models import hf
from eef_jax.nano import exercises

_PATH = flags.DEFINE_string("path", "", "Folder of the base; by default the one that ships.")
_COUNT = flags.DEFINE_integer("count", 300, "Questions of each kind.")

LENGTH = 1024
BATCH = 16


def questions(count: int) -> dict[str, list[tuple[str, str]]]:
    """For each skill, pairs of a conversation's text up to the answer, and the answer."""
    rng = random.Random("probe")
    made: dict[str, list[tuple[str, str]]] = {}
    for _ in range(count):
        for name, pieces in (
            ("which, one page", exercises.which(rng, 1)),
            ("which, third page", exercises.which(rng, 3)),
            ("options", exercises.options(rng)),
            ("keywords", exercises.keywords(rng)),
        ):
            *before, answer = pieces
            text = exercises.BOS + "".join(t for t, _ in before)
            made.setdefault(name, []).append((text, answer[0]))
    made["which, embedded shop"] = list(_shop_pages(rng, count))
    return made


def _shop_pages(rng: random.Random, count: int) -> Iterator[tuple[str, str]]:
    """Results pages of the embedded shop, and the first product on them that wins."""
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
        shown = [name for name in game.clickables() if name in asins]
        answer = next((a for a in shown if wins(shop, goal, asins[a])), "none")
        text, _ = exercises.user(page + " [SEP] which?")
        yield exercises.BOS + text + exercises.ASSISTANT, f"{answer}{exercises.END}"


def main(argv: list[str]) -> None:
    """Ask and count."""
    del argv
    path = _PATH.value or str(pathlib.Path(__file__).parent / "base")
    tokenizer = tokenizers.Tokenizer.from_file(f"{path}/tokenizer.json")
    decoder = hf.load(path).decoder

    @jax.jit
    def best(tokens: jax.Array) -> jax.Array:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        hidden = decoder(tokens, positions, (tokens > 0).astype(jnp.int32))
        return decoder.logits(hidden).argmax(-1)

    for name, pairs in questions(_COUNT.value).items():
        right, present, absent = [], [], []
        for start in range(0, len(pairs), BATCH):
            batch = pairs[start : start + BATCH]
            tokens = np.zeros((BATCH, LENGTH), np.int32)
            spans = []
            for row, (text, answer) in enumerate(batch):
                asked = tokenizer.encode(text, add_special_tokens=False).ids
                said = tokenizer.encode(answer, add_special_tokens=False).ids
                tokens[row, : len(asked) + len(said)] = asked + said
                spans.append((len(asked), len(asked) + len(said)))
            guess = np.asarray(best(tokens))
            for row, (first, last) in enumerate(spans):
                right.append(
                    bool((guess[row, first - 1 : last - 1] == tokens[row, first:last]).all())
                )
                if name.startswith("which"):
                    none = tokenizer.encode("none", add_special_tokens=False).ids[0]
                    says_none = guess[row, first - 1] == none
                    if batch[row][1].startswith("none"):
                        absent.append(says_none)
                    else:
                        present.append(not says_none)
        line = f"{name:22} right {np.mean(right):6.1%}"
        if present:
            line += f"  presence: seen when there {np.mean(present):6.1%}"
            line += f", none when not {np.mean(absent):6.1%}"
        print(line, flush=True)


if __name__ == "__main__":
    app.run(main)
