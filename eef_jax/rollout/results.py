"""What an environment may return; anything else is its fault, not the policy's."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from eef_jax.envs.base import StepResult
from eef_jax.types import Message
from eef_jax.untrusted import joined

_ROUNDING = 1e-6  # of a sum of rewards
_SHOWN = 60  # characters of a value in a message


def fault_of_step(result: Any, reward: float, *, max_observation: int) -> str:
    """What is wrong with the result of a step; "" if nothing is.

    Args:
        result: what `Game.step` returned.
        reward: the episode's reward before the step (0-1).
        max_observation: most characters of an observation.
    """
    if not isinstance(result, StepResult):
        return f"step returned {_shown(result)}, expected a StepResult"
    if fault := fault_of_text(result.observation, max_observation=max_observation):
        return fault
    for name in ("terminated", "truncated"):
        if fault := fault_of_truth(getattr(result, name), name):
            return fault
    return _fault_of_reward(result.reward, reward) or _fault_of_info(result.info)


def fault_of_steps(results: Any, actions: int, reward: float, *, max_observation: int) -> str:
    """What is wrong with the results of several actions; "" if nothing is.

    Args:
        results: what `base.replay` returned: one for each action, up to the task's end.
        actions: how many were to be done.
        reward: the episode's reward before them (0-1).
        max_observation: most characters of an observation.
    """
    if not isinstance(results, list):
        return f"replay returned {_shown(results)}, expected a list of StepResult"
    ended = False
    for result in results:
        if fault := fault_of_step(result, reward, max_observation=max_observation):
            return fault
        reward += result.reward
        ended = bool(result.terminated or result.truncated)
    if len(results) > actions or (len(results) < actions and not ended):
        return f"replay returned {len(results)} results for {actions} actions"
    return ""


def fault_of_text(observation: Any, *, max_observation: int) -> str:
    """What is wrong with an observation; "" if nothing is.

    Args:
        observation: what should be text.
        max_observation: most characters of it.
    """
    if not isinstance(observation, str):
        return f"an observation is {_shown(observation)}, expected text"
    if len(observation) > max_observation:
        return (
            f"an observation has {len(observation):,} characters, expected at most "
            f"{max_observation:,} (config.rollout.max_observation); it begins with "
            f"{_shown(observation[:_SHOWN])}"
        )
    return ""


def fault_of_opening(opening: tuple[Any, Any], *, max_observation: int) -> str:
    """What is wrong with the beginning of a task; "" if nothing is.

    Args:
        opening: what should be messages, and the first observation.
        max_observation: most characters of that.
    """
    prompt, first = opening
    if not isinstance(prompt, Sequence) or not all(isinstance(m, Message) for m in prompt):
        return f"prompt returned {_shown(prompt)}, expected messages"
    return fault_of_text(first, max_observation=max_observation)


def fault_of_turn(turn: tuple[Any, Any], reward: float, *, max_observation: int) -> str:
    """What is wrong with a turn; "" if nothing is.

    Args:
        turn: the action and the result of its step, or None and an observation.
        reward: the episode's reward before it (0-1).
        max_observation: most characters of an observation.
    """
    action, result = turn
    if action is None:
        return fault_of_text(result, max_observation=max_observation)
    if not isinstance(action, str):
        return f"parse returned {_shown(action)}, expected text or None"
    return fault_of_step(result, reward, max_observation=max_observation)


def fault_of_truth(value: Any, name: str = "is_win") -> str:
    """What is wrong with what should be true or false; "" if nothing is."""
    # NumPy's bool is no bool; comparing NumPy's numbers gives it.
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return ""
    return f"{name} is {_shown(value)}, expected True or False"


def as_stored(result: StepResult) -> StepResult:
    """A result without faults, equal to what is read back from a file."""
    observation, info = joined(result.observation), _plain(result.info)
    return dataclasses.replace(result, observation=observation, info=info)


def _fault_of_reward(paid: Any, before: float) -> str:
    if isinstance(paid, bool) or not isinstance(paid, int | float):
        return f"a reward is {_shown(paid)}, expected a number"
    try:
        total = before + paid
    except OverflowError:  # a whole number beyond all floats
        total = math.inf
    if not -_ROUNDING <= total <= 1 + _ROUNDING:  # so is no NaN
        return f"a reward of {_shown(paid)} makes {total!r}, expected 0 to 1"
    return ""


def _fault_of_info(info: Any) -> str:
    try:
        values = _plain(info)
    except Exception as error:  # any mapping of the environment's own may be there
        return f"a step's info is {_shown(info)}, expected JSON values ({error})"
    rewards = values.get("rewards", {})
    if not isinstance(rewards, dict) or not all(map(_is_number, rewards.values())):
        return f"a step's info has rewards {_shown(rewards)}, expected a number for each name"
    return ""


def _plain(info: Mapping[str, Any]) -> dict[str, Any]:
    """A step's info after JSON: lists for tuples, texts for keys."""
    return json.loads(json.dumps(dict(info), allow_nan=False))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # an object of the environment's own
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
