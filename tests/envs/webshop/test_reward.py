"""What the recorded rewards leave open: titles without nouns, goals without a reward."""

import dataclasses

import pytest

from eef_jax.envs.webshop.reward import compute_reward, nouns_of_title
from eef_jax.errors import EnvError
from tests.envs.webshop import golden


def test_titles_without_nouns_fall_back_to_their_words():
    assert nouns_of_title("The Red Shoe for Men", {}) == ["red", "shoe", "men"]
    assert nouns_of_title("The Red Shoe", {"The Red Shoe": ("shoe",)}) == ("shoe",)


def test_the_weights_of_the_parts_add_up_to_the_reward():
    for case in golden.rows("reward_cases.jsonl")[:200]:
        goal = golden.goal(case["goal"])
        product = next(p for p in golden.products() if p.asin == case["purchased_asin"])
        verdict = compute_reward(
            product,
            goal,
            price=case["price"],
            chosen=list(case["options"].values()),
            nouns={product.title: case["purchased_nouns"], goal.title: case["goal_nouns"]},
        )
        parts = verdict.w_att * verdict.r_att + verdict.w_price * verdict.r_price
        if verdict.r_option is not None:
            assert verdict.w_option is not None
            parts += verdict.w_option * verdict.r_option
        assert verdict.total == pytest.approx(parts * verdict.r_type)


@pytest.mark.parametrize("change", [{"attributes": ()}, {"price_upper": 0}, {"price_upper": -1.0}])
def test_a_goal_that_cannot_be_judged_is_named(change):
    goal = dataclasses.replace(golden.goal(golden.config("syn1k")["goals"][0]), **change)
    with pytest.raises(EnvError, match="Find me nut free granola"):
        compute_reward(golden.products()[0], goal, price=1.0, chosen=[], nouns={})
