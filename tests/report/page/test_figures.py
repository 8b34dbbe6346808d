"""Drawings hold nothing that the page's content security policy refuses, and the page's colours."""

import xml.etree.ElementTree as ET

import pytest

from eef_jax.report.page import figures
from eef_jax.report.page.figures import Line

LINES = [
    Line(name="easy <b>", values=[0.5, None, 1.0], intervals=[(0.4, 0.6), None, (0.9, 1.0)]),
    Line(name="expert", values=[0.2] * 3, dashed=True),
]
DRAWN = {
    "shares": lambda: figures.shares({"a": (["x", "y", "z"], LINES), "b": (["x"], LINES[:1])}),
    "nothing known": lambda: figures.shares({"": (["x"], [Line(name="n", values=[None])])}),
    "curves": lambda: figures.curves({"a": ([1, 2], [0.5, 0.1]), "b": ([1], [3.0])}, "x", "loss"),
    "bars": lambda: figures.bars(["a row", "b"], {"won": [1.0, 2.0], "lost": [0.0, 4.0]}, "count"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawing_takes_its_style_from_the_page(name):
    svg = DRAWN[name]()
    root = ET.fromstring(svg)
    assert not [
        e for e in root.iter() if "style" in e.attrib or e.tag.endswith(("style", "script"))
    ]
    assert "#0102" not in svg and "var(--ink-2)" in svg and "font-family" not in svg
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    used = {v.strip("#()ur l") for e in root.iter() for k, v in e.attrib.items() if "#" in v}
    assert used <= set(ids)
    assert DRAWN[name]() == svg


def test_names_are_text():
    texts = [e.text for e in ET.fromstring(DRAWN["shares"]()).iter() if e.tag.endswith("text")]
    assert "easy <b>" in texts and "a" in texts and "50 %" in texts
