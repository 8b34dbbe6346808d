"""The Gymnasium face: its own checker, the original's sessions, vectors; needs gymnasium."""

import json
import random
import subprocess
import sys

import pytest

from tests.envs.webshop import golden

gymnasium = pytest.importorskip(
    "gymnasium", reason="gymnasium is not installed: pip install -e '.[gym]'"
)

from gymnasium.utils.env_checker import check_env  # noqa: E402

from eef_jax.envs.webshop import gym  # noqa: E402
from eef_jax.errors import ConfigError, DataError, EnvError  # noqa: E402

FILES = {
    "products": str(golden.PRODUCTS),
    "attributes": str(golden.ATTRIBUTES),
    "title_nouns": str(golden.NOUNS),
    "seed": 1234,
}


def make(**kwargs):
    return gymnasium.make(gym.ID, **FILES, **kwargs)


@pytest.mark.parametrize("mode", ["text", "text_rich", "url"])
def test_gymnasiums_checker_finds_nothing(mode):
    check_env(make(observation_mode=mode).unwrapped)


def test_the_embedded_catalogue_is_played_by_default():
    env = gymnasium.make("eef_jax/WebShop-v0")
    page, info = env.reset(seed=0)
    assert page.startswith("WebShop [SEP] Instruction: [SEP] ")
    assert info["available_actions"] == {"has_search_bar": True, "clickables": ["search"]}


def test_a_number_names_the_originals_goal_and_a_purchase_ends():
    (row,) = [row for row in golden.rows("episodes.jsonl") if row["id"] == 0]
    env = make(render_mode="ansi")
    page, info = env.reset(options={"session": row["reset_session"]})
    assert page == row["reset_obs"] == env.render()
    assert info["goal"] == row["goal_index"]
    assert info["url"] == row["reset_url"]
    for step in row["steps"]:
        page, reward, terminated, truncated, info = env.step(step["action"])
        assert (page, reward, terminated, truncated) == (
            *(step["obs"], step["reward"], step["done"], False),
        )
        assert info["valid"]
    assert info["won"] == (info["score"] == reward == 1.0)
    assert info["reward_parts"]["total"] == reward


def test_a_seed_draws_the_originals_session():
    name = "".join(random.Random(7).choices("abcdefghijklmnopqrstuvwxyz", k=10))
    env = make(session_prefix="w_")
    first = env.reset(seed=7)
    later = env.reset()
    assert first[1]["session"] == f"w_{name}"
    assert later[1]["session"] != f"w_{name}"
    assert env.reset(seed=7) == first
    assert env.reset() == later


def test_what_an_agent_may_set_shows():
    env = make(show_attrs=True, num_prev_obs=1, num_prev_actions=1, max_episode_steps=2)
    first, _ = env.reset(options={"session": 0, "instruction_text": "a red hat"})
    page, *_, truncated, info = env.step("search[shoes]")
    assert page.startswith(f"{first} [SEP] search[shoes] [SEP] Instruction: ")
    assert info["instruction_text"] == "a red hat"
    asin = info["available_actions"]["clickables"][2]
    assert not truncated
    *_, truncated, info = env.step(f"click[{asin}]")
    assert truncated and "attributes" in info["available_actions"]["clickables"]


def test_environments_share_one_shop_and_stand_in_vectors():
    assert make().unwrapped._env._game._shop.index is make().unwrapped._env._game._shop.index
    vector = gymnasium.make_vec(gym.ID, num_envs=3, vectorization_mode="sync", **FILES)
    pages, infos = vector.reset(seed=0)
    assert len(set(pages)) == 3 and len(infos["session"]) == 3
    pages, rewards, *_ = vector.step(["search[shoes]"] * 3)
    assert all("Page 1" in page for page in pages) and list(rewards) == [0, 0, 0]
    vector.close()


def test_texts_are_a_space():
    space = gym.AnyText(seed=3)
    assert space.sample() == gym.AnyText(seed=3).sample() != space.sample()
    assert "" in space and "★ 男" in space and 3 not in space
    assert space == gym.AnyText() != gymnasium.spaces.Text(3)


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match="did you mean products"):
        make(product="x")
    with pytest.raises(ConfigError, match="did you mean text_rich or text"):
        make(observation_mode="textrich")
    with pytest.raises(ConfigError, match="html is left out"):
        make(observation_mode="html")
    with pytest.raises(ConfigError, match="did you mean session"):
        make().reset(options={"sesion": 1})
    with pytest.raises(ConfigError, match="limit_goals=0"):
        make(limit_goals=0)
    with pytest.raises(DataError, match="no goals left"):
        make(filter_goals=lambda number, goal: False)
    with pytest.raises(EnvError, match="451 goals"):
        make().reset(options={"session": 451})


def test_it_is_registered_by_its_module_alone_and_loads_no_accelerator_library():
    code = (
        "import gymnasium, json, sys\n"
        "gymnasium.make('eef_jax.envs.webshop.gym:eef_jax/WebShop-v0')\n"
        "print(json.dumps(sorted({'jax', 'torch', 'tensorflow'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
