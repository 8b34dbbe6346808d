"""One task: each expert's attempt as the paper's Figure 1, or all attempts where no expert's is."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from eef_jax.report.chains import Chain, State, Verdict
from eef_jax.report.judged import Judged
from eef_jax.report.run import Run
from eef_jax.types import Attempt, Step
from eef_jax.view.screen import STYLES, Part, line, text

_INDENT = 5
# An action in the map of the chain, by its kind: told apart without colours, too.
_BARS = {"kept": "━━", "harmful": "╳╳", "context": "──", "unused": "┄┄"}
_NAMES = {kind: kind for kind in _BARS} | {"unused": "not used"}


def shown(
    run: Run, judged: Judged, attempts: Sequence[Attempt], round: int | None
) -> Iterator[RenderableType]:
    """What there is to see of one task.

    Args:
        run: the run.
        judged: what its rounds say.
        attempts: all attempts at the task, an expert's first.
        round: whose rollouts and verdicts are shown; None: of the last round that has any.
    """
    task = attempts[0].task
    yield line(text(task.id, "bold"), "  ", text(", ".join(task.tags), "dim"))
    yield line(text(task.goal))
    experts = [attempt for attempt in attempts if attempt.id in judged.experts]
    for expert in experts:
        yield ""
        yield from _expert(run, judged.chains[expert.id], expert, round)
    if not experts:
        yield ""
        for attempt in attempts:
            yield from _attempt(run, attempt)


def chain_of(chains: Sequence[Chain], round: int | None) -> Chain | None:
    """The chain of a round; None: of the last one that has states, or else of the last."""
    if round is not None:
        return next((chain for chain in chains if chain.round == round), None)
    with_states = [chain for chain in chains if chain.states]
    return next(reversed(with_states or chains), None)


def _expert(
    run: Run, chains: Sequence[Chain], expert: Attempt, round: int | None
) -> Iterator[RenderableType]:
    yield line("The attempt of expert ", text(expert.agent, "bold"), ": ", *_ended(expert))
    yield line(text(expert.id, "dim"))
    chain = chain_of(chains, round)
    if chain is None:
        which = "This run" if round is None else f"Round {round}"
        yield line(f"{which} played nothing from it and selected nothing of it.")
        chain = Chain(round=0, states=(), verdicts=[()] * expert.length)
    else:
        others = [f"--round={other.round}" for other in chains if other is not chain]
        told = f" ({', '.join(others)} for another)" if others else ""
        yield line(f"In {_round(run, chain.round)}", (told, "dim"), ":")
    if chain.states:
        yield ""
        yield _map(chain, expert)
        yield _legend(chain)
    yield ""
    states = {state.step: state for state in chain.states}
    for number, step in enumerate(expert.load().steps):
        if number in states:
            yield from _state(states[number])
        yield from _step(number, step, chain)
    yield line(*_ended(expert), indent=1)


def _round(run: Run, number: int) -> str:
    if number:
        return f"round {number}"
    return "the clone's round 0" if run.rounds else "round 0"


def _map(chain: Chain, expert: Attempt) -> RenderableType:
    """The chain in one line: states with their wins, actions as bars between them."""
    parts: list[Part] = []
    states = {state.step: state for state in chain.states}
    for number, verdicts in enumerate(chain.verdicts):
        if number in states:
            state = states[number]
            share = f"{state.wins}/{state.completed}" if state.completed else "–"
            parts += [(f"{state.name}:{share}", _style(state)), " "]
        kind = _kind(verdicts)
        parts += [(_BARS[kind], STYLES[kind]), " "]
    return line(*parts, ("won", STYLES["passed"]) if expert.win else ("lost", STYLES["failed"]))


def _legend(chain: Chain) -> RenderableType:
    kinds = {_kind(verdicts) for verdicts in chain.verdicts}
    parts: list[Part] = ["s₀:0/1 completed rollouts won"]
    for kind in (kind for kind in _BARS if kind in kinds):
        parts += [" · ", (_BARS[kind], STYLES[kind]), f" {_NAMES[kind]}"]
    return line(*parts)


def _style(state: State) -> str:
    if state.passed is None:
        return STYLES["unlabelled"]
    return STYLES["passed" if state.passed else "failed"]


def _kind(verdicts: Sequence[Verdict]) -> str:
    return verdicts[0].kind if verdicts else "unused"


def _state(state: State) -> Iterator[RenderableType]:
    ended = Counter(attempt.outcome.value.replace("_", " ") for attempt in state.rollouts)
    rollouts = ", ".join(f"{count} {outcome}" for outcome, count in ended.items())
    yield line((state.name, _style(state)), " ", state.words, (f" ({rollouts})", "dim"), indent=1)
    for note in state.notes:
        yield line((note, "italic"), indent=_INDENT)
    if state.solution is not None:
        yield line(("Winning continuation", "bold"), f": {state.way}.", indent=_INDENT)
        first = max(state.solution.fork_step, state.step)
        yield line(*_path(state.solution.load().steps[first:], STYLES["own"]), indent=_INDENT + 2)
        yield line(text(state.solution.id, "dim"), indent=_INDENT + 2)


def _path(steps: Sequence[Step], style: str) -> Iterator[Text | str]:
    for number, step in enumerate(steps):
        yield " → " if number else ""
        yield text(_action(step), style)


def _step(number: int, step: Step, chain: Chain) -> Iterator[RenderableType]:
    verdicts = chain.verdicts[number]
    kind = _kind(verdicts)
    told = f"  {_NAMES[kind]}" if verdicts else ""
    action = text(_action(step), STYLES[kind])
    yield line(f"{number + 1:3}  ", action, (told, f"bold {STYLES[kind]}"))
    for verdict in verdicts:
        yield line(text(verdict.words, STYLES[verdict.kind]), indent=_INDENT)
    if unused := chain.unused(number):
        yield line((unused, STYLES["unused"]), indent=_INDENT)


def _attempt(run: Run, attempt: Attempt) -> Iterator[RenderableType]:
    yield line("The attempt of ", text(attempt.agent, "bold"), ": ", *_ended(attempt))
    yield line(*_path(attempt.load().steps, ""), indent=_INDENT)


def _ended(attempt: Attempt) -> Sequence[Part]:
    outcome = attempt.outcome.value.replace("_", " ")
    actions = f"{attempt.length} action{'s' * (attempt.length != 1)}"
    reason = f": {attempt.reason}" if attempt.reason else ""
    style = STYLES["passed" if attempt.win else "failed"]
    return (outcome, style), text(reason), f" after {actions}, reward {attempt.reward:.2f}"


def _action(step: Step) -> str:
    return "(no action)" if step.action is None else step.action
