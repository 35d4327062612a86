"""The message queues of a local run's own Prefect server: Prefect's in-memory ones without their limit.

Prefect's (3.8.8) hold 10,000 messages for a consumer and drop what comes beyond, with a line in the server's log: a
run that is faster than its server would lose task runs and their states without a word. A message is some 2 kB, in a
process that ends with the run, and a row has eleven.

This module is what the server's setting PREFECT_SERVER_EVENTS_MESSAGING_BROKER names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from prefect.server.utilities.messaging import memory
from prefect.server.utilities.messaging.memory import Cache, MemoryMessage, break_topic

__all__ = ["Consumer", "Publisher", "break_topic", "ephemeral_subscription"]


class Subscription(memory.Subscription):
    """What waits for one consumer, however much it is."""

    def __init__(self, topic: memory.Topic, **options: Any) -> None:
        super().__init__(topic, **options)
        self._queue: asyncio.Queue[MemoryMessage] = asyncio.Queue()


class Topic(memory.Topic):
    """A kind of message; in the same registry by name as Prefect's own, who finds there what is made here first."""

    def subscribe(self, **subscription_kwargs: Any) -> Subscription:
        subscription = Subscription(self, **subscription_kwargs)
        self._subscriptions.append(subscription)
        return subscription


class Publisher(memory.Publisher):
    """Hands each message to every consumer of its topic."""

    def __init__(self, topic: str, cache: Cache, deduplicate_by: str | None = None) -> None:
        Topic.by_name(topic)
        super().__init__(topic, cache, deduplicate_by)


class Consumer(memory.Consumer):
    """Handles the messages of a topic."""

    def __init__(self, topic: str, **options: Any) -> None:
        Topic.by_name(topic)
        super().__init__(topic, **options)


def ephemeral_subscription(topic: str) -> AbstractAsyncContextManager[Mapping[str, Any]]:
    """A subscription that ends with its context."""
    Topic.by_name(topic)
    return memory.ephemeral_subscription(topic)
