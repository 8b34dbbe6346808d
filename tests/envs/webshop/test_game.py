"""What the golden episodes do not show: the end of a game, snapshots, refusals, the grammar."""

import json
import sys
import tracemalloc

import pytest

from eef_jax.envs import webshop
from eef_jax.envs.base import observation_fingerprint
from eef_jax.envs.webshop.game import SHOP_CLOSED, parse_action
from eef_jax.envs.webshop.shop import search_index
from eef_jax.errors import EnvError
from eef_jax.types import Task
from tests.envs.webshop import golden


@pytest.fixture(scope="module")
def env():
    return webshop.make(
        webshop.Config(
            products=str(golden.PRODUCTS),
            attributes=str(golden.ATTRIBUTES),
            title_nouns=str(golden.NOUNS),
        )
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
        assert after.terminated and after.reward == 0 and after.observation == SHOP_CLOSED


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
    assert search_index(env.dataset) is env.shop.index
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
    assert parse_action(action) == parts


@pytest.mark.parametrize("payload", ["{}", '{"goal": -1}', '{"goal": 100000}', "[]", "nonsense"])
def test_a_foreign_task_is_refused(env, payload):
    task = Task(id="webshop/train/0", env="webshop", split="train", goal="", payload=payload)
    with pytest.raises(EnvError, match="webshop/train/0"):
        env.game().reset(task)


def test_stepping_before_reset_is_an_error(env):
    with pytest.raises(EnvError, match="reset"):
        env.game().step("search[shoes]")


def test_queries_for_labels_list_all_products_that_have_them(env):
    game = start(env)
    for query, label in (("<c> fashion", "category"), ("<q> women's shoes", "query")):
        wanted = [p for p in env.dataset.products if getattr(p, label) == query[4:]]
        page = game.step(f"search[{query}]").observation
        assert f"Page 1 (Total results: {len(wanted)})" in page
        assert game.clickables()[2] == wanted[0].asin.lower()
    assert "(Total results: 0)" in game.step("search[<c> cars]").observation


@pytest.mark.parametrize("query", ["<c>", "<r>", "<a> machine wash", "<c>fashion"])
def test_other_queries_are_plain_text(env, query):
    page = start(env).step(f"search[{query}]").observation
    words = start(env).step(f"search[{query.translate({60: None, 62: None})}]").observation
    assert page == words


def test_a_fingerprint_stands_for_what_was_read(env):
    game, other = start(env), start(env)
    marks = [game.fingerprint]
    for action in ("search[shoes]", "click[next >]", "nonsense"):
        game.step(action)
        marks.append(game.fingerprint)
    assert marks[2] == marks[3] and len(set(marks)) == 3
    assert marks[0] == other.fingerprint
    state = game.save()
    assert marks[2] == observation_fingerprint(game.step("click[]").observation)
    other.restore(state)
    assert other.fingerprint == marks[2]


def test_thousands_of_games_are_small(env):
    games = [env.game() for _ in range(1000)]
    task = env.tasks("train")[0]
    start(env).step("search[red shoes]")  # its results are remembered by the index
    tracemalloc.start()
    for game in games:
        game.reset(task)
        game.step("search[red shoes]")
        game.step(f"click[{game.clickables()[2]}]")
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 20e6
    assert sys.getsizeof(games[0].save()) < 200
