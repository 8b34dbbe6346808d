"""Made-up WebShop goals, items and pages, in the exact wording of the environment.

Everything is drawn at random and never taken from the embedded catalogue or its tasks. A results
page carries auxiliary labels: whether a word occurs in the instruction, whether a price is low
enough, whether an item fits, and which item is the first that fits so far.
"""

import dataclasses
import random

from eef_jax.envs.webshop import generate
from pretrain.segments import AuxiliaryLabel, Segment
from pretrain.tokenizer import END, USER

SEP = " [SEP] "
# Phrases that every page repeats; one token each.
FIXED_PHRASES = (
    "[SEP]",
    "WebShop [SEP] Instruction: [SEP]",
    "[SEP] Search",
    "Instruction: [SEP]",
    "[SEP] Back to Search [SEP] Page",
    "(Total results:",
    ") [SEP] Next > [SEP]",
    ") [SEP] < Prev [SEP] Next > [SEP]",
    "[SEP] Back to Search [SEP] < Prev [SEP]",
    "[SEP] Price:",
    "[SEP] Rating: N.A. [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now",
    "and price lower than",
    ".00 dollars",
)
# Loss weights. The three tokens of an answer (weight 4) must not be drowned out by the labels of
# several hundred tokens that were read.
_WORD_WEIGHT, _VERDICT_WEIGHT = 0.1, 0.4
# How a distractor differs from the goal, with weights: one attribute, halves of the attributes
# swapped, both attributes, another noun, a price above the bound.
_DEFECTS = {"one": 40, "swap": 20, "both": 8, "noun": 12, "price": 20}
_MIN_PRICE, _MAX_PRICE = 10, 59


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShoppingGoal:
    """What an instruction asks for.

    Attributes:
        noun: kind of product.
        attributes: two compound attributes, e.g. `soft-touch`.
        options: pairs of option name and value.
        price_bound: highest price, in dollars; None without a bound.
        text: the instruction.
    """

    noun: str
    attributes: tuple[str, str]
    options: tuple[tuple[str, str], ...]
    price_bound: int | None
    text: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A product on a results page.

    Attributes:
        asin: id.
        title: title as it is shown.
        words: its two attributes and its noun.
        price: price, or lower end of the price range, in dollars.
        high: upper end of the price range; None for a single price.
    """

    asin: str
    title: str
    words: tuple[str, str, str]
    price: int
    high: int | None

    @property
    def price_text(self) -> str:
        """The price as a page shows it."""
        return f"${self.price}.0" + (f" to ${self.high}.0" if self.high else "")


def random_attribute(rng: random.Random) -> str:
    """Return a random compound attribute."""
    return f"{rng.choice(generate.LEFT)}-{rng.choice(generate.RIGHT)}"


def make_goal(rng: random.Random) -> ShoppingGoal:
    """Draw an instruction in the wording of the synthetic goals."""
    noun = rng.choice(tuple(generate.NOUNS))
    first = second = random_attribute(rng)
    while second == first:
        second = random_attribute(rng)
    count = rng.choices((0, 1, 2, 3), (10, 30, 50, 10))[0]
    groups = sorted(rng.sample(tuple(generate.VALUES), count))
    options = tuple((name, rng.choice(generate.VALUES[name])) for name in groups)
    price_bound = rng.randrange(20, 100, 10) if rng.random() < 0.95 else None
    text = f"{rng.choice(generate.OPENERS)} {first}, {second} {noun}"
    if options:
        text += " with " + ", and ".join(f"{name}: {value}" for name, value in options)
    if price_bound is not None:
        text += f", and price lower than {price_bound:.2f} dollars"
    return ShoppingGoal(
        noun=noun, attributes=(first, second), options=options, price_bound=price_bound, text=text
    )


def make_item(rng: random.Random, goal: ShoppingGoal, fitting: bool) -> Item:
    """Draw an item that fits `goal`, or a distractor that resembles one."""
    any_price = rng.randint(_MIN_PRICE, _MAX_PRICE)
    defect = "" if fitting else _choose_defect(rng, goal)
    price = any_price if goal.price_bound is None else _make_price(rng, goal.price_bound, defect)
    attributes, noun = _make_words(rng, goal, defect)
    if defect not in ("", "price") and rng.random() < 0.15:
        price = rng.randint(_MIN_PRICE, _MAX_PRICE)
    rng.shuffle(attributes)
    is_range = rng.random() < 0.05 and (goal.price_bound is None or price < goal.price_bound - 5)
    high = price + rng.randint(2, 5) if is_range else None
    return Item(
        title=" ".join((rng.choice(generate.BRANDS), *attributes, noun)).title(),
        asin=f"B{rng.randrange(generate.IDS):04d}",
        words=(attributes[0], attributes[1], noun),
        price=price,
        high=high,
    )


def _choose_defect(rng: random.Random, goal: ShoppingGoal) -> str:
    defect = rng.choices(tuple(_DEFECTS), tuple(_DEFECTS.values()))[0]
    if defect == "price" and (goal.price_bound is None or goal.price_bound >= _MAX_PRICE):
        return "one"  # no price is above the bound
    return defect


def _make_price(rng: random.Random, price_bound: int, defect: str) -> int:
    if defect == "price":
        price = rng.randint(price_bound + 1, _MAX_PRICE + 10)
    else:
        price = rng.randint(_MIN_PRICE, min(_MAX_PRICE, price_bound))
    return min(price, _MAX_PRICE + 10)


def _make_words(rng: random.Random, goal: ShoppingGoal, defect: str) -> tuple[list[str], str]:
    """Return the two attributes and the noun of an item with this defect."""
    (a, b), noun = goal.attributes, goal.noun
    match defect:
        case "one":
            a, b = rng.choice(((a, _other_attribute(rng, b)), (_other_attribute(rng, a), b)))
        case "swap":
            (a_left, a_right), (b_left, b_right) = a.split("-"), b.split("-")
            a, b = f"{a_left}-{b_right}", f"{b_left}-{a_right}"
            if {a, b} == set(goal.attributes):
                a = _other_attribute(rng, a)
        case "both":
            a, b = _other_attribute(rng, a), _other_attribute(rng, b)
        case "noun":
            noun = rng.choice([n for n in generate.NOUNS if n != noun])
    return [a, b], noun


def _other_attribute(rng: random.Random, attribute: str) -> str:
    """Return an attribute that differs from the given one, mostly in one half."""
    left, right = attribute.split("-")
    while True:
        other = rng.choice(
            (
                f"{left}-{rng.choice(generate.RIGHT)}",
                f"{rng.choice(generate.LEFT)}-{right}",
                random_attribute(rng),
            )
        )
        if other != attribute:
            return other


def fits(goal: ShoppingGoal, item: Item) -> bool:
    """Whether an item is what the instruction asks for, as far as a results page shows."""
    return (
        set(goal.attributes) <= set(item.words[:2])
        and goal.noun == item.words[2]
        and _affordable(goal, item)
    )


def _affordable(goal: ShoppingGoal, item: Item) -> bool:
    return goal.price_bound is None or item.price <= goal.price_bound


def make_items(rng: random.Random, goal: ShoppingGoal, fitting_chance: float) -> list[Item]:
    """Draw the items of a results page: ten, sometimes fewer.

    Args:
        rng: source of all random choices.
        goal: what the instruction asks for.
        fitting_chance: probability that the page holds items that fit (0-1).
    """
    count = 10 if rng.random() < 0.9 else rng.randint(1, 9)
    fitting = rng.choice((1, 1, 1, 2, 3, 5)) if rng.random() < fitting_chance else 0
    flags = [i < fitting for i in range(count)]
    rng.shuffle(flags)
    return [make_item(rng, goal, flag) for flag in flags]


def start_page(goal: ShoppingGoal) -> str:
    """Return the first page of an episode."""
    return f"WebShop [SEP] Instruction: [SEP] {goal.text} [SEP] Search"


def results_head(goal: ShoppingGoal, page: int, total: int) -> str:
    """Return a results page up to its first item.

    Args:
        goal: what the instruction asks for.
        page: number of the page, from 1.
        total: total number of results.
    """
    buttons = "< Prev [SEP] Next >" if page > 1 else "Next >"
    return (
        f"Instruction: [SEP] {goal.text} [SEP] Back to Search [SEP] Page {page} "
        f"(Total results: {total}) [SEP] {buttons}"
    )


def item_page(
    goal: ShoppingGoal, item: Item, groups: tuple[tuple[str, tuple[str, ...]], ...]
) -> str:
    """Return an item's page with its option groups (pairs of name and values)."""
    options = "".join(SEP + SEP.join((name, *values)) for name, values in groups)
    return (
        f"Instruction: [SEP] {goal.text} [SEP] Back to Search [SEP] < Prev{options} [SEP] "
        f"{item.title} [SEP] Price: {item.price_text} [SEP] Rating: N.A. [SEP] Description [SEP] "
        f"Features [SEP] Reviews [SEP] Buy Now"
    )


