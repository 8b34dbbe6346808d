"""How good a purchase is: WebShop's reward, a number from 0 to 1.

reward = r_type * (matched attributes + matched options + [price is within the bound])
                / (wanted attributes + wanted options + 1)

The nouns of titles are data, because part-of-speech taggers disagree and r_type depends on them.

Reference: Yao et al., "WebShop", NeurIPS 2022, section 3.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence

from rapidfuzz import fuzz

from eef_jax.envs.webshop.catalogue import Product
from eef_jax.envs.webshop.constants import BASE_COLORS, STOP_WORDS
from eef_jax.envs.webshop.goals import Goal, Option
from eef_jax.errors import EnvError

FUZZY_THRESHOLD = 85  # similarity (0-100) above which two phrases count as one
_LATIN_1 = dict.fromkeys(range(0x80, 0x100))
_NO_WORD = re.compile(r"\W")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """A purchase's reward and its parts, by the original's names.

    Attributes:
        total: the reward, 0-1.
        r_type: whether it is the right kind of thing: 1, 0.5, 0.1 or 0.
        r_att: share of the wanted attributes that it has.
        r_option: share of the wanted options that were chosen; None where none is wanted.
        r_price: whether its price is within the bound.
        w_att: share of the wanted things that are attributes.
        w_option: share of them that are options; None where none is wanted.
        w_price: share of them that is the price.
        query_match: whether both products were found by one search.
        category_match: whether their category paths share two names.
        title_score: share of the nouns of the wanted title that the bought one has; 0.2 where the
            wanted one has none.
    """

    total: float
    r_type: float
    r_att: float
    r_option: float | None
    r_price: bool
    w_att: float
    w_option: float | None
    w_price: float
    query_match: bool
    category_match: bool
    title_score: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TypeMatch:
    """How far two products are the same kind of thing; fields as in `Reward`."""

    r_type: float
    query_match: bool
    category_match: bool
    title_score: float


def compute_reward(
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
        nouns: nouns of titles; see `nouns_of_title`.

    Returns:
        The reward and its parts.

    Raises:
        EnvError: the goal wants no attribute, or its price bound is not above 0; the original
            cannot judge such a purchase either, and no goal that it makes is like that.
    """
    if not goal.attributes or not goal.price_upper > 0:
        raise EnvError(
            f"a purchase for the goal {goal.instruction!r} has no reward: it wants the attributes "
            f"{goal.attributes} and a price up to {goal.price_upper}, expected at least one "
            "attribute and a bound above 0; mend the goal"
        )
    likeness = match_type(product, goal, nouns)
    attributes = sum(has_attribute(product, wanted) for wanted in goal.attributes)
    options = count_matched_options(chosen, goal.options)
    within = price <= goal.price_upper
    wanted = len(goal.attributes) + len(goal.options) + 1
    return Reward(
        total=(attributes + options + within) / wanted * likeness.r_type,
        r_att=attributes / len(goal.attributes),
        r_option=options / len(goal.options) if goal.options else None,
        r_price=within,
        w_att=len(goal.attributes) / wanted,
        w_option=len(goal.options) / wanted if goal.options else None,
        w_price=1 / wanted,
        r_type=likeness.r_type,
        query_match=likeness.query_match,
        category_match=likeness.category_match,
        title_score=likeness.title_score,
    )


def match_type(product: Product, goal: Goal, nouns: Mapping[str, Sequence[str]]) -> TypeMatch:
    """Whether two products are the same kind of thing, by query, category path and title nouns."""
    same_query = product.query == goal.query
    same_category = len(_path(product.product_category) & _path(goal.product_category)) >= 2
    wanted = nouns_of_title(goal.title, nouns)
    shared = len(set(wanted) & set(nouns_of_title(product.title, nouns)))
    score = shared / len(wanted) if wanted else 0.2
    r_type = 1.0 if same_query or same_category or score > 0.2 else 0.5
    if score < 0.1:  # with few or no shared nouns nothing else counts, as in the original
        r_type = 0.1 if score else 0.0
    return TypeMatch(
        r_type=r_type, query_match=same_query, category_match=same_category, title_score=score
    )


def nouns_of_title(title: str, nouns: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Nouns of a title; for a title that `nouns` leaves out, all its words but the stop words."""
    if title in nouns:
        return nouns[title]
    return [word for word in re.findall(r"\w+", title.lower()) if word not in STOP_WORDS]


def has_attribute(product: Product, wanted: str) -> bool:
    """Whether a product is labelled with something like `wanted`, or its texts contain it."""
    if any(fuzzy_match(label, wanted) for label in product.attributes):
        return True
    texts = (product.title, " ".join(product.bullets), product.description)
    return any(wanted in text.lower() for text in texts)


def count_matched_options(chosen: Sequence[str], wanted: Sequence[Option]) -> int:
    """How many wanted options some chosen value matches; one value may serve several."""
    values = [_base_color(value) for value in chosen]
    return sum(
        any(fuzzy_match(value, _base_color(option)) for value in values) for option in wanted
    )


def fuzzy_match(first: Option, second: Option) -> bool:
    """Whether two phrases have nearly the same words, in any order."""
    one, other = _normalise(str(first)), _normalise(str(second))
    # Two phrases without words do not match, though their token sets are equal.
    return bool(one and other) and round(fuzz.token_set_ratio(one, other)) > FUZZY_THRESHOLD


def _base_color(option: Option) -> Option:
    """The first base colour within a value (`dark blue` counts as blue, `bored` as red).

    In a `(group, value)` pair the test is for an equal element, so only a plain colour is found;
    any other pair stays a pair and is compared with its group's name. Rewards depend on this.
    """
    return next((color for color in BASE_COLORS if color in option), option)


@functools.lru_cache(maxsize=1 << 16)  # the same labels are compared again and again
def _normalise(phrase: str) -> str:
    """Lower-case words of a phrase, without characters U+0080-U+00FF; other signs are spaces."""
    return _NO_WORD.sub(" ", phrase.translate(_LATIN_1)).lower().strip()


def _path(category: str) -> set[str]:
    return {name.strip() for name in category.split("›")}
