"""When the next request may be sent: the configured rate, and pauses that a server asks for."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

_RETRY_S, _LONGEST_RETRY_S = 0.5, 8.0  # before the first retry; doubled up to the longest
_BUSY_S, _LONGEST_BUSY_S = 2.0, 60.0  # the same where a busy server does not say how long
_SHORTEST_BUSY_S = 0.05  # doubled too: a server that says 0 and stays busy is not asked endlessly


class Pace:
    """Spaces the requests of all conversations with one server.

    Args:
        per_minute: requests are spaced to this rate; 0: no limit.
        clock: seconds, monotonic.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        per_minute: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._clock = clock
        self._sleep = sleep
        self._next = 0.0  # earliest time of the next request
        self._resume = 0.0  # end of the pause

    async def turn(self) -> None:
        """Wait until one more request may be sent."""
        while True:
            now = self._clock()
            start = max(now, self._next, self._resume)
            self._next = start + self._interval
            if start > now:
                await self._sleep(start - now)
            if self._resume <= start:  # else another conversation's answer prolonged the pause
                return

    def pause(self, seconds: float) -> bool:
        """Send nothing for so long, whoever asks; returns whether that is later than before."""
        # A server's answers to requests in flight name the same moment, but for the time they took.
        resume = self._clock() + seconds
        later = resume > self._resume + 1.0
        self._resume = max(self._resume, resume)
        return later

    async def back_off(self, seconds: float) -> None:
        """Wait before one request is repeated, while others are sent."""
        await self._sleep(seconds)


class Attempt:
    """What has been tried for one message, and how long to wait before the next request.

    Args:
        retries: number of retries of failed requests.
        max_wait_s: seconds that may be waited for a busy server.

    Attributes:
        sent: requests sent.
        silent: answers without a text.
        waited: seconds waited for a busy server.
    """

    def __init__(self, *, retries: int, max_wait_s: float):
        self._retries = retries
        self._max_wait_s = max_wait_s
        self._busy = self._failed = 0
        self.sent = self.silent = 0
        self.waited = 0.0

    def busy_wait(self, asked: float | None) -> float | None:
        """Seconds to wait for a busy server; None if that is longer than allowed.

        Args:
            asked: seconds that the server asks for; None: it did not say.
        """
        doublings = 2 ** min(self._busy, 10)
        seconds = min(_BUSY_S * doublings, _LONGEST_BUSY_S) if asked is None else asked
        seconds = max(seconds, _SHORTEST_BUSY_S * doublings)
        if self.waited + seconds > self._max_wait_s:
            return None
        self._busy += 1
        self.waited += seconds
        return seconds

    def retry_wait(self) -> float | None:
        """Seconds to wait after a failed request; None if it is not to be repeated."""
        if self._failed == self._retries:
            return None
        seconds = min(_RETRY_S * 2**self._failed, _LONGEST_RETRY_S)
        self._failed += 1
        return seconds * random.uniform(0.75, 1.0)  # so that conversations spread
