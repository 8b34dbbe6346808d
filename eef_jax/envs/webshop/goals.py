"""What agents are asked to buy: synthetic goals from products, and goals that people wrote.

Price bounds are drawn from a generator of the caller's, in the order of the original code, so a
seed names one fixed list of goals. A synthetic goal is told by its product, its bound and the
number of a combination of options, which is all that a stored dataset keeps of it.
"""

import dataclasses
import math
import random
import re
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from eef_jax.envs.webshop.catalogue import Product
from eef_jax.errors import DataError

PRICE_BOUNDS = tuple(10.0 * step for step in range(1, 100))  # dollars
NO_PRICE_BOUND = 1000000.0  # dollars; the bound of a goal that names none
SHUFFLE_SEED = 233  # the original's order of goals

Option = str | tuple[str, str]

_BOUND = re.compile(r", and price lower than (\d+(?:\.\d+)?) dollars$")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One thing to buy, and what the reward asks of the purchase.

    Attributes:
        asin: the product that the instruction describes (other purchases may be as good).
        instruction: what the agent reads.
        attributes: attributes that the purchase should have.
        options: wanted options: `(group, value)` in synthetic goals, the value alone in goals that
            people wrote. The reward treats the two forms differently, as the original does.
        price_upper: price bound in dollars, inclusive; `NO_PRICE_BOUND` where there is none.
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


class HumanInstruction(NamedTuple):
    """What one person wrote about one product."""

    text: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]


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
        if product.instruction:
            bound = sample_price_bound(prices[product.asin], rng)
            goals += [synthetic_goal(product, bound, n) for n in range(count_combinations(product))]
    return tuple(goals[place] for place in shuffled_order(len(goals)))


def human_goals(
    products: Sequence[Product],
    prices: Mapping[str, float],
    instructions: Mapping[str, Sequence[Mapping[str, Any]]],
    rng: random.Random,
    *,
    source: str = "human instructions",
) -> tuple[Goal, ...]:
    """One goal for each instruction that names an attribute.

    Args:
        products: the catalogue.
        prices: hidden price of each asin, in dollars.
        instructions: the human instructions file's mapping from asin to instructions.
        rng: gives one price bound an instruction.
        source: name of the file for error messages.

    Returns:
        The goals in the original's order (shuffled with its fixed seed).

    Raises:
        DataError: an instruction has not the expected fields.
    """
    goals = [
        human_goal(product, sample_price_bound(prices[product.asin], rng), instruction)
        for product in products
        for instruction in parse_instructions(product.asin, instructions, source)
    ]
    return tuple(goals[place] for place in shuffled_order(len(goals)))


def parse_instructions(
    asin: str, instructions: Mapping[str, Sequence[Mapping[str, Any]]], source: str
) -> list[HumanInstruction]:
    """What people wrote about a product, less instructions that name no attribute.

    Raises:
        DataError: an instruction has not the expected fields.
    """
    found = []
    for number, row in enumerate(instructions.get(asin, ())):
        try:
            text, options = row["instruction"].strip("."), tuple(row["instruction_options"])
            if attributes := tuple(row["instruction_attributes"]):
                found.append(HumanInstruction(text, attributes, options))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{source}: instruction {number} of product {asin}: {error!r}; expected an object "
                "with instruction, instruction_attributes and instruction_options"
            ) from error
    return found


def synthetic_goal(product: Product, bound: float, number: int) -> Goal:
    """The goal for the `number`-th combination of a product's options."""
    options = nth_combination(product, number)
    wanted = ", and ".join(f"{group}: {value}" for group, value in options)
    words = product.instruction + f" with {wanted}" * bool(wanted)
    return _goal(product, words, product.instruction_attributes, options, bound)


def human_goal(product: Product, bound: float, instruction: HumanInstruction) -> Goal:
    """The goal that someone wrote."""
    return _goal(product, *instruction, bound)


def with_bound(goal: Goal, bound: float) -> Goal:
    """The goal with another price bound, in its instruction too."""
    words, _ = split_bound(goal.instruction)
    return dataclasses.replace(goal, instruction=words + _bound_text(bound), price_upper=bound)


def split_bound(instruction: str) -> tuple[str, float]:
    """An instruction without its price bound, and the bound in dollars."""
    found = _BOUND.search(instruction)
    if found is None:
        return instruction, NO_PRICE_BOUND
    return instruction[: found.start()], float(found[1])


def count_combinations(product: Product) -> int:
    """In how many ways a value of each option group can be chosen."""
    return math.prod(len(values) for _, values in product.options)


def nth_combination(product: Product, number: int) -> tuple[tuple[str, str], ...]:
    """The `number`-th choice of options, groups in alphabetical order, the last changing first."""
    chosen = []
    for group, values in sorted(product.options, reverse=True):
        number, place = divmod(number, len(values))
        chosen.append((group, values[place]))
    return tuple(reversed(chosen))


def shuffled_order(count: int, seed: int = SHUFFLE_SEED) -> Sequence[int]:
    """Which of `count` things stands at each place after the list of them is shuffled."""
    places = array("q", range(count))
    random.Random(seed).shuffle(places)
    return places


def sample_price_bound(price: float, rng: random.Random) -> float:
    """A price bound above `price`; `NO_PRICE_BOUND`, and nothing drawn, where there are not two."""
    above = [bound for bound in PRICE_BOUNDS if bound > price][:4]
    return NO_PRICE_BOUND if len(above) < 2 else max(rng.sample(above, 2))


def _bound_text(bound: float) -> str:
    return f", and price lower than {bound:.2f} dollars" if bound < NO_PRICE_BOUND else ""


def _goal(
    product: Product,
    words: str,
    attributes: tuple[str, ...],
    options: tuple[Option, ...],
    bound: float,
) -> Goal:
    return Goal(
        asin=product.asin,
        instruction=words + _bound_text(bound),
        attributes=attributes,
        options=options,
        price_upper=bound,
        title=product.title,
        category=product.category,
        query=product.query,
        product_category=product.product_category,
    )
