"""The page of a large run: the trajectories that it is made of, and what a browser measures."""

import pytest

from benchmarks.report import run
from eef_jax import report
from eef_jax.storage.trajectories import index_trajectories
from eef_jax.types import Outcome
from tests import browsers

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_trajectories_are_as_large_as_they_say_and_the_page_is_timed(tmp_path):
    work = run.fill(tmp_path / "run", 60)
    experts = index_trajectories(work.stage("expert").folder)
    rollouts = index_trajectories(work.stage("round_1/explore").folder)
    assert len(experts) == 12 and len(rollouts) == 48
    steps = [step for one in (*experts, *rollouts) for step in one.load().steps]
    assert {len(step.observation) for step in steps} == {run.PAGE}
    assert len(steps) == 60 * run.STEPS
    assert any(rollout.fork_step for rollout in rollouts)
    assert {rollout.outcome for rollout in rollouts} == {Outcome.WON, Outcome.FAILED}
    report.write(work)
    with browsers.launched() as browser:
        opened = run.open_page(browser, work.root / report.page.FILE)
    assert opened.first_paint > 0 and opened.list > 0
    assert len(opened.filters) == len(run.QUERIES) + 3
