"""How good a purchase is: WebShop's reward, a number from 0 to 1.

reward = r_type * (matched attributes + matched options + [price is within the bound])
                / (wanted attributes + wanted options + 1)

Knows products and goals, not pages. The nouns of titles come in as data, because they are one
part-of-speech tagger's opinion: no two tagger versions agree, and r_type depends on them.

Reference: Yao et al., "WebShop", NeurIPS 2022, section 3.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from rapidfuzz import fuzz

from eef_jax.envs.webshop.catalogue import Product
from eef_jax.envs.webshop.constants import BASE_COLORS, STOP_WORDS
from eef_jax.envs.webshop.goals import Goal, Option

ALIKE = 85  # similarity (0-100) above which two phrases count as one
_LATIN_1 = dict.fromkeys(range(0x80, 0x100))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """A purchase's reward and its parts.

    Attributes:
        total: the reward, 0-1.
        r_type: whether it is the right kind of thing: 1, 0.5, 0.1 or 0.
        r_att: share of the wanted attributes that it has; None where none is wanted.
        r_option: share of the wanted options that were chosen; None where none is wanted.
        r_price: whether its price is within the bound.
    """

    total: float
    r_type: float
    r_att: float | None
    r_option: float | None
    r_price: bool


def judge(
    product: Product,
    goal: Goal,
    *,
    price: float,
    chosen: Sequence[str],
    nouns: Mapping[str, Sequence[str]],
) -> Reward:
    """Judge a purchase.

    Args:
        product: what was bought.
        goal: what was wanted.
        price: what was paid, in dollars.
        chosen: values of the chosen options; their groups do not count.
        nouns: nouns of titles; see `title_nouns`.

    Returns:
        The reward and its parts.
    """
    r_type = judge_type(product, goal, nouns)
    attributes = sum(has_attribute(product, wanted) for wanted in goal.attributes)
    options = count_options(chosen, goal.options)
    within = price <= goal.price_upper
    wanted = len(goal.attributes) + len(goal.options) + 1
    return Reward(
        total=(attributes + options + within) / wanted * r_type,
        r_type=r_type,
        r_att=attributes / len(goal.attributes) if goal.attributes else None,
        r_option=options / len(goal.options) if goal.options else None,
        r_price=within,
    )


def judge_type(product: Product, goal: Goal, nouns: Mapping[str, Sequence[str]]) -> float:
    """Whether two products are the same kind of thing, by query, category path and title nouns."""
    same_query = product.query == goal.query
    same_category = len(_path(product.product_category) & _path(goal.product_category)) >= 2
    wanted = title_nouns(goal.title, nouns)
    shared = len(set(wanted) & set(title_nouns(product.title, nouns)))
    score = shared / len(wanted) if wanted else 0.2
    if score == 0:  # without a shared noun nothing else counts, as in the original
        return 0.0
    if score < 0.1:
        return 0.1
    return 1.0 if same_query or same_category or score > 0.2 else 0.5


def title_nouns(title: str, nouns: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Nouns of a title; for a title that `nouns` leaves out, all its words but the stop words."""
    if title in nouns:
        return nouns[title]
    return [word for word in re.findall(r"\w+", title.lower()) if word not in STOP_WORDS]


def has_attribute(product: Product, wanted: str) -> bool:
    """Whether a product is labelled with something like `wanted`, or its texts contain it."""
    if any(alike(label, wanted) for label in product.attributes):
        return True
    texts = (product.title, " ".join(product.bullets), product.description)
    return any(wanted in text.lower() for text in texts)


def count_options(chosen: Sequence[str], wanted: Sequence[Option]) -> int:
    """How many wanted options some chosen value matches; one value may serve several."""
    values = [_base_color(value) for value in chosen]
    return sum(any(alike(value, _base_color(option)) for value in values) for option in wanted)


def alike(first: Option, second: Option) -> bool:
    """Whether two phrases have nearly the same words, in any order."""
    one, other = _normalise(str(first)), _normalise(str(second))
    # Without words there is nothing to compare; two empty phrases are not alike.
    return bool(one and other) and round(fuzz.token_set_ratio(one, other)) > ALIKE


def _base_color(option: Option) -> Option:
    """The first base colour within a value (`dark blue` counts as blue, `bored` as red).

    In a `(group, value)` pair the test is for an equal element, so only a plain colour is found;
    any other pair stays a pair and is compared with its group's name. Rewards depend on this.
    """
    return next((color for color in BASE_COLORS if color in option), option)


def _normalise(phrase: str) -> str:
    """Lower-case words of a phrase, without characters U+0080-U+00FF; other signs are spaces."""
    return re.sub(r"\W", " ", phrase.translate(_LATIN_1)).lower().strip()


def _path(category: str) -> set[str]:
    return {name.strip() for name in category.split("›")}
