"""The rollout loop: outcomes, forks, caps, failures, the queue's order, many episodes at once."""

import asyncio
import dataclasses
import logging
import time

import pytest

from eef_jax.envs.base import StepResult
from eef_jax.errors import DivergedError
from eef_jax.methods import _forks
from eef_jax.policies.scripted import ScriptedPolicy
from eef_jax.rollout import loop, play
from eef_jax.types import Completion, Episode, Outcome
from tests.toygame import Corridor, solve

SOLVER = ScriptedPolicy(solve, name="solver")


def episode(task, **fields):
    fields = {"id": f"{task.id}/x", "round": 1, "attempt": 0, "max_steps": 20} | fields
    return Episode(task=task, **fields)


def play_one(policy, *, env=None, task=3, episode_fields=None, **options):
    env = env or Corridor()
    order = episode(env.tasks("train")[task], **(episode_fields or {}))
    return loop.play_episodes_sync(env, policy, [order], **options)[0]


def saying(*messages):
    """A policy that says these messages, the last one for ever."""
    return ScriptedPolicy(lambda r: messages[min(r.turn, len(messages) - 1)], name="parrot")


def test_a_win_records_every_turn():
    env = Corridor()
    got = play_one(SOLVER, env=env)
    assert (got.outcome, got.win, got.reward) == (Outcome.WON, True, 1.0)
    actions = [step.action for step in got.steps]
    assert actions == ["right", "right", "right", "take", "right", "open"]
    assert got.steps[0].observation == "room 0 of 5, you hold nothing"
    assert (got.steps[0].info, got.final_observation) == ({"room": 1}, "open")
    assert (got.agent, got.source, got.parent) == ("solver", "policy", None)
    assert all(game.closed for game in env.games)


@pytest.mark.parametrize(
    ("policy", "fields", "outcome", "steps"),
    [
        (saying("do right", "do right", "do right", "do right", "do open"), {}, "failed", 5),
        (saying("do left"), {"max_steps": 7}, "max_steps", 7),
        (saying("do left", "hm", "hm", "do left", "hm"), {}, "invalid_actions", 7),
    ],
)
def test_honest_failures(policy, fields, outcome, steps):
    got = play_one(policy, episode_fields=fields)
    assert (got.outcome, len(got.steps), got.win) == (Outcome(outcome), steps, False)
    assert got.outcome.completed


def test_an_invalid_message_costs_a_step_and_shows_the_hint():
    got = play_one(saying("hm", "do left"), episode_fields={"max_steps": 2})
    assert [step.action for step in got.steps] == [None, "left"]
    assert got.steps[1].observation.startswith("say do left")


@pytest.mark.parametrize(
    ("trouble", "outcome", "reason"),
    [
        (KeyError("lost"), Outcome.ENV_ERROR, "KeyError"),
        (TimeoutError("its own"), Outcome.ENV_ERROR, "its own"),
        (StopIteration(), Outcome.ENV_ERROR, "StopIteration"),
        (DivergedError("another room"), Outcome.DIVERGED, "another room"),
        (5.0, Outcome.ENV_TIMEOUT, "0.1 s"),
    ],
)
def test_environment_failures_are_its_own(trouble, outcome, reason, caplog):
    start = time.monotonic()
    with caplog.at_level(logging.WARNING):
        got = play_one(SOLVER, env=Corridor({"take": trouble}), env_timeout_s=0.1)
    assert (got.outcome, len(got.steps)) == (outcome, 3)
    assert reason in got.provenance["reason"] and reason in caplog.text
    assert not got.outcome.completed and time.monotonic() - start < 2.0


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "step returned None, expected a StepResult"),
        ("room 1", "step returned 'room 1'"),
        (StepResult(observation=b"room", reward=0.0), "an observation is b'room', expected text"),
        (StepResult(observation="room", reward=None), "a reward is None, expected a number"),
        (StepResult(observation="room", reward="1.0"), "a reward is '1.0'"),
        (StepResult(observation="room", reward=float("nan")), "a reward of nan makes nan"),
        (StepResult(observation="room", reward=7, terminated=True), "a reward of 7 makes 7.0"),
        (StepResult(observation="room", reward=0.0, info=None), "info is None"),
        (StepResult(observation="room", reward=0.0, info={"seen": {1, 2}}), "info is"),
    ],
)
def test_results_that_are_none_are_the_environments_fault(result, reason, monkeypatch):
    env = Corridor()
    game = type(env.game())
    play = game.step
    monkeypatch.setattr(game, "step", lambda self, a: result if a == "take" else play(self, a))
    got = play_one(SOLVER, env=env)
    assert (got.outcome, len(got.steps), got.win) == (Outcome.ENV_ERROR, 3, False)
    assert reason in got.reason


