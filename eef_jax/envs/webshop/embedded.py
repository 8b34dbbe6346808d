"""The embedded catalogue: a pinned shop that ships with the package.

    python -m eef_jax.envs.webshop.embedded --write    makes the pinned file again (same bytes)
    python -m eef_jax.envs.webshop.embedded            prints what the tasks demand

`data/embedded.json.gz` holds products in the original's schema, hidden prices, goals and splits;
loading it draws nothing. Goals are the original's synthetic ones; each described product has one
goal, so splits by product share none. A goal's tags are measured by search: `easy` when the first
results page for the instruction's own words holds a winning product, else `hard`; `options-N`
counts the options it wants.
"""

import dataclasses
import gzip
import importlib.resources
import json
import pathlib
import random
import sys
from collections import Counter
from typing import Any

from eef_jax.envs.webshop import dataset
from eef_jax.envs.webshop.catalogue import Product, load_products, sample_prices
from eef_jax.envs.webshop.dataset import Dataset
from eef_jax.envs.webshop.generate import generate_catalogue
from eef_jax.envs.webshop.goals import Goal, synthetic_goals
from eef_jax.envs.webshop.reward import compute_reward
from eef_jax.envs.webshop.shop import search_index
from eef_jax.untrusted import show

SEED = 20
SPLIT_SIZES = {"train": 600, "dev": 100, "test": 500}
HARD_SHARE = 0.5  # share of hard goals in each split
PAGE_SIZE = 10
FILE = importlib.resources.files("eef_jax.envs.webshop") / "data" / "embedded.json.gz"


def load() -> Dataset:
    """Read the pinned catalogue (about 2,000 products, 1,200 goals)."""
    content = json.loads(gzip.decompress(FILE.read_bytes()))
    return dataset.build_dataset(
        products=load_products(content["products"], content["attributes"], source=FILE.name),
        goals=[_goal(fields) for fields in content["goals"]],
        splits=content["splits"],
        prices=content["prices"],
        nouns=content["nouns"],
    )


def generate_file(seed: int = SEED) -> bytes:
    """Generate the pinned file's content; equal seeds give equal bytes."""
    rows, labels, nouns = generate_catalogue(seed)
    products = load_products(rows, labels, source="generated products")
    rng = random.Random(f"embedded goals {seed}")
    prices = sample_prices(products, rng)
    candidates = _one_each(synthetic_goals(products, prices, rng), rng)
    shop = dataset.build_dataset(
        products=products, goals=candidates, splits={}, prices=prices, nouns=nouns
    )
    tagged = [dataclasses.replace(goal, tags=_tags(shop, goal)) for goal in candidates]
    goals, splits = _split(tagged, rng)
    content = {
        "seed": seed,
        "products": rows,
        "attributes": labels,
        "nouns": nouns,
        "prices": prices,
        "goals": [dataclasses.asdict(goal) for goal in goals],
        "splits": splits,
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return gzip.compress(text.encode(), mtime=0)


def _goal(fields: dict[str, Any]) -> Goal:
    options = tuple(o if isinstance(o, str) else tuple(o) for o in fields["options"])
    return Goal(
        **{
            **fields,
            "options": options,
            "attributes": tuple(fields["attributes"]),
            "tags": tuple(fields["tags"]),
        }
    )


def _one_each(goals: tuple[Goal, ...], rng: random.Random) -> list[Goal]:
    """One goal for each product, all instructions different."""
    by_asin: dict[str, list[Goal]] = {}
    for goal in goals:
        by_asin.setdefault(goal.asin, []).append(goal)
    chosen, seen = [], set()
    for asin in sorted(by_asin):
        fresh = [goal for goal in by_asin[asin] if _wanted(goal) not in seen]
        if fresh:
            goal = rng.choice(fresh)
            seen.add(_wanted(goal))
            chosen.append(goal)
    return chosen


def _wanted(goal: Goal) -> tuple[Any, ...]:
    """What an instruction asks for, whatever its wording."""
    return frozenset(goal.attributes), goal.query, goal.options, goal.price_upper


def is_winning(shop: Dataset, goal: Goal, product: Product) -> bool:
    """Whether buying `product` with the right options pays the full reward."""
    offered = {(group, value) for group, values in product.options for value in values}
    chosen = [option[1] for option in goal.options if option in offered]
    verdict = compute_reward(
        product, goal, price=shop.prices[product.asin], chosen=chosen, nouns=shop.nouns
    )
    return verdict.total >= 1.0


def winning_page(shop: Dataset, goal: Goal, query: str) -> int:
    """Number (from 1) of the first results page with a winning product; 0 when there is none."""
    for rank, hit in enumerate(search_index(shop).search(query)):
        if is_winning(shop, goal, shop.products[hit]):
            return rank // PAGE_SIZE + 1
    return 0


def _tags(shop: Dataset, goal: Goal) -> tuple[str, ...]:
    own = winning_page(shop, goal, goal.instruction.lower())
    short = winning_page(shop, goal, f"{' '.join(goal.attributes)} {goal.query}")
    kind = "easy" if own == 1 and short == 1 else "hard" if own != 1 and short != 1 else "mixed"
    return (kind, f"page-{short}", f"options-{len(goal.options)}")


def _split(goals: list[Goal], rng: random.Random) -> tuple[list[Goal], dict[str, list[int]]]:
    """Draw the splits, each with the same share of hard goals; goals between kinds are left out."""
    pools = {kind: [goal for goal in goals if goal.tags[0] == kind] for kind in ("easy", "hard")}
    for pool in pools.values():
        rng.shuffle(pool)
    chosen: list[Goal] = []
    splits = {}
    for split, size in SPLIT_SIZES.items():
        hard = round(size * HARD_SHARE)
        drawn = [pools["hard"].pop() for _ in range(hard)]
        drawn += [pools["easy"].pop() for _ in range(size - hard)]
        rng.shuffle(drawn)
        splits[split] = list(range(len(chosen), len(chosen) + size))
        chosen += drawn
    return chosen, splits


def split_table(shop: Dataset) -> str:
    """A table of what the tasks of each split demand."""
    lines = [
        f"{len(shop.products)} products",
        "split  tasks  not on page 1  two or more options  pages",
    ]
    for split, numbers in shop.splits.items():
        goals = [shop.goals[n] for n in numbers]
        off = sum(winning_page(shop, g, g.instruction.lower()) != 1 for g in goals)
        several = sum(len(g.options) > 1 for g in goals)
        pages = Counter(tag for g in goals for tag in g.tags if tag.startswith("page-"))
        lines.append(
            f"{split:5}  {len(goals):5}  {off / len(goals):13.1%}  {several / len(goals):19.1%}  "
            + ", ".join(f"{page}: {count}" for page, count in sorted(pages.items()))
        )
    return "\n".join(lines)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        path = pathlib.Path(str(FILE))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(generate_file())
    show(split_table(load()))
