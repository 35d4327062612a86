"""Counts jobs at the provider against `max_in_flight`. No I/O, no Prefect."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Slots:
    """A semaphore that jobs already at the provider may enter above the limit: they cannot be held back."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._changed = asyncio.Event()

    def widen(self, by: int) -> None:
        """Raise the limit for good."""
        self.limit += by
        for _ in range(by):
            self._wake()

    def next_change(self) -> asyncio.Event:
        """Set when a job has left its slot, or something else has been announced, after this call."""
        return self._changed

    def announce(self) -> None:
        """Let those who wait for a change look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def slot(self, *, already_there: bool = False) -> AsyncGenerator[None]:
        """Hold a slot; wait for one unless the job is already there."""
        if not already_there:
            await self._wait()
        self.used += 1
        try:
            yield
        finally:
            self.used -= 1
            self._wake()
            self.announce()

    async def _wait(self) -> None:
        while self.used >= self.limit:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()
                elif waiter in self._waiters:
                    self._waiters.remove(waiter)
                raise

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
