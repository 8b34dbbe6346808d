"""Episodes of a stage kept as they end, the answers of paid experts as they come, and their cost.

    <stage>/parts/origin.json      what the stage is made from
    <stage>/parts/episodes/        journals: an index row, a tab and a trajectory each
    <stage>/parts/answers/         of experts whose answers are paid: one a turn
    <stage>/parts/spent/           counts of what each start of a process has spent so far

A restart, with as many processes or others, plays what is missing or was ended by infrastructure.
"""

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import google_crc32c
from etils import epath

from eef_jax.errors import DataError
from eef_jax.policies.base import Policy
from eef_jax.storage import files, index, journal, records
from eef_jax.storage.index import Place, StoredAttempt
from eef_jax.storage.journal import Journal
from eef_jax.types import ChatRequest, Completion, Trajectory

EPISODES = "episodes"
ANSWERS = "answers"
SPENT = "spent"
ORIGIN = "origin.json"
_SPENT_S = 1.0  # how often costs are noted as episodes end; those of a paid answer are at once


class Keeper:
    """Keeps what one process plays of a stage; use it as a context manager.

    Args:
        folder: the stage's parts, in storage that all processes share.
        policy: who plays; what it has spent is noted.
        writer: number of the process.
    """

    def __init__(self, folder: epath.Path, policy: Policy, *, writer: int):
        self._policy = policy
        self._before = policy.spent()
        self._episodes = Journal(folder / EPISODES, writer=writer)
        self._spent = Journal(folder / SPENT, writer=writer)
        self._noted = 0.0

    def __enter__(self) -> "Keeper":
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._episodes)
            stack.enter_context(self._spent)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self.note_spent()

    def keep(self, trajectory: Trajectory) -> None:
        """Keep an episode that has ended."""
        row = records.dump(index.row(trajectory))
        self._episodes.append(row + b"\t" + records.dump(records.to_json(trajectory)))
        if time.monotonic() - self._noted > _SPENT_S:
            self.note_spent()

    def note_spent(self) -> None:
        """Note what was spent since the start."""
        self._noted = time.monotonic()
        spent = {k: n - self._before.get(k, 0) for k, n in self._policy.spent().items()}
        self._spent.append(records.dump(spent))


class KeptAnswers:
    """A policy that answers from what was paid before, where it is asked the same again.

    Args:
        policy: the paid one.
        folder: the stage's parts.
        on_paid: called after each answer that was paid for and is kept.
    """

    def __init__(
        self, policy: Policy, folder: epath.Path, *, on_paid: Callable[[], None] = lambda: None
    ):
        self.name = policy.name
        self.tokenizer = policy.tokenizer
        self.concurrency = policy.concurrency
        self._policy = policy
        self._on_paid = on_paid
        self._kept = _read_answers(folder / ANSWERS)
        self.journal = Journal(folder / ANSWERS)

    async def act(self, request: ChatRequest) -> Completion:
        """Return the next assistant message (see `policies.base.Policy`)."""
        key = _key(request)
        if key in self._kept:
            return self._kept[key]
        completion = await self._policy.act(request)
        answer = {"key": key, "completion": dataclasses.asdict(completion)}
        self.journal.append(records.dump(answer))
        self._on_paid()
        return completion

    def finish(self, episode: str) -> None:
        """Release what is held for an episode."""
        self._policy.finish(episode)

    def spent(self) -> dict[str, float]:
        """Return what the policy has spent; kept answers cost nothing."""
        return self._policy.spent()

    async def close(self) -> None:
        """Do nothing: the policy belongs to the caller."""


def _key(request: ChatRequest) -> str:
    """Identifies a request with all that was said before: another conversation is asked anew."""
    said = [(message.role, message.content) for message in request.messages]
    text = repr((request.episode, request.task, request.attempt, request.turn, said))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _read_answers(folder: epath.Path) -> dict[str, Completion]:
    with journal.local(folder) as local:
        answers = [json.loads(record) for _, _, record in journal.read(local)]
    return {answer["key"]: _completion(answer["completion"]) for answer in answers}


def _completion(fields: Mapping[str, Any]) -> Completion:
    lists = {name: tuple(fields[name]) for name in ("tokens", "logprobs")}
    return Completion(**{**fields, **lists})


@contextlib.contextmanager
def kept_episodes(folder: epath.Path) -> Iterator[dict[str, StoredAttempt]]:
    """The episodes that ended so far, by id; they can be read as long as the context lasts.

    Args:
        folder: the stage's parts.
    """
    with journal.local(folder / EPISODES) as local:
        found: dict[str, StoredAttempt] = {}
        rows = index.Rows()
        for path, offset, record in journal.read(local):
            attempt = _attempt(rows, path, offset, record)
            # An episode that infrastructure ended is played again; the later one counts.
            if attempt.id not in found or attempt.outcome.completed:
                found[attempt.id] = attempt
        yield found


def _attempt(rows: index.Rows, path: epath.Path, offset: int, record: bytes) -> StoredAttempt:
    row, _, trajectory = record.partition(b"\t")
    place = Place(
        path=path,
        offset=offset + len(row) + 1,
        size=len(trajectory),
        checksum=google_crc32c.value(trajectory),
    )
    return rows.attempt(json.loads(row), place)


def spent(folder: epath.Path) -> dict[str, float]:
    """What all starts of all processes have spent on a stage.

    Args:
        folder: the stage's parts.
    """
    last: dict[str, dict[str, float]] = {}
    with journal.local(folder / SPENT) as local:
        for path, _, record in journal.read(local):
            start = "-".join(path.stem.split("-")[:2])
            last[start] = json.loads(record)
    sums: dict[str, float] = {}
    for counts in last.values():
        for name, count in counts.items():
            sums[name] = round(sums.get(name, 0) + count, 6)
    return sums


def claim(folder: epath.Path, origin: Mapping[str, Any]) -> None:
    """Say what a stage's parts are made from; parts that are there must be made from the same.

    Args:
        folder: the stage's parts.
        origin: JSON values.

    Raises:
        DataError: what is there was played with other inputs.
    """
    path = folder / ORIGIN
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(path, dict(origin))
        return
    before = files.read_json(path, remedy=f"move {folder} away, so that its episodes play again")
    differing = [name for name in {**before, **origin} if before.get(name) != origin.get(name)]
    if differing:
        raise DataError(
            f"{folder} holds episodes of an interrupted stage that was made from other inputs "
            f"({', '.join(sorted(differing))} differ): restore these, or move {folder} away, so "
            "that the stage is played anew"
        )
