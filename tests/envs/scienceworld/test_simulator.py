"""The simulator through our own gateway: its rules, its traps, and that a JVM may die."""

import importlib.util
import json
import logging
import os
import shutil
import signal
import subprocess
import sys

import pytest

from eef_jax import config as config_lib
from eef_jax.configs import scienceworld as configs
from eef_jax.envs import scienceworld
from eef_jax.envs._jvm.game import EPISODE_OVER
from eef_jax.envs.scienceworld.simulator import parse_payload
from eef_jax.envs.scienceworld.task_types import TASK_TYPES
from eef_jax.experts import gold
from eef_jax.rollout import loop
from eef_jax.types import Episode, Outcome

pytestmark = pytest.mark.java

if importlib.util.find_spec("scienceworld") is None:
    pytest.skip("the package scienceworld is not installed", allow_module_level=True)
if shutil.which("java") is None:
    pytest.skip("there is no java on the path", allow_module_level=True)


@pytest.fixture(scope="module")
def env(recycled_jvms):
    kinds = "find-plant,find-animal,find-living-thing,lifespan-*"
    env = scienceworld.make(scienceworld.Config(tasks=kinds, jvms=1, max_steps=20, timeout_s=600))
    yield env
    env.close()


@pytest.fixture(scope="module")
def task(env):
    return next(task for task in env.tasks("train") if "find-plant" in task.tags)


@pytest.fixture(scope="module")
def path(env, task):
    return env.gold_path(task)


def play(env, task, actions):
    game = env.game()
    return game, [game.reset(task), *(game.step(action) for action in actions)]


def test_the_gold_path_wins(env, task, path):
    assert any(action.startswith("teleport to") for action in path)
    _, (_, *results) = play(env, task, path)
    assert results[-1].terminated and results[-1].info["score"] == 1.0
    assert env.is_win(sum(result.reward for result in results))
    assert not env.is_win(sum(result.reward for result in results[:-1]))


@pytest.mark.parametrize(("kind", "variation"), [("find-animal", 1), ("find-living-thing", 4)])
def test_some_of_the_packages_paths_are_faulty(env, kind, variation):
    """With ETO's simplifications: they name one of several bees, which nothing tells apart."""
    task = next(t for t in env.tasks("train") if t.id.endswith(f"/{kind}/{variation}"))
    path = env.gold_path(task)
    assert any(action.startswith("ERROR FINDING UNIQUE REFERENT") for action in path)
    _, (_, *results) = play(env, task, path)
    assert not env.is_win(sum(result.reward for result in results))


# The package's own wrapper, on deterministic flags: what it shows, as JSON.
OFFICIAL = """
import json, os, sys
os.environ["JAVA_TOOL_OPTIONS"] = "-XX:+UnlockExperimentalVMOptions -XX:hashCode=2"
from scienceworld import ScienceWorldEnv
name, variation, simplifications, actions = json.loads(sys.argv[1])
env = ScienceWorldEnv(envStepLimit=1000)
env.load(name, variation, simplifications)
room, info = env.reset()
steps = [env.step(action) for action in actions]
rows = [[shown, done, info["score"], info["moves"]] for shown, _, done, info in steps]
print(json.dumps([env.get_task_description(), room, rows]))
env.close()
"""


def test_it_plays_as_the_packages_wrapper_does(env, task, path):
    """Also where bees fly about, which the wrapper's listing of valid actions has a hand in."""
    actions = ["teleport to greenhouse", *["look around", "wait1"] * 4, *path]
    given = json.dumps([*parse_payload(task), actions])
    command = [sys.executable, "-c", OFFICIAL, given]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    description, room, rows = json.loads(done.stdout)
    _, (first, *results) = play(env, task, actions)
    assert first == f"{description}\n{room}"
    ours = [
        [r.observation, r.terminated, round(100 * r.info["score"]), r.info["moves"]]
        for r in results
    ]
    assert ours == rows


def test_a_wrong_focus_fails_and_nothing_lifts_it(env, task, path):
    game, (_, first, wrong) = play(env, task, [path[0], "focus on agent"])
    assert first.reward > 0
    assert (wrong.terminated, wrong.info["score"]) == (True, -1.0)
    assert wrong.info["rewards"] == {"final": 0.0, "best": first.info["score"]}
    assert first.reward + wrong.reward == 0
    again = game.step("reset task")
    assert (again.observation, again.terminated, again.reward) == (EPISODE_OVER, True, 0.0)


