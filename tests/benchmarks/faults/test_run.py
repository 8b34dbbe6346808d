"""Kills of the tiny preset, in short, and what the comparison of runs sees."""

import os

import pytest

from benchmarks.faults import compare, run
from tests import toybase, toyrun


def test_plans_kill_at_every_border_and_within_every_stage():
    (kills,) = run.plan(2 * len(run.STAGES), 0)
    assert [kill.stage for kill in kills] == [stage for stage in run.STAGES for _ in range(2)]
    assert all(kill.share == 1.0 for kill in kills[1::2])
    assert all(kill.share < 1.0 for kill in kills[::2])
    assert sum(map(len, run.plan(50, 1))) == 50
    assert {kill.process for each in run.plan(20, 2, processes=2) for kill in each} == {0, 1}


@pytest.mark.parametrize(
    "name", ["round_1/explore/trajectories.jsonl", "expert/scores.json", "report.md"]
)
def test_one_byte_makes_a_difference(tmp_path, name):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        toyrun.make(folder)
        (folder / "report.md").write_text("# Report\n")
    assert compare.differences(one, other) == []
    data = bytearray((other / name).read_bytes())
    data[len(data) // 2] ^= 1
    (other / name).write_bytes(bytes(data))
    assert compare.differences(one, other) == [name]


def test_a_report_is_compared_without_what_was_measured():
    table = "| policy | seconds | loss |\n|---|---|---|\n| eef | {} | {} |"
    text = f"## Cost\n\n{table}\n\n## Time\n\n{{}}\n"
    one, other = compare.untimed(text.format(1, 2, 3)), compare.untimed(text.format(9, 2, 9))
    assert one == other != compare.untimed(text.format(1, 5, 3))


@pytest.mark.load
@pytest.mark.processes
def test_a_killed_run_ends_as_if_nobody_had_killed_it(tmp_path, monkeypatch):
    one_device = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    monkeypatch.setenv("XLA_FLAGS", one_device)
    (tmp_path / "base").mkdir()
    settings = {"model.path": toybase.make(tmp_path / "base"), **toybase.SMALL}
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    reference = run.Command(tmp_path / "reference", flags)
    reference.finish()
    kills = [
        run.Kill(stage="expert", share=0.5),
        run.Kill(stage="round_1/explore", share=0.6),
        run.Kill(stage="round_1/select", share=1.0),
    ]
    killed = run.run_with_kills(run.Command(tmp_path / "run", flags), kills, reference.workdir)
    assert (killed.differing, killed.repeated) == ([], 0)
