"""Gold paths: the package's own solution of each variation, in a JVM of its own.

Once asked for a gold path, a simulator makes one at every reset, at half a second and more; so no
episode is played in this JVM. Paths go from door to door; where the agent may teleport they can be
shortened. Knows actions' texts and the simulator's calls.
"""

import pathlib
import re
import threading
from collections.abc import Sequence

from eef_jax.envs._jvm.process import Jvm, JvmLost
from eef_jax.envs.scienceworld.simulator import ENTRY_POINT, JAR
from eef_jax.errors import EnvError

LONGEST_S = 600.0  # for one path: 0.25 s is the median, 30 s the worst measured
# Tasks that count days: shortened, the animal has not lived through its stages yet (0 of 12).
NOT_SHORTENED = ("identify-life-stages-1", "identify-life-stages-2")
_WALK = re.compile(r"go to (.+)")
_IDLE = re.compile(r"look around|open door to .+")


class GoldPathGenerator:
    """Makes gold paths; its JVM starts with the first one. Threads take turns.

    Args:
        package: folder of the package scienceworld.
    """

    def __init__(self, package: pathlib.Path):
        self._package = package
        self._jvm: Jvm | None = None
        self._turn = threading.Lock()

    def generate(self, name: str, variation: int, simplifications: str) -> list[str]:
        """The actions that solve a variation.

        Raises:
            EnvError: the simulator has none, or its JVM died twice.
        """
        with self._turn:
            for last in (False, True):
                try:
                    return self._ask(name, variation, simplifications)
                except JvmLost as error:
                    self._end()
                    if last:
                        raise EnvError(
                            f"no gold path of {name}, variation {variation}: {error}"
                        ) from error
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the JVM; closing twice is fine."""
        with self._turn:
            self._end()

    def _ask(self, name: str, variation: int, simplifications: str) -> list[str]:
        if self._jvm is None or not self._jvm.alive:
            self._end()
            self._jvm = Jvm(self._package / JAR, entry_point=ENTRY_POINT, timeout_s=LONGEST_S)
        with self._jvm.translate_errors():
            self._jvm.entry_point.load(name, variation, simplifications, True)
            found = self._jvm.entry_point.getGoldActionSequence()
        path = self._jvm.fetch_strings(found)
        if not path or path[0].startswith("ERROR"):
            raise EnvError(f"{name}, variation {variation}, has no gold path: {path[:1]}")
        return path

    def _end(self) -> None:
        if self._jvm is not None:
            self._jvm.close()
            self._jvm = None


def shorten_with_teleports(path: Sequence[str], name: str) -> list[str]:
    """The path with a teleport in place of each walk, without looking around and opening doors."""
    if name in NOT_SHORTENED:
        return list(path)
    short: list[str] = []
    for action in path:
        if _IDLE.fullmatch(action):
            continue
        if walk := _WALK.fullmatch(action):
            if short and short[-1].startswith("teleport to "):
                short.pop()
            short.append(f"teleport to {walk[1]}")
        else:
            short.append(action)
    return short
