"""WebShop's reading exercises: what the nano base has read, made without end from a generator.

Pages are drawn at random (made-up goals over made-up items), never taken from the embedded
catalogue or its tasks. An exercise is a conversation in pieces; its kinds, after what a reader must
be able to do before anyone teaches it to act:

- `copy`: repeat a random sequence;
- `which`: name the first fitting item of the last page, or none;
- `options`: name the options asked for on an item page, those still to be chosen, or none;
- `keywords`: say what to search for;
- `walk`: random legal actions, to know the form of actions and what they lead to.

A page of results carries marks: what a careful reader knows at each word (is this word in the
instruction? is this price low enough? does this item fit? which is the first that fits so far?). A
mark is predicted where the reader stands and is not part of the text, so pages are read as they
are, and each of them teaches reading some fifty times over.

It knows the text of pages, no tokens, no model.
"""

import dataclasses
import random
from collections.abc import Callable
from typing import Any

from eef_jax.envs.webshop import generate as g
from pretrain.pieces import Mark, Piece, Pieces, assistant, copy, user
from pretrain.vocabulary import BOS, END, USER

SEP = " [SEP] "
# Buttons of an item page, and what stands on the pages behind them.
_SUB_PAGES = {
    "description": " [SEP] Made for daily use.",
    "features": " [SEP] Easy to order.",
    "reviews": "",
}
_MIX = {"which": 0.66, "options": 0.12, "keywords": 0.05, "walk": 0.17}
# Loss weights of what a piece says and of marks. Three answer tokens of hundreds that were read
# would drown among the marks.
_ANSWER, _ACTION, _WORD, _VERDICT = 4.0, 0.3, 0.1, 0.4


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
    return Item(f"B{rng.randrange(g.IDS):04d}", title, (pair[0], pair[1], noun), price, high)


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


def results(goal: Goal, page: int, items: list[Item], question: str = "") -> Piece:
    """A results page as a user message, with its marks."""
    text = USER + results_head(goal, page, 50)
    wanted = {*goal.attributes, goal.noun}
    marks: list[Mark] = []
    found = "no"
    for item in items:
        text += f"{SEP}{item.asin}{SEP}"
        for word in item.title.split():
            text += f"{word} "
            marks.append(Mark(len(text) - 2, _said(word.lower() in wanted), _WORD))
        text += "[SEP] "
        cheap = goal.upper is None or item.price <= goal.upper
        marks.append(Mark(len(text) + 1, _said(cheap), _WORD))
        text += item.price_text
        name = item.asin.lower() if fits(goal, item) else "no"
        marks.append(Mark(len(text) - 1, name, _VERDICT))
        found = name if found == "no" else found
        marks.append(Mark(len(text) + 1, found, _VERDICT))  # what follows, a separator or the end
    return Piece(text + (f"{SEP}{question}" if question else "") + END, 0.0, tuple(marks))


def _said(true: bool) -> str:
    return "yes" if true else "no"


def which(rng: random.Random, pages: int) -> Pieces:
    """Pages turned one by one; the question is asked on each, or on the last one alone."""
    goal = make_goal(rng)
    pieces: Pieces = []
    start = rng.randint(1, 3)
    for k in range(pages):
        last = k == pages - 1
        items = make_page(rng, goal, 0.65 if last else 0.3)
        if last or rng.random() < 0.5:
            first = next((i.asin.lower() for i in items if fits(goal, i)), "none")
            pieces += [results(goal, start + k, items, "which?"), *assistant(first, _ANSWER)]
        else:
            pieces += [results(goal, start + k, items), *assistant("click[next >]", 0.0)]
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


class _Walk:
    """Random legal actions; each method takes one and returns where the walk goes on."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.goal = rng, make_goal(rng)
        self.pieces: Pieces = []
        self.page = 1
        self.items: list[Item] = []
        self.opened = ""

    def start(self) -> Callable[[], Any] | None:
        """Search for some words of the instruction."""
        self.pieces.append(user(start_page(self.goal)))
        text = self.goal.text.replace(",", " ").replace(":", " ").split()
        self.page = 1
        words = self.rng.sample(text, self.rng.randint(1, min(4, len(text))))
        self.say(f"search[{' '.join(words)}]")
        return self.turn

    def say(self, action: str) -> None:
        """Act."""
        self.pieces += assistant(action, _ACTION)

    def turn(self) -> Callable[[], Any] | None:
        """A fresh page of results."""
        self.items = make_page(self.rng, self.goal, 0.5)
        return self.browse()

    def browse(self) -> Callable[[], Any] | None:
        """The results page at hand: turn it, leave it, or open an item."""
        self.pieces.append(results(self.goal, self.page, self.items))
        act = self.rng.choice(["back to search", "next >", "", ""] + ["< prev"] * (self.page > 1))
        self.say(f"click[{act or (item := self.rng.choice(self.items)).asin.lower()}]")
        if act == "back to search":
            return self.start
        if act:
            self.page += 1 if act == "next >" else -1
            return self.turn
        names = sorted(self.rng.sample(tuple(g.VALUES), self.rng.randint(0, 2)))
        self.values = tuple((n, tuple(self.rng.sample(g.VALUES[n], 3))) for n in names)
        self.opened = item_page(self.goal, item, self.values)
        return self.item

    def item(self) -> Callable[[], Any] | None:
        """An item's page: choose an option, look behind a button, go back, or buy."""
        self.pieces.append(user(self.opened))
        chosen = [v for _, values in self.values for v in values]
        legal = ["back to search", "< prev", *_SUB_PAGES, "buy now"]
        act = self.rng.choice(chosen if chosen and self.rng.random() < 0.5 else legal)
        self.say(f"click[{act}]")
        if act in _SUB_PAGES:
            head = f"Instruction: [SEP] {self.goal.text} [SEP] Back to Search [SEP] < Prev"
            self.pieces.append(user(head + _SUB_PAGES[act]))
            self.say("click[< prev]")
        if act == "buy now":
            return None
        return {"back to search": self.start, "< prev": self.browse}.get(act, self.item)


def walk(rng: random.Random, turns: int) -> Pieces:
    """Random legal actions from the start page on; pages are drawn, not simulated."""
    walker = _Walk(rng)
    go: Callable[[], Any] | None = walker.start
    for _ in range(turns):
        if go is not None:
            go = go()
    return walker.pieces


def draw(rng: random.Random, words: list[str], long: bool, copies: float) -> Pieces:
    """One exercise; `long` ones fill a context as an episode does (several pages, many turns).

    Args:
        rng: decides everything.
        words: what the copy exercise repeats.
        long: whether to draw long ones.
        copies: share of copy exercises.
    """
    kind = "copy" if rng.random() < copies else rng.choices(tuple(_MIX), tuple(_MIX.values()))[0]
    pages = rng.randint(2, 5) if long else rng.choice((1, 1, 2))
    match kind:
        case "copy":
            body = copy(rng, words)
        case "which":
            body = which(rng, pages)
        case "options":
            body = options(rng)
        case "keywords":
            body = keywords(rng)
        case _:
            body = walk(rng, rng.randint(5, 9) if long else rng.randint(2, 4))
    return [Piece(BOS), *body]
