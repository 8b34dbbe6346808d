"""Settings that every test runs under; they must stand before the first import of JAX.

Of the caller's environment a test sees `INHERITED` only. There are eight virtual CPU devices, so
that shardings are tested without hardware, and no network: a test that would load from a hub fails
at once. XLA compiles without LLVM's costly optimizations, except in tests marked `optimized`, and
keeps what it compiled in a folder of this session, for the other workers and for subprocesses.
"""

import atexit
import gc
import os
import shutil
import tempfile

import pytest

from tests import emulator

# They locate programs, files and test data; any other variable could change what is tested.
INHERITED = {
    "CI",
    "HOME",
    "JAVA_HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "TERM",
    "TMPDIR",
}
INHERITED_PREFIXES = ("COV_", "COVERAGE_", "EEF_", "PYTEST_")
UNOPTIMIZED = "jax_disable_most_optimizations"
XLA_FLAGS = [
    "--xla_force_host_platform_device_count=8",
    # On a busy machine eight devices may meet late; XLA would end the process after 40 s.
    "--xla_cpu_collective_call_terminate_timeout_seconds=600",
]
# A toy's training step compiles in 0.6 s of CPU time with these two, else in 3.4 s. They choose
# another code generation than that of runs, so `make test-load` does without.
DEFAULT_CODEGEN = os.environ.get("EEF_CODEGEN") == "default"
if not DEFAULT_CODEGEN:
    XLA_FLAGS += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]


def set_environment() -> None:
    """Replace the caller's environment by the tests'."""
    for name in set(os.environ) - INHERITED:
        if not name.startswith(INHERITED_PREFIXES):
            del os.environ[name]
    compiled = tempfile.mkdtemp(prefix="eef-tests-compiled-")
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
    os.environ |= {
        "CUDA_VISIBLE_DEVICES": "-1",
        "HF_HUB_OFFLINE": "1",
        # Simulators live too briefly for the second compiler, which takes a fifth of their time.
        "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1",
        "JAX_COMPILATION_CACHE_DIR": compiled,
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TRANSFORMERS_OFFLINE": "1",
        "XLA_FLAGS": " ".join(XLA_FLAGS),
    }


if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker inherits what its controller has set
    set_environment()
emulator.announce()  # each worker has its own

import jax  # noqa: E402  (reads the environment)

from tests import jvms, strict  # noqa: E402

strict.install()
# Tracing allocates much that lives on; by default a twentieth of all time goes into looking at it.
gc.set_threshold(20_000, 20, 50)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Choose how XLA compiles, and how strict JAX is, before the test's fixtures are made."""
    if item.get_closest_marker("load") and not DEFAULT_CODEGEN:
        pytest.skip("the long version is compiled as runs are: `make test-load` runs it")
    jax.config.update(UNOPTIMIZED, item.get_closest_marker("optimized") is None)
    strict.choose(item.path)


@pytest.fixture(scope="module")
def shared_steps():
    """Equal trainings of this module's tests share a compiled step."""
    from tests.train import toy

    with pytest.MonkeyPatch.context() as patch:
        toy.share_steps(patch)
        yield


@pytest.fixture(scope="session")
def stopped_jvms():
    yield
    jvms.stop_all()


@pytest.fixture(scope="module")
def recycled_jvms(stopped_jvms):
    """Simulators of this module's environments run on JVMs that earlier ones have left."""
    with pytest.MonkeyPatch.context() as patch:
        jvms.use(jvms.RecycledJvm, patch)
        yield


@pytest.fixture
def own_jvms(monkeypatch):
    """JVMs that start for this test and end with it."""
    jvms.use(jvms.Jvm, monkeypatch)


@pytest.fixture(scope="session")
def bucket_server():
    with emulator.serve():
        yield


@pytest.fixture
def bucket(bucket_server):
    """The address of an empty bucket of a real object store's emulator, such as gs://bucket-3."""
    return emulator.new_bucket()
