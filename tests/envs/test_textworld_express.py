"""TextWorldExpress: games are won by their gold paths, failed by mistakes, chosen by name."""

import importlib.util
import shutil

import pytest

from eef_jax.envs import textworld_express as twx
from eef_jax.errors import ConfigError, EnvError

pytestmark = pytest.mark.java

if importlib.util.find_spec("textworld_express") is None:
    pytest.skip("the package textworld-express is not installed", allow_module_level=True)
if shutil.which("java") is None:
    pytest.skip("there is no java on the path", allow_module_level=True)


@pytest.fixture(scope="module")
def env(recycled_jvms):
    env = twx.make(twx.Config(games="all", jvms=1, timeout_s=600))
    yield env
    env.close()


def test_every_game_is_won_by_its_gold_path(env):
    tasks = env.tasks("train")[: len(twx.GAMES)]
    assert {task.tags[0] for task in tasks} == set(twx.GAMES)
    for task in tasks:
        game = env.game()
        assert game.reset(task)
        results = game.replay(env.gold_path(task))
        assert env.is_win(sum(result.reward for result in results)), task.id
        assert results[-1].terminated


def test_a_mistake_may_cost_all(env):
    task = next(task for task in env.tasks("train") if "simonsays" in task.tags)
    game = env.game()
    game.reset(task)
    right = game.step(env.gold_path(task)[0])
    wrong = next(a for a in game.admissible() if a not in right.observation)
    failed = game.step(wrong)
    assert failed.terminated and failed.info["score"] < 0
    assert right.reward + failed.reward == 0
    assert failed.info["rewards"]["best"] == right.reward > 0


def test_help_tells_the_task_and_takes_no_step(env):
    task = env.tasks("train")[0]
    game = env.game()
    first = game.reset(task)
    assert first.startswith(game.step("help").observation)


def test_games_settings(env):
    small = twx.make(twx.Config(games="coin", params="numLocations=1", jvms=1, timeout_s=600))
    small.pool = env.pool  # one JVM is enough for both
    task = small.tasks("test")[0]
    assert len(small.gold_path(task)) <= 3
    wrong = twx.make(twx.Config(games="coin", params="rooms=1")).tasks("test")[0]
    with pytest.raises(EnvError, match=r"Unrecognized property name \(rooms\)"):
        env.game().reset(wrong)


def test_unknown_names_list_the_near_ones():
    with pytest.raises(ConfigError, match=r"env\.games is 'coins': did you mean coin"):
        twx.make(twx.Config(games="coins"))
    with pytest.raises(ConfigError, match=r"env\.prompt is 'reakt'.*did you mean react"):
        twx.make(twx.Config(prompt="reakt"))


def test_react_reads_what_it_writes():
    env = twx.make(twx.Config(prompt="react"))
    assert env.parse(f"Thought: hungry\n{env.render('open fridge')}") == "open fridge"
    assert env.parse("open fridge") is None
    assert env.prompt(env.tasks("dev")[0])[-1].role == "assistant"
