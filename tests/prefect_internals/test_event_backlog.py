"""New rows wait while Prefect is told too little of the others, and not if it is told nothing at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from prefect.events import emit_event
from prefect.events.worker import EventsWorker

from batch_harness import BatchHarness, Service
from fake_clock import FakeClock
from ledger_rows import a_video
from prefect_server import PrefectServer
from prefect_together.ledger.ledger import Ledger, open_ledger
from prefect_together.prefect_internals import (
    MAX_WAITING,
    MOST_SECONDS,
    STANDSTILL_SECONDS,
    EventBacklog,
    events_waiting,
)


@dataclass
class Sending:
    """Events that are sent at a steady rate, from `starts_at` on."""

    clock: FakeClock
    events: int
    a_second: float
    starts_at: float = 0.0

    def __call__(self) -> int:
        return max(self.events - round(self.a_second * max(self.clock.monotonic() - self.starts_at, 0.0)), 0)


def backlog_of(waiting: Callable[[], int], clock: FakeClock) -> EventBacklog:
    return EventBacklog(waiting=waiting, clock=clock)


async def test_a_short_backlog_holds_nothing_up() -> None:
    clock = FakeClock()

    await backlog_of(Sending(clock, MAX_WAITING, a_second=0.0), clock).until_short()

    assert clock.slept_seconds == []


async def test_a_long_backlog_is_waited_for_until_it_is_short() -> None:
    clock = FakeClock()
    sending = Sending(clock, 3 * MAX_WAITING, a_second=200.0)

    await backlog_of(sending, clock).until_short()

    assert MAX_WAITING - 10 <= sending() <= MAX_WAITING


async def test_a_server_that_stands_still_is_waited_for_once() -> None:
    clock = FakeClock()
    sending = Sending(clock, 2 * MAX_WAITING, a_second=0.0)
    backlog = backlog_of(sending, clock)

    await backlog.until_short()
    first = clock.monotonic()
    for _ in range(1000):
        sending.events += 11
        await backlog.until_short()

    assert STANDSTILL_SECONDS <= first < STANDSTILL_SECONDS + 0.1
    assert clock.monotonic() == first


async def test_a_server_that_is_back_is_waited_for_again() -> None:
    clock = FakeClock()
    sending = Sending(clock, 3 * MAX_WAITING, a_second=200.0, starts_at=60.0)
    backlog = backlog_of(sending, clock)
    await backlog.until_short()
    stood = sending()

    await clock.sleep(60.0)
    await backlog.until_short()

    assert stood == 3 * MAX_WAITING
    assert sending() <= MAX_WAITING


async def test_a_server_that_is_told_too_slowly_is_waited_for_a_minute() -> None:
    clock = FakeClock()
    sending = Sending(clock, 2 * MAX_WAITING, a_second=1.0)

    await backlog_of(sending, clock).until_short()

    assert MOST_SECONDS <= clock.monotonic() < MOST_SECONDS + 0.1


def test_the_events_of_this_process_are_counted_until_they_are_sent(prefect_server: PrefectServer) -> None:
    async def work() -> tuple[int, int]:
        for number in range(500):
            emit_event("together-video.test", resource={"prefect.resource.id": f"together-video.row.{number}"})
        most = events_waiting()
        await asyncio.to_thread(EventsWorker.instance().wait_until_empty)
        return most, events_waiting()

    most, last = prefect_server.run(work)

    assert 0 < most <= 500
    assert last == 0


@pytest.mark.slow
def test_a_batch_begins_no_row_while_too_many_events_wait(batch_harness: BatchHarness) -> None:
    service, waiting = Service(), list[int]()

    async def look() -> None:
        waiting.append(events_waiting())

    @asynccontextmanager
    async def opened(url: str) -> AsyncGenerator[Ledger]:
        for number in range(MAX_WAITING + 3000):
            emit_event("together-video.test", resource={"prefect.resource.id": f"together-video.row.{number}"})
        waiting.append(events_waiting())
        async with open_ledger(url) as ledger:
            yield ledger

    service.on_create, batch_harness.opened = look, opened
    ended = batch_harness.run([a_video()], service)

    assert ended.states == {"downloaded": 1}
    assert waiting[0] > MAX_WAITING >= waiting[1]
