"""A conversation's task, and whether the environment shows what the agent read.

The task is found by the texts, never by ids: an id is a place in somebody's list. Every candidate
is replayed, and each observation must stand in what the agent read, white space aside. So prefixes
and lists of actions that others put around a page do not matter, and another catalogue is noticed.
"""

import dataclasses
import enum
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from eef_jax.envs.base import Env, Game, SupportsImport
from eef_jax.importers._replies import action_and_thought
from eef_jax.importers.base import Conversation, Said
from eef_jax.types import Outcome, Step, Task, Trajectory

Messages = Literal["render", "as_is"]
SPLITS = ("train", "dev", "test")
REWARD_TOLERANCE = 1e-4  # rewards are printed with few digits
_PREFIX = re.compile(r"^\s*Observation:\s*")


class Status(enum.StrEnum):
    """What a replay found."""

    EQUAL = "equal"
    UNFINISHED = "unfinished"
    DIVERGED = "diverged"
    UNKNOWN_TASK = "unknown task"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A conversation and what became of it.

    Attributes:
        conversation: as the file tells it.
        status: `equal`, `unfinished` (equal as far as it goes, but the task had not ended),
            `diverged`, or `unknown task`.
        reason: for the last two, what differs, with the step and both texts; for the others, what
            was decided without proof; "": nothing.
        trajectory: the attempt in this environment; where it diverged, as the file tells it; None
            without a task.
        compared: number of steps that were replayed.
    """

    conversation: Conversation
    status: Status
    reason: str = ""
    trajectory: Trajectory | None = None
    compared: int = 0

    @property
    def verified(self) -> bool:
        """Whether the environment showed the same."""
        return self.status in (Status.EQUAL, Status.UNFINISHED)


class Replayer:
    """Replays conversations in an environment.

    Args:
        env: the run's environment; its prompt decides how messages are said.
        messages: `render` says thought and action in that prompt; `as_is` keeps replies.
    """

    def __init__(self, env: Env, *, messages: Messages = "render"):
        self._env = env
        self._plain = env.plain() if isinstance(env, SupportsImport) else env
        self._as_is = messages == "as_is"

    def replay(self, conversation: Conversation) -> Replay:
        """Find the task and compare."""
        found = [
            self._attempt(conversation, start, task)
            for start, task in self._candidates(conversation)
        ]
        if not found:
            return Replay(
                conversation=conversation,
                status=Status.UNKNOWN_TASK,
                reason="no message names a task of this environment; it begins with "
                f"{_short(_first(conversation))}",
            )
        verified = [replay for replay in found if replay.verified]
        if len(verified) < 2:
            return verified[0] if verified else max(found, key=lambda replay: replay.compared)
        # Goals of equal words, no purchase that tells them apart: all that was seen and paid is
        # true of each, so the first one is as right as any.
        fit = ", ".join(r.trajectory.task.id for r in verified if r.trajectory)
        return dataclasses.replace(verified[0], reason=f"the first of the tasks that fit it: {fit}")

    def _candidates(self, conversation: Conversation) -> Iterator[tuple[int, Task]]:
        """Places of messages that may be the first observation, and tasks that it may be of."""
        named: Sequence[Task] = ()
        first = None
        for place, message in enumerate(conversation.messages):
            if message.role == "assistant":
                continue
            named = self._tasks(message.content) or named
            if named and first is None:
                first = place, named[0]
            if shown := [task for task in named if self._starts(message.content, task)]:
                yield from ((place, task) for task in shown)
                return
            if first is not None and place > first[0] + 2:  # a prompt may name the task, no page
                break
        if first is not None:
            yield first

    def _tasks(self, text: str) -> Sequence[Task]:
        if isinstance(self._env, SupportsImport):
            return self._env.find_tasks(text)
        read = _spaced(text)
        return [t for split in SPLITS for t in self._env.tasks(split) if _spaced(t.goal) in read]

    def _starts(self, text: str, task: Task) -> bool:
        game = self._plain.game()
        try:
            return _shows(text, game.reset(task))
        finally:
            game.close()

    def _attempt(self, conversation: Conversation, start: int, task: Task) -> Replay:
        pair = _Pair(self._env, self._plain, task)
        try:
            return self._play(conversation, start, task, pair)
        finally:
            pair.close()

    def _play(self, conversation: Conversation, start: int, task: Task, games: "_Pair") -> Replay:
        turns = conversation.messages[start:]
        steps: list[Step] = []
        difference = games.difference(turns[0].content)
        for number in range(1, len(turns), 2):
            if difference or games.ended:
                break
            reply = turns[number]
            action, thought = action_and_thought(reply, self._env)
            observation = games.observation
            reward, info = games.do(action, reply.content)
            steps.append(
                Step(
                    observation=observation,
                    message=self._message(reply, action, thought),
                    action=action,
                    reward=reward,
                    source="expert",
                    info=info,
                )
            )
            # What a message without an action is answered with is each environment's own.
            if action is not None and number + 1 < len(turns):
                difference = games.difference(turns[number + 1].content)
        paid = conversation.reward
        if not difference and paid is not None and abs(paid - games.reward) > REWARD_TOLERANCE:
            difference = f"the file was paid {paid}, this environment pays {games.reward}"
        trajectory = self._trajectory(conversation, task, steps, games)
        if difference:
            told = self._as_told(conversation, start, trajectory)
            reason = f"step {len(steps)}: {difference}"
            return Replay(
                conversation=conversation,
                status=Status.DIVERGED,
                reason=reason,
                trajectory=told,
                compared=len(steps),
            )
        status = Status.EQUAL if games.ended else Status.UNFINISHED
        return Replay(conversation=conversation, status=status, trajectory=trajectory)

    def _message(self, reply: Said, action: str | None, thought: str) -> str:
        """How the reply is said in the run's prompt."""
        if self._as_is or action is None:
            return reply.content
        said = self._env.render(action, thought)
        # A thought may hold what the prompt takes for the action.
        return said if self._env.parse(said) == action else self._env.render(action)

    def _trajectory(
        self, conversation: Conversation, task: Task, steps: Sequence[Step], games: "_Pair"
    ) -> Trajectory:
        win = games.ended and self._env.is_win(games.reward)
        outcome = Outcome.FAILED if games.ended else Outcome.MAX_STEPS
        return Trajectory(
            id=conversation.name or conversation.place,
            task=task,
            steps=tuple(steps),
            final_observation=games.observation,
            reward=games.reward,
            win=win,
            outcome=Outcome.WON if win else outcome,
            source="expert",
            agent=conversation.agent or "expert",
            provenance={"imported": conversation.place, "verified": True},
        )

    def _as_told(self, conversation: Conversation, start: int, replayed: Trajectory) -> Trajectory:
        """The attempt with the file's own observations and reward."""
        turns = conversation.messages[start:]
        steps = []
        for number in range(1, len(turns), 2):
            action, thought = action_and_thought(turns[number], self._env)
            message = self._message(turns[number], action, thought)
            observation = turns[number - 1].content
            steps.append(
                Step(observation=observation, message=message, action=action, source="expert")
            )
        reward = conversation.reward or 0.0
        win = self._env.is_win(reward)
        return dataclasses.replace(
            replayed,
            steps=tuple(steps),
            final_observation=turns[-1].content if len(turns) % 2 else "",
            reward=reward,
            win=win,
            outcome=Outcome.WON if win else Outcome.FAILED,
            provenance={"imported": conversation.place, "verified": False},
        )


