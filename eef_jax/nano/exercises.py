"""Reading exercises: what the nano base is pretrained on, made without end from a random generator.

Pages are drawn at random (made-up goals over made-up items), never taken from the embedded
catalogue or its tasks. Each exercise is a list of pieces (text, weight): the text of a piece and
the loss weight of predicting it. The kinds, after what a reader must be able to do before anyone
teaches it to act:

- `copy`: repeat a random sequence;
- `recall`: told the first half of an id that was listed before, say the second;
- `judge`: after each item of a results page (and each word of its title), say whether it fits the
  instruction;
- `which`: name the first fitting item of the last page, or none;
- `options`: name the options asked for on an item page, those still to be chosen, or none;
- `keywords`: say what to search for;
- `walk`: random legal actions, to know the form of actions and what they lead to.

It knows the text of pages, no tokens, no model.
"""

import dataclasses
import random

from eef_jax.envs.webshop import generate as g
from eef_jax.nano.vocabulary import ASSISTANT, BOS, END, USER

Pieces = list[tuple[str, float]]

# Buttons of an item page, and what stands on the pages behind them.
_SUB_PAGES = {
    "description": " [SEP] Made for daily use.",
    "features": " [SEP] Easy to order.",
    "reviews": "",
}

SEP = " [SEP] "
_MIX = {
    "recall": 0.05,
    "judge": 0.38,
    "which": 0.37,
    "options": 0.07,
    "keywords": 0.03,
    "walk": 0.10,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Goal:
    """What a page's instruction asks for; `upper` is None without a price bound."""

    noun: str
    attributes: tuple[str, str]
    options: tuple[tuple[str, str], ...]
    upper: int | None
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """A line of a results page; `high` is the upper end of a price range, else None."""

    asin: str
    title: str
    words: tuple[str, str, str]
    price: int
    high: int | None

    @property
    def price_text(self) -> str:
        return f"${self.price}.0" + (f" to ${self.high}.0" if self.high else "")


def compound(rng: random.Random) -> str:
    """A random attribute."""
    return f"{rng.choice(g.LEFT)}-{rng.choice(g.RIGHT)}"


def make_goal(rng: random.Random) -> Goal:
    """A random instruction in the synthetic goals' wording."""
    noun = rng.choice(tuple(g.NOUNS))
    first = second = compound(rng)
    while second == first:
        second = compound(rng)
    attributes = (first, second)
    groups = sorted(rng.sample(tuple(g.VALUES), rng.choices((0, 1, 2, 3), (10, 30, 50, 10))[0]))
    options = tuple((name, rng.choice(g.VALUES[name])) for name in groups)
    upper = rng.randrange(20, 100, 10) if rng.random() < 0.95 else None
    text = f"{rng.choice(g.OPENERS)} {', '.join(attributes)} {noun}"
    if options:
        text += " with " + ", and ".join(f"{k}: {v}" for k, v in options)
    if upper is not None:
        text += f", and price lower than {upper:.2f} dollars"
    return Goal(noun, attributes, options, upper, text)


def make_item(rng: random.Random, goal: Goal, fits: bool) -> Item:
    """An item that fits `goal`, or one that looks like it but does not."""
    (a, b), noun, upper = goal.attributes, goal.noun, goal.upper
    price = rng.randint(10, 59)
    kind = (
        "fits"
        if fits
        else rng.choices(("one", "swap", "both", "noun", "price"), (40, 20, 8, 12, 20))[0]
    )
    if kind == "price" and (upper is None or upper >= 59):
        kind = "one"
    if upper is not None:
        price = (
            rng.randint(upper + 1, 59 + 10) if kind == "price" else rng.randint(10, min(59, upper))
        )
        price = min(price, 69)
    match kind:
        case "one":
            a, b = rng.choice(((a, _other(rng, b)), (_other(rng, a), b)))
        case "swap":
            (al, ar), (bl, br) = a.split("-"), b.split("-")
            a, b = f"{al}-{br}", f"{bl}-{ar}"
            if {a, b} == set(goal.attributes):
                a = _other(rng, a)
        case "both":
            a, b = _other(rng, a), _other(rng, b)
        case "noun":
            noun = rng.choice([n for n in g.NOUNS if n != noun])
    if kind not in ("fits", "price") and rng.random() < 0.15:
        price = rng.randint(10, 59)
    pair = [a, b]
    rng.shuffle(pair)
    high = (
        price + rng.randint(2, 5)
        if rng.random() < 0.05 and (upper is None or price < upper - 5)
        else None
    )
    title = " ".join((rng.choice(g.BRANDS), *pair, noun)).title()
    return Item(f"B{rng.randrange(10_000):04d}", title, (pair[0], pair[1], noun), price, high)


def _other(rng: random.Random, attribute: str) -> str:
    """An attribute that differs from the given one, mostly in one half."""
    left, right = attribute.split("-")
    while True:
        other = rng.choice(
            (f"{left}-{rng.choice(g.RIGHT)}", f"{rng.choice(g.LEFT)}-{right}", compound(rng))
        )
        if other != attribute:
            return other


def fits(goal: Goal, item: Item) -> bool:
    """Whether an item is what the instruction asks for, as far as a results page shows."""
    return (
        set(goal.attributes) <= set(item.words[:2])
        and goal.noun == item.words[2]
        and (goal.upper is None or item.price <= goal.upper)
    )


def start_page(goal: Goal) -> str:
    """The first page of an episode."""
    return f"WebShop [SEP] Instruction: [SEP] {goal.text} [SEP] Search"


def results_head(goal: Goal, page: int, total: int) -> str:
    """A results page up to its first item."""
    turn = "< Prev [SEP] Next >" if page > 1 else "Next >"
    return (
        f"Instruction: [SEP] {goal.text} [SEP] Back to Search [SEP] Page {page} "
        f"(Total results: {total}) [SEP] {turn}"
    )


def item_page(goal: Goal, item: Item, shown: tuple[tuple[str, tuple[str, ...]], ...]) -> str:
    """An item's page with its option groups."""
    options = "".join(SEP + SEP.join((name, *values)) for name, values in shown)
    return (
        f"Instruction: [SEP] {goal.text} [SEP] Back to Search [SEP] < Prev{options} [SEP] "
        f"{item.title} [SEP] Price: {item.price_text} [SEP] Rating: N.A. [SEP] Description [SEP] "
        f"Features [SEP] Reviews [SEP] Buy Now"
    )


def make_page(rng: random.Random, goal: Goal, share: float) -> list[Item]:
    """Ten items (now and then fewer); `share` is the chance that the page holds fitting ones."""
    count = 10 if rng.random() < 0.9 else rng.randint(1, 9)
    good = rng.choice((1, 1, 1, 2, 3, 5)) if rng.random() < share else 0
    flags = [i < good for i in range(count)]
    rng.shuffle(flags)
    return [make_item(rng, goal, f) for f in flags]


def _lines(items: list[Item]) -> str:
    return "".join(f"{SEP}{i.asin}{SEP}{i.title}{SEP}{i.price_text}" for i in items)


def user(text: str) -> tuple[str, float]:
    """A user message that is not learned."""
    return (f"{USER}{text}{END}", 0.0)


def assistant(text: str, weight: float = 1.0) -> Pieces:
    """An assistant message; the role is given, content and end are learned."""
    return [(ASSISTANT, 0.0), (f"{text}{END}", weight)]


def copy(rng: random.Random, words: list[str]) -> Pieces:
    """A random sequence, said twice."""
    chosen = " ".join(rng.choices(words, k=rng.randint(6, 40)))
    return [user(chosen), *assistant(chosen)]


def recall(rng: random.Random) -> Pieces:
    """Ids, then the same in another order: the second half of each follows from the first."""
    ids = [f"b{number:04d}" for number in rng.sample(range(10_000), rng.randint(4, 16))]
    again = [(number, 0.3) for number in rng.sample(ids, len(ids))]
    return [user(SEP.join(ids)), (ASSISTANT, 0.0), *again, (END, 0.0)]


def judge(rng: random.Random) -> Pieces:
    """A results page with a verdict after each item (its id or no), then the id asked for.

    In a quarter of them each word of a title has its verdict, too: whether the instruction says it.
    """
    goal = make_goal(rng)
    items = make_page(rng, goal, 0.8)
    wanted = {*goal.attributes, goal.noun}
    by_word = rng.random() < 0.25
    pieces: Pieces = [(USER + results_head(goal, rng.randint(1, 5), 50) + " [SEP]", 0.0)]
    for place, item in enumerate(items):
        pieces.append(("[SEP] " * (place > 0) + f"{item.asin} [SEP]", 0.0))
        if by_word:
            for word in item.title.split():
                pieces += [(word, 0.0), ("yes" if word.lower() in wanted else "no", 0.2)]
        else:
            pieces.append((item.title, 0.0))
        verdict = item.asin.lower() if fits(goal, item) else "no"
        pieces += [(f"[SEP] {item.price_text}", 0.0), (verdict, 0.5)]
    pieces.append((" [SEP] which?" + END, 0.0))
    return pieces + assistant(_first(goal, items))


def _first(goal: Goal, items: list[Item]) -> str:
    return next((i.asin.lower() for i in items if fits(goal, i)), "none")


def which(rng: random.Random, pages: int) -> Pieces:
    """Pages turned one by one; the question is asked on each, or on the last one alone."""
    goal = make_goal(rng)
    pieces: Pieces = []
    start = rng.randint(1, 3)
    for k in range(pages):
        items = make_page(rng, goal, 0.65 if k == pages - 1 else 0.3)
        text = results_head(goal, start + k, 50) + _lines(items)
        last = k == pages - 1
        if last or rng.random() < 0.5:
            # Three tokens of hundreds that were read: they would drown among the verdicts.
            pieces += [user(text + " [SEP] which?"), *assistant(_first(goal, items), 4.0)]
        else:
            pieces += [user(text), *assistant("click[next >]", 0.0)]
    return pieces


def options(rng: random.Random) -> Pieces:
    """An item page: all options asked for, then those still to be chosen after some clicks."""
    goal = make_goal(rng)
    item = make_item(rng, goal, True)
    shown = []
    for name, value in goal.options:
        others = rng.sample([v for v in g.VALUES[name] if v != value], rng.randint(1, 3))
        values = [value, *others]
        rng.shuffle(values)
        shown.append((name, tuple(values)))
    if rng.random() < 0.2:
        extra = rng.choice([n for n in g.VALUES if n not in dict(goal.options)] or ["color"])
        if extra not in dict(shown):
            shown.append((extra, tuple(rng.sample(g.VALUES[extra], 3))))
    page = item_page(goal, item, tuple(sorted(shown)))
    asked = [v for _, v in goal.options]
    if rng.random() < 0.4:
        return [user(page + " [SEP] options?"), *assistant(", ".join(asked) or "none")]
    done = rng.randint(0, len(asked))
    order = rng.sample(asked, done) if rng.random() < 0.3 else asked[:done]
    pieces: Pieces = []
    for value in order:
        pieces += [user(page), *assistant(f"click[{value}]", 0.0)]
    left = next((v for v in asked if v not in order), "none")
    return [*pieces, user(page + " [SEP] left?"), *assistant(left)]


def keywords(rng: random.Random) -> Pieces:
    """The start page: what to search for, with or without the options."""
    goal = make_goal(rng)
    page = start_page(goal)
    words = f"{' '.join(goal.attributes)} {goal.noun}"
    if rng.random() < 0.5:
        return [user(page + " [SEP] keywords?"), *assistant(words)]
    long = " ".join([words, *(v for _, v in goal.options)])
    return [user(page + " [SEP] all keywords?"), *assistant(long)]


def walk(rng: random.Random, turns: int) -> Pieces:
    """Random legal actions from the start page on; pages are drawn, not simulated."""
    goal = make_goal(rng)
    pieces: Pieces = [user(start_page(goal))]
    state, page = "index", 1
    items: list[Item] = []
    item = make_item(rng, goal, True)  # replaced by the first one that is opened
    shown: tuple[tuple[str, tuple[str, ...]], ...] = ()
    for _ in range(turns):
        legal = {
            "index": ["search"],
            "results": ["back to search", "next >", "item", "item"] + ["< prev"] * (page > 1),
            "item": ["back to search", "< prev", *_SUB_PAGES, "buy now", *["option"] * 5],
        }[state]
        act = rng.choice(legal)
        if act == "option" and not shown:
            act = "< prev"
        if act == "search":
            text = goal.text.replace(",", " ").replace(":", " ").split()
            words = rng.sample(text, rng.randint(1, min(4, len(text))))
            pieces += assistant(f"search[{' '.join(words)}]", 0.3)
        elif act == "item":
            item = rng.choice(items)
            pieces += assistant(f"click[{item.asin.lower()}]", 0.3)
        elif act == "option":
            _, values = rng.choice(shown)
            pieces += assistant(f"click[{rng.choice(values)}]", 0.3)
        else:
            pieces += assistant(f"click[{act}]", 0.3)
        if act == "back to search":
            state, page = "index", 1
            pieces.append(user(start_page(goal)))
        elif act in ("search", "next >") or (act == "< prev" and state in ("results", "item")):
            page = {"search": 1, "next >": page + 1}.get(act, max(1, page - (state == "results")))
            if not (state == "item" and act == "< prev"):
                items = make_page(rng, goal, 0.5)
            state = "results"
            pieces.append(user(results_head(goal, page, 50) + _lines(items)))
        elif act == "buy now":
            return pieces
        elif act in _SUB_PAGES:
            head = f"Instruction: [SEP] {goal.text} [SEP] Back to Search [SEP] < Prev"
            pieces.append(user(head + _SUB_PAGES[act]))
            state = "item"
            pieces += assistant("click[< prev]", 0.3)
            pieces.append(user(item_page(goal, item, shown)))
        else:
            if act == "item":
                names = sorted(rng.sample(tuple(g.VALUES), rng.randint(0, 2)))
                shown = tuple((n, tuple(rng.sample(g.VALUES[n], 3))) for n in names)
            state = "item"
            pieces.append(user(item_page(goal, item, shown)))
    return [*pieces, *assistant("click[back to search]", 0.0)]


def draw(rng: random.Random, words: list[str], long: bool, copies: float) -> Pieces:
    """One exercise; `long` ones fill a context as an episode does (several pages, many turns).

    Args:
        rng: decides everything.
        words: what the copy exercise repeats.
        long: whether to draw long ones.
        copies: share of copy exercises.
    """
    mix = {"copy": copies / (1.0 - copies), **_MIX}
    kind = rng.choices(tuple(mix), tuple(mix.values()))[0]
    pages = rng.randint(2, 5) if long else rng.choice((1, 1, 2))
    match kind:
        case "copy":
            body = copy(rng, words)
        case "recall":
            body = recall(rng)
        case "judge":
            body = judge(rng)
        case "which":
            body = which(rng, pages)
        case "options":
            body = options(rng)
        case "keywords":
            body = keywords(rng)
        case _:
            body = walk(rng, rng.randint(5, 9) if long else rng.randint(2, 4))
    return [(BOS, 0.0), *body]
