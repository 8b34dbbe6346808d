"""What an environment may return for an action; anything else is its fault, not the policy's."""

import json
import math
from typing import Any

from eef_jax.envs.base import StepResult

_ROUNDING = 1e-6  # of a sum of rewards
_SHOWN = 60  # characters of a value in a message


def fault_of_step(result: Any, reward: float) -> str:
    """What is wrong with the result of a step; "" if nothing is.

    Args:
        result: what `Game.step` returned.
        reward: the episode's reward before the step (0-1).
    """
    if not isinstance(result, StepResult):
        return f"step returned {_shown(result)}, expected a StepResult"
    if fault := fault_of_text(result.observation):
        return fault
    if isinstance(result.reward, bool) or not isinstance(result.reward, int | float):
        return f"a reward is {_shown(result.reward)}, expected a number"
    total = reward + result.reward
    if not math.isfinite(total) or not -_ROUNDING <= total <= 1 + _ROUNDING:
        return f"a reward of {result.reward!r} makes {total!r}, expected 0 to 1"
    try:
        json.dumps(dict(result.info), allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"a step's info is {_shown(result.info)}, expected JSON values ({error})"
    return ""


def fault_of_text(observation: Any) -> str:
    """What is wrong with an observation; "" if nothing is."""
    if isinstance(observation, str):
        return ""
    return f"an observation is {_shown(observation)}, expected text"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
