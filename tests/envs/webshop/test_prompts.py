"""Presets read the actions that they render, and take nothing else for one; files replace texts."""

import json

import pytest

from eef_jax.envs import webshop
from eef_jax.envs.webshop.prompt_file import preset
from eef_jax.envs.webshop.prompts import PRESETS
from eef_jax.errors import ConfigError, DataError
from tests.envs.webshop import golden

FILES = {
    "products": str(golden.PRODUCTS),
    "attributes": str(golden.ATTRIBUTES),
    "title_nouns": str(golden.NOUNS),
}


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
        ("admissible", "<think>a</think><action>click[a]</action>", "click[a]"),
        ("admissible", "<action>\nclick[a]\n</action> so [it] is", "click[a]"),
        ("admissible", "<action>click[a]", "click[a]"),
        ("admissible", "click[a]", None),
        ("admissible", "<action>a</action><action>click[a]</action>", None),
    ],
)
def test_messages(name, message, action):
    assert PRESETS[name].parse(message) == action


def test_the_action_preset_says_nothing_before_the_first_page():
    assert PRESETS["action"].messages == ()
    assert PRESETS["action"].observation == PRESETS["action"].listing == ""


@pytest.mark.parametrize("name", ["react", "admissible"])
def test_presets_with_an_instruction_open_with_it_and_its_answer(name):
    assert [message.role for message in PRESETS[name].messages] == ["user", "assistant"]
    assert "find and buy the product" in PRESETS[name].messages[0].content


def test_step_caps_are_the_prompts_or_as_configured():
    caps = {name: webshop.make(webshop.Config(**FILES, prompt=name)).max_steps for name in PRESETS}
    assert caps == {"action": 15, "react": 10, "admissible": 15}
    assert webshop.make(webshop.Config(**FILES, prompt="react", max_steps=7)).max_steps == 7


def test_react_puts_its_word_before_each_page():
    env = webshop.make(webshop.Config(**FILES, prompt="react"))
    game = env.game()
    assert game.reset(env.tasks("train")[0]).startswith("Observation:\nWebShop [SEP] ")
    assert game.step("search[shoes]").observation.startswith("Observation:\nInstruction: [SEP] ")


def test_admissible_actions_stand_below_each_page_but_the_last():
    env = webshop.make(webshop.Config(**FILES, prompt="admissible"))
    plain = webshop.make(webshop.Config(**FILES))
    game, other = env.game(), plain.game()
    task = env.tasks("train")[0]
    page = game.reset(task)
    assert page == other.reset(task) + "\n\nAdmissible actions: search[words]"
    told = game.step("search[shoes]").observation
    other.step("search[shoes]")
    asin = other.clickables()[2]
    assert f"\n\nAdmissible actions: click[back to search], click[next >], click[{asin}], " in told
    told = game.step(f"click[{asin}]").observation
    for name in (
        told.partition("Admissible actions: click[")[2].removesuffix("]").split("], click[")
    ):
        saved = game.save()
        assert game.step(f"click[{name}]").info["valid"]
        game.restore(saved)
    last = game.step("click[buy now]")
    assert last.terminated and "Admissible" not in last.observation
    assert env.dataset_id != plain.dataset_id  # observations differ


def test_a_text_file_is_the_instruction_of_react(tmp_path):
    path = tmp_path / "ours.txt"
    path.write_text("You shop.\nBuy well.\n")
    env = webshop.make(webshop.Config(**FILES, prompt=str(path)))
    assert [m.content for m in env.prompt(env.tasks("train")[0])] == ["You shop.\nBuy well.", "OK"]
    assert env.parse("Thought: so.\nAction: click[a]") == "click[a]"
    assert env.max_steps == 10


def test_a_json_file_replaces_what_it_names(tmp_path):
    path = tmp_path / "ours.json"
    messages = [{"role": "system", "content": "Buy."}]
    content = {"preset": "admissible", "messages": messages, "listing": "\nDo: ", "max_steps": 9}
    path.write_text(json.dumps(content))
    env = webshop.make(webshop.Config(**FILES, prompt=str(path)))
    assert [message.content for message in env.prompt(env.tasks("train")[0])] == ["Buy."]
    assert env.game().reset(env.tasks("train")[0]).endswith("Search\nDo: search[words]")
    assert env.render("click[a]") == "<action>click[a]</action>"
    assert env.max_steps == 9


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "Expecting"),
        ("[]", "a JSON list, expected an object"),
        ('{"mesages": []}', "did you mean messages"),
        ('{"preset": "reakt"}', "did you mean react"),
        ('{"listing": 3}', "expected a JSON str"),
        ('{"thought": "Because:"}', "thought is 'Because:', expected a text with .thought. in it"),
        ('{"max_steps": 0}', "at least 1"),
        ('{"messages": ["hello"]}', "role"),
        ('{"messages": [{"role": "shop", "content": "x"}]}', "role"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "end with the assistant's"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, complaint):
    path = tmp_path / "ours.json"
    path.write_text(content)
    with pytest.raises(DataError, match=complaint) as error:
        preset(str(path))
    assert str(path) in str(error.value)


def test_unknown_names_and_missing_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match="did you mean react"):
        preset("reacct")
    with pytest.raises(DataError, match="cannot read"):
        preset(str(tmp_path / "none.txt"))
    (tmp_path / "latin.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="UTF-8"):
        preset(str(tmp_path / "latin.txt"))


@pytest.mark.parametrize("name", PRESETS)
def test_a_thought_is_said_before_the_action(name):
    said = PRESETS[name].render("click[a]", "It is cheap.")
    assert PRESETS[name].parse(said) == "click[a]"
    assert ("It is cheap." in said) == (name != "action")
    assert PRESETS[name].render("click[a]") in said
