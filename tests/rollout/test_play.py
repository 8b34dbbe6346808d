"""A stage that is interrupted goes on where it was, and ends in the same bytes."""

import dataclasses
import tempfile
import threading

import pytest
from etils import epath
from hypothesis import strategies as st

from eef_jax.cluster import stopping
from eef_jax.cluster.hosts import SINGLE_PROCESS
from eef_jax.config.sections import RolloutSection
from eef_jax.errors import RolloutError
from eef_jax.policies.scripted import ScriptedPolicy
from eef_jax.rollout import keeping, loop, play
from eef_jax.types import Outcome
from tests.properties import holds
from tests.rollout.test_gather import Threads
from tests.toygame import Corridor, solve


class Asked(ScriptedPolicy):
    """Counts what it is asked, and fails from some question on."""

    concurrency = 3

    def __init__(self, *, trouble=None, after=10**9):
        super().__init__(self._speak, name="solver")
        self.asked = []
        self._trouble, self._after = trouble, after

    def _speak(self, request):
        if len(self.asked) >= self._after:
            raise self._trouble
        self.asked.append((request.task, request.turn))
        return solve(request)

    def spent(self):
        return {"requests": len(self.asked), "dollars": len(self.asked) / 7}


def play_stage(folder, policy, *, hosts=SINGLE_PROCESS, **options):
    env = Corridor()
    episodes = play.from_start(env.tasks("train"), 20, prefix="x")
    rollout = RolloutSection(max_failures=options.pop("max_failures", 0.0))
    return play.play_stage(
        env,
        policy,
        episodes,
        rollout,
        hosts=hosts,
        parts=folder / "parts",
        into=folder,
        label="x",
        **options,
    )


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.fixture
def whole(tmp_path):
    """The files of a stage that was not interrupted."""
    attempts, spent = play_stage(tmp_path / "whole", policy := Asked())
    assert len(attempts) == 8 and spent["requests"] == len(policy.asked)
    return files(tmp_path / "whole")


class Killed(BaseException):
    """As a process that dies; not the exceptions that the loop turns into outcomes."""


@pytest.mark.parametrize("after", [0, 1, 17, 30])
def test_after_a_kill_only_what_is_missing_is_played(whole, tmp_path, after):
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        play_stage(folder, first := Asked(trouble=Killed(), after=after))
    attempts, spent = play_stage(folder, second := Asked())
    assert files(folder) == whole
    ended = {a.task.id for a in attempts} - {task for task, _ in second.asked}
    repeated = set(first.asked) & set(second.asked)
    assert not {task for task, _ in repeated} & ended
    assert len(repeated) <= 3 * 7  # of those that were alive
    assert spent["requests"] == len(first.asked) + len(second.asked)


@pytest.mark.parametrize("after", [1, 17, 30])
def test_paid_answers_are_never_asked_for_twice(whole, tmp_path, after):
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        play_stage(folder, first := Asked(trouble=Killed(), after=after), paid=True)
    play_stage(folder, second := Asked(), paid=True)
    assert files(folder) == whole
    assert not set(first.asked) & set(second.asked)


def test_what_infrastructure_ended_is_played_again(whole, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(RolloutError, match="plays these and the missing ones"):
        play_stage(folder, first := Asked(trouble=ConnectionError("down"), after=20), paid=True)
    play_stage(folder, second := Asked(), paid=True)
    assert files(folder) == whole
    assert not set(first.asked) & set(second.asked)


def test_a_failure_that_stays_is_data(tmp_path):
    for _ in range(2):
        attempts, _ = play_stage(
            tmp_path, Asked(trouble=ConnectionError("down"), after=0), max_failures=1.0
        )
    assert {a.outcome for a in attempts} == {Outcome.POLICY_ERROR}
    assert "down" in attempts[0].reason


def test_a_request_to_stop_keeps_what_has_ended(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "_state", stopping._State())
    folder = tmp_path / "run"

    class Told(Asked):
        def _speak(self, request):
            if len(self.asked) == 17:
                stopping.request(stopping.signal.SIGTERM)
            return super()._speak(request)

    with pytest.raises(stopping.Stopped):
        play_stage(folder, first := Told(), paid=True)
    assert len(first.asked) <= 17 + Asked.concurrency
    monkeypatch.setattr(stopping, "_state", stopping._State())
    play_stage(folder, second := Asked(), paid=True)
    assert files(folder) == whole and not set(first.asked) & set(second.asked)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 3)])
def test_another_number_of_processes_goes_on(whole, tmp_path, before, after):
    folder = tmp_path / "run"
    first = _together(folder, before, after=4)
    second = _together(folder, after)
    assert files(folder) == whole
    repeated = set(first) & set(second)
    assert len({task for task, _ in repeated}) <= 3 * before


def test_an_object_store_keeps_them_too(whole, bucket):
    folder = epath.Path(f"{bucket}/run")
    with pytest.raises(Killed):
        play_stage(folder, first := Asked(trouble=Killed(), after=17), paid=True)
    play_stage(folder, second := Asked(), paid=True)
    assert {name: (folder / name).read_bytes() for name in whole} == whole
    assert not set(first.asked) & set(second.asked)


def _together(folder, count, after=10**9):
    """Play as several processes, which are threads here; what they asked."""
    barrier = threading.Barrier(count)
    policies = [Asked(trouble=Killed(), after=after) for _ in range(count)]

    def process(number):
        try:
            play_stage(folder, policies[number], hosts=Threads(number, barrier))
        except (Killed, threading.BrokenBarrierError):
            barrier.abort()

    threads = [threading.Thread(target=process, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [asked for policy in policies for asked in policy.asked]


@holds(st.lists(st.sampled_from(["kept", "failed", "missing"]), min_size=6, max_size=6), few=12)
def test_a_stage_ends_in_the_same_bytes_whatever_was_kept(before):
    """Any part of the episodes was kept, and some were ended by infrastructure."""
    env, policy = Corridor(), ScriptedPolicy(solve, name="solver")
    orders = play.from_start(env.tasks("train")[:6], 20, prefix="x")
    clean = loop.play_episodes_sync(env, policy, orders, provenance={"seed": 1})
    contents = []
    for fates in (["missing"] * 6, before):
        with tempfile.TemporaryDirectory() as folder:
            parts, into = epath.Path(folder) / "parts", epath.Path(folder) / "stage"
            with keeping.Keeper(parts, policy, writer=0) as keeper:
                for fate, one in zip(fates, clean, strict=True):
                    if fate == "failed":
                        one = dataclasses.replace(one, steps=(), outcome=Outcome.ENV_TIMEOUT)
                    if fate != "missing":
                        keeper.keep(one)
            play.play_stage(
                env,
                policy,
                orders,
                RolloutSection(),
                hosts=SINGLE_PROCESS,
                parts=parts,
                into=into,
                provenance={"seed": 1},
                label="x",
            )
            contents.append({path.name: path.read_bytes() for path in into.iterdir()})
    assert contents[0] == contents[1] and len(contents[0]) == 2
