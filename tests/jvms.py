"""JVMs that outlive their environment, so that a few warm ones serve all tests of a process.

A simulator's JVM takes seconds of CPU time to start and to compile what it runs.
"""

import collections
import functools
import importlib
import importlib.util
from typing import Any

import pytest

from eef_jax.envs._jvm.process import Jvm, JvmLost

USERS = (
    "benchmarks.scienceworld.run",
    "eef_jax.envs.scienceworld.gold",
    "eef_jax.envs.scienceworld.simulator",
    "eef_jax.envs.textworld_express",
)
_idle: dict[tuple, list[Jvm]] = collections.defaultdict(list)


class RecycledJvm:
    """A `Jvm` that `close` keeps for the next one with the same arguments.

    It starts with a new entry point: nothing of earlier episodes is left. A JVM that hangs would be
    kept, too: tests of time limits use `Jvm` itself.
    """

    def __init__(self, jar: Any, *, entry_point: str, **options: Any):
        self._idle = _idle[jar, entry_point, *sorted(options.items())]
        self._jvm: Jvm | None = None
        while self._idle and self._jvm is None:
            kept = self._idle.pop()
            try:
                with kept.translate_errors():
                    new = functools.reduce(getattr, entry_point.split("."), kept.view)()
            except JvmLost:  # it was killed
                kept.close()
            else:
                self._jvm, kept.entry_point = kept, new
        if self._jvm is None:
            self._jvm = Jvm(jar, entry_point=entry_point, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jvm, name)

    @property
    def alive(self) -> bool:
        return self._jvm is not None and self._jvm.alive

    def close(self) -> None:
        if self.alive:
            self._idle.append(self._jvm)
        elif self._jvm is not None:
            self._jvm.close()
        self._jvm = None


def use(kind: type, patch: pytest.MonkeyPatch) -> None:
    """Let everything that starts simulators start this kind of JVM."""
    for name in USERS:
        patch.setattr(importlib.import_module(name), "Jvm", kind)


def stop_all() -> None:
    """Stop the JVMs that nothing uses."""
    for kept in _idle.values():
        while kept:
            kept.pop().close()
