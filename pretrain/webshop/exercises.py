"""WebShop's reading exercises, generated without end.

An exercise is a conversation. Its kinds teach what a reader must be able to do before it is taught
to act:

- `copy`: repeat a random sequence;
- `which`: name the first fitting item of the last page, or none;
- `options`: name the options asked for on an item page, those still to be chosen, or none;
- `keywords`: say what to search for;
- `walk`: random legal actions (`walks`).

Operates on text only; tokens live in `pretrain/batches.py`.
"""

import random

from eef_jax.envs.webshop import generate
from pretrain.segments import Exercise, Segment, assistant, copy_exercise, user
from pretrain.tokenizer import BOS
from pretrain.webshop import pages
from pretrain.webshop.walks import walk

_MIX = {"which": 0.66, "options": 0.12, "keywords": 0.05, "walk": 0.17}
_ANSWER_WEIGHT = 4.0  # loss weight of the tokens that name an item


def which(rng: random.Random, num_pages: int) -> Exercise:
    """Return consecutive results pages; the question is asked on some, and always on the last."""
    goal = pages.make_goal(rng)
    exercise: Exercise = []
    first_page = rng.randint(1, 3)
    for k in range(num_pages):
        last = k == num_pages - 1
        items = pages.make_items(rng, goal, 0.65 if last else 0.3)
        if last or rng.random() < 0.5:
            answer = next((i.asin.lower() for i in items if pages.fits(goal, i)), "none")
            page = pages.results_message(goal, first_page + k, items, "which?")
            exercise += [page, *assistant(answer, _ANSWER_WEIGHT)]
        else:
            page = pages.results_message(goal, first_page + k, items)
            exercise += [page, *assistant("click[next >]", 0.0)]
    return exercise


def options(rng: random.Random) -> Exercise:
    """Return an item page and a question: all options asked for, or those left to click."""
    goal = pages.make_goal(rng)
    item = pages.make_item(rng, goal, True)
    page = pages.item_page(goal, item, _option_groups(rng, goal))
    asked = [value for _, value in goal.options]
    if rng.random() < 0.4:
        return [user(page + " [SEP] options?"), *assistant(", ".join(asked) or "none")]
    count = rng.randint(0, len(asked))
    clicked = rng.sample(asked, count) if rng.random() < 0.3 else asked[:count]
    exercise: Exercise = []
    for value in clicked:
        exercise += [user(page), *assistant(f"click[{value}]", 0.0)]
    left = next((value for value in asked if value not in clicked), "none")
    return [*exercise, user(page + " [SEP] left?"), *assistant(left)]


def _option_groups(
    rng: random.Random, goal: pages.ShoppingGoal
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Draw option groups that contain what the goal asks for, sometimes one group more."""
    groups = []
    for name, value in goal.options:
        others = rng.sample([v for v in generate.VALUES[name] if v != value], rng.randint(1, 3))
        values = [value, *others]
        rng.shuffle(values)
        groups.append((name, tuple(values)))
    if rng.random() < 0.2:
        unused = [n for n in generate.VALUES if n not in dict(goal.options)]
        extra = rng.choice(unused or ["color"])
        if extra not in dict(groups):
            groups.append((extra, tuple(rng.sample(generate.VALUES[extra], 3))))
    return tuple(sorted(groups))


def keywords(rng: random.Random) -> Exercise:
    """Return the start page and what to search for, with or without the options."""
    goal = pages.make_goal(rng)
    page = pages.start_page(goal)
    words = f"{' '.join(goal.attributes)} {goal.noun}"
    if rng.random() < 0.5:
        return [user(page + " [SEP] keywords?"), *assistant(words)]
    with_options = " ".join([words, *(value for _, value in goal.options)])
    return [user(page + " [SEP] all keywords?"), *assistant(with_options)]


def copy_words() -> list[str]:
    """Return every word and id of made-up pages, the material of copy exercises."""
    compounds = [f"{left}-{right}" for left in generate.LEFT for right in generate.RIGHT]
    values = [v for group in generate.VALUES.values() for v in group]
    ids = [f"b{n:04d}" for n in range(generate.IDS)]
    return [*compounds, *generate.NOUNS, *generate.BRANDS, *values, *ids]


def sample(rng: random.Random, words: list[str], long: bool, copy_share: float) -> Exercise:
    """Draw an exercise.

    Args:
        rng: source of all random choices.
        words: material of copy exercises.
        long: whether the exercise fills a context as an episode does (several pages, many turns).
        copy_share: probability of a copy exercise (0-1).
    """
    copies = rng.random() < copy_share
    kind = "copy" if copies else rng.choices(tuple(_MIX), tuple(_MIX.values()))[0]
    num_pages = rng.randint(2, 5) if long else rng.choice((1, 1, 2))
    match kind:
        case "copy":
            exercise = copy_exercise(rng, words)
        case "which":
            exercise = which(rng, num_pages)
        case "options":
            exercise = options(rng)
        case "keywords":
            exercise = keywords(rng)
        case _:
            exercise = walk(rng, rng.randint(5, 9) if long else rng.randint(2, 4))
    return [Segment(BOS), *exercise]
