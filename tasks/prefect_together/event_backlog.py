"""Holds new rows back while this process is far behind in telling Prefect's server what happened.

Prefect's client keeps each event, with all that its task run knew, until it is sent: 14 kB an event, eleven events a
row. Where rows are quicker than the sending, that would be a gigabyte for 10,000 rows, and a UI that is minutes late.
Rows that are under way go on; a server that stands still holds nothing up.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Queue

from prefect.events.worker import EventsWorker, should_emit_events

from prefect_together.clock import SYSTEM_CLOCK, Clock

MAX_WAITING = 4000
"""Events, 56 MB, above which no new row is begun."""
STANDSTILL_SECONDS, MOST_SECONDS = 10.0, 60.0
"""Events that have not become fewer for so long are not waited for; nor are those that are many after a minute."""
PAUSE_SECONDS = 0.05


def events_waiting() -> int:
    """Events of this process that are not yet sent."""
    if not should_emit_events():
        return 0
    try:
        worker = EventsWorker.instance()
    except RuntimeError:  # at the interpreter's end; Prefect's own `emit_event` is silent on it too
        return 0
    queue = getattr(worker, "_queue", None)  # Prefect's own, and it may get another name
    return queue.qsize() if isinstance(queue, Queue) else 0


class EventBacklog:
    """Of one run; `waiting` counts the events."""

    def __init__(self, *, waiting: Callable[[], int] = events_waiting, clock: Clock = SYSTEM_CLOCK) -> None:
        self._waiting, self._clock = waiting, clock
        self._stood_at: int | None = None

    async def until_short(self) -> None:
        """Wait until at most MAX_WAITING events wait to be sent: a minute at most, and not while nothing is sent."""
        fewest, since = self._waiting(), self._clock.monotonic()
        give_up_at = since + MOST_SECONDS
        while (now := self._waiting()) > MAX_WAITING:
            if self._stood_at is not None and now >= self._stood_at:
                return
            if now < fewest:
                fewest, since = now, self._clock.monotonic()
            if self._clock.monotonic() >= min(since + STANDSTILL_SECONDS, give_up_at):
                self._stood_at = now
                return
            await self._clock.sleep(PAUSE_SECONDS)
        self._stood_at = None
