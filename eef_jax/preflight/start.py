"""What the checks look at: the config, the stages to run, and texts read from the environment."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from etils import epath

from eef_jax.config import Config
from eef_jax.config.numerics import NOTHING, Record
from eef_jax.envs.base import Env
from eef_jax.experts import plays_held_out
from eef_jax.methods.base import Method
from eef_jax.rollout import loop, play
from eef_jax.storage.stages import Schedule
from eef_jax.storage.trajectories import index_given, index_trajectories
from eef_jax.types import Attempt, ChatRequest, Completion, Message, Task, Trajectory

if TYPE_CHECKING:
    from eef_jax.learner.placement import Placement

OPENINGS = 4  # tasks of each split whose first observation is read


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """One start of a run, before it begins.

    Attributes:
        config: the run's config.
        schedule: the stages to run.
        env: the environment.
        method: the method.
        root: the work folder; None where nothing is written.
        overwrite: whether what is in the work folder will be deleted.
        is_lead: whether this process plays the expert.
        devices: number of devices of the planned run; 0: those that are here.
        processes: number of processes of the planned run.
        numerics: what the work folder has recorded, which `config` has where it was open.
    """

    config: Config
    schedule: Schedule
    env: Env
    method: Method
    root: epath.Path | None = None
    overwrite: bool = False
    is_lead: bool = True
    devices: int = 0
    processes: int = 1
    numerics: Record = NOTHING

    @property
    def expert_plays(self) -> bool:
        """Whether the expert's trajectories are to be played, not read from a file."""
        return "expert" in self.schedule.kinds() and not self.config.expert.trajectories

    @property
    def expert_plays_held_out(self) -> bool:
        """Whether the expert plays the evaluation split too."""
        return self.expert_plays and plays_held_out(self.config.expert)

    @property
    def splits(self) -> Mapping[str, str]:
        """The splits whose tasks are played or learned: what for, in words."""
        kinds, held_out = self.schedule.kinds(), self.config.evaluate.split
        found = {}
        if kinds & {"expert", "explore", "select"}:
            found["train"] = "its tasks are explored and learned"
        if "evaluate" in kinds:
            found[held_out] = f"policies are evaluated on it (config.evaluate.split={held_out})"
        elif self.expert_plays_held_out:
            found[held_out] = f"the expert is evaluated on it (config.evaluate.split={held_out})"
        return found

    @functools.cached_property
    def placement(self) -> "Placement":
        """The base model; none of its weights is read."""
        from eef_jax.learner.placement import Placement

        return Placement(self.config)

    @functools.cached_property
    def expert_file(self) -> tuple[Attempt, ...]:
        """The attempts of the expert's file.

        Raises:
            DataError: it is missing or damaged.
        """
        return index_given(self.config.expert.trajectories)

    @functools.cached_property
    def experts(self) -> tuple[Attempt, ...] | None:
        """The expert's attempts; None where they are still to be played."""
        if self.expert_plays:
            return None
        if self.root is not None and "expert" in self.schedule.done:
            return index_trajectories(self.root / "expert")
        return self.expert_file if self.config.expert.trajectories else None

    @functools.cached_property
    def sampled(self) -> list[Task]:
        """A few tasks of each split, the first and the last among them."""
        return [task for split in self.splits for task in spread(self.env.tasks(split), OPENINGS)]

    @functools.cached_property
    def openings(self) -> "Openings":
        """The beginnings of the sampled tasks."""
        return read_openings(self, self.sampled)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Openings:
    """What an agent reads before its first message.

    Attributes:
        messages: by the task's id, the prompt and the first observation.
        failed: trajectories of the tasks that could not be started.
    """

    messages: Mapping[str, tuple[Message, ...]]
    failed: tuple[Trajectory, ...]


class _Reader:
    """A policy that keeps what it reads and ends the episode."""

    name = "reader"
    tokenizer = ""
    concurrency = OPENINGS

    def __init__(self) -> None:
        self.read: dict[str, tuple[Message, ...]] = {}

    async def act(self, request: ChatRequest) -> Completion:
        self.read[request.task] = request.messages
        return Completion(text="", finish="quit")

    def finish(self, episode: str) -> None:
        pass

    def spent(self) -> dict[str, float]:
        return {}

    async def close(self) -> None:
        pass


def read_openings(start: Start, tasks: Sequence[Task]) -> Openings:
    """Start tasks in the rollout loop, with its threads and time limits, and end them at once."""
    reader, rollout = _Reader(), start.config.rollout
    played = loop.play_episodes_sync(
        start.env,
        reader,
        play.from_start(tasks, 1, prefix="opening"),
        **play.calls(rollout),
        label="",
    )
    return Openings(
        messages=reader.read, failed=tuple(t for t in played if not t.outcome.completed)
    )


def spread(tasks: Sequence[Task], count: int) -> list[Task]:
    """At most `count` tasks, evenly spaced from the first to the last."""
    last = len(tasks) - 1
    places = {round(last * place / max(count - 1, 1)) for place in range(count)} if tasks else ()
    return [tasks[place] for place in sorted(places)]
