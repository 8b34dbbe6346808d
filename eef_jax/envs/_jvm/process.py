"""One JVM subprocess: started from a jar, called with a time limit, stopped with its owner.

The JVM reads its standard input and exits at end-of-file. The operating system closes that pipe
however the owner dies, SIGKILL included, so no JVM outlives its owner. py4j comes with the
simulators' packages, so it is imported only when a JVM starts.
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

JVM_FLAGS = (
    # Java's older collections order their elements by identity hash, which is random. A constant
    # hash gives insertion order in every process, which makes simulators deterministic.
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",
    # With the bounded heap (-Xmx below), a ScienceWorld JVM takes about 170 MB; with the defaults
    # it may take 1 GB.
    "-XX:+UseSerialGC",
    "-Xms64m",
    # A killed JVM would leave its file of performance data in /tmp.
    "-XX:-UsePerfData",
)
STARTUP_TIMEOUT_S = 120.0  # until the JVM prints its port; about 1 s on an idle machine


class JvmLost(Exception):
    """A JVM died or timed out, and the state of its simulator is lost."""


def find_java() -> str:
    """Return the path of the `java` program: the one in `$JAVA_HOME`, else the one on the PATH.

    Raises:
        EnvError: there is no Java.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(pathlib.Path(home) / "bin")) if home else None
    found = found or shutil.which("java")
    if found is None:
        raise EnvError(
            "this environment's simulator runs on Java, and there is no `java` on the PATH: "
            "install a runtime of version 11 or newer (Debian, Ubuntu: apt-get install "
            "openjdk-17-jre-headless; macOS: brew install openjdk) or set JAVA_HOME"
        )
    return found


def find_package(name: str, *, extra: str) -> tuple[pathlib.Path, str]:
    """Return the folder and version of an installed package without importing it.

    Args:
        name: import name of the package.
        extra: extra of eef-jax that installs it, for the error message.

    Raises:
        ConfigError: the package is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the package {name!r} is not installed: pip install -e '.[{extra}]'")
    return pathlib.Path(spec.submodule_search_locations[0]), importlib.metadata.version(name)


class Jvm:
    """A running JVM with a py4j gateway to the classes of a jar.

    Not thread-safe: one thread calls it at a time. Processes forked from its owner do not stop it.

    Args:
        jar: path of the simulator's jar.
        timeout_s: wall-clock limit of one call, in seconds.
        entry_point: dotted name of the class to call; `self.entry_point` is an instance of it.
        heap_mb: maximum size of the Java heap, in MB.
        cwd: working folder, for simulators that read files from it; None: the system's folder for
            temporary files.

    Raises:
        EnvError: there is no Java.
        JvmLost: the JVM did not start.
    """

    def __init__(
        self,
        jar: pathlib.Path,
        *,
        timeout_s: float,
        entry_point: str = "java.lang.Object",
        heap_mb: int = 512,
        cwd: pathlib.Path | None = None,
    ):
        from py4j.java_gateway import find_jar_path

        _silence_py4j()
        self._owner = os.getpid()
        self._gateway: Any = None
        self.entry_point: Any = None
        classpath = os.pathsep.join((find_jar_path(), str(jar)))
        command = [find_java(), *JVM_FLAGS, f"-Xmx{heap_mb}m", "-cp", classpath]
        command += ["py4j.GatewayServer", "--die-on-broken-pipe", "--enable-auth", "0"]
        # An unnamed file: it is gone however this process ends.
        with tempfile.TemporaryFile() as stderr:
            # A new session keeps Ctrl-C from the JVM, so that an interrupted run shuts down in
            # order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=cwd or tempfile.gettempdir(),
                start_new_session=True,
            )
            try:
                self._connect(entry_point, timeout_s)
            except (JvmLost, EnvError, ValueError) as error:
                self.close()
                stderr.seek(0)
                output = stderr.read().decode("utf-8", "replace").strip()[-500:]
                raise JvmLost(f"the JVM did not start: {error}; stderr: {output!r}") from error

    def _connect(self, entry_point: str, timeout_s: float) -> None:
        """Read the port that the JVM prints and connect to it."""
        from eef_jax.envs._jvm.gateway import Gateway

        assert self._process.stdout is not None
        port, token = _read_lines(self._process.stdout, 2, STARTUP_TIMEOUT_S)
        self._gateway = Gateway(port=int(port), token=token, timeout_s=timeout_s)
        with self.translate_errors():
            # Simulators print, and a pipe that is never read would fill up and block them.
            java = self.view.java
            java.lang.System.setOut(java.io.PrintStream(java.io.OutputStream.nullOutputStream()))
            self.entry_point = functools.reduce(getattr, entry_point.split("."), self.view)()

    @property
    def view(self) -> Any:
        """py4j's `JVMView`: the classes on the classpath, by dotted name."""
        return self._gateway.jvm

    @property
    def pid(self) -> int:
        """Process id of the JVM."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is running; it may hang nevertheless."""
        return self._gateway is not None and self._process.poll() is None

    @contextlib.contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Translate py4j's exceptions inside the block.

        Raises:
            EnvError: the simulator raised an exception; the JVM is still usable.
            JvmLost: the JVM is dead or did not answer within the time limit.
        """
        from py4j.protocol import Py4JError, Py4JJavaError

        try:
            yield
        except Py4JJavaError as error:
            raise EnvError(f"the simulator raised {error.java_exception}") from error
        except (Py4JError, OSError) as error:
            exit_status = self._process.poll()
            state = (
                "does not answer" if exit_status is None else f"is dead (exit status {exit_status})"
            )
            raise JvmLost(f"JVM {self.pid} {state}: {error}") from error

    def fetch_strings(self, strings: Any) -> list[str]:
        """Convert a Java list of strings to a Python list in a single call."""
        with self.translate_errors():
            joined = self.view.java.lang.String.join("\n", strings)
        return joined.split("\n") if joined else []

    def close(self) -> None:
        """Kill the JVM and wait for its exit. Idempotent."""
        if os.getpid() != self._owner:
            return
        self._process.kill()
        self._process.wait()
        if self._gateway is not None:
            self._gateway.close()
            self._gateway = self.entry_point = None
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _read_lines(stream: IO[bytes], count: int, timeout_s: float) -> list[str]:
    """Read the first lines of a pipe.

    Raises:
        JvmLost: the pipe ends, or the lines do not arrive in time.
    """
    data, deadline = b"", time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while data.count(b"\n") < count:
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            chunk = os.read(stream.fileno(), 4096) if ready else b""
            if not chunk:
                raise JvmLost("it exited" if ready else f"no port within {timeout_s:g} s")
            data += chunk
    return data.decode().split("\n")[:count]


@functools.cache
def _silence_py4j() -> None:
    """Keep py4j from logging each lost JVM with a traceback; callers get an exception instead."""
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    # py4j logs the most severe messages on the root logger.
    logging.getLogger().addFilter(lambda record: "py4j" not in pathlib.Path(record.pathname).parts)
