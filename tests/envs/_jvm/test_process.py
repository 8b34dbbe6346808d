"""Real JVMs: they answer, are found dead or hanging, and never outlive their owner.

Skipped where Java or py4j (which comes with the simulators' packages) is missing.
"""

import gc
import getpass
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import warnings

import pytest

from eef_jax.envs._jvm import process
from eef_jax.envs._jvm.process import Jvm, JvmLost
from eef_jax.errors import ConfigError, EnvError

pytestmark = pytest.mark.java

java_gateway = pytest.importorskip("py4j.java_gateway", reason="py4j is not installed")
if shutil.which("java") is None:
    pytest.skip("there is no java on the path", allow_module_level=True)
JAR = pathlib.Path(java_gateway.find_jar_path())  # any jar will do: Java's own classes are called

# Starts a JVM, tells its process id, and waits to be killed.
OWNER = """
import pathlib, sys, time
from eef_jax.envs._jvm.process import Jvm
jvm = Jvm(pathlib.Path(sys.argv[1]), timeout_s=60)
print(jvm.pid, flush=True)
if sys.argv[2] == "exit": raise SystemExit(3)
time.sleep(600)
"""


@pytest.fixture
def jvm():
    jvm = Jvm(JAR, timeout_s=60)
    yield jvm
    jvm.close()


def running(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_it_answers_and_its_exceptions_are_the_simulators(jvm):
    with jvm.translate_errors():
        assert jvm.view.java.lang.Math.max(3, 4) == 4
    with pytest.raises(EnvError, match="NumberFormatException"), jvm.translate_errors():
        jvm.view.java.lang.Integer.parseInt("x")
    with jvm.translate_errors():
        words = jvm.view.java.util.ArrayList()
        for word in ("one", "two words", "ünï"):
            words.add(word)
    assert jvm.fetch_strings(words) == ["one", "two words", "ünï"]
    assert jvm.alive


def test_identity_hashes_are_constant(jvm):
    with jvm.translate_errors():
        hashes = {jvm.view.java.lang.Object().hashCode() for _ in range(3)}
    assert hashes == {1}


def test_a_killed_jvm_is_lost(jvm):
    os.kill(jvm.pid, signal.SIGKILL)
    with pytest.raises(JvmLost, match=f"JVM {jvm.pid}"), jvm.translate_errors():
        jvm.view.java.lang.Math.max(3, 4)
    jvm.close()
    jvm.close()
    assert not jvm.alive
    assert not pathlib.Path(f"/tmp/hsperfdata_{getpass.getuser()}/{jvm.pid}").exists()


def test_a_lost_jvm_leaves_no_socket_open():
    """Neither a refused call nor a Java object that outlives its JVM."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        jvm = Jvm(JAR, timeout_s=60)
        words = jvm.view.java.util.ArrayList()
        os.kill(jvm.pid, signal.SIGKILL)
        for _ in range(2):  # the first call finds its connection broken, the second is refused
            with pytest.raises(JvmLost) as lost, jvm.translate_errors():
                jvm.view.java.lang.Math.max(3, 4)
            lost.value.args = (lost.value,)  # what is in a cycle waits for the collector
        jvm.close()
        del words, lost
        gc.collect()
    assert not [str(warning.message) for warning in said]


def test_a_hanging_jvm_is_lost_after_its_time():
    jvm = Jvm(JAR, timeout_s=1)
    os.kill(jvm.pid, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(JvmLost, match="does not answer"), jvm.translate_errors():
        jvm.view.java.lang.Math.max(3, 4)
    assert time.monotonic() - begun < 30
    jvm.close()
    assert not running(jvm.pid)


@pytest.mark.parametrize("how", ["exit", "SIGTERM", "SIGKILL"])
def test_no_jvm_outlives_its_owner(how, tmp_path):
    """Nor does a file that it, or its owner for it, has made."""
    command = [sys.executable, "-c", OWNER, str(JAR), how]
    folder = {
        **os.environ,
        "TMPDIR": str(tmp_path),
        "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={tmp_path}",
    }
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=folder) as owner:
        pid = int(owner.stdout.readline())
        assert running(pid) or how == "exit"
        if how != "exit":
            owner.send_signal(getattr(signal, how))
        owner.wait(60)
    deadline = time.monotonic() + 60
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(pid)
    assert not list(tmp_path.iterdir())


def test_without_java_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(EnvError, match="openjdk-17-jre-headless"):
        process.find_java()


def test_without_the_package_the_error_names_the_extra():
    with pytest.raises(ConfigError, match=r"pip install -e '.\[moon\]'"):
        process.find_package("surely_not_installed", extra="moon")


def test_a_jvm_that_does_not_start_says_why(monkeypatch):
    monkeypatch.setattr(process, "JVM_FLAGS", ("-XX:NoSuchFlag",))
    with pytest.raises(JvmLost, match="NoSuchFlag"):
        Jvm(JAR, timeout_s=1)
