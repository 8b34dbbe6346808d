"""Sessions, filters and limits beyond the recorded ones: rules and refusals."""

import random

import pytest

from eef_jax.envs import webshop
from eef_jax.envs.webshop.goal_filter import goal_weights, parse_filter, sample_index, select_goals
from eef_jax.envs.webshop.sessions import Site, TextEnv
from eef_jax.errors import ConfigError, DataError, EnvError
from tests.envs.webshop import golden

FILES = {
    "products": str(golden.PRODUCTS),
    "attributes": str(golden.ATTRIBUTES),
    "title_nouns": str(golden.NOUNS),
}


@pytest.fixture(scope="module")
def shop():
    return webshop.make(webshop.Config(**FILES)).shop


def visitor(shop, seed=0, **kwargs):
    return TextEnv(Site(shop.dataset, **kwargs), shop, rng=random.Random(seed))


def test_a_known_session_keeps_its_goal_and_forgets_its_page(shop):
    env = visitor(shop)
    first, _ = env.reset("me")
    goal = env.goal
    env.step("search[shoes]")
    env.rng = random.Random(99)
    assert env.reset("me")[0] == first
    assert env.goal == goal


def test_shoppers_of_one_site_share_its_sessions_and_others_do_not(shop):
    site = Site(shop.dataset)
    one, other = (TextEnv(site, shop, rng=random.Random(seed)) for seed in (1, 2))
    one.reset("me")
    other.reset("me")
    assert one.goal == other.goal
    site.forget()
    other.reset("me")
    assert one.goal != other.goal


def test_sessions_without_a_name_are_drawn(shop):
    env = visitor(shop)
    env.reset()
    name, goal = env.session, env.goal
    assert len(name) == 10 and name.isalpha() and name.islower()
    env.reset()
    assert env.session != name
    again = visitor(shop)
    again.reset()
    assert (again.session, again.goal) == (name, goal)


@pytest.mark.parametrize("number", [451, -452])
def test_a_goal_that_is_not_there_is_named(shop, number):
    with pytest.raises(EnvError, match="451 goals"):
        visitor(shop).reset(number)


def test_an_environment_that_was_not_reset_says_so(shop):
    env = visitor(shop)
    assert env.get_available_actions() == {"has_search_bar": False, "clickables": []}
    with pytest.raises(EnvError, match="reset"):
        env.step("search[shoes]")


def test_limits_draw_without_repeats_and_hold_what_a_filter_keeps(shop):
    goals = shop.dataset.goals
    fashion = parse_filter("category=fashion")
    kept = select_goals(goals, keep=fashion)
    assert {goals[number].category for number in kept} == {"fashion"}
    drawn = select_goals(goals, keep=fashion, limit=20)
    assert len(set(drawn)) == 20 and set(drawn) < set(kept)
    assert select_goals(goals, limit=10_000) == range(len(goals))


def test_the_first_goal_is_never_drawn(shop):
    bounds = [1.0, 2.0, 3.0]
    rng = random.Random(0)
    assert {sample_index(bounds, rng) for _ in range(200)} == {1, 2}
    assert sample_index([5.0], rng) == 0


def test_goals_that_people_wrote_weigh_the_same():
    goals = [golden.goal(row) for row in golden.config("human1k")["goals"]]
    assert set(goal_weights(goals)) == {1.0}


def test_nothing_left_is_an_error(shop):
    with pytest.raises(DataError, match="no goals left: filter_goals keeps none of 451"):
        Site(shop.dataset, filter_goals=lambda number, goal: False)
    with pytest.raises(ConfigError, match="limit_goals=0"):
        Site(shop.dataset, limit_goals=0)
    with pytest.raises(DataError, match="no goals left: goal_filter 'category=cars' keeps none"):
        webshop.make(webshop.Config(**FILES, goal_filter="category=cars"))


@pytest.mark.parametrize("text", ["fashion", "categry=fashion", "category=fashion;", ""])
def test_a_condition_that_is_none_is_named(text):
    with pytest.raises(ConfigError, match="FIELD=VALUE"):
        parse_filter(text)


def test_tasks_are_of_the_goals_that_a_condition_keeps():
    everything = webshop.make(webshop.Config(**FILES, goals_per_product=0))
    some = webshop.make(
        webshop.Config(**FILES, goals_per_product=0, goal_filter="category=fashion;query=shoes")
    )
    for split in ("train", "dev", "test"):
        kept = {task.payload for task in some.tasks(split)}
        assert kept < {task.payload for task in everything.tasks(split)}
    assert some.dataset_id != everything.dataset_id