def test_hanging_games_do_not_starve_the_others():
    env = Corridor({"take": 5.0})
    orders = [episode(t, id=f"{t.id}/{a}") for t in env.tasks("train") for a in range(3)]
    walker = ScriptedPolicy(lambda r: solve(r) if "/0" not in r.task else "do left", name="walker")
    got = loop.play_episodes_sync(env, walker, orders, env_threads=2, env_timeout_s=0.05)
    outcomes = {t.id: t.outcome for t in got}
    assert [t.id for t in got] == [order.id for order in orders]
    for i, outcome in outcomes.items():
        hangs = "/train/0" not in i
        assert outcome is (Outcome.ENV_TIMEOUT if hangs else Outcome.MAX_STEPS), i


def test_policy_failures_are_its_own():
    def fail(request):
        if request.turn == 2:
            raise RuntimeError("server gone")
        return "do right"

    got = play_one(ScriptedPolicy(fail, name="broken"))
    assert (got.outcome, len(got.steps)) == (Outcome.POLICY_ERROR, 2)
    assert "server gone" in got.provenance["reason"]


def test_a_full_context_ends_the_episode():
    class Full(ScriptedPolicy):
        async def act(self, request):
            finish = "context" if request.turn == 2 else "stop"
            return Completion(text="do right", finish=finish)

    got = play_one(Full(solve, name="full"))
    assert (got.outcome, len(got.steps)) == (Outcome.MAX_CONTEXT, 2)


def test_a_policy_may_quit():
    class Quitter(ScriptedPolicy):
        async def act(self, request):
            return Completion(text="do right", finish="quit" if request.turn == 2 else "stop")

    got = play_one(Quitter(solve, name="quitter"))
    assert (got.outcome, len(got.steps)) == (Outcome.FAILED, 2)
    assert got.outcome.completed


def test_a_task_may_have_a_lower_cap_than_the_run():
    task = dataclasses.replace(Corridor().tasks("train")[0], max_steps=2)
    walk = play_one(SOLVER)
    assert [task.cap(n) for n in (1, 2, 20)] == [1, 2, 2]
    assert {e.max_steps for e in play.from_start([task], 20, prefix="x")} == {2}
    expert = dataclasses.replace(walk, task=task, win=False, outcome=Outcome.FAILED)
    starts = _forks.starts([expert], states=5, explore="failed", max_steps=20)
    assert [step for _, step in starts] == [0, 1]
    orders = _forks.episodes(task, starts, round=1, rollouts=1, max_steps=20)
    assert {order.max_steps for order in orders} == {2}


@pytest.fixture
def parent():
    """A failed walk: right, right, right, right, open without the key."""
    return play_one(saying(*["do right"] * 4, "do open"), task=2, source="expert")


@pytest.mark.parametrize("k", range(1, 5))
def test_a_fork_takes_over_its_parents_steps(parent, k):
    fields = {"parent": parent, "fork_step": k, "id": f"fork/{k}"}
    seeker = ScriptedPolicy(
        lambda r: "do left" if "room 4" in r.messages[-1].content else solve(r), name="seeker"
    )
    got = play_one(seeker, task=2, episode_fields=fields | {"max_steps": k + 3})
    assert got.steps[:k] == parent.steps[:k]
    assert [step.source for step in got.steps] == ["expert"] * k + ["policy"] * (len(got.steps) - k)
    assert (got.parent, got.fork_step, len(got.steps)) == (parent.id, k, k + 3)


def test_a_fork_plays_on_as_if_never_interrupted():
    whole = play_one(SOLVER)
    for k in range(1, len(whole.steps)):
        fields = {"parent": whole, "fork_step": k, "id": whole.id}
        fork = play_one(SOLVER, episode_fields=fields)
        assert dataclasses.replace(fork, parent=None, fork_step=0) == whole


