"""Commands in processes that are forked from one which has imported what they need.

Such a process is as much one of its own as `python -m MODULE` starts, with its own environment,
signals and devices, but saves three seconds of CPU time for imports. The process that is forked has
one thread and no devices: JAX finds those on their first use.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

# No command lines: the module that runs as `__main__` defines its flags.
IMPORTED = ["eef_jax.learner.sampling", "eef_jax.learner.tuning", "eef_jax.pipeline"]
IMPORTED += ["transformers.models.auto.tokenization_auto"]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(IMPORTED)


class Command:
    """`python -m MODULE WORDS...`, with the part of `subprocess.Popen` that tests use.

    Args:
        module: its name.
        words: arguments of the command line.
        environment: all of its environment variables.

    Attributes:
        returncode: as of `Popen`; None until the process was found to have ended.
    """

    def __init__(self, module: str, *words: str, environment: Mapping[str, str]):
        self.returncode: int | None = None
        handle, self._output = tempfile.mkstemp(prefix="eef-tests-output-")
        os.close(handle)
        given = (module, words, dict(environment), os.getcwd(), self._output)
        self._process: Any = _context.Process(target=_play, args=given)
        self._process.start()
        self.pid: Any = self._process.pid

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._process.exitcode
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for its end; return all that it has written."""
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        output = self.said()
        os.remove(self._output)
        return output, None

    def said(self) -> str:
        """All that it has written so far."""
        with open(self._output, encoding="utf-8") as file:
            return file.read()


def _play(
    module: str, words: tuple[str, ...], environment: dict[str, str], folder: str, output: str
) -> None:
    os.environ.clear()
    os.environ |= environment
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    to = os.open(output, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(to, stream)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.argv = [module, *words]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which children of multiprocessing leave out
