"""Gold paths: the package's own solution of each variation, generated in a separate JVM.

Once asked for a gold path, a simulator generates one at every reset, which takes half a second and
more. So no episode is played in this JVM. Gold paths walk from door to door; where the agent may
teleport they can be shortened.
"""

import pathlib
import re
import threading
from collections.abc import Sequence

from eef_jax.envs._jvm.process import Jvm, JvmLost
from eef_jax.envs.scienceworld.simulator import ENTRY_POINT, JAR
from eef_jax.errors import EnvError

PATH_TIMEOUT_S = 600.0  # for one path; measured: median 0.25 s, at worst 30 s
# Tasks in which time has to pass. Along a shortened path the animal has not gone through its life
# stages yet (0 of 12 such paths won).
NOT_SHORTENED = ("identify-life-stages-1", "identify-life-stages-2")
_WALK = re.compile(r"go to (.+)")
_UNNEEDED = re.compile(r"look around|open door to .+")


class GoldPathGenerator:
    """Generates gold paths; starts its JVM with the first one. Thread-safe.

    Args:
        package: folder of the package scienceworld.
    """

    def __init__(self, package: pathlib.Path):
        self._package = package
        self._jvm: Jvm | None = None
        self._lock = threading.Lock()

    def generate(self, name: str, variation: int, simplifications: str) -> list[str]:
        """Return the actions that solve a variation.

        Args:
            name: the simulator's name of the task type.
            variation: number of the variation, from 0.
            simplifications: simplification labels with commas, as the simulator expects them.

        Raises:
            EnvError: the simulator has no path, or its JVM was lost twice.
        """
        with self._lock:
            try:
                return self._query(name, variation, simplifications)
            except JvmLost:
                self._stop()
            try:
                return self._query(name, variation, simplifications)
            except JvmLost as error:
                self._stop()
                raise EnvError(f"no gold path of {name}, variation {variation}: {error}") from error

    def close(self) -> None:
        """Stop the JVM. Idempotent."""
        with self._lock:
            self._stop()

    def _query(self, name: str, variation: int, simplifications: str) -> list[str]:
        if self._jvm is None or not self._jvm.alive:
            self._stop()
            self._jvm = Jvm(self._package / JAR, entry_point=ENTRY_POINT, timeout_s=PATH_TIMEOUT_S)
        with self._jvm.translate_errors():
            self._jvm.entry_point.load(name, variation, simplifications, True)
            actions = self._jvm.entry_point.getGoldActionSequence()
        path = self._jvm.fetch_strings(actions)
        if not path or path[0].startswith("ERROR"):
            raise EnvError(f"{name}, variation {variation}, has no gold path: {path[:1]}")
        return path

    def _stop(self) -> None:
        if self._jvm is not None:
            self._jvm.close()
            self._jvm = None


def shorten_with_teleports(path: Sequence[str], name: str) -> list[str]:
    """Return a path with one teleport in place of each walk through several rooms.

    Looking around and opening doors are left out.

    Args:
        path: actions of a gold path.
        name: name of the task type; the paths of `NOT_SHORTENED` stay as they are.
    """
    if name in NOT_SHORTENED:
        return list(path)
    short: list[str] = []
    for action in path:
        if _UNNEEDED.fullmatch(action):
            continue
        if walk := _WALK.fullmatch(action):
            if short and short[-1].startswith("teleport to "):
                short.pop()
            short.append(f"teleport to {walk[1]}")
        else:
            short.append(action)
    return short
