"""WebShop's prompt presets and its action grammar.

With `action` a message is an action, and the first page is the first message. `react` asks for a
thought before each action, in ETO's convention. `admissible` lists after each page the actions that
it allows, as verl-agent does. Other texts come from files (`prompt_file`).
"""

from eef_jax.envs._prompt import Preset, told
from eef_jax.envs.webshop.game import parse_action


def find_action(text: str) -> str | None:
    """The action that a text starts with, cut at its closing bracket; None where there is none."""
    action = text.strip()
    parts = parse_action(action)
    if parts is None:
        return None
    verb, argument = parts
    return action[: len(verb) + len(argument) + 2]


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
_ACTION = """\
Answer every page with one action and nothing else:

search[keywords] or click[name]
"""
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
        grammar=find_action,
        instructions=_TASK + _ACTION + _RULES,
        invalid="Invalid action. Say search[keywords] or click[name].",
        max_steps=15,
    ),
    "react": Preset(
        grammar=find_action,
        instructions=_TASK + _REACT + _RULES,
        messages=told(_TASK + _REACT + _RULES),
        observation="Observation:\n",
        thought="Thought: {thought}\n",
        marker="Action: ",
        invalid=(
            "Observation: Invalid format. Write 'Action: ' and then search[words] or click[name]."
        ),
        max_steps=10,
    ),
    "admissible": Preset(
        grammar=find_action,
        instructions=_TASK + _ADMISSIBLE + _RULES,
        messages=told(_TASK + _ADMISSIBLE + _RULES),
        listing="\n\nAdmissible actions: ",
        thought="<think>{thought}</think>",
        marker="<action>",
        end="</action>",
        invalid=(
            "Invalid format. Write <action>, one of the admissible actions, and then </action>."
        ),
        max_steps=15,
    ),
}
