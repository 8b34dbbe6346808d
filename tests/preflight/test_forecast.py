"""What a run is said to do before it begins."""

import dataclasses
import re

import pytest

from eef_jax import starting
from eef_jax.preflight import forecast
from eef_jax.storage.stages import Schedule
from tests import toybase


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    base = toybase.make(tmp_path_factory.mktemp("base"))
    root = tmp_path_factory.mktemp("runs") / "run"
    return starting.plan(
        toybase.config(base), str(root), stages=("expert", "explore", "select", "tune", "evaluate")
    )


def test_bounds_of_what_is_played(start):
    loads = forecast.loads(start)
    assert list(loads) == ["expert", "round_0/evaluate", "round_1/explore", "round_1/evaluate"]
    assert (loads["expert"].episodes, loads["expert"].turns) == (8, 32)  # on held-out tasks too
    explored = loads["round_1/explore"]
    # From s_0 and from three states of a failure of four steps: 4, 3, 2 and 1 turns are left.
    assert (explored.least, explored.episodes, explored.turns) == (6, 24, 60)
    assert explored.tokens == 2 * explored.turns


@pytest.mark.parametrize(("evaluate", "episodes"), [("auto", 8), ("yes", 8), ("no", 6)])
def test_an_expert_plays_held_out_tasks_where_it_is_evaluated(start, evaluate, episodes):
    expert = dataclasses.replace(start.config.expert, evaluate=evaluate)
    asked = dataclasses.replace(start, config=dataclasses.replace(start.config, expert=expert))
    assert forecast.loads(asked)["expert"].episodes == episodes


def test_optimizer_steps_are_bounded_by_the_trajectories(start):
    assert forecast.optimizer_steps(start, "round_0/tune") == 1
    assert forecast.optimizer_steps(start, "round_1/tune") == 4  # 30 trajectories in rows of 8


def test_header_names_folder_config_model_method_devices_and_stages(start):
    printed = forecast.header(start, source="configs/x.py:tiny")
    text = re.sub(r"\n +", " ", printed)  # long rows are wrapped
    rows = dict(
        line.split(maxsplit=1) if line[:4] != "work" else ("work", line)
        for line in text.splitlines()
    )
    assert "configs/x.py:tiny, seed 0" in rows["config"]
    assert "6 train tasks, 2 test tasks" in rows["environment"]
    assert "parameters" in rows["model"] and "trained (LoRA)" in rows["model"]
    assert rows["method"] == "eef, 1 rounds after the clone"
    assert rows["devices"].startswith("8 x cpu") and rows["done"] == "nothing"
    assert text.endswith(
        "expert, round_0 (select, tune, evaluate), round_1 (explore, select, tune, evaluate)"
    )


def test_what_is_next():
    part = Schedule(done=("expert",), todo=("round_0/select",), left_out=("round_0/tune",))
    text = forecast.next_stages(part)
    assert "finished: expert, round_0 (select)" in text and "next: round_0/tune" in text
    assert forecast.next_stages(Schedule(done=("expert",), todo=(), left_out=())) == ""
