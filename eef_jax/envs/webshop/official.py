"""A `Dataset` from WebShop's own files, with prices, goals and splits pinned by a seed.

Knows the files' names for things and the order in which the original draws random numbers: prices
of the catalogue first, then one price bound for each product (or for each human instruction). The
original draws them unseeded, so its price bounds differ from run to run; here one seed names one
dataset. Knows nothing of games.
"""

import logging
import random
from collections.abc import Sequence

from eef_jax.envs.webshop import dataset
from eef_jax.envs.webshop.catalogue import draw_prices, load_products, read_json
from eef_jax.envs.webshop.goals import Goal, human_goals, synthetic_goals
from eef_jax.errors import DataError

TRAIN, DEV = 0.6, 0.1  # shares of the products that have goals; the rest is the test split

log = logging.getLogger(__name__)


def load(
    *,
    products: str,
    attributes: str,
    human: str = "",
    nouns: str = "",
    seed: int = 0,
    goals_per_product: int = 1,
    max_products: int = 0,
) -> dataset.Dataset:
    """Read official files.

    Splits are drawn by product, never by goal: no product of a test goal is described by a train
    goal. Of each product, `goals_per_product` goals are drawn (one by default), because the
    synthetic goals of one product differ in options alone, and some products have hundreds.

    Args:
        products: path of `items_shuffle*.json`.
        attributes: path of `items_ins_v2*.json`.
        human: path of `items_human_ins*.json`; given, its instructions are the goals, else
            the goals are synthetic.
        nouns: path of a JSON object from title to list of lower-case nouns; see `Dataset.nouns`.
        seed: decides hidden prices, price bounds, splits and which goals are drawn.
        goals_per_product: goals in the splits for each product; 0: all.
        max_products: only look at this many first rows of the products file; 0: all.

    Raises:
        DataError: a file is missing, damaged, or of another kind; or no goal comes of them.
    """
    rows = read_json(products, list, "WebShop products (env.products)")
    labels = read_json(attributes, dict, "WebShop attributes (env.attributes)")
    catalogue = load_products(rows, labels, limit=max_products, source=str(products))
    rng = random.Random(seed)
    prices = draw_prices(catalogue, rng)
    if human:
        instructions = read_json(human, dict, "WebShop human instructions (env.human)")
        goals = human_goals(catalogue, prices, instructions, rng)
    else:
        goals = synthetic_goals(catalogue, prices, rng)
    if not goals:
        raise DataError(
            f"no goals: none of the {len(catalogue)} products of {products} has an instruction in "
            f"{human or attributes}; do the files belong together?"
        )
    return dataset.build(
        products=catalogue,
        goals=goals,
        splits=split_by_product(goals, seed=seed, goals_per_product=goals_per_product),
        prices=prices,
        nouns=load_nouns(nouns),
    )


def load_nouns(path: str) -> dict[str, list[str]]:
    """Read title nouns; without a path, warn that rewards then lean on all words of a title.

    Raises:
        DataError: the file is missing, damaged, or of another kind.
    """
    if not path:
        log.warning(
            "env.nouns is not given: the reward's r_type compares all words of titles but the stop "
            "words, which changes it for 9 in 100 pairs of products of one query. To compare with "
            "published numbers, pass a JSON file from title to its nouns, in lower case."
        )
        return {}
    nouns = read_json(path, dict, "WebShop title nouns (env.nouns)")
    for title, words in nouns.items():
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise DataError(f"{path}: nouns of {title!r} are {words!r}, expected a list of strings")
    return nouns


def split_by_product(
    goals: Sequence[Goal], *, seed: int, goals_per_product: int
) -> dict[str, list[int]]:
    """Indices of the goals of each split, in task order; see `load`."""
    rng = random.Random(f"splits {seed}")
    numbers: dict[str, list[int]] = {}
    for number, goal in enumerate(goals):
        numbers.setdefault(goal.asin, []).append(number)
    asins = sorted(numbers)
    rng.shuffle(asins)
    first, second = round(len(asins) * TRAIN), round(len(asins) * (TRAIN + DEV))
    splits = {}
    for name, part in zip(
        dataset.SPLITS, (asins[:first], asins[first:second], asins[second:]), strict=True
    ):
        drawn = [
            rng.sample(numbers[asin], min(len(numbers[asin]), goals_per_product or len(goals)))
            for asin in part
        ]
        chosen = [number for group in drawn for number in group]
        rng.shuffle(chosen)  # so that a limit on the tasks does not favour whole products
        splits[name] = chosen
    return splits
