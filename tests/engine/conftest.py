"""One model, its compiled programs and one engine for all tests of the package."""

import os
import time

import pytest

from eef_jax.engine.programs import Programs
from eef_jax.engine.scheduler import Scheduler
from tests.engine import toymodel


@pytest.fixture(params=["quick", pytest.param("of runs", marks=pytest.mark.load)])
def code_generation(request):
    """Which of XLA's code generations compiled the engine: that of runs in `make test-load`."""
    quick = "--xla_cpu_use_fusion_emitters=false" in os.environ["XLA_FLAGS"]
    assert request.param == ("quick" if quick else "of runs")


@pytest.fixture(scope="package")
def model():
    return toymodel.model()


@pytest.fixture(scope="package")
def shared_engine(model):
    scheduler = Scheduler(Programs(model, toymodel.CONFIG))
    with toymodel.engine(model, scheduler=scheduler) as engine:
        yield engine, scheduler


@pytest.fixture
def scheduler(shared_engine):
    """The scheduler that the thread of `engine` runs."""
    return shared_engine[1]


@pytest.fixture
def engine(shared_engine):
    """An engine whose cache is empty at the start; at the end all pages must be released."""
    engine, scheduler = shared_engine
    engine.release_cache()
    yield engine
    allocator, deadline = scheduler.allocator, time.monotonic() + 10
    while scheduler.busy or allocator.num_referenced:  # cancelled requests end on the thread
        assert time.monotonic() < deadline, f"{allocator.num_referenced} pages are still in use"
        time.sleep(0.001)
    allocator.check_invariants()
