"""The events that Prefect's own client would send, kept in this process."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from prefect.events import Event
from prefect.events.clients import AssertingPassthroughEventsClient
from prefect.events.worker import EventsWorker


@contextmanager
def captured_events() -> Generator[None]:
    """Within it Prefect's client keeps what it sends."""
    EventsWorker.set_client_override(AssertingPassthroughEventsClient)
    AssertingPassthroughEventsClient.reset()
    try:
        yield
    finally:
        EventsWorker.set_client_override(None)
        AssertingPassthroughEventsClient.reset()


def events_named(prefix: str) -> list[Event]:
    """The events whose names begin so, oldest first."""
    events = [event for client in AssertingPassthroughEventsClient.all for event in client.events]
    return sorted((one for one in events if one.event.startswith(prefix)), key=lambda event: event.occurred)
