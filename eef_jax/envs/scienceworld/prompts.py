"""How ScienceWorld talks to an agent: prompt presets, and the action in an agent's message.

`react` is ETO's convention (an instruction, `OK`, the task; then `Thought:` and `Action:` on lines
of their own, `Observation: ` before each answer; the first room is not shown), `agentgym` is
AgentGym's (task and first room; the action on the line after `Action:`), `action` is the shortest:
a message is an action. The words are our own; other people's messages come from a file. Knows
texts, no simulator.
"""

import dataclasses
import json
import pathlib

from eef_jax.errors import ConfigError, DataError, did_you_mean
from eef_jax.types import Message


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A way of talking.

    Attributes:
        messages: what stands before the task.
        opening: the first observation, of `{task}` and `{room}`.
        observation: text before every later observation.
        marker: what stands before the action in a message, and after the thought; "": nothing does.
        gap: what a rendered message has between the marker and the action.
        invalid: what an agent reads after a message without an action, which costs it a step.
    """

    messages: tuple[Message, ...] = ()
    opening: str = "{task}\n{room}"
    observation: str = ""
    marker: str = ""
    gap: str = ""
    invalid: str

    def parse(self, message: str) -> str | None:
        """The first line that says something after the (first) marker; None where there is none."""
        _, marked, rest = message.partition(self.marker) if self.marker else ("", "yes", message)
        lines = (line.strip() for line in rest.splitlines()) if marked else iter(())
        return next((line for line in lines if line), None)

    def render(self, action: str) -> str:
        """A message that says `action`."""
        return self.marker + self.gap + action


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
        messages=(
            Message(role="user", content=_TASK + _REACT + _RULES),
            Message(role="assistant", content="OK"),
        ),
        opening="{task}",
        observation="Observation: ",
        marker="Action:",
        gap=" ",
        invalid="Observation: Invalid format. Write 'Action: ' and then the action.",
    ),
    "agentgym": Preset(
        messages=(
            Message(role="user", content=_TASK + _AGENTGYM + _RULES),
            Message(role="assistant", content="Ok."),
        ),
        marker="Action:",
        gap="\n",
        invalid="Invalid format. Write 'Action:' and the action on the next line.",
    ),
    "action": Preset(invalid="Say an action, such as: look around"),
}


def find(name: str, messages: str = "") -> Preset:
    """A preset by name, with the messages of a file in place of its own.

    Args:
        name: one of `PRESETS`.
        messages: path of a JSON list of `{"role": ..., "content": ...}`; "": the preset's own. The
            last message must not be the user's, because the task is.

    Raises:
        ConfigError: there is no such preset.
        DataError: the file is not what it should be.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown prompt {name!r} (env.prompt); {did_you_mean(name, PRESETS)}")
    if not messages:
        return PRESETS[name]
    try:
        rows = json.loads(pathlib.Path(messages).read_text("utf-8"))
        said = tuple(Message(role=row["role"], content=row["content"]) for row in rows)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"env.prompt_messages: {messages} is no JSON list of objects with role and content: "
            f"{error}"
        ) from error
    if said and (said[-1].role == "user" or any(m.role not in _ROLES for m in said)):
        raise DataError(
            f"env.prompt_messages: {messages} has roles {[m.role for m in said]}, expected some of "
            f"{', '.join(_ROLES)}, the last one not user: the task follows"
        )
    return dataclasses.replace(PRESETS[name], messages=said)


_ROLES = ("system", "user", "assistant")
