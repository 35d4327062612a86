"""Which video may be sent next, and when: slots at the provider, budget, a canary of each model, pauses in the UI.

`LedgerJournal` is what a create call leaves in the ledger.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping
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
from prefect_together.table.plan import PlannedVideo


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


class StartOrder:
    """Hands out videos one by one; of each model in `guarded` the first is its canary, and the others wait for it.

    Models in `known` have had their canary. A video waits for those that `sources` has for it, which are among the
    others, until `source_ended` was called for each. Without `guarded` and `sources` this is a plain queue.
    """

    def __init__(
        self,
        free: Iterable[PlannedVideo],
        guarded: Iterable[PlannedVideo] = (),
        *,
        known: Collection[str] = (),
        sources: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._ready: deque[PlannedVideo] = deque()
        self._waiting: dict[str, deque[PlannedVideo]] = {}
        self._canaries: dict[str, str] = {}
        self._known = set(known)
        self._sources = {key: set(wanted) for key, wanted in (sources or {}).items()}
        self._blocked: dict[str, tuple[PlannedVideo, bool]] = {}
        self._changed = asyncio.Event()
        for is_guarded, videos in ((False, free), (True, guarded)):
            for video in videos:
                self._add(video, is_guarded=is_guarded)

    def _add(self, video: PlannedVideo, *, is_guarded: bool) -> None:
        model = video.request.model
        if self._sources.get(video.key):
            self._blocked[video.key] = (video, is_guarded)
        elif not is_guarded or model in self._known:
            self._ready.append(video)
        elif model in self._waiting:
            self._waiting[model].append(video)
        else:
            self._waiting[model] = deque()
            self._send_as_canary(video)

    def source_ended(self, key: str, *, is_there: bool) -> list[PlannedVideo]:
        """A video has come to its end: those that waited for it alone start; without its clip, they and those behind
        them are given up, and returned."""
        given_up: list[PlannedVideo] = []
        ended = [key] if self._blocked else []
        while ended:
            one = ended.pop()
            for waiting in [waiting for waiting in self._blocked if one in self._sources[waiting]]:
                self._sources[waiting].discard(one)
                if not is_there:
                    given_up.append(self._blocked.pop(waiting)[0])
                    ended.append(waiting)
                elif not self._sources[waiting]:
                    video, is_guarded = self._blocked.pop(waiting)
                    self._add(video, is_guarded=is_guarded)
        self._changed.set()
        return given_up

    @property
    def ready(self) -> int:
        """How many videos `next` would give at once."""
        return len(self._ready)

    async def next(self) -> PlannedVideo | None:
        """The next video that may start, when there is one; None when all have been handed out."""
        while not self._ready:
            if not self._waiting and not self._blocked:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._ready.popleft()

    @property
    def is_free(self) -> bool:
        """Whether no video waits behind a canary, and none is one or may become one."""
        may_be_canary = (
            guarded and video.request.model not in self._known for video, guarded in self._blocked.values()
        )
        return not self._waiting and not self._canaries and not any(may_be_canary)

    def is_canary(self, video: PlannedVideo) -> bool:
        """Whether the others of its model wait for this video now."""
        return self._canaries.get(video.request.model) == video.key

    def release_model(self, model: str) -> None:
        """The model's canary has come through, or has not: the others start, and learn of it on their way."""
        self._canaries.pop(model, None)
        self._known.add(model)
        self._ready.extend(self._waiting.pop(model, ()))
        self._changed.set()

    def try_another(self, model: str) -> None:
        """The model's canary was not tried: the next video takes its place."""
        if waiting := self._waiting.get(model):
            self._send_as_canary(waiting.popleft())
            self._changed.set()
        else:
            self.release_model(model)

    def _send_as_canary(self, video: PlannedVideo) -> None:
        self._canaries[video.request.model] = video.key
        self._ready.append(video)


PAUSE_POLL_SECONDS = 3.0


@asynccontextmanager
async def heeding_pauses(may_send: asyncio.Event, logger: RunLogger) -> AsyncGenerator[None]:
    """Within it the event is cleared while somebody has paused or suspended the flow run in Prefect's UI.

    Prefect itself leaves a flow that runs alone. A server that does not answer changes nothing.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield
        return
    watching = asyncio.create_task(_watch_pauses(context.flow_run.id, may_send, logger))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch_pauses(run_id: UUID, may_send: asyncio.Event, logger: RunLogger) -> None:
    while True:
        await SYSTEM_CLOCK.sleep(PAUSE_POLL_SECONDS)
        with suppress(httpx.HTTPError, OSError, PrefectException):
            async with get_client() as client:
                state = (await client.read_flow_run(run_id)).state
            if state is not None and state.is_paused():
                if may_send.is_set():
                    logger.warning("paused: nothing more is sent until the run is resumed; what is sent is collected")
                may_send.clear()
            elif not may_send.is_set():
                logger.info("resumed: sending continues")
                may_send.set()
