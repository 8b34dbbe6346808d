"""Presets read the actions that they render, and take nothing else for one."""

import pytest

from eef_jax.envs.webshop.prompts import PRESETS


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("action", ["search[red shoes]", "click[< Prev]", "click[2' 6\" x 8']"])
def test_what_is_rendered_is_parsed(name, action):
    assert PRESETS[name].parse(PRESETS[name].render(action)) == action


@pytest.mark.parametrize(
    ("name", "message", "action"),
    [
        ("action", "  click[buy now]\n", "click[buy now]"),
        ("action", "click[buy now] because", "click[buy now]"),
        ("action", "search[a]\nsearch[b]", "search[a]"),
        ("action", "search[İİ] x", "search[İİ]"),  # lower-casing makes this longer
        ("action", "Action: click[buy now]", None),
        ("action", "buy now", None),
        ("action", "", None),
        ("react", "Thought: cheap.\nAction: click[Buy Now]", "click[Buy Now]"),
        ("react", "Thought: cheap.\nAction: \nclick[buy now]", "click[buy now]"),
        ("react", "Thought: cheap. click[buy now]", None),
        ("react", "Thought: cheap.\nAction: buy now", None),
        ("react", "click[buy now]", None),
    ],
)
def test_messages(name, message, action):
    assert PRESETS[name].parse(message) == action


def test_the_action_preset_says_nothing_before_the_first_page():
    assert PRESETS["action"].messages == ()
    assert PRESETS["action"].observation == ""


def test_the_react_preset_opens_with_an_answered_instruction():
    assert [message.role for message in PRESETS["react"].messages] == ["user", "assistant"]
    assert "Action: search[keywords] or click[name]" in PRESETS["react"].messages[0].content
