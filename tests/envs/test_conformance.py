"""What every environment must do; they are found by module name, so a new one needs no change here.

An environment whose `make()` needs files or packages that are missing is skipped with the reason.
"""

import contextlib
import dataclasses
import functools
import gc
import importlib
import json
import os
import pathlib
import random
import threading

import pytest

from eef_jax import plugins
from eef_jax.envs import base
from eef_jax.envs.base import Env, Game, StepResult, SupportsInstructions
from eef_jax.errors import ConfigError, EnvError
from eef_jax.types import Message, Task

NAMES = plugins.available("envs")
GARBAGE = (
    *("", " ", "\n", "[", "]", "[]", "click", "click[]", "search[", "click[[x]]", "a" * 10_000),
    *("Action:", "Action: \n", "\x00\ud7ff\ufffe", "🙂[🙂]", "-1", "None", "{}", '{"action": 1}'),
)


def marked(name: str):
    """The name as a parameter; an environment whose section counts JVMs starts them."""
    return pytest.param(name, marks=pytest.mark.java if uses_java(name) else ())


def uses_java(name: str) -> bool:
    section = importlib.import_module(f"eef_jax.envs.{name}").Config
    return "jvms" in {field.name for field in dataclasses.fields(section)}


def make(name: str) -> Env:
    """The environment; simulators share one JVM, so that games side by side need replays."""
    module = importlib.import_module(f"eef_jax.envs.{name}")
    return module.make(module.Config(**({"jvms": 1} if uses_java(name) else {})))


@pytest.fixture(scope="module", params=map(marked, NAMES))
def env(request, recycled_jvms):
    try:
        made = make(request.param)
    except (ConfigError, EnvError) as error:
        pytest.skip(f"{request.param}: {error}")
    yield made
    made.close()


def steps(env: Env) -> int:
    """How far a walk goes: a simulator takes a tenth of a second for a step."""
    return 5 if hasattr(env, "pool") else 12


