"""What the golden episodes do not show: the end of a game, snapshots, refusals, the grammar."""

import json

import pytest

from eef_jax.envs import webshop
from eef_jax.envs.webshop.game import CLOSED, split_action
from eef_jax.envs.webshop.shop import index_of
from eef_jax.errors import EnvError
from eef_jax.types import Task
from tests.envs.webshop import golden


@pytest.fixture(scope="module")
def env():
    return webshop.make(
        products=str(golden.PRODUCTS), attributes=str(golden.ATTRIBUTES), nouns=str(golden.NOUNS)
    )


def start(env, place=0):
    game = env.game()
    game.reset(env.tasks("train")[place])
    return game


def target(env, place=0):
    return env.dataset.goals[json.loads(env.tasks("train")[place].payload)["goal"]]


def buy_target(env, game, place=0):
    goal = target(env, place)
    game.step(f"search[{goal.title}]")
    game.step(f"click[{goal.asin}]")
    for _, value in goal.options:
        assert game.step(f"click[{value}]").info["valid"]
    return game.step("click[Buy Now]")


def test_buying_the_described_product_wins(env):
    result = buy_target(env, start(env))
    assert result.terminated and env.is_win(result.reward)
    assert result.info["reward_parts"]["total"] == result.reward == 1.0


def test_a_finished_game_stays_finished_and_tells_nothing(env):
    game = start(env)
    buy_target(env, game)
    for action in ("search[shoes]", "click[buy now]", "nonsense"):
        after = game.step(action)
        assert after.terminated and after.reward == 0 and after.observation == CLOSED


def test_options_are_kept_on_sub_pages_and_lost_on_the_results(env):
    place = next(n for n in range(len(env.tasks("train"))) if target(env, n).options)
    goal, game = target(env, place), start(env, place)
    game.step(f"search[{goal.title}]")
    game.step(f"click[{goal.asin}]")
    group, value = goal.options[0]
    game.step(f"click[{value}]")
    game.step("click[description]")
    game.step("click[< prev]")
    assert dict(game.page.options) == {group: value}
    game.step("click[< prev]")
    game.step(f"click[{goal.asin}]")
    assert game.page.options == ()


def test_what_a_page_does_not_offer_changes_nothing(env):
    game = start(env)
    before = game.page
    for action in ("click[search]", "click[buy now]", "buy", "", "search[]", "Search[shoes]"):
        result = game.step(action)
        assert game.page == before
        assert not result.info["valid"]
        assert result.reward == 0 and not result.terminated
        assert result.observation.startswith("WebShop [SEP] ")


def test_snapshots_are_the_shared_immutable_page(env):
    game = start(env)
    game.step("search[shoes]")
    state = game.save()
    game.step("click[next >]")
    other = env.game()
    other.restore(state)
    assert other.page is state.page
    assert other.page.number == 1 and game.page.number == 2


def test_all_games_share_one_index(env):
    assert index_of(env.dataset) is env.shop.index
    assert env.game()._shop is env.game()._shop is env.shop


@pytest.mark.parametrize(
    ("action", "parts"),
    [
        ("click[Buy Now]", ("click", "Buy Now")),
        ("search[a] [b] c", None),
        ("search[a]\nclick[b]", ("search", "a")),
        ("search[a] and more", ("search", "a")),
        ("search[shoes [men]]", None),
        (" click[a]", None),
        ("Click[a]", None),
        ("search[]", None),
    ],
)
def test_action_grammar(action, parts):
    assert split_action(action) == parts


@pytest.mark.parametrize("payload", ["{}", '{"goal": -1}', '{"goal": 100000}', "[]", "nonsense"])
def test_a_foreign_task_is_refused(env, payload):
    task = Task(id="webshop/train/0", env="webshop", split="train", goal="", payload=payload)
    with pytest.raises(EnvError, match="webshop/train/0"):
        env.game().reset(task)


def test_stepping_before_reset_is_an_error(env):
    with pytest.raises(EnvError, match="reset"):
        env.game().step("search[shoes]")
