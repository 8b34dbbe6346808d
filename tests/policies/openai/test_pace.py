"""Spacing and pausing requests, on a clock of the test's own."""

import asyncio

import pytest

from eef_jax.policies.openai.pace import Attempt, Pace


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        await asyncio.sleep(0)  # others may go on first
        self.now = max(self.now, self.now + seconds)


def test_requests_are_spaced():
    clock = Clock()
    pace = Pace(60, clock=clock, sleep=clock.sleep)

    async def run():
        times = []
        for _ in range(3):
            await pace.turn()
            times.append(clock.now)
        return times

    assert asyncio.run(run()) == [0.0, 1.0, 2.0]


def test_a_pause_holds_for_everybody_and_can_be_prolonged():
    clock = Clock()
    pace = Pace(0, clock=clock, sleep=clock.sleep)

    async def run():
        assert pace.pause(10)
        assert not pace.pause(10)  # the same moment, told by another answer
        waiting = asyncio.create_task(pace.turn())
        await asyncio.sleep(0)
        assert pace.pause(30)
        await waiting
        return clock.now

    assert asyncio.run(run()) >= 30


def test_a_busy_server_is_waited_for_as_long_as_allowed():
    attempt = Attempt(retries=0, max_wait_s=200)
    assert attempt.busy_wait(180.0) == 180.0
    assert attempt.busy_wait(30.0) is None and attempt.waited == 180.0
    assert attempt.busy_wait(10.0) == 10.0


def test_unknown_waits_double():
    attempt = Attempt(retries=0, max_wait_s=1e6)
    assert [attempt.busy_wait(None) for _ in range(7)] == [2, 4, 8, 16, 32, 60, 60]


def test_retries_are_counted_and_their_waits_double():
    attempt = Attempt(retries=6, max_wait_s=0)
    waits = [attempt.retry_wait() for _ in range(6)]
    assert waits == [pytest.approx(most, rel=0.25) for most in (0.5, 1, 2, 4, 8, 8)]
    assert attempt.retry_wait() is None
