"""How a page is written down for an agent: the original's observation modes, and its URLs.

`text` parts the pieces of a page by `[SEP]`; `text_rich` gives each a line and marks what can be
clicked and what has been; `url` is the address alone. The original's fourth mode, `html`, is left
out: agents of text read no tags. Knows pages, not how they follow one another.
"""

import enum
import json
from collections.abc import Sequence

from eef_jax.envs.webshop.catalogue import Product
from eef_jax.envs.webshop.pages import Choice, Kind, Link, Node, Page

SEPARATOR = " [SEP] "
BASE = "http://127.0.0.1:3000"  # where the original serves its pages
_HTML_SPACES = " \n\t\f\r"


class View(enum.StrEnum):
    """Ways of writing a page down."""

    TEXT = "text"
    TEXT_RICH = "text_rich"
    URL = "url"


def write(
    view: View, page: Page, standing: Sequence[Node], session: str, products: Sequence[Product]
) -> str:
    """A page as an agent reads it.

    Args:
        view: the way of writing.
        page: the page.
        standing: its nodes (see `pages.nodes`).
        session: id of the session, which URLs name.
        products: the catalogue.
    """
    match view:
        case View.TEXT:
            return text(standing)
        case View.URL:
            return url(page, session, products)
        case View.TEXT_RICH:
            return text_rich(standing, url(page, session, products), page.opened)


def text(standing: Sequence[Node]) -> str:
    """The nodes of a page, stripped, with `[SEP]` between them."""
    return SEPARATOR.join([piece.strip() for piece, _ in standing if _shown(piece)])


def text_rich(standing: Sequence[Node], address: str, opened: Sequence[int]) -> str:
    """The nodes of a page, one to a line, with marks round what can be clicked.

    Options are taken for chosen where their value stands in quotes in the URL, as the original
    does: one with quotes or with letters beyond ASCII never is, and one that equals the chosen
    value of another group always is.
    """
    lines: list[str] = []
    chosen: list[str] = []
    for piece, target in standing:
        if not _shown(piece):
            continue
        said = piece if piece.strip(_HTML_SPACES) else " "
        match target:
            case None:
                lines.append(said)
            case Choice() if f'"{said}"' in address:
                lines.append(f"  [clicked button] {said} [clicked button_]")
                chosen.insert(0, f"You have clicked {said}.")
            case Choice():
                lines.append(f"  [button] {said} [button_]")
            case Link(product) if product in opened:
                lines.append(f"\n[clicked button] {said} [clicked button_]")
            case Link():
                lines.append(f"\n[button] {said} [button_]")
            case _:
                lines.append(f"[button] {said} [button_]")
    return "".join(f"{line}\n" for line in (*chosen, *lines))


def url(page: Page, session: str, products: Sequence[Product]) -> str:
    """The address of a page; it names all that decides what the page shows, but the goal."""
    if page.kind is Kind.INDEX:
        return f"{BASE}/{session}"
    words, options = page.query.replace(" ", "+"), dict(page.options)
    if page.kind is Kind.RESULTS:
        return f"{BASE}/search_results/{session}/{words}/{page.number}"
    asin = products[page.product].asin
    if page.kind is Kind.DONE:
        return f"{BASE}/done/{session}/{asin}/{options}"
    if page.kind is Kind.ITEM:
        return f"{BASE}/item_page/{session}/{asin}/{words}/{page.number}/{json.dumps(options)}"
    sub = page.sub.title() if page.sub else ""
    return f"{BASE}/item_sub_page/{session}/{asin}/{words}/{page.number}/{sub}/{options}"


def _shown(piece: str) -> bool:
    """Whether a text node is seen: not if it is empty, or of spaces alone and breaks a line."""
    return bool(piece.strip(_HTML_SPACES)) or (piece != "" and "\n" not in piece)
