"""Slots of one of Prefect's global concurrency limits, held for jobs at the provider, over all flows that name it.

Over Prefect's client and not its `concurrency` context manager, which has a thread and a client for each slot, and ends
the row it guards when the server is away at the release.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound, PrefectException

from prefect_together.clock import SYSTEM_CLOCK, Clock, in_background
from prefect_together.errors import FailureClass, TogetherVideoError
from prefect_together.problems import SettingsInvalid

LEASE_SECONDS = 120.0
"""After it the slots of a run that was killed are free again. Prefect's least is 60."""
RENEWAL_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 5.0
"""Between tries to get a slot: Prefect suggests the time that slots are usually held, minutes here."""
RELEASE_SECONDS = 10.0
"""How long the end of a run waits for a server that is to take its slots back. They lapse anyway."""
TAKEN, GONE = 423, 410

_AWAY = (httpx.HTTPError, OSError, PrefectException)

RunLogger = logging.Logger | logging.LoggerAdapter[logging.Logger]


class LimitUnavailable(TogetherVideoError):
    """No slots of the global concurrency limit can be had. Nothing more is sent; every row is as it was."""

    failure_class = FailureClass.UNREACHABLE

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"no slots of the global concurrency limit {self.name!r}: {self.reason}; run again to send the rest"


@dataclass(eq=False, slots=True)
class _Slot:
    lease_id: UUID | None = None


async def check_limit(name: str) -> None:
    """Raises SettingsInvalid if the Prefect server has no global concurrency limit of this name, or it lets none in."""
    async with get_client() as client:
        try:
            limit = await client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound as error:
            message = (
                f"there is no global concurrency limit {name!r} on the Prefect server {client.api_url}: make it with"
                f" `prefect gcl create {name} --limit 20`, or leave concurrency_limit out"
            )
            raise SettingsInvalid.of(message, column="concurrency_limit") from error
    if limit.limit < 1:
        message = f"the global concurrency limit {name!r} is {limit.limit}: nothing would ever be sent"
        raise SettingsInvalid.of(message, column="concurrency_limit")


class GlobalLimit:
    """What one run holds of the limit; open it with `open_limit`."""

    def __init__(
        self, name: str, client: PrefectClient, *, patience_seconds: float, logger: RunLogger, clock: Clock
    ) -> None:
        self._name, self._client, self._patience_seconds = name, client, patience_seconds
        self._logger, self._clock = logger, clock
        self._held: set[_Slot] = set()
        self._turn = asyncio.Lock()  # first come, first served
        self._releases: set[asyncio.Task[None]] = set()
        self._is_away = False

    @asynccontextmanager
    async def slot(self, *, already_there: bool = False) -> AsyncGenerator[None]:
        """Hold a slot for a job. One that is at the provider already does not wait: it takes one when one is free.

        Raises LimitUnavailable, on entering only.
        """
        slot = _Slot()
        if not already_there:
            await self._wait_for(slot)
        self._held.add(slot)
        try:
            yield
        finally:
            self._held.discard(slot)
            if slot.lease_id is not None:
                self._releases.add(release := asyncio.create_task(self._release(slot.lease_id)))
                release.add_done_callback(self._releases.discard)

    async def keep(self) -> None:
        """Renew the leases, and get slots for jobs that have none, until cancelled."""
        while True:
            for slot in list(self._held):
                if not await self._is_kept(slot):
                    break
            await self._clock.sleep(LONGEST_PAUSE_SECONDS if self._some_have_none else RENEWAL_SECONDS)

    async def released(self) -> None:
        """Wait until the server has what was given back."""
        if self._releases:
            await asyncio.wait(self._releases, timeout=RELEASE_SECONDS)

    @property
    def _some_have_none(self) -> bool:
        return any(slot.lease_id is None for slot in self._held)

    async def _wait_for(self, slot: _Slot) -> None:
        away_since: float | None = None
        async with self._turn:
            while slot.lease_id is None:
                pause = LONGEST_PAUSE_SECONDS
                try:
                    pause = await self._take(slot) or pause
                    away_since = None
                except _AWAY as error:
                    self._report_away(error)
                    now = self._clock.monotonic()
                    away_since = now if away_since is None else away_since
                    if now - away_since >= self._patience_seconds:
                        raise LimitUnavailable(self._name, f"Prefect's server cannot be reached ({error})") from error
                if slot.lease_id is None:
                    await self._clock.sleep(pause)

    async def _take(self, slot: _Slot) -> float | None:
        """Take a slot if one is free; else the seconds to wait. Raises LimitUnavailable if the limit was deleted."""
        try:
            response = await self._client.increment_concurrency_slots_with_lease(
                names=[self._name], slots=1, mode="concurrency", lease_duration=LEASE_SECONDS, holder=_holder()
            )
        except httpx.HTTPStatusError as error:
            if error.response.status_code != TAKEN:
                raise
            self._is_away = False
            return min(float(error.response.headers.get("Retry-After", 1.0)), LONGEST_PAUSE_SECONDS)
        self._is_away = False
        body: dict[str, Any] = response.json()
        if not body["limits"]:
            raise LimitUnavailable(self._name, "it was deleted")
        slot.lease_id = UUID(body["lease_id"])
        return None

    async def _is_kept(self, slot: _Slot) -> bool:
        """Renew the slot's lease, or try to get one; False if the server is away."""
        try:
            if slot.lease_id is None:
                with suppress(LimitUnavailable):  # for a job that is at the provider anyway
                    await self._take(slot)
                if slot not in self._held and slot.lease_id is not None:  # it has ended meanwhile
                    await self._release(slot.lease_id)
            else:
                await self._client.renew_concurrency_lease(slot.lease_id, LEASE_SECONDS)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != GONE:
                self._report_away(error)
                return False
            slot.lease_id = None  # it lapsed while the server was away
        except _AWAY as error:
            self._report_away(error)
            return False
        return True

    async def _release(self, lease_id: UUID) -> None:
        try:
            await self._client.release_concurrency_slots_with_lease(lease_id)
        except _AWAY as error:
            self._report_away(error)

    def _report_away(self, error: Exception) -> None:
        if not self._is_away:
            self._logger.warning(
                "global concurrency limit %r: Prefect's server does not answer (%s). Nothing is sent until it does;"
                " what is paid for is collected",
                self._name,
                error,
            )
        self._is_away = True


@asynccontextmanager
async def open_limit(
    name: str, *, patience_seconds: float, logger: RunLogger, clock: Clock = SYSTEM_CLOCK
) -> AsyncGenerator[GlobalLimit]:
    """Hold slots of this limit; all are given back on leaving.

    A server that is away is waited for `patience_seconds` before a new job is given up. Slots that other flows hold are
    waited for without end.
    """
    async with get_client() as client:
        limit = GlobalLimit(name, client, patience_seconds=patience_seconds, logger=logger, clock=clock)
        try:
            async with in_background(limit.keep()):
                yield limit
        finally:
            await limit.released()


def _holder() -> ConcurrencyLeaseHolder | None:
    """Who holds the slot, for Prefect's UI."""
    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    return None if run is None else ConcurrencyLeaseHolder(type="flow_run", id=run.id)
