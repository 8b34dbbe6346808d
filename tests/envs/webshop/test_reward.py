"""Rewards are the original's, with the title nouns given (they are one tagger's opinion)."""

import pytest

from eef_jax.envs.webshop.catalogue import Product
from eef_jax.envs.webshop.reward import judge, title_nouns
from tests.envs.webshop import golden

# The original raises on these (no attributes, bound or price); no loaded goal is like them.
RAISES = {
    "price_upper_zero_error",
    "price_upper_negative_error",
    "price_none_error",
    "no_attributes_error",
}


def bought(case: dict) -> Product:
    if case["purchased"] is None:
        return next(p for p in golden.products() if p.asin == case["purchased_asin"])
    fields = case["purchased"]
    return Product(
        asin="",
        title=fields["name"],
        description=fields["Description"],
        bullets=tuple(fields["BulletPoints"]),
        attributes=tuple(fields["Attributes"]),
        query=fields["query"],
        product_category=fields["product_category"],
    )


def test_rewards_equal_the_originals():
    cases = golden.rows("reward_cases.jsonl.gz")
    assert {case["tag"] for case in cases if case["error"]} == RAISES
    for case in cases:
        if case["error"]:
            continue
        product, goal, wanted = bought(case), golden.goal(case["goal"]), case["result"]
        verdict = judge(
            product,
            goal,
            price=case["price"],
            chosen=list(case["options"].values()),
            nouns={product.title: case["purchased_nouns"], goal.title: case["goal_nouns"]},
        )
        assert verdict.total == pytest.approx(wanted["reward"], abs=1e-9), case["tag"]
        assert verdict.r_type == wanted["r_type"], case["tag"]
        assert verdict.r_att == pytest.approx(wanted["r_att"]), case["tag"]
        assert verdict.r_option == pytest.approx(wanted["r_option"]), case["tag"]
        assert verdict.r_price == wanted["r_price"], case["tag"]


def test_titles_without_nouns_fall_back_to_their_words():
    assert title_nouns("The Red Shoe for Men", {}) == ["red", "shoe", "men"]
    assert title_nouns("The Red Shoe", {"The Red Shoe": ("shoe",)}) == ("shoe",)
