"""How the shop talks to an agent: prompt presets, and the actions in an agent's messages.

A preset is text and a parser; it knows no pages. `action` is the shortest (a message is an action,
and the first page is the first message); `react` asks for a thought before each action.
"""

import dataclasses
import re

from eef_jax.envs.webshop.game import split_action
from eef_jax.errors import ConfigError, near
from eef_jax.types import Message


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A way of talking.

    Attributes:
        messages: what stands before the first observation.
        observation: text before every observation.
        marker: what stands before the action in a message, and after the thought; "": nothing does.
        invalid: what an agent reads after a message without an action.
    """

    messages: tuple[Message, ...] = ()
    observation: str = ""
    marker: str = ""
    invalid: str

    def parse(self, message: str) -> str | None:
        """The action in a message, cut at its closing bracket; None where there is none.

        With a marker, the action is what follows the marker's first occurrence.
        """
        found = re.search(rf"{re.escape(self.marker)}(.*)", message, re.DOTALL)
        action = found[1].strip() if found else ""
        parts = split_action(action)
        if parts is None:
            return None
        verb, argument = parts
        return action[: len(verb) + len(argument) + 2]

    def render(self, action: str) -> str:
        """A message that says `action`."""
        return self.marker + action


_REACT = """\
You are shopping in a web shop. Each turn shows you the text of a page; find and buy the product \
that the instruction asks for.
Answer every page with one thought and one action, in exactly this form:

Thought: why you do what you do next
Action: search[keywords] or click[name]

search[keywords] looks for products; it works best from the first page.
click[name] follows what stands on the page: a product's id, an option's value, or a button such \
as Next >, < Prev, Description, Back to Search or Buy Now.
Choose all wanted options on the product's page before you buy: leaving that page for the results \
forgets them. Buy Now ends the task. An action that the page does not offer does nothing."""

PRESETS = {
    "action": Preset(
        invalid="Invalid action. Say search[keywords] or click[name].",
    ),
    "react": Preset(
        messages=(
            Message(role="user", content=_REACT),
            Message(role="assistant", content="OK"),
        ),
        observation="Observation:\n",
        marker="Action: ",
        invalid=(
            "Observation: Invalid format. Write 'Action: ' and then search[words] or click[name]."
        ),
    ),
}


def preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown webshop prompt {name!r} (env.prompt); {near(name, PRESETS)}")
    return PRESETS[name]
