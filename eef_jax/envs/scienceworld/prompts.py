"""ScienceWorld's prompt presets.

`react` is ETO's convention: an instruction, `OK`, the task; then `Thought:` and `Action:` on
separate lines, and `Observation: ` before each observation; the first room is not shown. `agentgym`
is AgentGym's: task and first room, and the action on the line after `Action:`. With `action` a
message is an action. The texts are written for this package; the originals' can be read from a
file (`prompt_messages`).
"""

import dataclasses
import json

from etils import epath

from eef_jax.envs._prompt import Preset, parse_messages, told
from eef_jax.errors import DataError, check_one_of

_TASK = """\
You are in a small world of ten rooms with things, plants, animals and devices in them, and have a \
task of elementary science to do there. Each turn you say one action and are told what comes of it.
"""
_RULES = """
Actions, with names of things, places and devices as the world calls them:
open THING / close THING: a door or container
activate DEVICE / deactivate DEVICE: switch it on or off
connect THING to THING / disconnect THING: parts of a circuit
use THING, use THING on THING
look around: the room; look at THING, look in THING; inventory: what you carry; task: the task again
read THING; eat THING; mix CONTAINER: let its content react
move THING to PLACE; pick up THING; put down THING; flush THING
pour THING into CONTAINER; dunk CONTAINER into LIQUID
go to PLACE: a room next to this one; teleport to PLACE: any room, where that is allowed
focus on THING: tell that this is what the task asks for. Focus on nothing else: a wrong focus \
fails the task for good.
wait1: let a moment pass; wait: let ten pass
When the world asks which of several things you mean, answer with the number alone."""
_ACTION = """
Answer every observation with one action and nothing else.
"""
_REACT = """
Answer every observation with one thought and one action, in exactly this form:

Thought: why you do what you do next
Action: the action
"""
_AGENTGYM = """
Answer every observation with a thought and an action, in exactly this form:

Thought:
why you do what you do next

Action:
the action
"""

PRESETS = {
    "react": Preset(
        instructions=_TASK + _REACT + _RULES,
        messages=told(_TASK + _REACT + _RULES),
        opening="{task}",
        observation="Observation: ",
        thought="Thought: {thought}\n",
        marker="Action:",
        gap=" ",
        invalid="Observation: Invalid format. Write 'Action: ' and then the action.",
    ),
    "agentgym": Preset(
        instructions=_TASK + _AGENTGYM + _RULES,
        messages=told(_TASK + _AGENTGYM + _RULES, answer="Ok."),
        thought="Thought:\n{thought}\n\n",
        marker="Action:",
        gap="\n",
        invalid="Invalid format. Write 'Action:' and the action on the next line.",
    ),
    "action": Preset(
        instructions=_TASK + _ACTION + _RULES,
        invalid="Say an action, such as: look around",
    ),
}


def find(name: str, messages: str = "") -> Preset:
    """Look up a preset by name, optionally with its messages replaced by those of a file.

    Args:
        name: one of `PRESETS`.
        messages: path of a JSON list of `{"role": ..., "content": ...}`, the last one not the
            user's, because the task follows; "": the preset's own messages.

    Raises:
        ConfigError: there is no such preset.
        DataError: the file cannot be read or holds anything else.
    """
    check_one_of("env.prompt", name, PRESETS)
    if not messages:
        return PRESETS[name]
    try:
        parsed = parse_messages(json.loads(epath.Path(messages).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"env.prompt_messages: {messages} is not a JSON list of messages: {error}"
        ) from error
    return dataclasses.replace(PRESETS[name], messages=parsed)
