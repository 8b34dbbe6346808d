"""Observations with what was seen and done before, as the original's `num_prev_*` options ask.

A history holds the last few texts and no more, so an episode's snapshot stays small however long
the episode is.
"""

import dataclasses
import itertools

from eef_jax.envs.webshop.views import SEPARATOR


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The last observations and actions of an episode, newest first.

    Attributes:
        observations: of pages alone, without what was put before them.
        actions: as the agent said them, those that did nothing included.
    """

    observations: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


EMPTY = History()


def initial_history(observation: str, *, observations: int) -> History:
    """The history after a reset, of which `observations` are kept."""
    return History(observations=(observation,)[:observations])


def extend_history(
    past: History, action: str, observation: str, *, observations: int, actions: int
) -> tuple[str, History]:
    """What an agent reads after an action, and the history from then on.

    Args:
        past: the history before the action.
        action: what the agent did.
        observation: the page that it led to.
        observations: how many earlier observations an agent reads again.
        actions: how many actions it reads again, this one included.

    Returns:
        Texts from the oldest to the newest, `[SEP]` between them, each action after the observation
        it was said to; and the new history.
    """
    said = (action, *past.actions)[:actions]
    texts = [observation]
    for pair in itertools.zip_longest(said, past.observations):
        texts += [text for text in pair if text is not None]
    seen = (observation, *past.observations)[:observations]
    return SEPARATOR.join(reversed(texts)), History(observations=seen, actions=said)
