"""A clock for tests: time stands still until everything has settled, then jumps to the next sleeper."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Sized
from typing import cast

START_UNIX_SECONDS = 1_800_000_000.0


class FakeClock:
    """`prefect_together.clock.Clock` in virtual time. One per event loop.

    With `auto=True` (the default) a sleep ends as soon as no task of the loop can go on, and time has then moved by
    exactly what was slept: hours pass in milliseconds, and thousands of sleepers wake in the order of their times,
    those of one moment in the order in which they fell asleep. What a woken task starts runs before the next is woken.
    With `auto=False` time moves only by `await clock.advance(seconds)`.

    A task that waits for a socket or a thread counts as settled: where real I/O takes part, use `auto=False`.
    """

    def __init__(self, *, auto: bool = True, start_unix_seconds: float = START_UNIX_SECONDS) -> None:
        self.slept_seconds: list[float] = []
        """Every length asked of `sleep`, in order."""
        self._auto = auto
        self._now = 0.0
        self._set_back = (0.0, 0.0)
        self._start_unix_seconds = start_unix_seconds
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._pumping = False

    def time(self) -> float:
        seconds, back = self._set_back
        return self._start_unix_seconds + self._now - (back if self._now >= seconds else 0.0)

    def set_back(self, by_seconds: float, *, at_seconds: float) -> None:
        """From `at_seconds` on the wall clock is so far behind; `monotonic` is not."""
        self._set_back = (at_seconds, by_seconds)

    def monotonic(self) -> float:
        return self._now

    @property
    def sleepers(self) -> int:
        """How many tasks are asleep now."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        self.slept_seconds.append(seconds)
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), future))
        if self._auto and not self._pumping:
            self._pumping = True
            loop.call_soon(self._pump, loop)
        await future

    async def advance(self, seconds: float) -> None:
        """Move time on by `seconds`, waking every sleeper on the way at its own moment."""
        end = self._now + seconds
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._wake_next()
            await self._settle()
        self._now = max(self._now, end)

    def _pump(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake the next sleeper if nothing else can run; look again after whatever can."""
        if _is_settled(loop):
            self._wake_next()
        self._pumping = bool(self._sleepers)
        if self._pumping:
            loop.call_soon(self._pump, loop)

    def _wake_next(self) -> None:
        while self._sleepers:
            when, _, future = heapq.heappop(self._sleepers)
            if not future.done():  # a cancelled sleeper moves no time
                self._now = max(self._now, when)
                future.set_result(None)
                return

    async def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        while not _is_settled(loop):  # noqa: ASYNC110 - no event says that all others have run
            await asyncio.sleep(0)


def _is_settled(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether nothing is ready to run but the caller. asyncio has no public word for it."""
    return len(cast("Sized", getattr(loop, "_ready"))) == 0  # noqa: B009
