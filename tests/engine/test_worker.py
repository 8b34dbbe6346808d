"""The engine's thread: failures, cancellations and closing reach the right futures."""

import asyncio
import dataclasses
import sys
import threading
import time
from concurrent.futures import Future

import pytest

from eef_jax.engine.programs import Programs
from eef_jax.engine.sampling import SamplingParams
from eef_jax.engine.scheduler import Scheduler
from eef_jax.engine.worker import Worker
from tests.engine import toymodel
from tests.engine.toymodel import GREEDY, generate, paused, prompt


def test_unloading_an_adapter_cancels_its_requests_only(engine, scheduler):
    expected = generate(engine, prompt(1, 20)).ids
    adapter = engine.load_adapter(toymodel.model(seed=5).trainable)
    done, in_flight = (engine.open(prompt(i, 20), adapter=adapter) for i in (1, 2))
    done.generate(GREEDY).result()
    other = engine.open(prompt(1, 20))
    with paused(scheduler):
        future, others = in_flight.generate(GREEDY), other.generate(GREEDY)
        engine.unload_adapter(adapter)
    assert future.cancelled() and others.result().ids == expected
    for session in (done, in_flight):
        with pytest.raises(RuntimeError, match="adapter was unloaded"):
            session.generate(GREEDY)
    engine.unload_adapter(adapter)
    assert generate(engine, prompt(1, 20)).ids == expected


def test_unloading_during_a_cancellation_keeps_the_pages_consistent(engine, monkeypatch):
    settled, late = Future._invoke_callbacks, threading.Event()  # type: ignore[attr-defined]
    generating, go = threading.Event(), threading.Event()

    def stop(ids):
        generating.set()
        return not go.wait(10)

    adapter = engine.load_adapter(toymodel.model(seed=5).trainable)
    long = SamplingParams(temperature=0.0, max_new_tokens=30, stop_fn=stop)
    future = engine.open(prompt(1, 20), adapter=adapter).generate(long)
    assert generating.wait(10)
    monkeypatch.setattr(Future, "_invoke_callbacks", lambda f: late.wait(10) and settled(f))
    canceller = threading.Thread(target=future.cancel)
    canceller.start()
    while not future.cancelled():
        time.sleep(0.001)
    engine.unload_adapter(adapter)  # before the worker hears of the cancellation
    monkeypatch.undo()
    go.set()
    assert generate(engine, prompt(2, 20)).ids
    late.set()
    canceller.join()
    assert generate(engine, prompt(3, 50)).ids == generate(engine, prompt(3, 50)).ids


def test_a_request_submitted_while_the_engine_closes_completes(model, monkeypatch):
    engine = toymodel.engine(model)
    generate(engine, prompt(1, 10))
    attach, closers = Future.add_done_callback, []

    def while_closing(future, callback):
        if not closers:
            closers.append(threading.Thread(target=engine.close))
            closers[0].start()
            closers[0].join(0.5)
        attach(future, callback)

    monkeypatch.setattr(Future, "add_done_callback", while_closing)
    future = engine.open(prompt(1, 10)).generate(GREEDY)
    assert len(future.result(10).ids) == 6
    closers[0].join()


@pytest.mark.parametrize("raised", [LookupError, StopIteration, SystemExit])
def test_a_stop_fn_that_raises_fails_its_own_request_only(engine, scheduler, raised):
    def stop(ids):
        raise raised(len(ids))

    with paused(scheduler):
        futures = [
            engine.open(prompt(i, 20)).generate(dataclasses.replace(GREEDY, stop_fn=each))
            for i, each in enumerate([None, stop, None])
        ]
    with pytest.raises(raised if raised is LookupError else RuntimeError, match="1"):
        asyncio.run(asyncio.wait_for(_awaited(futures[1]), 10))
    assert [len(futures[i].result().ids) for i in (0, 2)] == [6, 6]


async def _awaited(future):
    return await asyncio.wrap_future(future)


def test_commands_after_one_that_raises_still_run(model):
    worker = Worker(Scheduler(Programs(model, toymodel.CONFIG)))
    both_queued, ran = threading.Event(), threading.Event()
    worker.run(lambda: both_queued.wait(10) and 1 / 0)
    worker.run(ran.set)
    both_queued.set()
    assert ran.wait(10)
    worker.close()


def test_a_callback_that_exits_does_not_end_the_engines_thread(engine, scheduler):
    with paused(scheduler):
        future = engine.open(prompt(1, 10)).generate(GREEDY)
        future.add_done_callback(lambda _: sys.exit())
    future.result()
    assert len(generate(engine, prompt(2, 10)).ids) == 6


def test_close_waits_for_requests_or_cancels_them(model):
    long = SamplingParams(temperature=0.0, max_new_tokens=40)
    engine = toymodel.engine(model)
    future = engine.open(prompt(1, 10)).generate(long)
    engine.close()
    assert len(future.result().ids) == 40
    with pytest.raises(RuntimeError, match="closed"):
        engine.open(prompt(1, 10)).generate(GREEDY)
    engine = toymodel.engine(model)
    futures = [engine.open(prompt(i, 10)).generate(long) for i in range(9)]
    engine.close(wait=False)
    assert all(future.done() for future in futures) and futures[-1].cancelled()


def test_a_dispatch_that_raises_fails_its_requests_and_the_engine_continues(
    engine, scheduler, monkeypatch
):
    expected = generate(engine, prompt(1, 10)).ids
    with monkeypatch.context() as patch:
        patch.setattr(scheduler.programs, "decode", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            generate(engine, prompt(1, 10))
    assert generate(engine, prompt(1, 10)).ids == expected
