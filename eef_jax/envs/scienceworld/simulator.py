"""The ScienceWorld simulator in a JVM, with the dynamics of the package's Python wrapper.

Listing the valid actions draws from the game's random numbers, and the wrapper lists them after
every step, so what bees and pollen do depends on it. Here, too, exactly one listing follows the
start and each step, but the list stays on the Java side, which halves the cost of a step.
"""

import dataclasses
import json
import pathlib
from typing import Any

from eef_jax.envs._jvm.process import Jvm
from eef_jax.envs._jvm.simulator import SimulatorStatus
from eef_jax.errors import EnvError
from eef_jax.types import Task

JAR = "scienceworld.jar"
ENTRY_POINT = "scienceworld.runtime.pythonapi.PythonInterface"
FIRST_ACTION = "look around"  # performed by the package's wrapper at each reset


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObservationFormat:
    """How the simulator's texts become observations.

    Attributes:
        opening: template of the first observation, with `{task}` (the task description) and
            `{room}`.
        observation: prefix of every later observation.
        move_limit: ticks of the simulator after which the episode is truncated; 0: no limit. A tick
            is not an agent's step: looking takes none, `wait` takes ten.
    """

    opening: str
    observation: str
    move_limit: int


class ScienceWorldSimulator:
    """Implements `eef_jax.envs._jvm.simulator.Simulator`.

    Args:
        package: folder of the package scienceworld.
        observation_format: how the simulator's texts become observations.
        timeout_s: wall-clock limit of one call, in seconds.
    """

    def __init__(
        self, package: pathlib.Path, observation_format: ObservationFormat, *, timeout_s: float
    ):
        self._jvm = Jvm(package / JAR, entry_point=ENTRY_POINT, timeout_s=timeout_s)
        self._server = self._jvm.entry_point
        self._format = observation_format
        self._valid_actions: Any = None  # a Java list

    @property
    def alive(self) -> bool:
        """Whether the JVM is running."""
        return self._jvm.alive

    @property
    def pid(self) -> int:
        """Process id of the JVM."""
        return self._jvm.pid

    def start(self, task: Task) -> str:
        """Load a variation and look around.

        Raises:
            EnvError: the simulator does not know the variation.
        """
        # The package's wrapper also resets, which loads the same world from the same seed once
        # more. Without it a start costs half as much and gives the same episode.
        name, variation, simplifications = parse_payload(task)
        with self._jvm.translate_errors():
            complaint = self._server.load(name, variation, simplifications, False)
            room = self._server.step(FIRST_ACTION)
            self._valid_actions = self._server.getValidActionObjectCombinations()
            description = self._server.getTaskDescription()
        if complaint:
            raise EnvError(f"ScienceWorld cannot play {task.id!r} ({task.payload}): {complaint}")
        return self._format.opening.format(task=description, room=room)

    def act(self, action: str) -> str:
        """Perform an action, followed by one listing of the valid actions."""
        # py4j sends UTF-8, which cannot encode lone surrogates.
        text = action.encode("utf-8", "replace").decode()
        with self._jvm.translate_errors():
            observation = self._server.step(text)
            self._valid_actions = self._server.getValidActionObjectCombinations()
        return self._format.observation + observation

    def status(self) -> SimulatorStatus:
        """Return the score (0-1, or -1 after a failure), the end flags, and the ticks in `info`."""
        with self._jvm.translate_errors():
            score = round(100 * self._server.getScore())
            completed = self._server.getCompleted()
            moves = self._server.getNumMoves()
        return SimulatorStatus(
            score=score / 100,
            terminated=bool(completed) or score < 0,
            truncated=0 < self._format.move_limit < moves,
            info={"moves": moves},
        )

    def admissible(self) -> list[str]:
        """Return the last listing; a new one would draw random numbers."""
        return self._jvm.fetch_strings(self._valid_actions)

    def close(self) -> None:
        """Stop the JVM. Idempotent."""
        self._valid_actions = self._server = None
        self._jvm.close()


def parse_payload(task: Task) -> tuple[str, int, str]:
    """Return the task type's name, the variation and the simplifications of a task.

    Raises:
        EnvError: the task belongs to another environment.
    """
    try:
        fields = json.loads(task.payload)
        return str(fields["task"]), int(fields["variation"]), str(fields["simplifications"])
    except (ValueError, KeyError, TypeError) as error:
        raise EnvError(
            f"task {task.id!r} has payload {task.payload!r}, expected a JSON object with task, "
            "variation and simplifications; was the task made by another environment?"
        ) from error
