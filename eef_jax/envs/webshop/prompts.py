"""How the shop talks to an agent: prompt presets, and the actions in an agent's messages.

A preset is texts and a parser; it knows no pages. `action` is the shortest (a message is an action,
and the first page is the first message); `react` asks for a thought before each action, in ETO's
convention; `admissible` tells after each page what can be done there, as verl-agent does. Texts of
other people's come from files (`prompt_file`).
"""

import dataclasses

from eef_jax.envs.webshop.game import parse_action
from eef_jax.types import Message


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A way of talking.

    Attributes:
        messages: what stands before the first observation.
        observation: text before every observation.
        listing: text after every page, before the actions that lead somewhere from it; "": they are
            not told.
        marker: what stands before the action in a message, and after the thought; "": nothing does.
        end: what stands after the action in a message that the shop renders.
        invalid: what an agent reads after a message without an action, which costs it a step.
        max_steps: default cap on an agent's actions.
    """

    messages: tuple[Message, ...] = ()
    observation: str = ""
    listing: str = ""
    marker: str = ""
    end: str = ""
    invalid: str
    max_steps: int = 15

    def parse(self, message: str) -> str | None:
        """The action in a message, cut at its closing bracket; None where there is none.

        With a marker, the action is what follows the marker's first occurrence; with an end, it is
        over before that.
        """
        _, marked, rest = message.partition(self.marker) if self.marker else ("", "yes", message)
        action = (rest.partition(self.end)[0] if self.end else rest).strip()
        parts = parse_action(action) if marked else None
        if parts is None:
            return None
        verb, argument = parts
        return action[: len(verb) + len(argument) + 2]

    def render(self, action: str) -> str:
        """A message that says `action`."""
        return self.marker + action + self.end


_TASK = """\
You are shopping in a web shop. Each turn shows you the text of a page; find and buy the product \
that the instruction asks for.
"""
_RULES = """
search[keywords] looks for products; it works best from the first page.
click[name] follows what stands on the page: a product's id, an option's value, or a button such \
as Next >, < Prev, Description, Back to Search or Buy Now.
Choose all wanted options on the product's page before you buy: leaving that page for the results \
forgets them. Buy Now ends the task. An action that the page does not offer does nothing."""
_REACT = """\
Answer every page with one thought and one action, in exactly this form:

Thought: why you do what you do next
Action: search[keywords] or click[name]
"""
_ADMISSIBLE = """\
Below each page stand the actions that it allows. Answer with your reasoning and one of them, in \
exactly this form, with keywords of your own where the list says search[words]:

<think>why you do what you do next</think><action>click[name]</action>
"""

PRESETS = {
    "action": Preset(
        invalid="Invalid action. Say search[keywords] or click[name].",
    ),
    "react": Preset(
        messages=(
            Message(role="user", content=_TASK + _REACT + _RULES),
            Message(role="assistant", content="OK"),
        ),
        observation="Observation:\n",
        marker="Action: ",
        invalid=(
            "Observation: Invalid format. Write 'Action: ' and then search[words] or click[name]."
        ),
        max_steps=10,
    ),
    "admissible": Preset(
        messages=(
            Message(role="user", content=_TASK + _ADMISSIBLE + _RULES),
            Message(role="assistant", content="OK"),
        ),
        listing="\n\nAdmissible actions: ",
        marker="<action>",
        end="</action>",
        invalid=(
            "Invalid format. Write <action>, one of the admissible actions, and then </action>."
        ),
    ),
}
