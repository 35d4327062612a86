"""Time: a clock that tests replace, work beside other work, and how long an answer's headers ask to wait."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
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


MAX_RETRY_AFTER_SECONDS = 300.0
"""The longest wait that a header can ask for."""


def retry_after_seconds(headers: Mapping[str, str], *, now_unix_seconds: float | None = None) -> float | None:
    """Seconds that an answer asks to wait, 0 to 300; None if it does not say.

    `x-ratelimit-reset` (seconds, or a unix time in seconds or milliseconds; Together's docs, November 2026) and
    `Retry-After` (seconds or an HTTP date, RFC 9110); the longer one if there are both. Dates are compared with
    the answer's own `Date` if it has one, since clocks differ, else with `now_unix_seconds` or the machine's clock.
    """
    fields = {name.lower(): value.strip() for name, value in headers.items()}
    now = _http_date(fields.get("date", ""))
    if now is None:
        now = SYSTEM_CLOCK.time() if now_unix_seconds is None else now_unix_seconds
    delays = [_delay(fields[name], now) for name in ("x-ratelimit-reset", "retry-after") if name in fields]
    known = [delay for delay in delays if delay is not None]
    return min(max(0.0, *known), MAX_RETRY_AFTER_SECONDS) if known else None


def _delay(value: str, now_unix_seconds: float) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        date = _http_date(value)
        return None if date is None else date - now_unix_seconds
    if not math.isfinite(seconds):
        return None
    if seconds > 1e12:
        seconds /= 1000.0
    return seconds - now_unix_seconds if seconds > 1e9 else seconds


def _http_date(value: str) -> float | None:
    """The unix time of an HTTP date."""
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # the year 99999999999
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
