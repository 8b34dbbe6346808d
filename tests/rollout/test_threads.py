"""Threads with a clock: results and errors come back, hanging calls are left behind."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from eef_jax.rollout import threads as threads_lib
from eef_jax.rollout.threads import CallTimeoutError, ThreadPool


def run(main, count=2, timeout_s=0.2):
    async def wrapped():
        threads = ThreadPool(count, timeout_s=timeout_s)
        try:
            return await main(threads)
        finally:
            threads.close()

    return asyncio.run(wrapped())


def test_results_and_errors_come_back():
    async def main(threads):
        with pytest.raises(KeyError, match="lost"):
            await threads.call({}.__getitem__, "lost")
        return await threads.call(divmod, 7, 3)

    assert run(main) == (2, 1)


def test_calls_run_beside_the_event_loop_and_beside_each_other():
    barrier = threading.Barrier(2)

    async def main(threads):
        return await asyncio.gather(threads.call(barrier.wait, 1), threads.call(barrier.wait, 1))

    assert sorted(run(main)) == [0, 1]


def test_the_clock_starts_when_the_call_does():
    async def main(threads):
        return await asyncio.gather(*(threads.call(time.sleep, 0.05) for _ in range(12)))

    assert run(main, count=1) == [None] * 12  # 0.6 s in all, 0.05 s each


def test_a_hanging_call_is_left_behind_and_its_thread_replaced():
    release = threading.Event()

    async def main(threads):
        for _ in range(3):
            with pytest.raises(CallTimeoutError, match=r"0\.2 s"):
                await threads.call(release.wait, 30)
        return await threads.call(int, "5")

    assert run(main, count=1) == 5
    release.set()


def test_a_cancelled_call_gives_its_place_back():
    release = threading.Event()

    async def main(threads):
        hanging = asyncio.ensure_future(threads.call(release.wait, 30))
        await asyncio.sleep(0.01)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        return await threads.call(int, "5")

    assert run(main, count=1, timeout_s=5) == 5
    release.set()


def test_no_workers_are_refused():
    with pytest.raises(ValueError, match="0 threads"):
        ThreadPool(0, timeout_s=1)


def test_threads_left_behind_are_counted_and_bounded(monkeypatch):
    release = threading.Event()
    while threads_lib.left_behind():  # of other tests, which have let them go
        time.sleep(0.01)
    monkeypatch.setattr(threads_lib, "MOST_LEFT", 2)

    async def main(threads):
        for _ in range(2):
            with pytest.raises(CallTimeoutError, match=r"0\.2 s"):
                await threads.call(release.wait, 30)
        assert threads_lib.left_behind() == 2
        with pytest.raises(CallTimeoutError, match="earlier calls still run"):
            await threads.call(int, "5")
        threading.Timer(0.05, release.set).start()
        return await threads.call(int, "5"), threads.timeouts

    assert run(main, count=1) == (5, 3)
    assert threads_lib.left_behind() == 0


@pytest.mark.processes
def test_a_hanging_call_does_not_keep_the_process():
    program = (
        "import asyncio, threading\n"
        "from eef_jax.rollout.threads import CallTimeoutError, ThreadPool\n"
        "async def main():\n"
        "    try:\n"
        "        await ThreadPool(1, timeout_s=0.1).call(threading.Event().wait)\n"
        "    except CallTimeoutError:\n"
        "        print('left')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"left\n")
