"""A stage with more infrastructure failures than allowed ends, with the commonest reasons."""

import pytest

from eef_jax.config.sections import RolloutSection
from eef_jax.errors import RolloutError
from eef_jax.policies.scripted import ScriptedPolicy
from eef_jax.rollout import failures, play
from tests.toygame import Corridor, solve


def failing(broken):
    """A policy that cannot answer in the tasks of these numbers."""

    def speak(request):
        if int(request.task.rpartition("/")[2]) in broken:
            raise ConnectionError(f"port {len(request.task)} of server 'a' refuses")
        return solve(request)

    return ScriptedPolicy(speak, name="flaky")


def play_all(policy, **rollout):
    env = Corridor()
    episodes = play.from_start(env.tasks("train"), 20, prefix="x")
    return play.play(env, policy, episodes, RolloutSection(**rollout), label="expert")


@pytest.mark.parametrize(
    ("share", "episodes", "allowed"),
    [(0.05, 20, 1), (0.05, 19, 0), (0.29, 100, 29), (0.0, 5, 0), (1.0, 3, 3)],
)
def test_allowed_failures(share, episodes, allowed):
    assert failures.allowed_failures(share, episodes) == allowed


def test_failures_up_to_the_share_are_data():
    played = play_all(failing({0, 1}), max_failures=0.25)
    assert [t.outcome.completed for t in played] == [False, False, *[True] * 6]


def test_more_failures_are_an_error_that_counts_reasons_and_says_what_to_do():
    with pytest.raises(RolloutError) as error:
        play_all(failing({0, 1, 5}), max_failures=0.25)
    text = str(error.value)
    assert "expert: 3 of 8 episodes" in text and "rollout.max_failures=0.25" in text
    assert "3 x policy_error: PolicyError: policy 'flaky' failed at turn 0" in text
    assert "ConnectionError: port 16 of server 'a' refuses" in text
    assert "check its server, key and budget" in text and "env_timeout" not in text


def test_no_episode_begins_once_the_stage_is_lost():
    asked = []

    def speak(request):
        asked.append(request.task)
        raise ConnectionError("gone")

    policy = ScriptedPolicy(speak, name="gone")
    with pytest.raises(RolloutError):
        play_all(policy, max_failures=0.25, concurrency=1)
    assert len(asked) == 3


def test_different_reasons_are_listed_by_count():
    env = Corridor({"take": KeyError("lost")})
    episodes = play.from_start(env.tasks("train"), 20, prefix="x")
    with pytest.raises(RolloutError) as error:
        play.play(env, failing({1}), episodes, RolloutSection(concurrency=64), label="x")
    lines = [line.split(": ")[0].strip() for line in str(error.value).splitlines()]
    assert lines[1:3] == ["7 x env_error", "1 x policy_error"]
