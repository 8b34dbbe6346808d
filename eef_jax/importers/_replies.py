"""Where a reply holds its action, and what of it is the thought.

The action follows the last `Action:`, on the same line or a later one; without that word it is the
only action that the reply holds. Agents quote forms and earlier actions, so a reply with several
and no `Action:` is one without an action.
"""

import re

from eef_jax.envs.base import Env
from eef_jax.importers.base import Said

_MARKER = re.compile(r"Action:")
_WORD = re.compile(r"(?<![\w\[])\w")
_FRAMES = re.compile(r"^\s*Thought:\s*|</?think>|<action>\s*$")


def action_and_thought(reply: Said, env: Env) -> tuple[str | None, str]:
    """The action of a reply, None if there is none, and the thought before it.

    Args:
        reply: what the agent said.
        env: whose grammar says what an action is.
    """
    text = reply.content
    action, start = _find(text, env)
    if reply.action is not None and reply.action != action:
        action = reply.action
        start = text.rfind(action) if action in text else 0
    head = text[: max(start, 0)] if action is not None else text
    markers = list(_MARKER.finditer(head))
    if markers:
        head = head[: markers[-1].start()]
    thought = _FRAMES.sub("", head.strip()).strip()
    return action, thought or reply.thought.strip()


def _find(text: str, env: Env) -> tuple[str | None, int]:
    """The action and where it begins."""
    markers = list(_MARKER.finditer(text))
    if markers:
        end = markers[-1].end()
        if (action := _action(text[end:], env)) is not None:
            return action, end
    # From the end, each up to the next: a grammar may take everything up to the last bracket.
    found: dict[str, int] = {}
    end = len(text)
    for start in reversed([word.start() for word in _WORD.finditer(text)]):
        if (action := _action(text[start:end], env)) is not None:
            found[action] = end = start
    if len(found) == 1:
        return next(iter(found.items()))
    if len(text.strip().splitlines()) == 1 and (action := _action(text, env)) is not None:
        return action, 0
    action = env.parse(text)
    return action, text.rfind(action) if action else 0


def _action(text: str, env: Env) -> str | None:
    """The action that a text starts with, by the environment's grammar."""
    return env.parse(env.render(text.strip())) if text.strip() else None
