"""Trajectories to JSON lines and back, and what is said of damaged ones."""

import dataclasses
import json
import tempfile

import pytest
from etils import epath
from hypothesis import strategies as st

from eef_jax.errors import DataError
from eef_jax.storage.records import to_json
from eef_jax.storage.trajectories import (
    index_given,
    index_trajectories,
    read_given,
    read_trajectories,
    write_trajectories,
)
from eef_jax.types import Attempt, Outcome, Step, Task, Trajectory
from tests import object_store
from tests.properties import JSON, TEXTS, holds

TASK = Task(id="toy/train/0", env="toy", split="train", goal="größer\u2028?", tags=("hard",))


def attempt(number):
    step = Step(
        observation="a\nb\u2028c",
        message='{"x"}',
        action=None,
        reward=0.5,
        tokens=(1, 2),
        logprobs=(-0.25, -1e-9),
        info={"asin": "B0", "n": [1, 2], "rewards": {"best": 0.5}},
    )
    return Trajectory(
        id=f"round_1/{number}",
        task=TASK,
        steps=(step, dataclasses.replace(step, source="expert", tokens=(), logprobs=())),
        final_observation="end",
        reward=1.0,
        win=True,
        outcome=Outcome.WON,
        source="policy",
        agent="nano",
        round=1,
        attempt=number,
        parent="expert/1",
        fork_step=1,
        tokenizer="abc",
        provenance={"commit": None, "seed": 0, "reason": "why"},
    )


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_round_trip_through_shards(tmp_path, count):
    attempts = tuple(attempt(n) for n in range(count))
    assert write_trajectories(tmp_path, iter(attempts), shard=3) == count
    assert read_trajectories(tmp_path) == attempts
    assert len(list(tmp_path.glob("trajectories*"))) == max(1, -(-count // 3))
    first = read_trajectories(tmp_path / "trajectories.jsonl")
    assert first == attempts[:3]


def test_half_an_emoji_in_a_title_or_an_answer_comes_back(tmp_path):
    whole = attempt(0)
    step = dataclasses.replace(whole.steps[0], observation="a \ud83d red", message="\udc00 buy")
    task = dataclasses.replace(TASK, goal="\ud83d\udd11 and \ud83d")
    halves = dataclasses.replace(whole, steps=(step,), task=task)
    write_trajectories(tmp_path, [halves])
    assert read_trajectories(tmp_path) == (
        dataclasses.replace(halves, task=dataclasses.replace(task, goal="🔑 and \ud83d")),
    )


def test_an_index_knows_all_but_the_text(tmp_path):
    attempts = [attempt(n) for n in range(5)]
    write_trajectories(tmp_path, attempts, shard=2)
    stored = index_trajectories(tmp_path)
    assert [one.load() for one in stored] == attempts
    for one, whole in zip(stored, attempts, strict=True):
        for field in dataclasses.fields(Attempt):
            assert getattr(one, field.name) == getattr(whole, field.name)
        assert (one.length, one.rewards, one.reason) == (2, {"best": 0.5}, "why")
        assert [one.prefix(n) for n in range(4)] == [whole.prefix(n) for n in range(4)]
    assert stored[0].task is stored[4].task  # once in memory


def test_stored_attempts_are_copied_byte_by_byte(tmp_path):
    write_trajectories(tmp_path / "a", [attempt(n) for n in range(5)], shard=2)
    write_trajectories(tmp_path / "b", index_trajectories(tmp_path / "a"), shard=2)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == sorted(p.name for p in (tmp_path / "b").iterdir())
    assert all(
        (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        for name in files
    )


def test_a_flipped_byte_of_a_record_is_noticed(tmp_path):
    write_trajectories(tmp_path, [attempt(0), attempt(1)])
    path = tmp_path / "trajectories.jsonl"
    data = bytearray(path.read_bytes())
    data[data.rindex(b"nano")] ^= 1
    path.write_bytes(bytes(data))
    first, second = index_trajectories(tmp_path)
    assert first.load() == attempt(0)
    with pytest.raises(DataError, match="wrong checksum"):
        second.load()


@pytest.mark.parametrize("damage", ["{", '{"id": "x"}'])
def test_a_damaged_index_is_named(tmp_path, damage):
    write_trajectories(tmp_path, [attempt(0)])
    with (tmp_path / "index.jsonl").open("a") as file:
        file.write(damage + "\n")
    with pytest.raises(DataError, match=r"index\.jsonl, line 2 is damaged"):
        index_trajectories(tmp_path)


def test_given_files_are_indexed_where_they_are(tmp_path):
    write_trajectories(tmp_path, [attempt(0), attempt(1)])
    path = tmp_path / "trajectories.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n"))
    (tmp_path / "index.jsonl").unlink()  # what a user edits is read as it is
    assert [one.load() for one in index_given(str(tmp_path))] == [attempt(0), attempt(1)]


def test_round_trip_through_an_object_store(monkeypatch):
    object_store.install(monkeypatch)
    folder = epath.Path("gs://bucket/run/expert")
    attempts = tuple(attempt(n) for n in range(5))
    write_trajectories(folder, attempts, shard=2)
    assert read_trajectories(folder) == attempts


def test_infos_and_provenance_come_back(tmp_path):
    write_trajectories(tmp_path, [attempt(0)])
    (back,) = read_trajectories(tmp_path)
    assert back.steps[0].info == {"asin": "B0", "n": [1, 2], "rewards": {"best": 0.5}}
    assert back.provenance == {"commit": None, "seed": 0, "reason": "why"}
    assert back.outcome is Outcome.WON
    assert hash(back) == hash(attempt(0))


def damaged(**changes):
    record = json.loads(json.dumps(to_json(attempt(0))))
    return json.dumps(record | changes)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ('{"id": ', "Expecting value"),
        ("[]", "not a trajectory"),
        ("{}", "schema None, this version reads 1"),
        (damaged(schema=7), "schema 7"),
        (damaged(outcome="lost"), "lost"),
        (damaged(reward="much"), "Trajectory.reward is 'much'"),
        (damaged(win=1), "Trajectory.win is 1"),
        (damaged(color="red"), "color"),
        (damaged(steps=[{"observation": "a"}]), "message"),
        (damaged(task=None), "not a trajectory"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, hint):
    write_trajectories(tmp_path, [attempt(0), attempt(1)])
    path = tmp_path / "trajectories.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"trajectories\.jsonl, line 3 .*correct the line") as error:
        read_trajectories(tmp_path)
    assert hint in str(error.value)
    assert "delete" not in str(error.value)  # it may be the only copy of a user's data
    with pytest.raises(DataError, match=r"line 3 .*; run it again"):
        read_trajectories(tmp_path, remedy="run it again")


def test_a_file_that_was_cut_off(tmp_path):
    write_trajectories(tmp_path, [attempt(0), attempt(1)])
    path = tmp_path / "trajectories.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-20])
    with pytest.raises(DataError, match="line 2"):
        read_trajectories(tmp_path)
    with pytest.raises(DataError, match="cut off in line 2"):
        read_trajectories(tmp_path)


def test_nothing_there(tmp_path):
    for path in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(DataError, match="no trajectories at"):
            read_trajectories(path)


def test_marks_and_missing_line_breaks_are_read(tmp_path):
    write_trajectories(tmp_path, [attempt(0), attempt(1)])
    path = tmp_path / "trajectories.jsonl"
    whole = path.read_text()
    path.write_bytes(b"\xef\xbb\xbf" + whole.rstrip("\n").encode())
    assert read_trajectories(tmp_path) == (attempt(0), attempt(1))


@pytest.mark.parametrize(
    ("content", "format"),
    [
        ([{"id": "a", "conversations": [{"from": "human", "value": "x"}]}], "eto"),
        ([{"id": "a", "conversations": [{"role": "user", "content": "x"}]}], "agentinstruct"),
        ([{"item_id": "a", "conversations": [{"from": "human", "value": "x"}]}], "agentgym"),
        ({"messages": [{"role": "user", "content": "x"}]}, "openai"),
        ({"schema_version": "ATIF-v1.4", "steps": []}, "atif"),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_files_of_other_formats_are_told_what_they_are(tmp_path, content, format, indent):
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(content, indent=indent))
    with pytest.raises(DataError, match=rf"format {format}, .* --format={format} --file=") as error:
        read_trajectories(path, remedy="delete the folder")
    assert "delete" not in str(error.value)


def test_other_json_is_not_taken_for_a_known_format(tmp_path):
    path = tmp_path / "theirs.json"
    path.write_text('{"text": "hello"}')
    with pytest.raises(DataError, match="line 1 is not a trajectory"):
        read_trajectories(path)


def test_given_files_are_joined_and_equal_ids_told_apart(tmp_path):
    write_trajectories(tmp_path / "a", [attempt(0), attempt(0)])
    write_trajectories(tmp_path / "b", [attempt(0), attempt(1)])
    given = list(read_given(f"{tmp_path / 'a'}, {tmp_path / 'b'}", [TASK]))
    names = ["round_1/0", "round_1/0#2", "round_1/0#3", "round_1/1"]
    assert [t.id for t in given] == names
    assert dataclasses.replace(given[1], id="round_1/0") == attempt(0)


@pytest.mark.parametrize("changed", [{"goal": "smaller?"}, {"payload": '{"goal": 1}'}])
def test_trajectories_made_with_other_data_are_refused(tmp_path, changed):
    write_trajectories(tmp_path, [attempt(0)])
    with pytest.raises(DataError, match="was made with other data: its task toy/train/0 is"):
        list(read_given(str(tmp_path), [dataclasses.replace(TASK, **changed)]))


def test_trajectories_of_unknown_tasks_are_refused(tmp_path):
    write_trajectories(tmp_path, [attempt(0)])
    with pytest.raises(DataError, match="task 'toy/train/0', not a train task of this run"):
        list(read_given(str(tmp_path), [dataclasses.replace(TASK, id="toy/train/1")]))


STEPS = st.builds(
    Step,
    observation=TEXTS,
    message=TEXTS,
    action=st.none() | TEXTS,
    reward=st.floats(-1, 1),
    source=st.sampled_from(["expert", "policy"]),
    tokens=st.lists(st.integers(0, 2**31 - 1), max_size=4).map(tuple),
    logprobs=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4).map(tuple),
    info=st.dictionaries(TEXTS, JSON, max_size=3).filter(lambda info: "rewards" not in info),
)
TASKS = st.builds(
    Task,
    id=TEXTS,
    env=TEXTS,
    split=st.sampled_from(["train", "test"]),
    goal=TEXTS,
    payload=TEXTS,
    tags=st.lists(TEXTS, max_size=3).map(tuple),
    max_steps=st.integers(0, 100),
)
TRAJECTORIES = st.builds(
    Trajectory,
    id=TEXTS,
    task=TASKS,
    steps=st.lists(STEPS, max_size=4).map(tuple),
    final_observation=TEXTS,
    reward=st.floats(0, 1),
    win=st.booleans(),
    outcome=st.sampled_from(Outcome),
    source=st.sampled_from(["expert", "policy"]),
    agent=TEXTS,
    parent=st.none() | TEXTS,
    tokenizer=TEXTS,
    provenance=st.dictionaries(TEXTS, JSON, max_size=3),
)


@holds(st.lists(TRAJECTORIES, max_size=4, unique_by=lambda t: t.task.id), st.integers(1, 3), few=10)
def test_any_trajectories_come_back(trajectories, shard):
    with tempfile.TemporaryDirectory() as folder:
        write_trajectories(folder, trajectories, shard=shard)
        assert read_trajectories(folder) == tuple(trajectories)
        index = index_trajectories(folder)
        assert tuple(attempt.load() for attempt in index) == tuple(trajectories)
        for attempt, trajectory in zip(index, trajectories, strict=True):
            assert (attempt.id, attempt.task) == (trajectory.id, trajectory.task)
            assert attempt.length == trajectory.length
            for count in range(attempt.length + 1):
                assert attempt.prefix(count) == trajectory.prefix(count)
        with tempfile.TemporaryDirectory() as copy:  # of stored ones the bytes are copied
            write_trajectories(copy, index, shard=shard)
            assert read_trajectories(copy) == tuple(trajectories)


@holds(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_file_is_read_or_refused_with_its_name(data):
    with tempfile.TemporaryDirectory() as folder:
        path = epath.Path(folder) / "expert.jsonl"
        path.write_bytes(data)
        try:
            read_trajectories(path)
        except DataError as error:
            assert "expert.jsonl" in str(error)


@holds(TRAJECTORIES, st.data(), few=10)
def test_any_changed_byte_is_noticed_by_who_loads_it(trajectory, data):
    with tempfile.TemporaryDirectory() as folder:
        write_trajectories(folder, [trajectory])
        path = epath.Path(folder) / "trajectories.jsonl"
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 2))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(bytes(content))
        (attempt,) = index_trajectories(folder)
        with pytest.raises(DataError, match="wrong checksum"):
            attempt.load()
