"""Imports of our own trajectories, written in every format, and of what came out different."""

import dataclasses
import json

import pytest

from eef_jax import plugins
from eef_jax.envs import webshop
from eef_jax.envs.webshop.goals import with_bound
from eef_jax.errors import ConfigError, DataError
from eef_jax.experts import webshop as shopper
from eef_jax.importers import _command
from eef_jax.importers._replay import Status
from eef_jax.rollout import loop
from eef_jax.storage.trajectories import read_given, read_trajectories
from eef_jax.types import Episode, Outcome
from tests.envs.webshop import golden
from tests.importers import written
from tests.toygame import Corridor

COUNT = 8


def play(env, tasks, *, max_steps=12):
    expert = shopper.make(shopper.Config(), env=env)
    episodes = [
        Episode(id=f"shopper/{task.id}", task=task, round=0, attempt=0, max_steps=max_steps)
        for task in tasks
    ]
    return loop.play_episodes_sync(env, expert, episodes, source="expert", progress=False)


@pytest.fixture(scope="module")
def env():
    return webshop.make(webshop.Config(prompt="react"))


@pytest.fixture(scope="module")
def played(env):
    return play(env, env.tasks("train")[:COUNT])


def test_every_format_is_tested():
    assert set(written.FORMATS) == set(plugins.available("importers"))


@pytest.mark.parametrize("format", written.FORMATS)
def test_our_own_trajectories_come_back(format, env, played, tmp_path):
    prompt = env.prompt(played[0].task)
    file = written.write(tmp_path / "file.json", format, played, prompt)
    replays = _command.replay_files(env, [file], format)
    assert _command.write(tmp_path / "out", replays) == COUNT
    for ours, back in zip(played, read_trajectories(tmp_path / "out"), strict=True):
        assert back.steps == ours.steps
        assert (back.id, back.agent, back.reward, back.win) == (
            ours.id,
            ours.agent,
            ours.reward,
            ours.win,
        )
        assert back.final_observation == ours.final_observation
        assert back.task.goal == ours.task.goal


@pytest.mark.parametrize("format", written.FORMATS)
def test_a_divergence_is_named_with_its_step_and_both_texts(format, env, played, tmp_path):
    steps = list(played[0].steps)
    page = steps[2].observation.replace("Back to Search", "Back to Start")
    steps[2] = dataclasses.replace(steps[2], observation=page)
    wrong = dataclasses.replace(played[0], steps=tuple(steps))
    file = written.write(tmp_path / "file.json", format, [wrong, played[1]])
    first, second = _command.replay_files(env, [file], format)
    assert second.status is Status.EQUAL
    assert first.status is Status.DIVERGED
    assert first.reason.startswith("step 2: ")
    assert "Back to Start" in first.reason and "Back to Search" in first.reason
    assert _command.write(tmp_path / "out", [first, second]) == 1
    assert _command.write(tmp_path / "all", [first, second], unverified=True) == 2
    told = read_trajectories(tmp_path / "all")[0]
    assert told.provenance["verified"] is False
    assert [step.action for step in told.steps] == [step.action for step in steps]
    report = json.loads((tmp_path / "all" / "import.json").read_text())
    assert report["counts"]["diverged"] == report["counts"]["equal"] == 1


def test_a_reward_that_differs_is_a_divergence(env, played, tmp_path):
    wrong = dataclasses.replace(played[0], reward=played[0].reward / 2)
    file = written.write(tmp_path / "file.json", "eto", [wrong])
    (replay,) = _command.replay_files(env, [file], "eto")
    assert replay.status is Status.DIVERGED and "the file was paid" in replay.reason


@pytest.mark.parametrize("prompt", ["action", "react", "admissible"])
def test_messages_are_said_in_the_runs_prompt(prompt, played, tmp_path):
    other = webshop.make(webshop.Config(prompt=prompt))
    file = written.write(tmp_path / "file.json", "openai", played)
    for replay in _command.replay_files(other, [file], "openai"):
        for step in replay.trajectory.steps:
            assert other.parse(step.message) == step.action
            assert ("I " in step.message) == (prompt != "action")  # the thought
    (kept, *_) = _command.replay_files(other, [file], "openai", messages="as_is")
    assert [s.message for s in kept.trajectory.steps] == [s.message for s in played[0].steps]


def test_an_attempt_that_stops_early_is_unfinished(env, played, tmp_path):
    cut = dataclasses.replace(
        played[0], steps=played[0].steps[:2], final_observation=played[0].steps[2].observation
    )
    file = written.write(tmp_path / "file.json", "agentinstruct", [cut])
    (replay,) = _command.replay_files(env, [file], "agentinstruct")
    assert replay.status is Status.UNFINISHED
    assert replay.trajectory.outcome is Outcome.MAX_STEPS and not replay.trajectory.win


def test_experts_keep_their_names_and_equal_ids_are_told_apart(env, played, tmp_path):
    other = [dataclasses.replace(t, agent="gpt-4") for t in played]
    files = [
        written.write(tmp_path / "one.json", "eto", played),
        written.write(tmp_path / "two.json", "eto", [*other, played[0]]),
    ]
    _command.write(tmp_path / "out", _command.replay_files(env, files, "eto"))
    back = read_trajectories(tmp_path / "out")
    assert len({t.id for t in back}) == len(back) == 2 * COUNT + 1
    assert {t.agent for t in back} == {"shopper", "gpt-4"}
    again = next(t for t in back if t.id.endswith("#3"))
    assert (again.agent, again.attempt) == ("shopper", 1)


