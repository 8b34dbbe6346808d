"""The way of a run's trajectories, in small: every episode is there, and peak memory is noted."""

from etils import epath

from benchmarks.memory import run
from eef_jax.storage.trajectories import index_trajectories


def test_six_episodes_a_task_and_round_take_the_whole_way(tmp_path):
    memory = run.Memory()
    root = epath.Path(tmp_path / "run")
    assert run.run_rounds(root, run.tasks_of(10), 2, memory) == 2 * 10 * 6
    rollouts = index_trajectories(root / "round_2/explore")
    assert len(rollouts) == 60 and rollouts[7].load().id == rollouts[7].id
    checks = (root / "report.md").read_text().partition("## Conservation checks")[2]
    assert checks.partition("## ")[0].count("| yes |") == 12
    assert [row["after"] for row in memory.rows][-1] == "report"
    assert 0 < memory.rows[0]["peak_gib"] <= memory.rows[-1]["peak_gib"]
