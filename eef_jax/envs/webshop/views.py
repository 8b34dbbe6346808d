"""How a page is written down for an agent: the original's observation modes, and its URLs.

`text` parts the pieces of a page by `[SEP]`; `text_rich` gives each a line and marks what can be
clicked and what has been; `url` is the address alone. The original's fourth mode, `html`, is left
out: agents of text read no tags.
"""

import dataclasses
import enum
import json
from collections.abc import Sequence

from eef_jax.envs.webshop.catalogue import Product
from eef_jax.envs.webshop.pages import Node, OptionButton, Page, PageKind, ProductLink
from eef_jax.errors import ConfigError, did_you_mean

SEPARATOR = " [SEP] "
BASE_URL = "http://127.0.0.1:3000"  # where the original serves its pages
_HTML_SPACES = " \n\t\f\r"


class View(enum.StrEnum):
    """Observation modes: ways of rendering a page."""

    # The name is part of every dataset_id, which hashes the repr of a ViewOptions' fields.

    TEXT = "text"
    TEXT_RICH = "text_rich"
    URL = "url"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ViewOptions:
    """How a shop looks to an agent, by the original's options.

    Attributes:
        show_attrs: whether item pages have an Attributes button, which tells the hidden labels.
        observation_mode: how pages are written down.
        num_prev_obs: number of earlier observations prepended to each observation.
        num_prev_actions: number of earlier actions prepended to each observation.
    """

    show_attrs: bool = False
    observation_mode: View = View.TEXT
    num_prev_obs: int = 0
    num_prev_actions: int = 0


def view_options(
    *,
    show_attrs: bool = False,
    observation_mode: str = "text",
    num_prev_obs: int = 0,
    num_prev_actions: int = 0,
) -> ViewOptions:
    """Check values that a user gave.

    Raises:
        ConfigError: there is no such mode, or a number is negative.
    """
    if observation_mode not in set(View):
        left_out = "; html is left out: agents of text read no tags" * (observation_mode == "html")
        raise ConfigError(
            f"unknown observation_mode {observation_mode!r} of webshop; "
            f"{did_you_mean(observation_mode, View)}{left_out}"
        )
    if num_prev_obs < 0 or num_prev_actions < 0:
        raise ConfigError(
            f"num_prev_obs={num_prev_obs}, num_prev_actions={num_prev_actions}: expected numbers "
            "from 0"
        )
    return ViewOptions(
        show_attrs=show_attrs,
        observation_mode=View(observation_mode),
        num_prev_obs=num_prev_obs,
        num_prev_actions=num_prev_actions,
    )


def render_page(
    mode: View,
    page: Page,
    nodes: Sequence[Node],
    session: str,
    products: Sequence[Product],
) -> str:
    """A page as an agent reads it.

    Args:
        mode: format of the text.
        page: the page.
        nodes: its text nodes and clickables, from `pages.page_nodes`.
        session: id of the session, which URLs name.
        products: the catalogue.
    """
    match mode:
        case View.TEXT:
            return render_text(nodes)
        case View.URL:
            return page_url(page, session, products)
        case View.TEXT_RICH:
            return render_text_rich(nodes, page_url(page, session, products), page.opened)


def render_text(nodes: Sequence[Node]) -> str:
    """The nodes of a page, stripped, with `[SEP]` between them."""
    pieces = ((piece, piece.strip()) for piece, _ in nodes)
    return SEPARATOR.join([short for piece, short in pieces if short or _shown(piece)])


def render_text_rich(nodes: Sequence[Node], address: str, opened: Sequence[int]) -> str:
    """The nodes of a page, one to a line, with marks round what can be clicked.

    Options are taken for chosen where their value stands in quotes in the URL, as the original
    does: one with quotes or with letters beyond ASCII never is, and one that equals the chosen
    value of another group always is.
    """
    lines: list[str] = []
    chosen: list[str] = []
    for piece, target in nodes:
        if not _shown(piece):
            continue
        said = piece if piece.strip(_HTML_SPACES) else " "
        match target:
            case None:
                lines.append(said)
            case OptionButton() if f'"{said}"' in address:
                lines.append(f"  [clicked button] {said} [clicked button_]")
                chosen.insert(0, f"You have clicked {said}.")
            case OptionButton():
                lines.append(f"  [button] {said} [button_]")
            case ProductLink(product) if product in opened:
                lines.append(f"\n[clicked button] {said} [clicked button_]")
            case ProductLink():
                lines.append(f"\n[button] {said} [button_]")
            case _:
                lines.append(f"[button] {said} [button_]")
    return "".join(f"{line}\n" for line in (*chosen, *lines))


def page_url(page: Page, session: str, products: Sequence[Product]) -> str:
    """The address of a page; it names all that decides what the page shows, but the goal."""
    if page.kind is PageKind.INDEX:
        return f"{BASE_URL}/{session}"
    words, options = page.query.replace(" ", "+"), dict(page.options)
    if page.kind is PageKind.RESULTS:
        return f"{BASE_URL}/search_results/{session}/{words}/{page.number}"
    asin = products[page.product].asin
    if page.kind is PageKind.DONE:
        return f"{BASE_URL}/done/{session}/{asin}/{options}"
    if page.kind is PageKind.ITEM:
        return f"{BASE_URL}/item_page/{session}/{asin}/{words}/{page.number}/{json.dumps(options)}"
    sub = page.sub.title() if page.sub else ""
    return f"{BASE_URL}/item_sub_page/{session}/{asin}/{words}/{page.number}/{sub}/{options}"


def _shown(piece: str) -> bool:
    """Whether a text node is seen: not if it is empty, or of spaces alone and breaks a line."""
    return bool(piece.strip(_HTML_SPACES)) or (piece != "" and "\n" not in piece)
