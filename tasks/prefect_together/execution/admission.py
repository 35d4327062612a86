"""When a video may be sent (slots, budget, pauses in the UI), and what its create call writes to the ledger."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException

from prefect_together.api.jobs import VideoJob
from prefect_together.clips.store import OutputStore
from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.errors import (
    BudgetReached,
    ChainPastBudget,
    FailureClass,
    NeverSent,
    SubmissionInDoubt,
    SubmissionRefused,
    TogetherVideoError,
)
from prefect_together.execution.circuit_breaker import CircuitBreaker
from prefect_together.execution.settings import RunLogger
from prefect_together.ledger.ledger import Ledger
from prefect_together.ledger.records import JobUnsaved
from prefect_together.ledger.states import State
from prefect_together.results.already_paid import keep_unsaved
from prefect_together.results.progress import Progress
from prefect_together.table.chains import Chain


class Slots:
    """A semaphore that jobs resumed from an earlier run may exceed: they are at the provider already."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._changed = asyncio.Event()

    def raise_limit(self, by: int) -> None:
        """Raise the limit for good."""
        self.limit += by
        for _ in range(by):
            self._wake()

    def next_change(self) -> asyncio.Event:
        """Set when a job has left its slot, or something else has been announced, after this call."""
        return self._changed

    def announce(self) -> None:
        """Wake those who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def slot(self, *, already_there: bool = False) -> AsyncGenerator[None]:
        """Take a slot; wait for one unless the job is at the provider already."""
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


ROUNDING_USD = 1e-9


class BudgetQueue:
    """Promises a cap to one video after the other; `committed_usd` asks the ledger, `slots` are the jobs in flight."""

    def __init__(self, cap_usd: float, *, committed_usd: Callable[[], Awaitable[float]], slots: Slots) -> None:
        self.cap_usd, self._committed_usd, self._slots = cap_usd, committed_usd, slots
        self._promised: dict[str, float] = {}
        self._turn = asyncio.Lock()  # first come, first served

    async def promise(
        self, key: str, estimate_usd: float | None, *, stopped: Callable[[], TogetherVideoError | None]
    ) -> TogetherVideoError | None:
        """Promise the estimate to a video, or say why it is refused: BudgetReached, or what `stopped` says.

        Waits while jobs in flight may still cost less than is reserved for them. Nobody overtakes meanwhile.
        """
        if estimate_usd is None or estimate_usd > self.cap_usd:
            return stopped() or BudgetReached(self.cap_usd, await self._committed_usd(), estimate_usd)
        async with self._turn:
            while (reason := stopped()) is None:
                # Taken and asked before: a promise may be kept, a job settled, while the ledger answers.
                change = self._slots.next_change()
                promised_usd, jobs = sum(self._promised.values()), self._slots.used
                committed_usd = await self._committed_usd()
                if committed_usd + promised_usd + estimate_usd <= self.cap_usd + ROUNDING_USD:
                    self._promised[key] = estimate_usd
                    return None
                if not jobs and not promised_usd:
                    return BudgetReached(self.cap_usd, committed_usd, estimate_usd)
                await change.wait()
            return reason

    def renew(self, key: str, estimate_usd: float | None) -> None:
        """The reservation in the ledger is about to be given back, and the video may be sent again."""
        if estimate_usd is not None:
            self._promised[key] = estimate_usd

    def release(self, key: str) -> None:
        """The video is reserved in the ledger, or is not sent after all."""
        if self._promised.pop(key, None) is not None:
            self._slots.announce()


class ChainBudget(BudgetQueue):
    """Promises the cap to whole chains: a video is sent only if all that remains to be sent of its chain fits.

    Each of them is reserved in the ledger for itself, when it is sent; until then its promise counts as spent.
    """

    def __init__(self, cap_usd: float, *, committed_usd: Callable[[], Awaitable[float]], slots: Slots) -> None:
        super().__init__(cap_usd, committed_usd=committed_usd, slots=slots)
        self._answers: dict[str, BudgetReached | None] = {}
        self._waiting = 0

    async def admit(
        self,
        key: str,
        remaining: Callable[[], Chain],
        *,
        at_work: Callable[[], int],
        stopped: Callable[[], TogetherVideoError | None],
    ) -> None:
        """Promise what is `remaining` of the video's chain, or keep the refusal for `promise`. Once for each chain.

        Waits while something may still become cheaper, or end without its clip: while more videos are `at_work` than
        wait here. What has its promise must not need anything of those that wait. Nobody overtakes meanwhile.
        """
        if key in self._answers:
            return  # not behind those who may wait for this video
        self._waiting += 1
        self._slots.announce()  # it was at work until now
        try:
            async with self._turn:
                if key not in self._answers:
                    await self._answer(remaining(), at_work, stopped)
        finally:
            self._waiting -= 1

    async def _answer(
        self, chain: Chain, at_work: Callable[[], int], stopped: Callable[[], TogetherVideoError | None]
    ) -> None:
        keys = [video.key for video in chain.videos]
        new = {video.key: video.estimate_usd for video in chain.videos if video.key not in self._promised}
        known = {key: usd for key, usd in new.items() if usd is not None}
        needed_usd = sum(known.values()) if len(known) == len(new) else None
        while keys and stopped() is None:
            change, may_change = self._slots.next_change(), at_work() > self._waiting
            promised_usd = sum(self._promised.values())
            remaining_usd = self.cap_usd - await self._committed_usd() - promised_usd
            if needed_usd is not None and needed_usd <= remaining_usd + ROUNDING_USD:
                self._promised |= known
                self._answers |= dict.fromkeys(keys)
                return
            if needed_usd is None or needed_usd > self.cap_usd or not may_change:
                refusal = (
                    ChainPastBudget(self.cap_usd, remaining_usd, needed_usd, chain.name, chain.contents)
                    if len(keys) > 1
                    else BudgetReached(self.cap_usd, self.cap_usd - remaining_usd, needed_usd)
                )
                self._answers |= dict.fromkeys(keys, refusal)
                return
            await change.wait()

    async def promise(
        self, key: str, estimate_usd: float | None, *, stopped: Callable[[], TogetherVideoError | None]
    ) -> TogetherVideoError | None:
        """What `admit` has found. A video that is sent once more needs its estimate beside all promises; it waits for
        jobs alone, as whole chains may wait for it."""
        while (reason := stopped() or self._answers.get(key)) is None and key not in self._promised:
            change, jobs = self._slots.next_change(), self._slots.used
            promised_usd = sum(self._promised.values())
            committed_usd = await self._committed_usd()
            if estimate_usd is not None and committed_usd + promised_usd + estimate_usd <= self.cap_usd + ROUNDING_USD:
                self._promised[key] = estimate_usd
            elif estimate_usd is None or not jobs:
                return BudgetReached(self.cap_usd, committed_usd + promised_usd, estimate_usd)
            else:
                await change.wait()
        return reason

    def give_back(self, keys: Iterable[str], *, is_elsewhere: bool) -> None:
        """These have ended, or are not sent in this run; what another run has is asked for anew if it comes back."""
        for key in keys:
            self._promised.pop(key, None)
            if is_elsewhere:
                self._answers.pop(key, None)
        self._slots.announce()


@dataclass(slots=True, eq=False)
class LedgerJournal:
    """Writes a submit's steps into the ledger; keeps budget, breaker and progress up to date. See `submit.Journal`."""

    ledger: Ledger
    store: OutputStore
    key: str
    estimate_usd: float | None
    budget: BudgetQueue | None
    breaker: CircuitBreaker
    progress: Progress
    inputs: str | None = None

    async def intend(self) -> int:
        self.breaker.check()
        cap_usd = None if self.budget is None else self.budget.cap_usd
        attempt = await self.ledger.intend(
            self.key, estimate_usd=self.estimate_usd, budget_usd=cap_usd, inputs=self.inputs
        )
        if self.budget is not None:
            self.budget.release(self.key)
        self.progress.set(self.key, State.SUBMITTING)
        return attempt

    async def accepted(self, attempt: int, job: VideoJob) -> None:
        try:
            await self.ledger.accepted(self.key, attempt, job)
        except JobUnsaved as error:
            self.breaker.unsaved.append(error)  # at once: a cancellation may overtake the error on its way up
            keep_unsaved(self.store, error.job)
            self.progress.set(self.key, State.SUBMITTED, job_id=error.job.job_id)  # as the next run takes it up
            raise
        except SubmissionInDoubt as error:
            self._set_in_doubt(str(error))
            raise
        self.progress.set(self.key, State.SUBMITTED, job_id=job.id, error=None, failure_class=None)

    async def not_accepted(self, attempt: int, error: SubmissionRefused | NeverSent) -> None:
        self.breaker.refused(error)
        state = _STATE_AFTER_REFUSAL.get(error.failure_class, State.PLANNED)
        if self.budget is not None and state == State.PLANNED:
            self.budget.renew(self.key, self.estimate_usd)
        await self.ledger.not_accepted(self.key, attempt, error, state=state)
        self.progress.set(self.key, state, error=str(error), failure_class=error.failure_class)

    async def in_doubt(self, attempt: int, reason: str) -> None:
        await self.ledger.in_doubt(self.key, attempt, reason)
        self._set_in_doubt(reason)

    def _set_in_doubt(self, reason: str) -> None:
        self.progress.reserved_in_doubt_usd += self.estimate_usd or 0.0
        self.progress.set(self.key, State.IN_DOUBT, error=reason)


