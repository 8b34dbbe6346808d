"""One JVM: started from a jar, called with a limit on each answer, gone when its owner is.

The JVM reads its standard input and ends when that closes, which the system sees to however the
owner dies, SIGKILL included. Knows processes and the py4j gateway, no simulator. py4j comes with
the simulators' packages, so it is imported when a JVM starts.
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import logging
import os
import pathlib
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any

from eef_jax.errors import ConfigError, EnvError

# Sets in Java's older collections are ordered by identity hashes, which are random numbers: a
# constant hash makes them ordered by insertion, in every process. The serial collector and the
# bounded heap keep a ScienceWorld at some 170 MB, where a JVM's own defaults let it have 1 GB. The
# file of performance data would be left behind by a JVM that is killed.
FLAGS = (
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",
    "-XX:+UseSerialGC",
    "-Xms64m",
    "-XX:-UsePerfData",
)
START_S = 120.0  # for a JVM to say its port; 1 s where nothing else runs


class JvmLost(Exception):
    """A JVM that died, or did not answer in time, and with it the state of its simulator."""


def find_java() -> str:
    """Path of the `java` program: `$JAVA_HOME`'s, else the one on the path.

    Raises:
        EnvError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(pathlib.Path(home) / "bin")) if home else None
    found = found or shutil.which("java")
    if found is None:
        raise EnvError(
            "this environment's simulator runs on Java, and there is no `java` on the path: "
            "install a runtime of version 11 or newer (Debian, Ubuntu: apt-get install "
            "openjdk-17-jre-headless; macOS: brew install openjdk) or set JAVA_HOME"
        )
    return found


def find_package(name: str, *, extra: str) -> tuple[pathlib.Path, str]:
    """Folder and version of an installed package, without importing it.

    Raises:
        ConfigError: it is not installed; names the extra of eef-jax that has it.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the package {name!r} is not installed: pip install 'eef-jax[{extra}]'")
    return pathlib.Path(spec.submodule_search_locations[0]), importlib.metadata.version(name)


class Jvm:
    """A running JVM with a gateway to what is in a jar.

    One thread calls it at a time; processes forked from its owner leave it alone.

    Args:
        jar: path of the simulator's jar.
        timeout_s: wall-clock limit of one call, in seconds.
        entry: dotted name of the class to call; `self.entry` is an instance of it.
        heap_mb: bound on the Java heap, in MB.
        cwd: working folder, for simulators that read files from it; None: the system's folder for
            temporary files.

    Raises:
        EnvError: there is no Java.
        JvmLost: the JVM did not come up.
    """

    def __init__(
        self,
        jar: pathlib.Path,
        *,
        timeout_s: float,
        entry: str = "java.lang.Object",
        heap_mb: int = 512,
        cwd: pathlib.Path | None = None,
    ):
        from py4j.java_gateway import find_jar_path

        _hush()
        self._owner = os.getpid()
        self._gateway: Any = None
        self.entry: Any = None
        classpath = os.pathsep.join((find_jar_path(), str(jar)))
        command = [find_java(), *FLAGS, f"-Xmx{heap_mb}m", "-cp", classpath]
        command += ["py4j.GatewayServer", "--die-on-broken-pipe", "--enable-auth", "0"]
        # A file without a name: nothing is left of it, however this process ends.
        with tempfile.TemporaryFile() as complaints:
            # A session of its own keeps Ctrl-C from it: an interrupted run ends in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                cwd=cwd or tempfile.gettempdir(),
                start_new_session=True,
            )
            try:
                self._connect(entry, timeout_s)
            except (JvmLost, EnvError, ValueError) as error:
                self.close()
                complaints.seek(0)
                said = complaints.read().decode("utf-8", "replace").strip()[-500:]
                raise JvmLost(f"the JVM did not start: {error}; it said: {said!r}") from error

    def _connect(self, entry: str, timeout_s: float) -> None:
        """Read the port that the JVM says, and call it."""
        from eef_jax.envs._jvm.gateway import Gateway

        assert self._process.stdout is not None
        port, token = _lines(self._process.stdout, 2, START_S)
        self._gateway = Gateway(port=int(port), token=token, timeout_s=timeout_s)
        with self.watch():
            # Simulators print, and nobody would empty the pipe.
            java = self._gateway.jvm.java
            java.lang.System.setOut(java.io.PrintStream(java.io.OutputStream.nullOutputStream()))
            self.entry = functools.reduce(getattr, entry.split("."), self._gateway.jvm)()

    @property
    def classes(self) -> Any:
        """What is on the classpath, by dotted name."""
        return self._gateway.jvm

    @property
    def pid(self) -> int:
        """The JVM's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs (it may hang nevertheless)."""
        return self._gateway is not None and self._process.poll() is None

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Turn py4j's errors inside the block into ours.

        Raises:
            EnvError: the simulator raised an exception; the JVM goes on.
            JvmLost: the JVM is dead or did not answer within the limit.
        """
        from py4j.protocol import Py4JError, Py4JJavaError

        try:
            yield
        except Py4JJavaError as error:
            raise EnvError(f"the simulator raised {error.java_exception}") from error
        except (Py4JError, OSError) as error:
            dead = self._process.poll()
            state = "does not answer" if dead is None else f"is dead (exit status {dead})"
            raise JvmLost(f"JVM {self.pid} {state}: {error}") from error

    def join(self, strings: Any) -> list[str]:
        """A Java list of strings as a Python one, fetched in one piece."""
        with self.watch():
            whole = self._gateway.jvm.java.lang.String.join("\n", strings)
        return whole.split("\n") if whole else []

    def close(self) -> None:
        """Kill the JVM and wait for its end; closing twice is fine."""
        if os.getpid() != self._owner:
            return
        self._process.kill()
        self._process.wait()
        if self._gateway is not None:
            self._gateway.close()
            self._gateway = self.entry = None
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _lines(stream: IO[bytes], count: int, seconds: float) -> list[str]:
    """The first lines of a pipe.

    Raises:
        JvmLost: they do not come in time.
    """
    data, deadline = b"", time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while data.count(b"\n") < count:
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            chunk = os.read(stream.fileno(), 4096) if ready else b""
            if not chunk:
                raise JvmLost("it ended" if ready else f"no port within {seconds:g} s")
            data += chunk
    return data.decode().split("\n")[:count]


@functools.cache
def _hush() -> None:
    """Keep py4j from logging every lost JVM with a traceback: they are errors of ours by then."""
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    # It logs the worst of it on the root logger.
    logging.getLogger().addFilter(lambda record: "py4j" not in pathlib.Path(record.pathname).parts)
