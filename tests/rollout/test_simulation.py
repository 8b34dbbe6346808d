"""Calls of an environment that fail: repeated on a fresh game, then infrastructure's."""

import logging
import threading

import pytest

from eef_jax.envs.base import StepResult
from eef_jax.policies.scripted import ScriptedPolicy
from eef_jax.rollout import loop
from eef_jax.types import Episode, Outcome
from tests.toygame import Corridor, Game, solve

SOLVER = ScriptedPolicy(solve, name="solver")
LONG = "x" * 1001


class Flaky(Corridor):
    """A corridor whose calls fail: `faults` maps a function's name to what its next calls do."""

    def __init__(self, **faults):
        super().__init__()
        self.faults = {name: list(each) for name, each in faults.items()}
        self.released = threading.Event()

    def disturbed(self, name, function, *args):
        fault = self.faults[name].pop(0) if self.faults.get(name) else None
        if fault is HANG:
            self.released.wait()
        if isinstance(fault, Exception):
            raise fault
        result = function(*args)
        return result if fault is None else fault(result)

    def prompt(self, task):
        return self.disturbed("prompt", super().prompt, task)

    def parse(self, message):
        return self.disturbed("parse", super().parse, message)

    def is_win(self, reward):
        return self.disturbed("is_win", super().is_win, reward)

    def invalid(self, message):
        return self.disturbed("invalid", super().invalid, message)

    def game(self):
        self.games.append(FlakyGame(self))
        return self.disturbed("game", lambda: self.games[-1])


class FlakyGame(Game):
    def reset(self, task):
        return self.env.disturbed("reset", super().reset, task)

    def step(self, action):
        return self.env.disturbed("step", super().step, action)

    def close(self):
        return self.env.disturbed("close", super().close)


HANG = object()
CRASH = RuntimeError("the simulator died")
GARBAGE = lambda result: 7
FUNCTIONS = ("prompt", "parse", "is_win", "game", "reset", "step")


def order(env, **fields):
    fields = {"id": "x", "round": 1, "attempt": 0, "max_steps": 20} | fields
    return Episode(task=env.tasks("train")[3], **fields)


def play(env, policy=SOLVER, *, episode=None, **options):
    options = {"env_timeout_s": 0.1, "max_observation": 1000} | options
    orders = [episode or order(env)]
    try:
        return loop.play_episodes_sync(env, policy, orders, **options)[0]
    finally:
        if isinstance(env, Flaky):
            env.released.set()


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("fault", [CRASH, HANG, GARBAGE], ids=["crash", "hang", "garbage"])
def test_a_call_that_fails_is_repeated_and_leaves_no_trace(function, fault):
    assert play(Flaky(**{function: [fault, None, fault]})) == play(Corridor())


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("fault", "outcome"),
    [(CRASH, Outcome.ENV_ERROR), (HANG, Outcome.ENV_TIMEOUT), (GARBAGE, Outcome.ENV_ERROR)],
    ids=["crash", "hang", "garbage"],
)
def test_after_the_last_attempt_it_is_infrastructures_failure(function, fault, outcome):
    got = play(Flaky(**{function: [fault] * 2}), env_attempts=2)
    assert (got.outcome, got.win) == (outcome, False)
    assert got.reason


@pytest.mark.parametrize("at", range(6))
def test_a_fresh_game_does_the_actions_so_far(at):
    env = Flaky(step=[None] * at + [CRASH])
    assert play(env) == play(Corridor())
    assert len(env.games) == 2 and all(game.closed for game in env.games)


def test_a_game_that_hangs_is_not_touched_again():
    env = Flaky(step=[None, HANG])
    assert play(env) == play(Corridor())
    assert [game.closed for game in env.games] == [False, True]


def test_a_fork_is_brought_back_as_well():
    whole = play(Corridor())
    fork = {"parent": whole, "fork_step": 3}
    clean = play(Corridor(), episode=order(Corridor(), **fork))
    env = Flaky(step=[None, CRASH, None, None, None, CRASH])
    assert play(env, episode=order(env, **fork)) == clean
    assert len(env.games) == 3


def test_an_environment_that_does_not_repeat_itself_diverges():
    class Restless(Flaky):
        def game(self):
            game = super().game()
            number = len(self.games)
            look = game._look
            game._look = lambda: f"{look()}, day {number}"
            return game

    got = play(Restless(step=[None, None, CRASH]))
    assert (got.outcome, len(got.steps)) == (Outcome.DIVERGED, 2)
    assert "day 1" in got.reason and "day 2" in got.reason


@pytest.mark.parametrize(
    "wrong",
    [
        lambda r: StepResult(observation=LONG, reward=0.0),
        lambda r: StepResult(observation="", reward=10**400),
        lambda r: StepResult(observation="", reward=0.0, terminated="no"),
        lambda r: StepResult(observation="", reward=0.0, info={"rewards": None}),
        lambda r: StepResult(observation="", reward=0.0, info={"rewards": {"best": "1"}}),
        lambda r: StepResult(observation="", reward=0.0, info={"deep": nested(3000)}),
    ],
)
def test_what_a_step_may_not_return_is_repeated(wrong):
    env = Flaky(step=[wrong])
    assert play(env) == play(Corridor())
    assert len(env.games) == 2
    assert play(Flaky(step=[wrong] * 3)).outcome is Outcome.ENV_ERROR


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("function", ["reset", "invalid"])
def test_a_long_observation_says_what_is_expected(function):
    mumbling = ScriptedPolicy(lambda r: "hm", name="mumbling")
    got = play(Flaky(**{function: [lambda text: LONG] * 3}), mumbling)
    assert got.outcome is Outcome.ENV_ERROR
    assert "1,001 characters, expected at most 1,000 (config.rollout.max_obs" in got.reason


def test_what_json_changes_is_recorded_as_it_is_read_back():
    info = {"pair": (1, 2), 3: "three"}
    env = Flaky(step=[lambda r: StepResult(observation="\ud83d\ude00", reward=0.0, info=info)])
    got = play(env)
    assert got.steps[0].info == {"pair": [1, 2], "3": "three"}
    assert got.steps[1].observation == "😀"


@pytest.mark.parametrize("fault", [CRASH, HANG], ids=["crash", "hang"])
def test_a_game_that_cannot_be_closed_costs_no_episode(fault, caplog):
    with caplog.at_level(logging.WARNING):
        assert play(Flaky(close=[fault])) == play(Corridor())
    assert "a game could not be closed" in caplog.text


def test_repeated_calls_and_threads_left_behind_are_told(caplog):
    with caplog.at_level(logging.WARNING):
        play(Flaky(step=[HANG, None, CRASH]))
    assert "environment calls that failed and were repeated: 2" in caplog.text
    assert "1 x env_error: RuntimeError: the simulator died" in caplog.text
    assert "environment calls that exceeded the time limit: 1;" in caplog.text


@pytest.mark.parametrize("function", ["prompt", "parse", "is_win"])
def test_a_hanging_function_does_not_keep_the_others_waiting(function):
    env = Flaky(**{function: [HANG]})
    orders = [order(env, id=str(n)) for n in range(20)]
    try:
        got = loop.play_episodes_sync(env, SOLVER, orders, env_timeout_s=0.5)
    finally:
        env.released.set()
    assert all(one.win for one in got)