_STATE_AFTER_REFUSAL: dict[FailureClass | None, State] = {
    FailureClass.BAD_PARAMETER: State.FAILED,
    FailureClass.ACCOUNT: State.REFUSED,
}
"""Of a video whose create call made no job; it is planned as before after any other error."""


PAUSE_POLL_SECONDS = 3.0


@asynccontextmanager
async def watching_pauses(not_paused: asyncio.Event, logger: RunLogger) -> AsyncGenerator[None]:
    """Within it the event is cleared while somebody has paused or suspended the flow run in Prefect's UI.

    Prefect itself leaves a flow that runs alone. A server that does not answer changes nothing.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield
        return
    watching = asyncio.create_task(_watch_pauses(context.flow_run.id, not_paused, logger))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch_pauses(run_id: UUID, not_paused: asyncio.Event, logger: RunLogger) -> None:
    while True:
        await SYSTEM_CLOCK.sleep(PAUSE_POLL_SECONDS)
        with suppress(httpx.HTTPError, OSError, PrefectException):
            async with get_client() as client:
                state = (await client.read_flow_run(run_id)).state
            if state is not None and state.is_paused():
                if not_paused.is_set():
                    logger.warning("paused: nothing more is sent until the run is resumed; what is sent is collected")
                not_paused.clear()
            elif not not_paused.is_set():
                logger.info("resumed: sending continues")
                not_paused.set()
