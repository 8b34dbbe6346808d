"""The trajectories of the page: an index of them all, and their texts in chunks.

An attempt's record holds its steps, or the attempt that it was forked from and the steps after the
fork; how rounds judged it; and for an expert's attempt its chain of states.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from eef_jax.report import tokens
from eef_jax.report.chains import Chain
from eef_jax.report.examples import WHY
from eef_jax.report.judged import Fact, Judged
from eef_jax.report.page.packing import Chunks, columns, packed
from eef_jax.report.run import Run
from eef_jax.types import Attempt, Trajectory

MOST = 10_000  # trajectories in a page, experts' and selected ones not counted
MOST_BYTES = 22_000_000  # characters of packed trajectories in a page
MOST_EXAMPLES = 2_000  # examples whose tokens are in a page


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """What the page's viewer reads.

    Attributes:
        index: the packed index.
        chunks: the packed records.
        shown: which trajectories there are, in a sentence.
    """

    index: str
    chunks: Sequence[str]
    shown: str


@dataclasses.dataclass(slots=True, kw_only=True)
class _Entry:
    run: int
    stage: str
    attempt: Attempt
    facts: Fact
    place: tuple[int, int] = (-1, -1)
    number: int = -1  # its row in the index
    actions: str = ""


class _OfRun:
    """The attempts of one run, and where their examples' tokens are."""

    def __init__(self, run: Run, number: int):
        self.run = run
        self.judged = Judged(run)
        self.entries = [
            _Entry(
                run=number,
                stage=stage,
                attempt=attempt,
                facts=self.judged.facts.get(attempt.id, Fact(0)) if train else Fact(0),
            )
            for stage in run.manifests
            if (train := stage in self.judged.stages) or stage.endswith("/evaluate")
            for attempt in run.attempts(stage)
        ]
        self.by_id = {e.attempt.id: e for e in self.entries if e.stage in self.judged.stages}
        self.examples: dict[str, tuple[int, int]] = {}


def pack(
    runs: Sequence[Run],
    labels: Sequence[str],
    *,
    most: int = MOST,
    most_bytes: int = MOST_BYTES,
) -> Viewer:
    """Pack the attempts of runs.

    Args:
        runs: the runs.
        labels: their names.
        most: attempts that are neither an expert's nor selected; of more a sample is shown.
        most_bytes: packed characters from which on none of these is added.
    """
    parts = [_OfRun(run, number) for number, run in enumerate(runs)]
    chunks = Chunks()
    for part in parts:
        _pack_examples(part, chunks)
    every = [entry for part in parts for entry in part.entries]
    first = [e for e in every if e.attempt.source == "expert" or e.facts & Fact.SELECTED]
    # In the order of a hash of the task: any beginning of it is a fair sample of the tasks.
    rest = sorted(
        (e for e in every if not (e.attempt.source == "expert" or e.facts & Fact.SELECTED)),
        key=lambda e: (_hash(e.attempt.task.id), e.run, e.stage, e.attempt.id),
    )
    for number, entry in enumerate(every):  # before records name each other
        entry.number = number
    for entry in first:
        _add(entry, parts[entry.run], chunks)
    for entry in rest[:most]:
        if chunks.size > most_bytes:
            break
        _add(entry, parts[entry.run], chunks)
    chunks.close()
    shown = [entry for entry in every if entry.place[0] >= 0]
    return Viewer(
        index=packed(_index(shown, parts, labels)),
        chunks=chunks.done,
        shown=_said(len(every), len(shown)),
    )


def _said(every: int, shown: int) -> str:
    if every == shown:
        return f"All {every:,} trajectories are here."
    return (
        f"{shown:,} of {every:,} trajectories are here: every expert's, every selected one, and of "
        "the others those of a random sample of the tasks."
    )


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _pack_examples(part: _OfRun, chunks: Chunks) -> None:
    """Pack the training examples of the last rounds, newest first, as far as there is room."""
    texts, left = tokens.Texts(part.run), MOST_EXAMPLES
    for number in reversed(range(part.run.rounds + 1)):
        if f"round_{number}/select" not in part.run.manifests:
            continue
        for example in tokens.stored(part.run, number):
            if not left:
                return
            left -= 1
            pieces = texts.pieces(example.tokens.tolist())
            record = {
                "tokens": [chunks.text(piece) for piece in pieces],
                "weights": tokens.runs(example.weights),
            }
            part.examples[f"{number}/{example.id}"] = chunks.add(record)
    chunks.close()


