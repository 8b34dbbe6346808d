"""What an agent sees: the text of each page and what can be clicked on it.

Pure functions of a page, its instruction and the catalogue's products; they know neither search nor
rewards nor how pages follow one another. Texts equal what the original renders to HTML and parses
back, segment by segment; a test proves it on the original's own outputs.
"""

import dataclasses
import enum
import json
from collections.abc import Mapping, Sequence

from eef_jax.envs.webshop.catalogue import Product

SEPARATOR = " [SEP] "
PAGE_SIZE = 10  # results a page
_HTML_SPACES = " \n\t\f\r"
_DONE = (
    *("Thank you for shopping with us!", "Your code:", "None"),
    *("(Paste it in your MTurk interface.)", "Purchased", "asin"),
)
_DONE_TAIL = (
    *("attrs", "None", "category", "None", "query", "None", "product category", "None"),
    *("Target", "asin", "options", "attrs", "price upper"),
    *("instuction text", "category", "product category", "query", "Goal", "None"),  # spelling: sic
    *("Reward", "Your score (min 0.0, max 1.0)"),
)


class Kind(enum.StrEnum):
    """The kinds of pages."""

    INDEX = "index"
    RESULTS = "results"
    ITEM = "item"
    SUB = "sub"
    DONE = "done"


class Sub(enum.StrEnum):
    """Pages about one product, by the name of the button that opens them."""

    DESCRIPTION = "description"
    FEATURES = "features"
    REVIEWS = "reviews"
    ATTRIBUTES = "attributes"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Where a shopper is, with all that decides what follows; a snapshot of an episode.

    Attributes:
        kind: which page is shown.
        query: last search, lower case; kept while its results and their items are seen.
        number: page of the results, from 1.
        product: number of the product in the catalogue; read on item, sub and done pages only.
        options: chosen option values by group, in the order in which groups were first chosen.
        sub: which sub page, on sub pages; else None.
        reward: what the purchase paid (0-1), on the done page.
    """

    kind: Kind = Kind.INDEX
    query: str = ""
    number: int = 1
    product: int = 0
    options: tuple[tuple[str, str], ...] = ()
    sub: Sub | None = None
    reward: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Button:
    """Clickable: a button with a name of its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """Clickable: opens the item page of a product (a number in the catalogue)."""

    product: int


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """Clickable: chooses a value in an option group."""

    group: str


Clickables = Mapping[str, Button | Link | Choice]

SEARCH = "search"
BACK = "back to search"
NEXT = "next >"
PREVIOUS = "< prev"
BUY = "buy now"


def clickables(
    page: Page, products: Sequence[Product], hits: Sequence[int], *, show_attributes: bool = False
) -> Clickables:
    """What can be clicked, in page order.

    A name that stands twice is listed once, and its last bearer is what a click means.

    Args:
        page: the page.
        products: the catalogue.
        hits: results of the page's query, as numbers in the catalogue; read on results pages only.
        show_attributes: whether item pages have an Attributes button.
    """
    match page.kind:
        case Kind.INDEX:
            return {SEARCH: Button()}
        case Kind.RESULTS:
            names = [BACK, PREVIOUS, NEXT] if page.number > 1 else [BACK, NEXT]
            links = {products[hit].asin.lower(): Link(hit) for hit in window(page, hits)}
            return {name: Button() for name in names} | links
        case Kind.ITEM:
            names = [BACK, PREVIOUS, *_subs(show_attributes), BUY]
            choices = {
                value: Choice(group)
                for group, values in products[page.product].options
                for value in values
            }
            return {str(name): Button() for name in names} | choices
        case Kind.SUB:
            return {BACK: Button(), PREVIOUS: Button()}
        case Kind.DONE:
            return {}


def observe(
    page: Page,
    instruction: str,
    products: Sequence[Product],
    hits: Sequence[int],
    *,
    show_attributes: bool = False,
) -> str:
    """The text of a page; arguments as in `clickables`, `instruction` being the goal's."""
    match page.kind:
        case Kind.INDEX:
            return SEPARATOR.join(("WebShop", *_head(instruction), "Search"))
        case Kind.DONE:
            return SEPARATOR.join(_done(page, products[page.product]))
        case Kind.RESULTS:
            body = _results(page, products, hits)
        case Kind.ITEM:
            body = _item(products[page.product], show_attributes)
        case Kind.SUB:
            body = ["< Prev", *_sub(products[page.product], page.sub)]
    return SEPARATOR.join((*_head(instruction), "Back to Search", *body))


def window(page: Page, hits: Sequence[int]) -> Sequence[int]:
    """The hits that a results page shows; none past the end."""
    return hits[(page.number - 1) * PAGE_SIZE : page.number * PAGE_SIZE]


def _head(instruction: str) -> list[str]:
    return ["Instruction:", *_segments(instruction)]


def _results(page: Page, products: Sequence[Product], hits: Sequence[int]) -> list[str]:
    body = [f"Page {page.number} (Total results: {len(hits)})"]
    body += ["< Prev", "Next >"] if page.number > 1 else ["Next >"]
    for hit in window(page, hits):
        product = products[hit]
        body += _segments(product.asin, product.title, product.price_text)
    return body


def _item(product: Product, show_attributes: bool) -> list[str]:
    body = ["< Prev"]
    for group, values in product.options:
        body += _segments(group, *values)
    body += _segments(product.title)
    body += [f"Price: {product.price_text}", "Rating: N.A."]
    return [*body, *(sub.title() for sub in _subs(show_attributes)), "Buy Now"]


def _sub(product: Product, sub: Sub | None) -> list[str]:
    match sub:
        case Sub.DESCRIPTION:
            return _segments(product.description)
        case Sub.FEATURES:
            return _segments(*(f" {bullet}" for bullet in product.bullets))
        case Sub.ATTRIBUTES:
            return _segments(
                *(f" {attribute}" for attribute in product.attributes),
                product.category,
                product.query,
                product.product_category,
            )
    return []  # no product has reviews


def _done(page: Page, product: Product) -> list[str]:
    options = json.dumps(dict(page.options), sort_keys=True)
    for sign in "<>&'":  # as a template's JSON filter writes them
        options = options.replace(sign, f"\\u{ord(sign):04x}")
    reward = [str(page.reward), "Reward Details", "None"]
    return [*_DONE, product.asin, "options", options, *_DONE_TAIL, *reward]


def _subs(show_attributes: bool) -> list[Sub]:
    return list(Sub) if show_attributes else [sub for sub in Sub if sub is not Sub.ATTRIBUTES]


def _segments(*nodes: str) -> list[str]:
    """Text nodes as segments, stripped; one of spaces alone stays, empty, if it breaks no line."""
    return [
        node.strip() for node in nodes if node.strip(_HTML_SPACES) or (node and "\n" not in node)
    ]