def test_marks_and_missing_line_breaks_are_read(env, played, tmp_path):
    path = tmp_path / "file.jsonl"
    lines = [json.dumps(written.eto(t, ())) for t in played]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert len(_command.replay_files(env, [str(path)], "eto")) == COUNT


def test_a_file_of_another_catalogue_is_refused(env, played, tmp_path):
    other = webshop.make(
        webshop.Config(
            products=str(golden.PRODUCTS),
            attributes=str(golden.ATTRIBUTES),
            title_nouns=str(golden.NOUNS),
        )
    )
    file = written.write(tmp_path / "file.json", "eef", played)
    replays = _command.replay_files(other, [file], "eef")
    assert {replay.status for replay in replays} == {Status.UNKNOWN_TASK}
    with pytest.raises(DataError, match=r"none of 8 attempts.*another catalogue"):
        _command.write(tmp_path / "out", replays)
    assert not (tmp_path / "out").exists()


def bounded(trajectory, bound):
    """The trajectory as an expert reads it whose shop drew another price bound."""
    goal = with_bound(trajectory_goal(trajectory), bound)
    old, new = trajectory.task.goal, goal.instruction
    steps = tuple(
        dataclasses.replace(s, observation=s.observation.replace(old, new))
        for s in trajectory.steps
    )
    return dataclasses.replace(
        trajectory,
        steps=steps,
        final_observation=trajectory.final_observation.replace(old, new),
    )


def trajectory_goal(trajectory):
    shop = webshop.make(webshop.Config()).dataset
    return shop.goals[json.loads(trajectory.task.payload)["goal"]]


def test_a_task_is_played_with_the_bound_that_its_expert_read(env, played, tmp_path):
    told = bounded(played[0], 990.0)
    file = written.write(tmp_path / "file.json", "eto", [told])
    _command.write(tmp_path / "out", _command.replay_files(env, [file], "eto"))
    section = webshop.Config(prompt="react", imported_tasks=str(tmp_path / "out"))
    mine = webshop.make(section)
    task = mine.tasks("train")[0]
    assert task.goal.endswith("price lower than 990.00 dollars")
    (given,) = read_given(str(tmp_path / "out"), mine.tasks("train"))
    assert given.task == task
    assert mine.game().reset(task) == told.steps[0].observation
    assert mine.dataset_id != env.dataset_id
    (own,) = play(mine, [task])  # everybody else plays that bound too
    assert task.goal in own.steps[-1].observation


def test_products_of_imported_goals_leave_dev_and_test(env, tmp_path):
    test = play(env, env.tasks("test")[:3])
    file = written.write(tmp_path / "file.json", "eto", [*test, *play(env, env.tasks("train")[:2])])
    _command.write(tmp_path / "out", _command.replay_files(env, [file], "eto"))
    mine = webshop.make(webshop.Config(imported_tasks=str(tmp_path / "out")))
    goals = {task.goal for task in mine.tasks("train")}
    assert len(goals) == len(mine.tasks("train")) == len(env.tasks("train")) + 3
    assert {t.task.goal for t in test} <= goals
    assert len(mine.tasks("test")) == len(env.tasks("test")) - 3
    assert not goals & {task.goal for task in mine.tasks("test")}
    assert mine.tasks("test")[0].id == "webshop/test/3"  # ids stay


def test_tasks_of_another_catalogue_are_refused(env, played, tmp_path):
    file = written.write(tmp_path / "file.json", "eto", played)
    _command.write(tmp_path / "out", _command.replay_files(env, [file], "eto"))
    with pytest.raises(DataError, match="imported for another catalogue"):
        webshop.make(
            webshop.Config(
                products=str(golden.PRODUCTS),
                attributes=str(golden.ATTRIBUTES),
                title_nouns=str(golden.NOUNS),
                imported_tasks=str(tmp_path / "out"),
            )
        )


def test_wrong_formats_are_named(env, played, tmp_path):
    file = written.write(tmp_path / "file.json", "openai", played)
    with pytest.raises(
        DataError, match=r"record 0 is not of format eto \(it has no 'conversations'"
    ):
        _command.replay_files(env, [file], "eto")
    with pytest.raises(ConfigError, match="did you mean eto"):
        _command.replay_files(env, [file], "etoo")


def test_an_environment_without_a_finder_is_settled_by_replay(tmp_path):
    env = Corridor()
    task = env.tasks("train")[2]
    game = env.game()
    observation, steps = game.reset(task), []
    for action in ("right", "right", "take", "right", "right", "open"):
        steps.append({"from": "human", "value": observation})
        steps.append({"from": "gpt", "value": f"I will do {action}"})
        observation = game.step(action).observation
    steps.append({"from": "human", "value": observation})
    prompt = [
        {"from": "human", "value": env.prompt(task)[0].content},
        {"from": "gpt", "value": "k"},
    ]
    record = {"id": "a", "conversations": [*prompt, *steps], "reward": 1.0}
    (tmp_path / "file.json").write_text(json.dumps(record))
    (replay,) = _command.replay_files(env, [str(tmp_path / "file.json")], "eto")
    assert replay.status is Status.EQUAL and replay.trajectory.win
    assert json.loads(replay.trajectory.task.payload) == json.loads(task.payload)
