"""Sends one video until it is accepted, refused or in doubt, never twice on doubt. No Prefect, no polls."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Protocol

from prefect_together.catalogue import estimate_usd
from prefect_together.client import VideoApi
from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.errors import ImageChanged, NeverSent, RateLimited, SubmissionInDoubt, SubmissionRefused
from prefect_together.jobs import VideoJob
from prefect_together.pacing import SubmitPacer
from prefect_together.requests import VideoRequest

NEVER_SENT_TRIES = 6
NEVER_SENT_PAUSE_SECONDS = 2.0
LAST_ANSWER_SECONDS = 0.8
"""How long a cancelled submit still waits for the answer to a request that is on its way."""


class Journal(Protocol):
    """Where a submit writes what it does, before and after each create call."""

    async def intend(self) -> int:
        """Make the intent durable; return the attempt's number. May raise BudgetReached: then nothing is sent."""
        ...

    async def accepted(self, attempt: int, job: VideoJob) -> None:
        """Write the id of a job that is paid from now on."""
        ...

    async def not_accepted(self, attempt: int, error: SubmissionRefused | NeverSent) -> None:
        """Write that nothing is billed: refused, or never sent. It may be tried again, as another attempt."""
        ...

    async def in_doubt(self, attempt: int, reason: str) -> None:
        """Write that a job may exist and be billed."""
        ...


@dataclass(slots=True)
class NoJournal:
    """For a single call outside of a ledger: counts the attempts, keeps nothing."""

    attempts: int = 0

    async def intend(self) -> int:
        self.attempts += 1
        return self.attempts

    async def accepted(self, attempt: int, job: VideoJob) -> None: ...
    async def not_accepted(self, attempt: int, error: SubmissionRefused | NeverSent) -> None: ...
    async def in_doubt(self, attempt: int, reason: str) -> None: ...


async def submit(
    api: VideoApi,
    request: VideoRequest,
    *,
    pacer: SubmitPacer,
    journal: Journal,
    give_up_at: float,
    clock: Clock = SYSTEM_CLOCK,
) -> VideoJob:
    """Create the job and return it as the service answered.

    Sent again by itself: what was refused for rate (until `give_up_at`, unix seconds) and what provably never left
    this machine (six times). Each attempt is in the journal before it is sent. Raises BadParameter, WrongAddress,
    AccountBlocked, SubmissionInDoubt; RateLimited and NeverSent when the tries are over; and what the journal raises.
    """
    never_sent, refusal = 0, None
    while True:
        await pacer.admit()
        if refusal is not None and clock.time() >= give_up_at:
            pacer.released()
            raise refusal
        try:
            job = await _attempt(api, request, journal)
        except RateLimited as error:
            refusal = error
            pacer.refused(error.retry_after_seconds)
            if clock.time() >= give_up_at:
                raise
        except ImageChanged:  # a NeverSent that no second try mends
            pacer.released()
            raise
        except NeverSent:
            pacer.released()
            never_sent += 1
            if never_sent >= NEVER_SENT_TRIES or clock.time() >= give_up_at:
                raise
            await clock.sleep(NEVER_SENT_PAUSE_SECONDS * 2 ** (never_sent - 1))
        except BaseException:  # a cancellation too: whatever it was, the place among the creates is free again
            pacer.released()
            raise
        else:
            pacer.accepted()
            return job


async def _attempt(api: VideoApi, request: VideoRequest, journal: Journal) -> VideoJob:
    """One create call with its entries in the journal. A cancellation does not tear the call from its entry."""
    attempt = await _intend(journal)
    call = asyncio.create_task(api.create(request))
    try:
        job = await asyncio.shield(call)
    except asyncio.CancelledError:
        await _end_cancelled(call, journal, attempt)
        raise
    except (SubmissionRefused, NeverSent) as error:
        await journal.not_accepted(attempt, error)
        raise
    except SubmissionInDoubt as error:
        await journal.in_doubt(attempt, error.reason)
        estimate = estimate_usd(request)
        raise SubmissionInDoubt(error.reason, estimate.high_usd if estimate else None) from error
    except Exception as error:  # whatever went wrong, the request may have left
        reason = f"{type(error).__name__}: {error}"
        await journal.in_doubt(attempt, reason)
        raise SubmissionInDoubt(reason) from error
    await journal.accepted(attempt, job)
    return job


async def _intend(journal: Journal) -> int:
    """The durable intent. Cancelled meanwhile, it is taken back: nothing was sent, so nothing is in doubt."""
    intent = asyncio.ensure_future(journal.intend())
    try:
        return await asyncio.shield(intent)
    except asyncio.CancelledError:
        await asyncio.wait([intent])
        if not intent.cancelled() and intent.exception() is None:
            await journal.not_accepted(intent.result(), NeverSent("the run was stopped before it was sent"))
        raise


async def _end_cancelled(call: asyncio.Task[VideoJob], journal: Journal, attempt: int) -> None:
    """The run is stopped while a create call is under way: give the answer a moment, then write what is known."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait([call], timeout=LAST_ANSWER_SECONDS)
    if not call.done() or call.cancelled():
        call.cancel()
        await journal.in_doubt(attempt, "the run was stopped before the answer came")
        await asyncio.gather(call, return_exceptions=True)
        return
    error = call.exception()
    if error is None:
        await journal.accepted(attempt, call.result())
    elif isinstance(error, SubmissionRefused | NeverSent):
        await journal.not_accepted(attempt, error)
    else:
        await journal.in_doubt(attempt, error.reason if isinstance(error, SubmissionInDoubt) else str(error))
