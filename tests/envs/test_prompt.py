"""Prompt presets: what an agent is told, and where its messages hold the action."""

import pytest
from hypothesis import strategies as st

from eef_jax.envs import textworld_express
from eef_jax.envs._prompt import without_thoughts
from eef_jax.envs.scienceworld import prompts as scienceworld
from eef_jax.envs.webshop import prompts as webshop
from eef_jax.envs.webshop.prompt_file import preset as webshop_preset
from tests.properties import TEXTS, holds

# An action of each environment, and words of its grammar that an agent has to be told.
ENVS = {
    "webshop": (webshop.PRESETS, "click[buy now]", ("search[keywords]", "click[name]", "Buy Now")),
    "scienceworld": (scienceworld.PRESETS, "open door", ("open THING", "focus on", "wait1")),
    "textworld_express": (textworld_express.PRESETS, "take apple", ("take apple", "inventory")),
}
PRESETS = [
    pytest.param(preset, action, words, id=f"{env}-{name}")
    for env, (presets, action, words) in ENVS.items()
    for name, preset in presets.items()
]


@pytest.mark.parametrize(("preset", "action", "words"), PRESETS)
def test_every_preset_tells_an_untuned_agent_the_actions_and_their_form(preset, action, words):
    told = preset.untold() or preset.messages[0].content
    assert all(word in told for word in words)
    assert preset.marker.strip() in told and preset.end in told
    assert bool(preset.untold()) != bool(preset.messages)


@pytest.mark.parametrize(("preset", "action", "words"), PRESETS)
def test_the_action_after_the_thinking_counts(preset, action, words):
    meant = preset.render(action)
    quoted = preset.render("search[hats]")
    assert preset.parse(f"<think>I could say {quoted}.</think>{meant}") == action
    assert preset.parse(f"<think>\n{quoted}\n</think>\n\n{meant}") == action
    assert preset.parse(f"{quoted} came to mind</think>{meant}") == action  # begun by the template
    assert preset.parse(f"<think>a</think>{meant}") == preset.parse(meant)


@pytest.mark.parametrize(("preset", "action", "words"), PRESETS)
def test_a_thought_that_does_not_end_holds_no_action(preset, action, words):
    assert preset.parse(f"<think>So I say {preset.render(action)}") is None
    assert preset.parse(f"<think>a</think><think>{preset.render(action)}") is None


@pytest.mark.parametrize(
    ("message", "rest"),
    [
        ("go", "go"),
        ("<think>a</think>go", "go"),
        ("<think>a</think>go<think>b</think>", "go"),
        ("<think>one <think> in another</think>go", "go"),
        ("a</think>go", "go"),
        ("<think>a</think>", ""),
        ("<think>a", None),
        ("go <think>a", None),
    ],
)
def test_thoughts_are_left_out(message, rest):
    assert without_thoughts(message) == rest


def test_a_prompt_file_without_messages_leaves_the_instructions_to_served_models(tmp_path):
    path = tmp_path / "prompt.json"
    path.write_text('{"preset": "react", "messages": []}')
    assert webshop_preset(str(path)).untold() == webshop.PRESETS["react"].instructions
    path.write_text('{"preset": "action", "instructions": "Say click[name]."}')
    assert webshop_preset(str(path)).untold() == "Say click[name]."
    path.write_text('{"messages": [{"role": "system", "content": "Shop."}]}')
    assert webshop_preset(str(path)).untold() == ""


# Pieces that parsers look for, between any text.
PIECES = "<think>|</think>|Action:|Action: |Thought:|search[|click[|]|[|>|\n|look around".split("|")
MESSAGES = st.lists(st.sampled_from(PIECES) | TEXTS, max_size=12).map("".join)


@holds(st.sampled_from([param.values[0] for param in PRESETS]), MESSAGES, few=200, many=2000)
def test_any_message_is_no_action_or_one_that_survives_being_said(preset, message):
    action = preset.parse(message)
    assert action is None or isinstance(action, str)
    if action is not None:
        assert preset.parse(preset.render(action)) == action
