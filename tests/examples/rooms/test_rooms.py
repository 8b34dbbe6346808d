"""The example outside the package: its size, its expert's file, its rules and its method."""

import ast
import dataclasses
from typing import Any

import pytest

from eef_jax import config as config_lib
from eef_jax.importers import _command
from eef_jax.methods.base import Attempts
from eef_jax.policies.scripted import ScriptedPolicy
from eef_jax.rollout.loop import play_episodes_sync
from eef_jax.types import KEPT_BENEFICIAL
from examples.rooms import config, env, method, record
from tests import toyrun
from tests.docs.documents import ROOT

FOLDER = ROOT / "examples" / "rooms"


@pytest.fixture(scope="module")
def experts():
    replays = _command.replay_files(
        env.make(env.Config()), [str(FOLDER / "expert.jsonl")], "openai", messages="render"
    )
    assert {str(replay.status) for replay in replays} == {"equal"}
    return tuple(replay.trajectory for replay in replays)


def test_the_environment_has_some_forty_lines():
    source = (FOLDER / "env.py").read_text("utf-8")
    code = ast.unparse(ast.parse(source)).splitlines()  # without comments and empty lines
    imports = [line for line in code if line.startswith(("import ", "from "))]
    documented = [line for line in code if line.strip().startswith('"""')]
    assert len([line for line in code if line]) - len(imports) - len(documented) <= 45


def test_the_experts_file_is_what_its_program_prints(capsys):
    record.main()
    assert capsys.readouterr().out == (FOLDER / "expert.jsonl").read_text("utf-8")


def test_the_expert_wins_what_is_easy(experts):
    assert {(t.task.tags, t.win) for t in experts} == {(("easy",), True), (("hard",), False)}
    assert len({t.task.id for t in experts}) == len(experts) == 60


def test_a_game_goes_on_from_a_snapshot(experts):
    rooms = env.make(env.Config())
    failed = next(t for t in experts if not t.win)
    game = rooms.game()
    game.reset(failed.task)
    assert [game.step("next").observation for _ in range(2)] == ["empty"] * 2
    other = rooms.game()
    other.restore(game.save())
    walked = [[one.step("next").observation for _ in range(3)] for one in (game, other)]
    assert walked[0] == walked[1] and game.thing in walked[0]
    assert game.step("take") == other.step("take")
    assert rooms.parse(rooms.render("next")) == "next" and rooms.parse("jump") is None


def test_eef_learns_to_walk_and_the_control_masks_it(experts):
    """With a policy that takes whatever is in the room."""
    rooms = env.make(env.Config())
    tasks = rooms.tasks("train")
    taker = ScriptedPolicy(lambda request: "take", name="taker")
    played = {}
    methods: dict[str, Any] = {"eef": method.Eef(rounds=1), "own": method.Config(rounds=1)}
    for name, make in methods.items():
        episodes = make.episodes(Attempts(experts=experts), tasks, 1, rooms.max_steps)
        rollouts = play_episodes_sync(rooms, taker, episodes, progress=False)
        played[name] = make.select(Attempts(experts=experts, rollouts=tuple(rollouts)), tasks, 1)
    hard = {name: [s for s in found if "hard" in s.trajectory.task.tags]
            for name, found in played.items()}  # fmt: skip
    assert len(hard["eef"]) == len(hard["own"]) > 20
    for eef, own in zip(hard["eef"], hard["own"], strict=True):
        assert eef.reasons[0] == KEPT_BENEFICIAL and eef.weights[0] == 1.0
        assert own.reasons[0] == method.MASKED and own.weights[0] == 0.0
        assert own.weights[-1] == 1.0 and own.trajectory == eef.trajectory


def test_the_method_is_pure_and_its_facts_are_those_of_eef():
    made = method.make(method.Config())
    attempts = Attempts(experts=toyrun.experts())
    played = toyrun.rollouts(made, attempts, 1)
    attempts = dataclasses.replace(attempts, rollouts=tuple(played))
    tasks = toyrun.tasks("train")
    assert list(made.select(attempts, tasks, 1)) == list(made.select(attempts, tasks, 1))
    assert made.facts(attempts, tasks, 1) == method.Eef(rounds=1).facts(attempts, tasks, 1)


def test_the_config_is_valid_with_either_method():
    values = config.get_config().to_dict()
    assert config_lib.read(values).env.name == "examples.rooms.env"
    changed = config_lib.override(values, [("method.name", "examples.rooms.method")])
    assert changed.method.options.rounds == 1