@pytest.mark.parametrize("k", [1, 4])
def test_a_replay_that_differs_has_diverged(parent, k):
    steps = list(parent.steps)
    steps[k] = dataclasses.replace(steps[k], observation="elsewhere")
    changed = dataclasses.replace(parent, steps=tuple(steps))
    got = play_one(SOLVER, task=2, episode_fields={"parent": changed, "fork_step": k})
    assert (got.outcome, len(got.steps)) == (Outcome.DIVERGED, k)
    assert "elsewhere" in got.provenance["reason"]


def test_steps_of_another_tokenizer_lose_their_ids(parent):
    steps = tuple(dataclasses.replace(s, tokens=(1, 2), logprobs=(0.0, 0.0)) for s in parent.steps)
    for tokenizer, kept in (("", (1, 2)), ("other", ())):
        changed = dataclasses.replace(parent, steps=steps, tokenizer=tokenizer)
        got = play_one(
            SOLVER,
            task=2,
            episode_fields={"parent": changed, "fork_step": 2, "max_steps": 2},
        )
        assert [step.tokens for step in got.steps] == [kept, kept]


def test_the_policy_reads_the_whole_conversation_and_is_told_of_the_end():
    requests, finished = [], []

    class Listening(ScriptedPolicy):
        def finish(self, episode):
            finished.append(episode)

    listening = Listening(lambda r: requests.append(r) or solve(r), name="listening")
    got = play_one(listening)
    last = requests[-1]
    assert [m.role for m in last.messages[:3]] == ["user", "assistant", "user"]
    assert len(last.messages) == len(last.tokens) == 2 + 2 * 5 + 1
    assert [m.content for m in last.messages[2::2]] == [s.observation for s in got.steps]
    assert finished == [got.id]


def test_there_is_no_turn_barrier():
    """A slow answer delays its own episode alone."""
    done = []

    class Slow(ScriptedPolicy):
        async def act(self, request):
            if request.task.endswith("/0"):
                await asyncio.sleep(0.2)
            return await super().act(request)

    env = Corridor()
    orders = [episode(task) for task in env.tasks("train")[:4]]
    loop.run_episodes_sync(
        env, Slow(solve, name="slow"), orders, on_done=lambda t: done.append(t.id)
    )
    assert done[-1].startswith("corridor/train/0") and len(done) == 4


def test_of_thousands_of_episodes_hundreds_are_alive_at_once():
    class Counting(ScriptedPolicy):
        alive = most = 0

        async def act(self, request):
            if request.turn == 0:
                self.alive += 1
                self.most = max(self.most, self.alive)
            await asyncio.sleep(0.001)
            return await super().act(request)

        def finish(self, episode):
            self.alive -= 1

    env = Corridor()
    tasks = env.tasks("train")
    orders = [episode(tasks[i % 8], id=str(i), max_steps=2) for i in range(3000)]
    policy = Counting(solve, name="counting")
    played = loop.play_episodes_sync(env, policy, orders, concurrency=300)
    assert len(played) == 3000 and all(len(t.steps) == 2 for t in played)
    assert 200 < policy.most <= 300 and policy.alive == 0


def test_forks_of_a_parent_are_played_side_by_side_longest_first(parent):
    env = Corridor()
    tasks = env.tasks("train")
    other = dataclasses.replace(parent, id="other")
    orders = [
        episode(tasks[2], id="start"),
        episode(tasks[3], id="elsewhere"),
        *(
            episode(tasks[2], id=f"{p.id}/{k}", parent=p, fork_step=k)
            for k in (1, 2, 3)
            for p in (parent, other)
        ),
    ]
    order = [e.id for e in loop.queue_order(orders)]
    mine = [f"{p.id}/{k}" for p in (parent, other) for k in (3, 2, 1)]
    assert order == [*mine, "start", "elsewhere"]


def test_equal_ids_are_refused():
    task = Corridor().tasks("train")[0]
    with pytest.raises(ValueError, match="must differ"):
        loop.play_episodes_sync(Corridor(), SOLVER, [episode(task), episode(task)])


def test_no_episodes_give_no_trajectories():
    assert loop.play_episodes_sync(Corridor(), SOLVER, []) == []


def test_the_progress_bar_tells_wins(capsys):
    play_one(SOLVER, progress=True)
    assert "wins=1" in capsys.readouterr().err
    play_one(SOLVER)
    assert capsys.readouterr().err == ""
