"""The pages of the shop: their text nodes and clickables.

Pure functions of a page, its instruction and the catalogue's products; transitions between pages
are in `game`, rendering for an agent in `views`. Nodes are the text nodes of the original's HTML,
in its order and with its spaces, which a test checks on the original's outputs.
"""

import dataclasses
import enum
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from eef_jax.envs.webshop.catalogue import Product

PAGE_SIZE = 10  # results a page


class PageKind(enum.StrEnum):
    """The kinds of pages."""

    INDEX = "index"
    RESULTS = "results"
    ITEM = "item"
    SUB = "sub"
    DONE = "done"


class SubPage(enum.StrEnum):
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
        opened: products opened since the first page was last seen, in order; `text_rich` marks
            their links.
    """

    kind: PageKind = PageKind.INDEX
    query: str = ""
    number: int = 1
    product: int = 0
    options: tuple[tuple[str, str], ...] = ()
    sub: SubPage | None = None
    reward: float = 0.0
    opened: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Button:
    """Clickable: a named button."""


@dataclasses.dataclass(frozen=True, slots=True)
class ProductLink:
    """Clickable: opens the item page of a product (a number in the catalogue)."""

    product: int


@dataclasses.dataclass(frozen=True, slots=True)
class OptionButton:
    """Clickable: chooses a value in an option group."""

    group: str


ClickTarget = Button | ProductLink | OptionButton
Clickables = Mapping[str, ClickTarget]


class Node(NamedTuple):
    """A piece of a page's text, and what a click on it does.

    Attributes:
        text: as the page's HTML has it, outer spaces included; empty: it is not shown, but may be
            clicked.
        target: None where it is only text.
    """

    text: str
    target: ClickTarget | None = None


SEARCH = "search"
BACK = "back to search"
NEXT = "next >"
PREVIOUS = "< prev"
BUY = "buy now"

_BUTTON = Button()
_SEARCH = Node("Search", _BUTTON)
_BACK = Node("Back to Search", _BUTTON)
_NEXT = Node("Next >", _BUTTON)
_PREVIOUS = Node("< Prev", _BUTTON)
_BUY = Node("Buy Now", _BUTTON)
_ABOUT = {sub: Node(sub.title(), _BUTTON) for sub in SubPage}
_NOT_RATED = Node("Rating: N.A.")
_SHOP = Node("WebShop")
_DONE = tuple(
    map(
        Node,
        (
            *("Thank you for shopping with us!", "Your code: ", "None"),
            *(" (Paste it in your MTurk interface.)", "Purchased", "asin"),
        ),
    )
)
_DONE_TAIL = tuple(
    map(
        Node,
        (
            *("attrs", "None", "category", "None", "query", "None", "product category", "None"),
            *("Target", "asin", "options", "attrs", "price upper"),
            # The spelling is the original's.
            *("instuction text", "category", "product category", "query", "Goal ", "None"),
            *("Reward", "Your score (min 0.0, max 1.0)"),
        ),
    )
)
_DONE_END = (Node("Reward Details "), Node("None"))


def page_nodes(
    page: Page,
    instruction: str,
    products: Sequence[Product],
    hits: Sequence[int],
    *,
    show_attributes: bool = False,
) -> list[Node]:
    """All that stands on a page, in page order.

    Args:
        page: the page.
        instruction: what the agent is asked to buy.
        products: the catalogue.
        hits: results of the page's query, as numbers in the catalogue; read on results pages only.
        show_attributes: whether item pages have an Attributes button.
    """
    match page.kind:
        case PageKind.INDEX:
            return [_SHOP, Node("Instruction: "), Node(instruction), _SEARCH]
        case PageKind.DONE:
            return _done(page, products[page.product])
        case PageKind.RESULTS:
            body = _results(page, products, hits)
        case PageKind.ITEM:
            body = _item(products[page.product], show_attributes)
        case PageKind.SUB:
            body = [_PREVIOUS, *map(Node, _sub(products[page.product], page.sub))]
    return [Node("Instruction:"), Node(instruction), _BACK, *body]


def clickables(nodes: Sequence[Node]) -> Clickables:
    """Clickables among the nodes of a page: its buttons and links, then its options.

    Buttons and links are named in lower case. A name that occurs twice is listed once, and a click
    on it means its last occurrence.
    """
    found: dict[str, ClickTarget] = {}
    options: dict[str, ClickTarget] = {}
    for text, target in nodes:
        if isinstance(target, OptionButton):
            options[text] = target
        elif target is not None:
            found[text.lower()] = target
    return found | options


def hits_on_page(page: Page, hits: Sequence[int]) -> Sequence[int]:
    """The hits that a results page shows; none past the end."""
    return hits[(page.number - 1) * PAGE_SIZE : page.number * PAGE_SIZE]


def _results(page: Page, products: Sequence[Product], hits: Sequence[int]) -> list[Node]:
    body = [Node(f"Page {page.number} (Total results: {len(hits)})")]
    body += [_PREVIOUS, _NEXT] if page.number > 1 else [_NEXT]
    for hit in hits_on_page(page, hits):
        product = products[hit]
        body += Node(product.asin, ProductLink(hit)), Node(product.title), Node(product.price_text)
    return body


def _item(product: Product, show_attributes: bool) -> list[Node]:
    body = [_PREVIOUS]
    for group, values in product.options:
        choice = OptionButton(group)
        body.append(Node(group))
        body += [Node(value, choice) for value in values]
    body += Node(product.title), Node(f"Price: {product.price_text}"), _NOT_RATED
    body += [
        node for sub, node in _ABOUT.items() if show_attributes or sub is not SubPage.ATTRIBUTES
    ]
    return [*body, _BUY]


def _sub(product: Product, sub: SubPage | None) -> list[str]:
    match sub:
        case SubPage.DESCRIPTION:
            return [product.description]
        case SubPage.FEATURES:
            return [f" {bullet}" for bullet in product.bullets]
        case SubPage.ATTRIBUTES:
            labels = [f" {attribute}" for attribute in product.attributes]
            return [*labels, product.category, product.query, product.product_category]
    return []  # no product has reviews


def _done(page: Page, product: Product) -> list[Node]:
    options = json.dumps(dict(page.options), sort_keys=True)
    for sign in "<>&'":  # as a template's JSON filter writes them
        options = options.replace(sign, f"\\u{ord(sign):04x}")
    bought = (Node(product.asin), Node("options"), Node(options))
    return [*_DONE, *bought, *_DONE_TAIL, Node(str(page.reward)), *_DONE_END]