def _add(entry: _Entry, part: _OfRun, chunks: Chunks) -> None:
    """Add an attempt's record."""
    whole = entry.attempt.load()
    parent = part.by_id.get(whole.parent or "")
    fork = whole.fork_step if parent and _goes_on(whole, parent.attempt) else 0
    record: dict[str, Any] = {
        "steps": [
            [
                chunks.text(step.observation),
                chunks.text(step.message),
                -1 if step.action is None else chunks.text(step.action),
                step.reward,
                int(step.source == "expert"),
            ]
            for step in whole.steps[fork:]
        ],
        "final": chunks.text(whole.final_observation),
        "reason": whole.reason,
        "verdicts": list(_verdicts(entry, part)),
    }
    if fork and parent:
        record |= {"parent": parent.number}
    if chains := part.judged.chains.get(entry.attempt.id):
        record["chains"] = [_chain(chain, part, chunks) for chain in chains]
    entry.actions = " → ".join(step.action or "(no action)" for step in whole.steps)
    entry.place = chunks.add(record)


def _goes_on(fork: Trajectory, parent: Attempt) -> bool:
    """Whether a fork's first steps are its parent's; a replay that diverged has others."""
    count = fork.fork_step
    return count <= fork.length and fork.prefix(count) == parent.prefix(count)


def _verdicts(entry: _Entry, part: _OfRun) -> Iterator[dict[str, Any]]:
    """The selections of an attempt, each with its training example."""
    if entry.stage.endswith("evaluate"):
        return
    for number, selection in part.judged.selected.get(entry.attempt.id, ()):
        role, state = selection["role"], selection["state"]
        yield {
            "round": number,
            "role": role,
            "state": state,
            "reasons": [step["reason"] for step in selection["steps"]],
            "weights": [step["weight"] for step in selection["steps"]],
            "example": part.examples.get(f"{number}/{entry.attempt.id}:{role}@{state}"),
        }


def _chain(chain: Chain, part: _OfRun, chunks: Chunks) -> dict[str, Any]:
    return {
        "round": chain.round,
        "verdicts": [
            [[verdict.reason, chunks.text(verdict.words)] for verdict in verdicts]
            for verdicts in chain.verdicts
        ],
        "unused": [chunks.text(chain.unused(step)) for step in range(len(chain.verdicts))],
        "states": [
            {
                "step": state.step,
                "name": state.name,
                "words": chunks.text(state.words),
                "notes": [chunks.text(note) for note in state.notes],
                "way": chunks.text(state.way),
                "rollouts": [part.by_id[a.id].number for a in state.rollouts],
                "completed": state.completed,
                "wins": state.wins,
                "passed": state.passed,
                "recovers": state.recovers,
                "solution": part.by_id[state.solution.id].number if state.solution else -1,
            }
            for state in chain.states
        ],
    }


def _index(
    entries: Sequence[_Entry], parts: Sequence[_OfRun], labels: Sequence[str]
) -> dict[str, Any]:
    """All that the viewer's list and filters need."""
    tasks: dict[tuple[int, str], int] = {}
    stages: dict[str, int] = {}
    rows = [_row(entry, parts[entry.run], tasks, stages) for entry in entries]
    known = {(e.run, e.attempt.task.id): e.attempt.task for e in entries}
    return {
        "runs": [
            {
                "label": label,
                "method": part.run.method,
                "rounds": [part.run.label(n) for n in range(part.run.rounds + 1)],
            }
            for label, part in zip(labels, parts, strict=True)
        ],
        "tasks": [
            {"id": known[key].id, "goal": known[key].goal, "tags": known[key].tags} for key in tasks
        ],
        "stages": list(stages),
        "why": WHY,
        "rows": columns(rows),
    }


def _row(
    entry: _Entry,
    part: _OfRun,
    tasks: dict[tuple[int, str], int],
    stages: dict[str, int],
) -> dict[str, Any]:
    attempt = entry.attempt
    parent = part.by_id.get(attempt.parent or "")
    return {
        "number": entry.number,
        "id": attempt.id,
        "run": entry.run,
        "stage": stages.setdefault(entry.stage, len(stages)),
        "task": tasks.setdefault((entry.run, attempt.task.id), len(tasks)),
        "outcome": attempt.outcome.value,
        "win": int(attempt.win),
        "reward": round(attempt.reward, 4),
        "length": attempt.length,
        "agent": attempt.agent,
        "fork": attempt.fork_step,
        "parent": parent.number if parent else -1,
        "facts": entry.facts.value,
        "chunk": entry.place[0],
        "place": entry.place[1],
        "actions": entry.actions,
    }
