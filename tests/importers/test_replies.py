import pytest

from eef_jax.envs import webshop
from eef_jax.importers._replies import action_and_thought
from eef_jax.importers.base import Said

ENV = webshop.make(webshop.Config())


@pytest.mark.parametrize(
    ("reply", "action", "thought"),
    [
        ("Thought: cheap.\nAction: click[a]", "click[a]", "cheap."),
        ("Thought:\nI think so.\n\nAction: \n  click[a]", "click[a]", "I think so."),
        ("Action:\nsearch[red shoes]", "search[red shoes]", ""),
        (
            "I tried Action: click[b] before.\nAction: click[a]",
            "click[a]",
            "I tried Action: click[b] before.",
        ),
        ("click[a]", "click[a]", ""),
        ("That fits, so click[a] it is.", "click[a]", "That fits, so"),
        ("click[a] or click[b]?", None, "click[a] or click[b]?"),
        ("Action: buy it", None, None),
        ("Nothing fits.", None, "Nothing fits."),
        ("", None, ""),
        ("<think>It fits.</think><action>click[a]</action>", "click[a]", "It fits."),
        ("Action: click[2' 6\" x 8']", "click[2' 6\" x 8']", ""),
    ],
)
def test_actions_and_thoughts(reply, action, thought):
    found = action_and_thought(Said(role="assistant", content=reply), ENV)
    assert found[0] == action
    assert thought is None or found[1] == thought


def test_what_a_format_keeps_apart_is_taken():
    reply = Said(role="assistant", content="click[b]", thought="It is red.")
    assert action_and_thought(reply, ENV) == ("click[b]", "It is red.")
