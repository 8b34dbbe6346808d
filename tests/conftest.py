"""Settings every test runs under; they must stand before the first import of JAX.

Eight virtual CPU devices, so that shardings are tested without hardware, and no network: a test
that would load from a hub fails at once.
"""

import os

import pytest

from tests import emulator

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
emulator.announce()


@pytest.fixture(scope="session")
def bucket_server():
    with emulator.serve():
        yield


@pytest.fixture
def bucket(bucket_server):
    """The address of an empty bucket of a real object store's emulator, such as gs://bucket-3."""
    return emulator.new_bucket()
