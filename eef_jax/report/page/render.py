"""Renders the page: one HTML file that asks for nothing outside of itself.

Every text is escaped by jinja2 or travels in packed chunks. The content security policy allows the
page's own script and style by their hashes, and nothing else.
"""

import base64
import hashlib
import importlib.resources
import re
from typing import Any

import jinja2
import markupsafe

from eef_jax.report import markdown
from eef_jax.report.page.attempts import Viewer
from eef_jax.report.page.parts import Link, Page
from eef_jax.text.tokenizer import without_surrogates

_FOLDER = importlib.resources.files("eef_jax.report.page") / "static"
# Characters that are not seen but turn the text around them: they are named instead of obeyed.
_HIDDEN = re.compile("[\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def html(page: Page, viewer: Viewer) -> str:
    """The page's text."""
    script, style = _static("viewer.js"), _static("page.css")
    template = _environment().from_string(_static("page.html.jinja"))
    text = template.render(
        page=page,
        viewer=viewer,
        script=markupsafe.Markup(script),
        style=markupsafe.Markup(style),
        policy=policy(script, style),
    )
    return without_surrogates(text)


def policy(script: str, style: str) -> str:
    """The content security policy of a page with this script and style."""
    rules = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _static(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = _cell
    environment.filters["plain"] = _plain
    environment.filters["svg"] = markupsafe.Markup  # drawn by matplotlib, whose texts are escaped
    return environment


def _cell(value: Any) -> markupsafe.Markup:
    """A cell of a table."""
    if isinstance(value, Link):
        link = markupsafe.Markup('<a href="#{}">{}</a>')
        return link.format(value.target, _plain(value.text))
    return _plain(markdown.number(value))


def _plain(text: str) -> markupsafe.Markup:
    """A text, escaped, with the names of hidden characters; no text turns what is around it."""
    escaped = str(markupsafe.escape(text))
    named = _HIDDEN.sub(lambda found: f'<i class="hidden">U+{ord(found[0]):04X}</i>', escaped)
    return markupsafe.Markup(named)
