"""The local server's message queues lose nothing, however far their consumer is behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest
from prefect.server.utilities import messaging
from prefect.server.utilities.messaging import Message, memory
from prefect.settings import PREFECT_MESSAGING_BROKER, temporary_settings

from prefect_together.cli.local_prefect import SERVER_SETTINGS

BEYOND_PREFECTS_LIMIT = 10_500


@pytest.fixture(autouse=True)
def as_on_the_local_server() -> Iterator[None]:
    """The broker of the local server's settings, and topics of this test alone."""
    memory.Topic.clear_all()
    memory.METRICS.clear()
    with temporary_settings({PREFECT_MESSAGING_BROKER: SERVER_SETTINGS["PREFECT_SERVER_EVENTS_MESSAGING_BROKER"]}):
        yield
    memory.Topic.clear_all()


async def test_a_consumer_far_behind_gets_every_message_in_order() -> None:
    publisher = messaging.create_publisher("events", deduplicate_by="id")
    consumer = messaging.create_consumer("events", group="task-run-recorder", concurrency=1)
    numbers: list[int] = []
    has_all = asyncio.Event()

    async def handle(message: Message) -> None:
        numbers.append(int(message.data))
        if len(numbers) == BEYOND_PREFECTS_LIMIT:
            has_all.set()

    async with publisher:
        for number in range(BEYOND_PREFECTS_LIMIT):
            await publisher.publish_data(b"%d" % number, {"id": str(number)})
    work = asyncio.create_task(consumer.run(handle))
    await asyncio.wait_for(has_all.wait(), 100)
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work

    assert numbers == list(range(BEYOND_PREFECTS_LIMIT))
    assert memory.METRICS["events"]["published"] == BEYOND_PREFECTS_LIMIT


async def test_a_short_lived_subscription_is_without_limit_too_and_ends_with_its_context() -> None:
    publisher = messaging.create_publisher("logs")

    async with messaging.ephemeral_subscription("logs"):
        for number in range(BEYOND_PREFECTS_LIMIT):
            await publisher.publish_data(b"%d" % number, {})
        while_it_lasts = memory.METRICS["logs"]["published"]
    await publisher.publish_data(b"after", {})

    assert while_it_lasts == memory.METRICS["logs"]["published"] == BEYOND_PREFECTS_LIMIT