class _Pair:
    """A game as the run shows it, and the same game as plain pages, played alike."""

    def __init__(self, env: Env, plain: Env, task: Task):
        self._env = env
        self._games: list[Game] = [env.game()]
        if plain is not env:
            self._games.append(plain.game())
        self._shown = [game.reset(task) for game in self._games]
        self.observation = self._shown[0]
        self.reward = 0.0
        self.ended = False

    def do(self, action: str | None, message: str) -> tuple[float, dict[str, Any]]:
        """Do an action in both; None: a message without one. Its reward and information."""
        if action is None:
            self.observation = self._env.invalid(message)
            return 0.0, {}
        results = [game.step(action) for game in self._games]
        self._shown = [result.observation for result in results]
        self.observation = self._shown[0]
        self.reward += results[0].reward
        self.ended = results[0].terminated or results[0].truncated
        return results[0].reward, dict(results[0].info)

    def difference(self, read: str) -> str:
        """What differs between a text that the agent read and what is shown now; "": nothing."""
        if self.ended or any(_shows(read, shown) for shown in self._shown):
            return ""  # what is said after the end decides nothing
        here, there = _apart(_spaced(self._shown[-1]), _spaced(_PREFIX.sub("", read)))
        return f"the agent read {_short(there)}, this environment shows {_short(here)}"

    def close(self) -> None:
        for game in self._games:
            game.close()


def _shows(read: str, shown: str) -> bool:
    """Whether a text that was read holds an observation."""
    page = _spaced(_PREFIX.sub("", shown))
    return bool(page) and page in _spaced(read)


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _apart(one: str, other: str) -> tuple[str, str]:
    """Two texts from a little before their first difference."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    start = max(0, same - 20)
    return one[start:], other[start:]


def _short(text: str, limit: int = 120) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "...")


def _first(conversation: Conversation) -> str:
    """What was read first, after the prompt if there is one."""
    read = [m.content for m in conversation.messages if m.role != "assistant"]
    return (read[1:2] or read or [""])[0]