def cuts(actions: list[str]) -> list[int]:
    """Where to cut a walk in two."""
    return sorted({0, 1, len(actions) // 2, len(actions) - 1, len(actions)})


def propose(game: Game, observation: str, rng: random.Random) -> str:
    """Something to do: a thing that the game says can be done, else words of the observation."""
    words = rng.sample(observation.split(), min(3, len(observation.split())))
    if hasattr(game, "clickables"):
        if rng.random() < 0.8 and game.clickables():
            return f"click[{rng.choice(game.clickables())}]"
        return f"search[{' '.join(words)}]"
    possible = game.admissible() if hasattr(game, "admissible") and rng.random() < 0.8 else []
    return rng.choice(possible) if possible else " ".join(words)


@functools.cache
def walk(env: Env, task: Task, seed: int) -> tuple[list[str], list[StepResult]]:
    """Play at random up to the end; returns the actions and what came of each."""
    rng, game, actions, results = random.Random(seed), env.game(), [], []
    observation = game.reset(task)
    while len(actions) < steps(env) and not (
        results and (results[-1].terminated or results[-1].truncated)
    ):
        actions.append(propose(game, observation, rng))
        results.append(game.step(actions[-1]))
        observation = results[-1].observation
    game.close()
    return actions, results


def replay(game: Game, actions: list[str]) -> list[StepResult]:
    return [game.step(action) for action in actions]


def some_tasks(env: Env) -> list[Task]:
    count = 1 if hasattr(env, "pool") else 2
    return [task for split in ("train", "dev", "test") for task in list(env.tasks(split))[:count]]


def test_tasks_are_named_once_and_keep_their_order(env):
    tasks = [task for split in ("train", "dev", "test") for task in env.tasks(split)]
    assert tasks
    assert len({task.id for task in tasks}) == len(tasks)
    for split in ("train", "dev", "test"):
        assert list(env.tasks(split)) == list(env.tasks(split))
        assert all(task.env == env.name and task.split == split for task in env.tasks(split))


def test_made_again_it_is_the_same(env):
    again = make(env.name)
    assert again.dataset_id == env.dataset_id
    assert list(again.tasks("train")) == list(env.tasks("train"))
    again.close()


def test_a_task_survives_json(env):
    for task in some_tasks(env):
        row = json.loads(json.dumps(dataclasses.asdict(task)))
        assert Task(**row | {"tags": tuple(row["tags"])}) == task
        assert isinstance(json.loads(task.payload), dict)


def test_the_prompt_is_messages(env):
    for task in some_tasks(env):
        messages = env.prompt(task)
        assert isinstance(messages, tuple)
        assert all(isinstance(message, Message) for message in messages)
        assert not messages or messages[-1].role in ("system", "assistant")


def test_an_untuned_agent_is_told_what_to_do(env):
    prompts = [env.prompt(task) for task in some_tasks(env)]
    assert isinstance(env, SupportsInstructions)
    assert all(bool(prompt) != bool(env.instructions) for prompt in prompts)


def test_results_are_in_range_and_plain(env):
    for seed, task in enumerate(some_tasks(env)):
        paid = 0.0
        for result in walk(env, task, seed)[1]:
            paid += result.reward
            assert isinstance(result.observation, str)
            assert -1e-9 <= paid <= 1 + 1e-9
            assert json.loads(json.dumps(dict(result.info))) == dict(result.info)


def test_equal_actions_give_equal_results(env):
    for seed, task in enumerate(some_tasks(env)):
        actions, results = walk(env, task, seed)
        game = env.game()
        assert game.reset(task) == game.reset(task)
        assert replay(game, actions) == results
        game.close()


def test_any_prefix_can_be_replayed_and_gone_on_from(env):
    task = some_tasks(env)[0]
    actions, results = walk(env, task, 0)
    for cut in cuts(actions):
        game = env.game()
        game.reset(task)
        replay(game, actions[:cut])
        assert replay(game, actions[cut:]) == results[cut:]
        game.close()


def test_a_fork_is_no_different_from_no_fork(env):
    task = some_tasks(env)[0]
    actions, results = walk(env, task, 0)
    game, other = env.game(), env.game()
    for cut in cuts(actions):
        game.reset(task)
        replay(game, actions[:cut])
        try:
            state = game.save()
        except NotImplementedError:
            pytest.skip(f"{env.name} has no snapshots: forks replay actions")
        other.restore(state)
        assert replay(other, actions[cut:]) == results[cut:]
        game.restore(state)  # the other game's steps have not touched the snapshot
        assert replay(game, actions[cut : cut + 1]) == results[cut : cut + 1]


def test_many_actions_in_one_go_are_no_different(env):
    task = some_tasks(env)[0]
    actions, results = walk(env, task, 0)
    game = env.game()
    game.reset(task)
    assert base.replay(game, [*actions, "look"])[: len(actions)] == results
    game.close()


def test_games_side_by_side_do_not_meet(env):
    tasks = some_tasks(env)
    walks = [walk(env, task, seed) for seed, task in enumerate(tasks)]
    games = [env.game() for _ in tasks]
    for game, task in zip(games, tasks, strict=True):
        game.reset(task)
    for turn in range(steps(env)):
        for game, (actions, results) in zip(games, walks, strict=True):
            if turn < len(actions):
                assert game.step(actions[turn]) == results[turn]


def test_garbage_never_raises(env):
    task = some_tasks(env)[0]
    game = env.game()
    game.reset(task)
    for text in GARBAGE:
        action = env.parse(text)
        assert action is None or isinstance(action, str)
        assert isinstance(env.invalid(text), str)
        result = game.step(text)
        assert isinstance(result.observation, str)
        if result.terminated or result.truncated:
            game.reset(task)


def test_a_rendered_action_is_parsed_back(env):
    found = 0
    for seed, task in enumerate(some_tasks(env)):
        for action in walk(env, task, seed)[0]:
            parsed = env.parse(env.render(action))
            assert env.parse(env.render(action, "It may help.")) == parsed
            if parsed is not None:  # words of an observation need not be an action
                assert parsed == action
                found += 1
    assert found


def test_only_a_full_reward_is_a_win(env):
    assert env.is_win(1.0)
    assert not env.is_win(0.5)
    assert not env.is_win(0.0)


def test_caps_are_positive(env):
    assert env.max_steps > 0
    assert all(0 < task.cap(env.max_steps) <= env.max_steps for task in some_tasks(env))


def children() -> set[int]:
    """Process ids of this process's children, including zombies."""
    found = set()
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(path.parent.name))
    return found


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "forgotten"])
def test_no_process_and_no_thread_is_left(env, closed, own_jvms):
    before, threads = children(), set(threading.enumerate())
    again = make(env.name)
    game = again.game()
    game.reset(some_tasks(env)[0])
    if closed:
        game.close()
        game.close()
        again.close()
        again.close()
    del game, again
    gc.collect()
    assert children() == before
    assert set(threading.enumerate()) == threads
