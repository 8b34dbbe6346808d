"""The simulator in its JVM: started, stepped and read with as few calls as its rules allow.

Listing the valid actions draws from the game's own random numbers, and the package's wrapper lists
them after every step; so what bees and pollen do depends on it. Here, too, exactly one listing
follows the start and each step, but the list stays on the Java side, which halves a step's price.
Knows the simulator's calls, no prompts beyond the two texts that frame an observation.
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
FIRST = "look around"  # what the package's wrapper does at each reset


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObservationFormat:
    """How observations are written down.

    Attributes:
        opening: the first one, of `{task}` (the task's description) and `{room}`.
        observation: what stands before each later one.
        move_limit: ticks of the simulator after which it is over; 0: any number. A tick is not an
            agent's step: looking takes none, `wait` takes ten.
    """

    opening: str
    observation: str
    move_limit: int


class ScienceWorldSimulator:
    """A simulator (see `eef_jax.envs._jvm.simulator.Simulator`).

    Args:
        package: folder of the package scienceworld.
        frame: how observations are written down.
        timeout_s: wall-clock limit of one call of the simulator.
    """

    def __init__(self, package: pathlib.Path, frame: ObservationFormat, *, timeout_s: float):
        self._jvm = Jvm(package / JAR, entry_point=ENTRY_POINT, timeout_s=timeout_s)
        self._server = self._jvm.entry_point
        self._frame = frame
        self._valid: Any = None  # the last listing, a Java list

    @property
    def alive(self) -> bool:
        """Whether the JVM runs."""
        return self._jvm.alive

    @property
    def pid(self) -> int:
        """The JVM's process id."""
        return self._jvm.pid

    def start(self, task: Task) -> str:
        """Load a variation and look around.

        The package's wrapper also resets, which is the same load once more: it makes the world anew
        from the same seed, so leaving it out halves a start's price and changes nothing.

        Raises:
            EnvError: the simulator does not know the variation.
        """
        name, variation, simplifications = parse_payload(task)
        with self._jvm.translate_errors():
            complaint = self._server.load(name, variation, simplifications, False)
            room = self._server.step(FIRST)
            self._valid = self._server.getValidActionObjectCombinations()
            description = self._server.getTaskDescription()
        if complaint:
            raise EnvError(f"ScienceWorld cannot play {task.id!r} ({task.payload}): {complaint}")
        return self._frame.opening.format(task=description, room=room)

    def act(self, action: str) -> str:
        """Do an action, with the one listing that belongs to it."""
        # py4j sends UTF-8, which has no lone surrogates.
        text = action.encode("utf-8", "replace").decode()
        with self._jvm.translate_errors():
            shown = self._server.step(text)
            self._valid = self._server.getValidActionObjectCombinations()
        return self._frame.observation + shown

    def status(self) -> SimulatorStatus:
        """Score (0-1, or -1), end, and ticks."""
        with self._jvm.translate_errors():
            score = round(100 * self._server.getScore())
            completed = self._server.getCompleted()
            moves = self._server.getNumMoves()
        return SimulatorStatus(
            score=score / 100,
            terminated=bool(completed) or score < 0,
            truncated=0 < self._frame.move_limit < moves,
            info={"moves": moves},
        )

    def admissible(self) -> list[str]:
        """The last listing; asking for it is no listing of its own."""
        return self._jvm.fetch_strings(self._valid)

    def close(self) -> None:
        """End the JVM."""
        self._valid = self._server = None
        self._jvm.close()


def parse_payload(task: Task) -> tuple[str, int, str]:
    """Task type, variation and simplifications of a task.

    Raises:
        EnvError: the task is not one of this environment's.
    """
    try:
        fields = json.loads(task.payload)
        return str(fields["task"]), int(fields["variation"]), str(fields["simplifications"])
    except (ValueError, KeyError, TypeError) as error:
        raise EnvError(
            f"task {task.id!r} has payload {task.payload!r}, expected a JSON object with task, "
            "variation and simplifications; was the task made by another environment?"
        ) from error
