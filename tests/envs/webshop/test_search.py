"""The ranking is the original's: the same products in the same order, ties included."""

import random

import numpy as np
import pytest

from eef_jax.envs.webshop.analyzer import analyze, tokenize
from eef_jax.envs.webshop.porter import stem
from eef_jax.envs.webshop.postings import quantized_length
from eef_jax.envs.webshop.search import SearchIndex
from tests.envs.webshop import golden


@pytest.mark.parametrize("documents", [None, 100])
def test_results_equal_the_originals_in_order(documents):
    products = golden.products()[:documents]
    index = SearchIndex.build([p.asin for p in products], [p.document for p in products])
    rows = golden.rows("search_cases.jsonl")
    cases = [row for row in rows if row["num_products"] == documents]
    assert len(cases) in (533, 170)
    for case in cases:
        found = [products[hit].asin for hit in index.search(case["query"])]
        assert found == case["asins"], case["query"]


def test_cut_keeps_ties_in_the_order_of_ids():
    ids = [f"{number * 7919 % 1000:03}" for number in range(1000)]
    index = SearchIndex.build(ids, ["red shoe" if int(i) % 2 else "red red shoe" for i in ids])
    found = [ids[hit] for hit in index.search("red", 50)]
    assert found == [f"{number:03}" for number in range(0, 100, 2)]


def test_empty_documents_and_queries_find_nothing():
    index = SearchIndex.build(["a", "b"], ["", "the of"])
    assert index.search("shoe") == ()
    assert SearchIndex.build([], []).search("shoe") == ()
    assert SearchIndex.build(["a"], ["shoe"]).search("the") == ()


def test_lengths_are_exact_up_to_40_and_coarse_above():
    assert [quantized_length(n) for n in (0, 23, 31, 39, 40, 41, 42, 56, 60, 100, 1000)] == [
        *(0, 23, 31, 39, 40, 40, 42, 56, 60, 96, 984)
    ]
    coarse = np.array([quantized_length(n) for n in range(5000)])
    assert (np.diff(coarse) >= 0).all()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("men's 3.5 fl-oz, 1,000 a_b", ["men's", "3.5", "fl", "oz", "1,000", "a_b"]),
        ("a.b a..b 1.a x:y", ["a.b", "a", "b", "1", "a", "x:y"]),
        ("★quality★ ok™ ✔️", ["★", "quality", "★", "ok", "™", "✔️"]),
        ("男士 カタカナ ひら", ["男", "士", "カタカナ", "ひ", "ら"]),
        ("👩‍💻👍🏽 🇩🇪", ["👩‍💻", "👍🏽", "🇩🇪"]),
        ("x" * 300, ["x" * 255, "x" * 45]),
        ('28" x 28" - / &', ["28", "x", "28"]),
    ],
)
def test_words_are_split_as_unicode_says(text, tokens):
    assert tokenize(text) == tokens


def test_terms_lose_possessives_stop_words_and_endings():
    assert analyze("The women's running Shoes’s and the BOXES") == ["women", "run", "shoe", "box"]


STEMS = """
    caresses caress, ponies poni, cats cat, agreed agre, feed feed, plastered plaster,
    motoring motor, sing sing, conflated conflat, hopping hop, falling fall, filing file,
    happy happi, sky sky, relational relat, rational ration, possibly possibl, apology
    apolog, vietnamization vietnam, triplicate triplic, hopefulness hope, adjustment adjust,
    adoption adopt, replacement replac, probate probat, rate rate, controll control, roll
    roll, is is, us us, oaten oaten
"""


@pytest.mark.parametrize("pair", STEMS.split(","))
def test_stems(pair):
    word, root = pair.split()
    assert stem(word) == root


def test_ascii_text_is_split_like_any_other():
    rng = random.Random(0)
    for _ in range(3000):
        text = "".join(rng.choices("ab1_2.:,;'-# \n", k=12))
        assert tokenize(text) == tokenize(text + " é")[:-1], text
