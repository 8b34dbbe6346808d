"""Look at a run in the terminal: `python -m eef_jax.view --workdir=runs/demo`.

Lists the train tasks; with `--task=ID` one of them as a chain of states, with `--tokens` what was
trained on, weights as colours. Reads files only.
"""

import difflib
from collections.abc import Iterable, Sequence

from absl import flags
from rich.console import RenderableType

from eef_jax import cli
from eef_jax.errors import ConfigError, check_one_of
from eef_jax.report.judged import Fact, Judged
from eef_jax.report.run import Run, read
from eef_jax.storage.workdir import read_workdir
from eef_jax.types import Attempt, Outcome
from eef_jax.view import chain, screen, tasks, tokens

_FACTS = {
    "through_failure": (Fact.THROUGH_FAILURE, "solved only through an expert's failure"),
    "recovery": (Fact.RECOVERY, "with a state that needs recovery"),
    "harmful": (Fact.HARMFUL, "with a harmful action of the expert"),
    "trained_on": (Fact.SELECTED, "of which something was trained on"),
}


def main() -> None:
    """Show what the flags name."""
    if not flags.FLAGS.workdir:
        raise ConfigError("no --workdir was given; the demo's is --workdir=runs/demo")
    run = read(read_workdir(flags.FLAGS.workdir))
    console = screen.console()
    for part in _shown(run):
        console.print(part)


def _shown(run: Run) -> Iterable[RenderableType]:
    given = flags.FLAGS
    last = _last_round(run)
    number = last if given.round is None else given.round
    if not 0 <= number <= last:
        raise ConfigError(f"--round is {number}: rounds 0 to {last} of this run have been played")
    if given.task is not None or given.tokens:
        _check_no_filter()
    if given.task is None and given.tokens:
        return tokens.first_batch(run, number)
    judged = Judged(run)
    if given.task is None:
        return tasks.shown(judged, _filters(judged), number)
    attempts = _of_task(run, judged, given.task)
    if given.tokens:
        return tokens.of_task(run, number, given.task)
    return chain.shown(run, judged, attempts, given.round)


def _last_round(run: Run) -> int:
    """The last round whose rollouts or selections are there."""
    stages = ("explore", "select")
    done = (n for n in range(run.rounds + 1) for s in stages if f"round_{n}/{s}" in run.manifests)
    return max(done, default=0)


def _check_no_filter() -> None:
    """Raises ConfigError where a filter of the list is given."""
    for name in (*_FACTS, "tag", "outcome", "search"):
        if flags.FLAGS[name].value:
            raise ConfigError(f"--{name} filters the list of tasks: not with --task or --tokens")


def _filters(judged: Judged) -> tasks.Filters:
    given = flags.FLAGS
    tags = {tag for attempt in judged.attempts.values() for tag in attempt.task.tags}
    if given.tag:
        check_one_of("--tag", given.tag, tags)
    return tasks.Filters(
        facts=Fact(sum(fact for name, (fact, _) in _FACTS.items() if given[name].value)),
        tag=given.tag or "",
        outcome=given.outcome or "",
        search=given.search or "",
    )


def _of_task(run: Run, judged: Judged, task: str) -> Sequence[Attempt]:
    """All attempts at a task, of train or of the held-out tasks."""
    known = tasks.by_task(judged)
    for stage in run.manifests:
        if stage.endswith("/evaluate"):
            for attempt in run.attempts(stage):
                known.setdefault(attempt.task.id, []).append(attempt)
    if task not in known:
        near = difflib.get_close_matches(task, known, n=3, cutoff=0.5)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise ConfigError(
            f"--task is {task!r}, which this run has not played: {meant}Without --task the train "
            "tasks are listed"
        )
    return known[task]


def run() -> None:
    """Run the command."""
    cli.define_path("workdir", None, "Folder of the run.")
    flags.DEFINE_string("task", None, "Id of a task to show; without it tasks are listed.")
    flags.DEFINE_integer("round", None, "Round to show; by default the last one. 0 is the clone's.")
    flags.DEFINE_bool("tokens", False, "Show the round's first batch, or the task's examples.")
    for name, (_, which) in _FACTS.items():
        flags.DEFINE_bool(name, False, f"List only tasks {which}.")
    flags.DEFINE_string("tag", None, "List only tasks with this tag, such as hard.")
    flags.DEFINE_enum("outcome", None, list(Outcome), "List only tasks that an expert ended so.")
    flags.DEFINE_string("search", None, "List only tasks with these words in goal or id.")
    cli.run(main)


if __name__ == "__main__":
    run()
