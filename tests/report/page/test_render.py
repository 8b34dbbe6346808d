"""The page's text: escaped, with hidden characters named, under a policy of its own hashes."""

import base64
import hashlib
import re

import pytest

from eef_jax.report.page import render, summary
from eef_jax.report.page.attempts import Viewer
from eef_jax.report.page.parts import Figure, Link, Page, Section, Table

HOSTILE = "</script><script>alert(1)</script>\u202e {{ 1 }} \ud800 &amp;"


@pytest.fixture(scope="module")
def text():
    table = Table(caption=HOSTILE, header=[HOSTILE], rows=[[HOSTILE], [None], [1234]], strong=[0])
    linked = Table(caption="", header=["a"], rows=[[Link(text=HOSTILE, target='"><b>')]])
    page = Page(
        title=HOSTILE,
        sentence=HOSTILE,
        details=[HOSTILE],
        curve=Figure(caption=HOSTILE, svg="<svg></svg>", numbers=table),
        results=Section(id="results", title=HOSTILE, tables=[table, linked], notes=[HOSTILE]),
        parts=[],
        shown=HOSTILE,
    )
    return render.html(page, Viewer(index="aaa", chunks=["bbb"], shown=HOSTILE))


def test_text_is_escaped_and_hidden_characters_are_named(text):
    assert "<script>alert" not in text and text.count("&lt;script&gt;alert") > 8
    assert '<i class="hidden">U+202E</i>' in text and "&amp;amp;" in text and "{{ 1 }}" in text
    assert 'href="#&#34;&gt;&lt;b&gt;"' in text
    assert "1,234" in text
    text.encode()  # halves of surrogate pairs are gone


def test_the_policy_allows_the_pages_own_script_and_style_alone(text):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    policy = policy.replace("&#39;", "'")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in policy
    assert not re.search(r'(src|href)="(?!#)', text)


def test_nothing_was_evaluated():
    assert summary.sentence([], []) == "No policy has been evaluated yet."
