"""Time and sleep as one injected object, so that tests need neither wait nor patch; and work beside other work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol


class Clock(Protocol):
    """`time` is unix seconds, `monotonic` seconds from an arbitrary start, `sleep` waits."""

    def time(self) -> float: ...
    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clock."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


SYSTEM_CLOCK = SystemClock()


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, object]) -> AsyncGenerator[None]:
    """Run `work` for as long as the context lasts, then cancel it and wait for its end. Its errors are ignored."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
