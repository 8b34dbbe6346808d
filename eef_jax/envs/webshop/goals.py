"""What agents are asked to buy: synthetic goals from products, and goals that people wrote.

The makers draw price bounds from a generator of the caller's, in the order of the original code, so
a seed names one fixed list of goals. Nothing here knows pages, rewards or splits.
"""

import dataclasses
import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from eef_jax.envs.webshop.catalogue import Product
from eef_jax.errors import DataError

PRICE_BOUNDS = tuple(10.0 * step for step in range(1, 100))  # dollars
UNBOUNDED = 1000000.0  # dollars; the bound of a goal that names none
SHUFFLE_SEED = 233  # the original's order of goals

Option = str | tuple[str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One thing to buy, and what the reward asks of the purchase.

    Attributes:
        asin: the product that the instruction describes (other purchases may be as good).
        instruction: what the agent reads.
        attributes: attributes that the purchase should have.
        options: wanted options: `(group, value)` in synthetic goals, the value alone in goals that
            people wrote. The reward treats the two forms differently, as the original does.
        price_upper: price bound in dollars, inclusive; `UNBOUNDED` where there is none.
        title: title of the described product.
        category: department of the described product.
        query: search that the described product was found by.
        product_category: category path of the described product.
        tags: facts for reports, e.g. `("hard",)`.
    """

    asin: str
    instruction: str
    attributes: tuple[str, ...]
    options: tuple[Option, ...]
    price_upper: float
    title: str
    category: str
    query: str
    product_category: str
    tags: tuple[str, ...] = ()


def synthetic_goals(
    products: Sequence[Product], prices: Mapping[str, float], rng: random.Random
) -> tuple[Goal, ...]:
    """One goal for each combination of options of each product with an instruction.

    Args:
        products: the catalogue.
        prices: hidden price of each asin, in dollars.
        rng: gives one price bound a product.

    Returns:
        The goals in the original's order (shuffled with its fixed seed).
    """
    goals = []
    for product in products:
        if not product.instruction:
            continue
        bound, bound_text = draw_bound(prices[product.asin], rng)
        pairs = [[(group, value) for value in values] for group, values in sorted(product.options)]
        for options in itertools.product(*pairs):
            wanted = ", and ".join(f"{group}: {value}" for group, value in options)
            goals.append(
                describe(
                    product,
                    instruction=product.instruction + f" with {wanted}" * bool(wanted) + bound_text,
                    attributes=product.instruction_attributes,
                    options=options,
                    price_upper=bound,
                )
            )
    random.Random(SHUFFLE_SEED).shuffle(goals)
    return tuple(goals)


def human_goals(
    products: Sequence[Product],
    prices: Mapping[str, float],
    instructions: Mapping[str, Sequence[Mapping[str, Any]]],
    rng: random.Random,
) -> tuple[Goal, ...]:
    """One goal for each instruction that names an attribute.

    Args:
        products: the catalogue.
        prices: hidden price of each asin, in dollars.
        instructions: the human instructions file's mapping from asin to instructions.
        rng: gives one price bound an instruction.

    Returns:
        The goals in the original's order (shuffled with its fixed seed).

    Raises:
        DataError: an instruction has not the expected fields.
    """
    goals = []
    for product in products:
        for row in instructions.get(product.asin, ()):
            try:
                attributes = tuple(row["instruction_attributes"])
                if not attributes:
                    continue
                bound, bound_text = draw_bound(prices[product.asin], rng)
                goals.append(
                    describe(
                        product,
                        instruction=row["instruction"].strip(".") + bound_text,
                        attributes=attributes,
                        options=tuple(row["instruction_options"]),
                        price_upper=bound,
                    )
                )
            except (KeyError, TypeError, AttributeError) as error:
                raise DataError(
                    f"human instructions of product {product.asin}: {error!r}; expected objects "
                    "with instruction, instruction_attributes and instruction_options"
                ) from error
    random.Random(SHUFFLE_SEED).shuffle(goals)
    return tuple(goals)


def draw_bound(price: float, rng: random.Random) -> tuple[float, str]:
    """A price bound above `price`, and the words that say it; no words where nothing is above."""
    above = [bound for bound in PRICE_BOUNDS if bound > price][:4]
    if len(above) < 2:
        return UNBOUNDED, ""
    bound = max(rng.sample(above, 2))
    return bound, f", and price lower than {bound:.2f} dollars"


def describe(
    product: Product,
    *,
    instruction: str,
    attributes: tuple[str, ...],
    options: tuple[Option, ...],
    price_upper: float,
    tags: tuple[str, ...] = (),
) -> Goal:
    """A goal that describes `product`."""
    return Goal(
        asin=product.asin,
        instruction=instruction,
        attributes=attributes,
        options=options,
        price_upper=price_upper,
        title=product.title,
        category=product.category,
        query=product.query,
        product_category=product.product_category,
        tags=tags,
    )
