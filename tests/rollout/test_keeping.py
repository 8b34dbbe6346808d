"""What a stage keeps of an interrupted start, and when it is refused."""

import asyncio
import dataclasses
import tempfile

import pytest
from etils import epath
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from eef_jax.errors import DataError
from eef_jax.policies.scripted import ScriptedPolicy
from eef_jax.rollout import keeping
from eef_jax.types import ChatRequest, Message, Outcome
from tests import toyrun
from tests.properties import holds_through


def test_parts_that_were_made_from_something_else_are_refused(tmp_path):
    folder = epath.Path(tmp_path / "parts")
    for _ in range(2):
        keeping.claim(folder, {"config": "1", "env": "a"})
    with pytest.raises(DataError, match=r"\(env differ\): restore these, or move .*parts away"):
        keeping.claim(folder, {"config": "1", "env": "b"})


def test_a_completed_episode_counts_before_and_after_a_failed_one(tmp_path):
    folder, task = epath.Path(tmp_path), toyrun.tasks("train")[0]
    won = toyrun.attempt(task, ["look"], True, id="x")
    failed = dataclasses.replace(won, win=False, outcome=Outcome.ENV_ERROR)
    policy = ScriptedPolicy(str, name="x")
    for writer, attempt in enumerate([failed, won, failed]):
        with keeping.Keeper(folder, policy, writer=writer) as keeper:
            keeper.keep(attempt)
    with keeping.kept_episodes(folder) as kept:
        assert kept["x"].outcome is Outcome.WON and kept["x"].load() == won


class Paid(ScriptedPolicy):
    """Takes half a dollar for an answer."""

    dollars = 0.0

    async def act(self, request):
        self.dollars += 0.5
        return await super().act(request)

    def spent(self):
        return {"dollars": self.dollars}


def request(said):
    message = Message(role="user", content=said)
    return ChatRequest(episode="e", messages=(message,), tokens=((),), turn=0, attempt=0, task="t")


def test_the_cost_of_a_paid_answer_is_noted_at_once(tmp_path):
    folder, policy = epath.Path(tmp_path), Paid(lambda request: "yes", name="x")
    keeper = keeping.Keeper(folder, policy, writer=0)
    answers = keeping.KeptAnswers(policy, folder, on_paid=keeper.note_spent)
    with keeper, answers.journal:
        for count, said in enumerate(["a", "b", "a"], start=1):
            asyncio.run(answers.act(request(said)))
            # As another process would read it after this one was killed.
            assert keeping.spent(folder) == {"dollars": 0.5 * count}


def test_an_answer_to_another_conversation_is_asked_for(tmp_path):
    folder, asked = epath.Path(tmp_path), []
    for said in ("hello \ud83d", "hello \ud83d", "good day"):
        policy = ScriptedPolicy(lambda r: asked.append(r) or "yes", name="x")
        answers = keeping.KeptAnswers(policy, folder)
        with answers.journal:
            assert asyncio.run(answers.act(request(said))).text == "yes"
    assert [one.messages[0].content for one in asked] == ["hello \ud83d", "good day"]


class Starts(RuleBasedStateMachine):
    """Starts of a stage that play what is missing, some of it in vain, until they are killed."""

    episodes = tuple(f"e{number}" for number in range(6))

    def __init__(self):
        super().__init__()
        self.root = tempfile.TemporaryDirectory()
        self.folder = epath.Path(self.root.name)
        self.done, self.failed = {}, set()
        self.policy = ScriptedPolicy(str, name="x")

    def teardown(self):
        self.root.cleanup()

    @rule(writer=st.integers(0, 1), lengths=st.lists(st.integers(0, 3)), torn=st.integers(0, 40))
    def start(self, writer, lengths, torn):
        missing = [name for name in self.episodes if name not in self.done]
        with keeping.Keeper(self.folder, self.policy, writer=writer) as keeper:
            for name, length in zip(missing, lengths, strict=False):
                won = toyrun.attempt(toyrun.tasks("train")[0], ["look"] * length, True, id=name)
                if length:
                    keeper.keep(won)
                    self.done[name] = won
                else:
                    keeper.keep(dataclasses.replace(won, win=False, outcome=Outcome.ENV_ERROR))
                    self.failed.add(name)
        with (self.folder / keeping.EPISODES / self.last(writer)).open("ab") as file:
            file.write(b"01234567 {'id': 'torn in the middle of a write'}"[:torn])

    def last(self, writer):
        paths = (self.folder / keeping.EPISODES).iterdir()
        return max(path.name for path in paths if path.name.startswith(f"{writer:05d}"))

    @invariant()
    def what_was_completed_is_kept_and_nothing_else(self):
        with keeping.kept_episodes(self.folder) as kept:
            completed = {n: one.load() for n, one in kept.items() if one.outcome.completed}
            assert completed == self.done
            assert kept.keys() == self.done.keys() | self.failed


test_any_starts_keep_what_they_completed = holds_through(Starts)
