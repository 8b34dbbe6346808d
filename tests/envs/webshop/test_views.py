"""Ways of writing a page down, beyond what the recorded episodes show."""

import pytest

from eef_jax.envs import webshop
from eef_jax.envs.webshop.history import EMPTY, extend_history, initial_history
from eef_jax.envs.webshop.pages import Node, OptionButton
from eef_jax.envs.webshop.views import render_text, render_text_rich, view_options
from eef_jax.errors import ConfigError
from tests.envs.webshop import golden

FILES = {
    "products": str(golden.PRODUCTS),
    "attributes": str(golden.ATTRIBUTES),
    "title_nouns": str(golden.NOUNS),
}


@pytest.mark.parametrize(
    ("piece", "short", "line"),
    [
        (" a b ", "a b", " a b \n"),
        ("", None, ""),
        ("\n ", None, ""),
        ("   ", "", " \n"),  # a parser of HTML makes it one space
        ("\xa0", "", "\xa0\n"),
        ("\xa0\n", "", "\xa0\n\n"),
    ],
)
def test_nodes_of_spaces_alone_show_unless_they_break_a_line(piece, short, line):
    assert render_text([Node("x"), Node(piece)]) == ("x" if short is None else f"x [SEP] {short}")
    assert render_text_rich([Node(piece)], "", ()) == line


def test_an_option_is_chosen_where_its_value_stands_in_quotes_in_the_address():
    nodes = [Node("color"), Node("red", OptionButton("color")), Node('6"', OptionButton("size"))]
    rich = render_text_rich(nodes, 'http://x/{"other": "red", "size": "6\\""}', ())
    assert rich == (
        "You have clicked red.\ncolor\n"
        "  [clicked button] red [clicked button_]\n"
        '  [button] 6" [button_]\n'
    )


@pytest.mark.parametrize(
    ("observations", "actions", "wanted"),
    [
        (0, 0, "o2"),
        (1, 0, "o1 [SEP] o2"),
        (0, 1, "a2 [SEP] o2"),
        (2, 1, "o0 [SEP] o1 [SEP] a2 [SEP] o2"),
        (1, 3, "a1 [SEP] o1 [SEP] a2 [SEP] o2"),
        (9, 9, "o0 [SEP] a1 [SEP] o1 [SEP] a2 [SEP] o2"),
    ],
)
def test_histories_say_what_was_seen_and_done(observations, actions, wanted):
    sizes = {"observations": observations, "actions": actions}
    past = initial_history("o0", observations=observations)
    _, past = extend_history(past, "a1", "o1", **sizes)
    said, past = extend_history(past, "a2", "o2", **sizes)
    assert said == wanted
    assert len(past.observations) <= observations and len(past.actions) <= actions
    assert (past == EMPTY) == (observations == actions == 0)


def test_tasks_are_played_in_any_look():
    env = webshop.make(webshop.Config(**FILES, observation_mode="text_rich", num_prev_actions=1))
    game = env.game()
    number = env.dataset.splits["train"][0]
    assert game.reset(env.tasks("train")[0]).endswith("[button] Search [button_]\n")
    seen = game.step("search[shoes]").observation
    assert seen.startswith("search[shoes] [SEP] Instruction:\n")
    assert game.url == f"http://127.0.0.1:3000/search_results/{number}/shoes/1"
    assert env.dataset_id != webshop.make(webshop.Config(**FILES)).dataset_id


def test_looks_that_are_none_are_named():
    with pytest.raises(ConfigError, match="did you mean text_rich or text"):
        view_options(observation_mode="textrich")
    with pytest.raises(ConfigError, match="num_prev_obs=-1"):
        view_options(num_prev_obs=-1)