def results_message(
    goal: ShoppingGoal, page: int, items: list[Item], question: str = ""
) -> Segment:
    """Return a results page as a user message with auxiliary labels.

    Args:
        goal: what the instruction asks for.
        page: number of the page, from 1.
        items: what the page lists.
        question: text after the last item; "": none.
    """
    text = USER + results_head(goal, page, 50)
    wanted = {*goal.attributes, goal.noun}
    labels: list[AuxiliaryLabel] = []

    def label(index: int, answer: str, weight: float) -> None:
        labels.append(AuxiliaryLabel(index=index, text=answer, loss_weight=weight))

    first_fitting = "no"
    for item in items:
        text += f"{SEP}{item.asin}{SEP}"
        for word in item.title.split():
            text += f"{word} "
            label(len(text) - 2, _yes_no(word.lower() in wanted), _WORD_WEIGHT)
        text += "[SEP] "
        label(len(text) + 1, _yes_no(_affordable(goal, item)), _WORD_WEIGHT)
        text += item.price_text
        verdict = item.asin.lower() if fits(goal, item) else "no"
        label(len(text) - 1, verdict, _VERDICT_WEIGHT)
        first_fitting = verdict if first_fitting == "no" else first_fitting
        # On the token after the item: a separator, or the end of the message.
        label(len(text) + 1, first_fitting, _VERDICT_WEIGHT)
    return Segment(text + (f"{SEP}{question}" if question else "") + END, 0.0, tuple(labels))


def _yes_no(true: bool) -> str:
    return "yes" if true else "no"
