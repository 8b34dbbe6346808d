"""The list of train tasks: the expert's end, its states, what is learned; and its filters."""

import dataclasses
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from eef_jax.report.chains import Chain, State
from eef_jax.report.judged import Fact, Judged
from eef_jax.types import Attempt
from eef_jax.view.chain import chain_of
from eef_jax.view.screen import STYLES, Part, line, text

_THROUGH = "★"
_MARKS = {True: "●", False: "○", None: "·"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which tasks are listed: those that pass every filter.

    Attributes:
        facts: what some attempt at the task has, each of them.
        tag: a tag of the task; "": any.
        outcome: how an expert's attempt at the task ended; "": any.
        search: words of the goal or the id.
    """

    facts: Fact
    tag: str
    outcome: str
    search: str

    def admit(self, attempts: Sequence[Attempt], judged: Judged) -> bool:
        """Whether a task is listed; `attempts` are those at it."""
        task = attempts[0].task
        hay = f"{task.goal} {task.id}".lower()
        facts = Fact(0)
        for attempt in attempts:
            facts |= judged.facts[attempt.id]
        outcomes = {a.outcome.value for a in attempts if a.id in judged.experts}
        return (
            self.facts in facts
            and (not self.tag or self.tag in task.tags)
            and (not self.outcome or self.outcome in outcomes)
            and all(word in hay for word in self.search.lower().split())
        )


def by_task(judged: Judged) -> dict[str, list[Attempt]]:
    """The attempts at each train task, an expert's first."""
    found: dict[str, list[Attempt]] = {}
    for attempt in judged.attempts.values():
        found.setdefault(attempt.task.id, []).append(attempt)
    return found


def shown(judged: Judged, filters: Filters, round: int) -> Iterator[RenderableType]:
    """The list as one table, and what its signs say.

    Args:
        judged: what the rounds of the run say.
        filters: which tasks.
        round: whose rollouts and verdicts are shown.
    """
    tasks = by_task(judged)
    found = [attempts for attempts in tasks.values() if filters.admit(attempts, judged)]
    if found:
        yield _table(found, judged, round)
    of = f" of {len(tasks):,}" if len(found) < len(tasks) else ""
    noun = "task" if len(tasks) == 1 else "tasks"
    yield line(f"{len(found):,}{of} {noun}, round {round}. --task=ID shows one.")
    if found:
        yield from _legend()


def _legend() -> Iterator[RenderableType]:
    won = (f"{_MARKS[True]} won", STYLES["passed"])
    failed = (f"{_MARKS[False]} failed", STYLES["failed"])
    unknown = f" from s₀, s₁, ...; {_MARKS[None]} unknown"
    yield line("states: the policy ", won, " or ", failed, unknown)
    yield line("learned: states whose solution is trained on; expert: the expert's win")
    yield line((_THROUGH, STYLES["kept"]), " solved only through an expert's failure")


def _table(found: Sequence[Sequence[Attempt]], judged: Judged, round: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), expand=True)
    table.add_column("task", overflow="fold", max_width=28)
    table.add_column("expert", overflow="fold", max_width=8)
    table.add_column("states", overflow="fold", max_width=12)
    table.add_column("learned", overflow="fold", max_width=12)
    table.add_column("goal", ratio=1, no_wrap=True, overflow="ellipsis")
    for attempts in found:
        for row in _rows(attempts, judged, round):
            table.add_row(*row)
    return table


def _rows(attempts: Sequence[Attempt], judged: Judged, round: int) -> Iterator[Sequence[Text]]:
    """A row for each expert's attempt; one for a task without any."""
    task = attempts[0].task
    tag: list[Part] = [text(task.tags[0], "dim"), " "] if task.tags else []
    goal = Text.assemble(*tag, text(task.goal))
    experts = [attempt for attempt in attempts if attempt.id in judged.experts]
    for expert in experts:
        chain = chain_of(judged.chains[expert.id], round)
        outcome = expert.outcome.value.replace("_", " ")
        yield (
            text(task.id),
            Text(outcome, STYLES["kept" if expert.win else "harmful"]),
            _states(chain.states if chain else ()),
            _learned(expert, chain, judged, round),
            goal,
        )
    if not experts:
        yield text(task.id), Text("–", "dim"), Text(""), Text(""), goal


def _states(states: Sequence[State]) -> Text:
    return Text.assemble(
        *(
            (_MARKS[s.passed], STYLES["unlabelled" if s.passed is None else s.words.split(":")[0]])
            for s in states
        )
    )


def _learned(expert: Attempt, chain: Chain | None, judged: Judged, round: int) -> Text:
    learned = [s.name for s in (chain.states if chain else ()) if s.solution is not None]
    if any(number == round for number, _ in judged.selected.get(expert.id, ())):
        learned.append("expert")
    if Fact.THROUGH_FAILURE in judged.facts[expert.id]:
        learned.append(_THROUGH)
    return Text(" ".join(learned), STYLES["kept"])