def test_what_it_does_not_know_is_no_step_of_the_world(env, task):
    _, (_, first, second) = play(env, task, ["Action: look around", "dance"])
    assert first.observation == second.observation == "No known action matches that input."
    assert second.info["moves"] == 0


def test_a_question_back_is_part_of_the_state(env):
    """Two things of one name: the next input is a number, also after a fork."""
    game = next(
        game
        for task in env.tasks("train")[:12]
        for game, results in [play(env, task, ["teleport to kitchen"])]
        for action in _ambiguous(game)
        for result in [game.step(action)]
        if result.observation.startswith("Ambiguous request")
    )
    assert game.admissible()[0] == "0"
    fork, other = env.game(), env.game()
    fork.restore(game.save())
    other.reset(env.tasks("train")[0])  # takes the only simulator away
    answer = fork.step("0")
    assert not answer.observation.startswith(("Ambiguous", "Unknown"))
    assert game.step("0") == answer


def _ambiguous(game):
    """Actions whose last words name several things, so that the short name is ambiguous."""
    names = [a.removeprefix("look at ") for a in game.admissible() if a.startswith("look at ")]
    short = {name.rpartition(" in ")[0] for name in names if " in " in name}
    return [f"look at {name}" for name in sorted(short) if name]


def test_an_episode_survives_its_jvm(env, task, path):
    _, whole = play(env, task, path)
    game, start = play(env, task, path[:2])
    lost, replayed = env.pool.stats.lost, env.pool.stats.replayed_actions
    os.kill(env.pool.pids()[0], signal.SIGKILL)
    assert [*start, *(game.step(action) for action in path[2:])] == whole
    assert (env.pool.stats.lost - lost, env.pool.stats.replayed_actions - replayed) == (1, 2)


def test_a_fork_replays_in_one_call_and_goes_on(env, task, path):
    def orders(parent=None, step=0):
        return [
            Episode(
                id=f"{step}",
                task=task,
                round=0,
                attempt=0,
                max_steps=20,
                parent=parent,
                fork_step=step,
            )
        ]

    expert = gold.make(gold.Config(skip=0, wrong=0, stop=0), env=env)
    parent = loop.play_episodes_sync(env, expert, orders(), source="expert", env_timeout_s=600)[0]
    assert [step.action for step in parent.steps] == path
    fork = loop.play_episodes_sync(env, expert, orders(parent, 2), env_timeout_s=600)[0]
    assert (fork.outcome, fork.fork_step) == (Outcome.WON, 2)
    assert [s.observation for s in fork.steps] == [s.observation for s in parent.steps]
    assert fork.steps[:2] == parent.steps[:2]


def test_tasks_carry_their_caps_and_types():
    env = scienceworld.make(scienceworld.Config())
    assert env.max_steps == 120 and len(env.tasks("train")) == 3592
    first = env.tasks("train")[: len(TASK_TYPES)]
    assert {task.tags[0] for task in first} == set(TASK_TYPES)
    assert {task.max_steps for task in first if "find-plant" in task.tags} == {15}
    assert not env.pool.pids()


@pytest.mark.parametrize(
    ("preset", "sizes"), [("demo", [96, 48, 96]), ("llama3_8b", [1483, 194, 211])]
)
def test_the_shipped_config_makes_it(preset, sizes):
    config = config_lib.read(configs.get_config(preset).to_dict())
    env = config_lib.make("env", config.env)
    assert [len(env.tasks(split)) for split in ("train", "dev", "test")] == sizes
    assert config_lib.make("expert", config.expert, env=env)


def test_an_overlap_of_index_files_is_said(tmp_path, caplog):
    for name in ("train", "dev"):
        (tmp_path / name).write_text('[["boil", 1]]')
    with caplog.at_level(logging.WARNING):
        env = scienceworld.make(
            scienceworld.Config(
                train_indices=str(tmp_path / "train"), dev_indices=str(tmp_path / "dev")
            )
        )
    assert env.overlap == {"train, dev": 1}
    assert "the splits train, dev share 1 variations" in caplog.text
    assert not env.tasks("test")
