"""The stages of a run by name: their order, what each needs, and which ones a start has to run."""

import dataclasses
from collections.abc import Collection, Sequence

from eef_jax.errors import ConfigError, DataError, did_you_mean

# Kinds of stages that --stages may name; the report is written anew at each start.
KINDS = ("expert", "explore", "select", "tune", "evaluate", "report")

_READS = {
    "expert": ("env", "expert", "rollout", "evaluate.split"),
    "explore": ("seed", "env", "method", "model", "engine", "rollout", "explore"),
    "select": (
        "seed",
        "env",
        "method",
        "model.path",
        "train.seq_len",
        "train.observation_weight",
        "train.conversations",
        "train.conversations_weight",
    ),
    "tune": ("seed", "model", "train"),
    "evaluate": ("seed", "env", "model", "engine", "rollout", "evaluate"),
}
COMPUTED = ("explore", "tune", "evaluate")  # kinds that compute with the model


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What one start of a run does; names of stages in their order.

    Attributes:
        done: finished before.
        todo: to run now.
        left_out: unfinished, and not run now.
    """

    done: tuple[str, ...]
    todo: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def first_unfinished(self) -> str:
        """The first stage that was not finished before; "" if all were."""
        open_stages = {*self.todo, *self.left_out}
        return min(open_stages, key=_place, default="")

    def kinds(self) -> set[str]:
        """The kinds of the stages to run."""
        return {kind_of(name) for name in self.todo}


def _place(stage: str) -> tuple[int, int]:
    """A stage's place in the order of stages."""
    return round_of(stage), KINDS.index(kind_of(stage))


def kind_of(stage: str) -> str:
    """A stage's kind: `round_1/tune` is a `tune`."""
    return stage.rpartition("/")[2]


def round_of(stage: str) -> int:
    """A stage's round; 0 for the expert, too."""
    return int(stage.partition("/")[0].removeprefix("round_")) if "/" in stage else 0


def stage_names(rounds: int) -> list[str]:
    """Names of all stages of a run in their order.

    Args:
        rounds: rounds that the method plays after the clone.
    """
    names = ["expert"]
    for number in range(rounds + 1):
        kinds = ("explore",) * bool(number) + ("select", "tune", "evaluate")
        names += [f"round_{number}/{kind}" for kind in kinds]
    return names


def needs(stage: str) -> list[str]:
    """The stages whose files a stage reads."""
    number = round_of(stage)
    explored = [f"round_{n}/explore" for n in range(1, number)]
    previous = [f"round_{number - 1}/tune"] * bool(number)
    match kind_of(stage):
        case "explore":
            return ["expert", *explored, *previous]
        case "select":
            return ["expert", *explored, *[f"round_{number}/explore"] * bool(number)]
        case "tune":
            return [f"round_{number}/select", *previous]
        case "evaluate":
            return [f"round_{number}/tune"]
    return []


def reads(stage: str) -> tuple[str, ...]:
    """The sections and fields of the config that a stage reads itself."""
    return _READS[kind_of(stage)]


def schedule(rounds: int, kinds: Collection[str], done: Collection[str]) -> Schedule:
    """What a start of a run has to do.

    Stages whose needs are neither finished nor run now are left out, as are those of other kinds.

    Args:
        rounds: rounds that the method plays after the clone.
        kinds: the kinds of stages that were asked for.
        done: names of finished stages.

    Raises:
        ConfigError: there is no such kind.
        DataError: stages were asked for of which none is finished and none can be run.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"unknown stage {kind!r} in --stages: {did_you_mean(kind, KINDS)}")
    names, todo, blocked = stage_names(rounds), [], {}
    for name in names:
        if name in done or kind_of(name) not in kinds:
            continue
        lacking = [need for need in needs(name) if need not in done and need not in todo]
        if lacking:
            blocked[name] = lacking[0]
        else:
            todo.append(name)
    _check_possible(names, blocked, todo=todo, done=done)
    return Schedule(
        done=tuple(name for name in names if name in done),
        todo=tuple(todo),
        left_out=tuple(name for name in names if name not in done and name not in todo),
    )


def _check_possible(
    names: Sequence[str], blocked: dict[str, str], *, todo: list[str], done: Collection[str]
) -> None:
    served = {kind_of(name) for name in names if name in done or name in todo}
    for name, lacking in blocked.items():
        if kind_of(name) not in served:
            raise DataError(
                f"{name} needs {lacking}, which is not finished and --stages leaves it out: run it "
                "first (without --stages all are run, finished ones are skipped)"
            )
