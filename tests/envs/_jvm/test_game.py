"""Episodes over few simulators: replay, losses, divergence, rewards. No Java in here."""

import gc

import pytest

from eef_jax.envs._jvm.game import EPISODE_OVER, ReplayGame
from eef_jax.envs._jvm.pool import JvmPool
from eef_jax.errors import DivergedError, EnvError
from tests.envs._jvm.counter import TASK, Counter


@pytest.fixture
def pool():
    Counter.made, Counter.drift = [], 0
    pool = JvmPool(Counter, size=1)
    yield pool
    pool.close()


def start(pool, convention="final"):
    game = ReplayGame(pool, convention=convention)
    assert game.reset(TASK) == "0"
    return game


def test_games_take_turns_on_one_simulator(pool):
    games = [start(pool) for _ in range(3)]
    for turn in range(1, 4):
        for number, game in enumerate(games):
            assert game.step(str(number)).observation == str(turn * number)
    assert len(Counter.made) == 1
    assert pool.stats.replays > 0


def test_a_game_alone_is_never_played_again(pool):
    game = start(pool)
    for _ in range(5):
        game.step("1")
    assert (pool.stats.replays, Counter.made[0].calls) == (0, 5)


def test_the_cheapest_episode_gives_its_seat_away():
    Counter.made, pool = [], JvmPool(Counter, size=2)
    long, short = start(pool), start(pool)
    for _ in range(5):
        long.step("1")
    short.step("1")
    newcomer = start(pool)
    newcomer.step("1")
    assert long.step("1").observation == "6"
    assert pool.stats.replays == 0
    assert short.step("1").observation == "2"
    assert (pool.stats.replays, pool.stats.replayed_actions) == (1, 1)
    pool.close()


def test_a_forgotten_episode_does_not_hold_its_seat():
    Counter.made, pool = [], JvmPool(Counter, size=2)
    game = start(pool)
    for _ in range(5):
        game.step("1")
    del game
    gc.collect()
    start(pool).step("1")
    assert len(Counter.made) == 1
    pool.close()


def test_a_lost_simulator_is_replaced_and_the_episode_goes_on(pool):
    game = start(pool)
    game.step("3")
    assert game.step("hiccup").observation == "3"
    Counter.made[-1].alive = False  # and one that died between two steps
    assert game.step("1").observation == "4"
    assert (len(Counter.made), pool.stats.lost) == (3, 2)


def test_what_always_kills_is_an_error_and_the_pool_goes_on(pool):
    game = start(pool)
    with pytest.raises(EnvError, match="3 JVMs were lost in one call: killed by an action"):
        game.step("die")
    assert game.step("2").observation == "2"


def test_a_replay_that_differs_is_not_gone_on_with(pool):
    game = start(pool)
    game.step("1")
    game.step("2")
    Counter.drift = 5
    Counter.made[0].close()
    with pytest.raises(DivergedError, match=r"after 1 of 2 actions.*observation is '6'"):
        game.step("1")


def test_a_fork_is_a_copy(pool):
    game, other = start(pool), ReplayGame(pool, convention="final")
    game.step("1")
    state = game.save()
    game.step("4")
    other.restore(state)
    assert other.step("2").observation == "3"
    assert game.step("1").observation == "6"
    assert other.fingerprints[:2] == state.fingerprints


def test_after_the_end_nothing_is_done(pool):
    game = start(pool)
    assert game.step("bad").terminated
    calls = Counter.made[0].calls
    again = game.step("9")
    assert (again.observation, again.reward, again.terminated) == (EPISODE_OVER, 0.0, True)
    assert (Counter.made[0].calls, game.admissible()) == (calls, [])


def test_many_actions_stop_at_the_end(pool):
    results = start(pool).replay(["4", "4", "4", "4"])
    assert [result.terminated for result in results] == [False, False, True]


@pytest.mark.parametrize(
    ("convention", "rewards"),
    [("final", [0.4, 0.0, -0.4]), ("best", [0.4, 0.0, 0.0])],
)
def test_conventions_differ_in_what_a_failure_costs(pool, convention, rewards):
    results = start(pool, convention).replay(["4", "0", "bad"])
    assert [result.reward for result in results] == rewards
    assert results[-1].info["rewards"] == {"final": 0.0, "best": 0.4}
    assert results[-1].info["score"] == -1.0


def test_a_closed_pool_and_a_game_without_a_task_say_so(pool):
    game = ReplayGame(pool, convention="final")
    with pytest.raises(EnvError, match="before its first reset"):
        game.step("1")
    game.reset(TASK)
    pool.close()
    with pytest.raises(EnvError, match="closed"):
        game.step("1")
