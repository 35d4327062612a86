"""Takes one video from its state in the ledger to its file: the next step, and what each error means."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from prefect.logging import get_run_logger

from prefect_together.api.jobs import VideoJob
from prefect_together.api.session import VideoSession
from prefect_together.clips.store import OutputStore
from prefect_together.errors import (
    AccountBlocked,
    BadParameter,
    BudgetReached,
    DownloadFailed,
    FailureClass,
    ImageChanged,
    JobFailed,
    JobNotFound,
    JobTimedOut,
    NeverSent,
    RateLimited,
    ServiceStuck,
    ServiceUnreachable,
    SourceMissing,
    SubmissionInDoubt,
    SubmissionRefused,
    TogetherVideoError,
    UnforeseenErrors,
    WrongAddress,
)
from prefect_together.execution.admission import BudgetQueue, Slots
from prefect_together.execution.circuit_breaker import CircuitBreaker
from prefect_together.execution.settings import RunSettings
from prefect_together.execution.sources import SourceClips
from prefect_together.ledger.engine import LedgerUnavailable
from prefect_together.ledger.ledger import Ledger
from prefect_together.ledger.records import JobUnsaved, VideoRecord
from prefect_together.ledger.states import State
from prefect_together.ledger.transitions import REPEATED_FAILURES, RUN_ENDED, ClaimLost
from prefect_together.prefect_internals import unsearched
from prefect_together.results.already_paid import keep_unsaved
from prefect_together.results.outputs import PAGE_FILE
from prefect_together.results.progress import Progress
from prefect_together.steps.assets import ClipAssets
from prefect_together.steps.events import BUDGET_PERCENTS, emit_budget_event, emit_video_event
from prefect_together.steps.global_limit import GlobalLimit, LimitUnavailable
from prefect_together.steps.tasks import create_video, download_video, wait_for_video
from prefect_together.table.plan import PlannedVideo


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
            self.budget.settle(self.key)
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
        self.progress.held_in_doubt_usd += self.estimate_usd or 0.0
        self.progress.set(self.key, State.IN_DOUBT, error=reason)


_STATE_AFTER_REFUSAL: dict[FailureClass | None, State] = {
    FailureClass.BAD_PARAMETER: State.FAILED,
    FailureClass.ACCOUNT: State.REFUSED,
}
"""Of a video whose create call made no job; it is planned as before after any other error."""
UPSTREAM_JOBS = 2
"""Jobs that one video may use up: one, and one more after an upstream failure."""
GONE_SECONDS = 48 * 3600.0
"""The age at which a job that answers 404 has failed. Before, a wrong key or address is the likelier reason."""


class VideoRun:
    """The steps of one video, over what all videos of a run share."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        session: VideoSession,
        store: OutputStore,
        settings: RunSettings,
        progress: Progress,
        sources: SourceClips,
        limit: GlobalLimit | None = None,
    ) -> None:
        self._sources = sources
        self._ledger, self._session, self._store = ledger, session, store
        self._settings, self._progress, self._limit = settings, progress, limit
        self._wait_seconds = settings.max_wait_minutes * 60
        self._slots, self._assets = Slots(settings.max_in_flight), ClipAssets()
        self._budget: BudgetQueue | None = None
        self._budget_is_reported = False
        if settings.budget_usd is not None:
            self._budget = BudgetQueue(settings.budget_usd, committed_usd=ledger.committed_usd, slots=self._slots)
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.breaker = CircuitBreaker(max_in_flight=settings.max_in_flight)

    def raise_limit(self, by: int) -> None:
        """Raise `max_in_flight` for good."""
        self._slots.raise_limit(by)

    async def run(self, video: PlannedVideo, seen: VideoRecord, *, may_send: bool) -> bool:
        """Take the video as far as it goes; False if another living run has it.

        `seen` is its record when the run began: only what is unchanged since is sent again. `may_send` is False for a
        video whose request is no longer known: it is only collected.
        """
        claim = await self._ledger.claim(
            video.key, resend_attempt=seen.attempts, states=self._settings.states_to_resend if may_send else ()
        )
        record = claim.record
        self._progress.update(record)
        if not claim.is_ours:
            return False
        if record.state == State.IN_DOUBT and seen.state == State.SUBMITTING:
            self._progress.held_in_doubt_usd += record.estimate_usd or 0.0
            emit_video_event("in_doubt", video)
        is_given_back = False
        try:
            is_given_back = await self._continue(video, record, may_send=may_send and not self._settings.collect_only)
            if self._progress.states.get(video.key) == State.FAILED and record.state != State.FAILED:
                self._assets.emit("failed", video, self._store.uri(record.file))
        except ClaimLost:
            return False
        finally:
            if not is_given_back:
                with suppress(LedgerUnavailable):  # it must not hide what went wrong; the run's end gives all back
                    await self._restore_unsent(video, seen, record)
                    await self._ledger.release(video.key)
        return True

    async def _restore_unsent(self, video: PlannedVideo, seen: VideoRecord, claimed: VideoRecord) -> None:
        """A video that was to be sent again and was not taken keeps its doubt or failure: the next run asks again."""
        before = State.IN_DOUBT if seen.state == State.SUBMITTING else seen.state
        if claimed.state != State.PLANNED or before not in (State.IN_DOUBT, State.FAILED):
            return
        error = seen.error or RUN_ENDED
        if await self._ledger.restore(video.key, state=before, error=error, failure_class=seen.failure_class):
            self._progress.set(video.key, before)

    async def _continue(self, video: PlannedVideo, record: VideoRecord, *, may_send: bool) -> bool:
        """Whether the video was downloaded, with which its claim ends."""
        job: VideoJob | None = None
        if record.state == State.SUBMITTED or (record.state == State.PLANNED and may_send):
            job = await self._generate(video, record, may_send=may_send)
        elif record.state == State.COMPLETED and record.job_id is not None:
            # Without its link: that of an earlier run may have expired, and a sandbox has another port each time.
            job = VideoJob(record.job_id, "completed", record.model, cost_usd=record.cost_usd)
        return job is not None and await self._download(video, record.file, job)

    async def _generate(self, video: PlannedVideo, record: VideoRecord, *, may_send: bool) -> VideoJob | None:
        """Create the job unless there is one, wait for it; one more job after an upstream failure."""
        jobs = record.jobs
        job = VideoJob(record.job_id, model=record.model) if record.job_id and record.state == State.SUBMITTED else None
        submitted_at, is_new = record.submitted_at or self._session.clock.time(), False
        while True:
            if job is None and (refusal := await self._refusal(video)) is not None:
                await self._refuse(video, refusal)
                return None
            async with AsyncExitStack() as slots:
                await slots.enter_async_context(self._slots.slot(already_there=job is not None))
                try:
                    if self._limit is not None:
                        await slots.enter_async_context(self._limit.slot(already_there=job is not None))
                except LimitUnavailable as error:
                    await self._give_up_unsent(video, error)
                    return None
                if job is None:
                    await self.may_send.wait()
                    job = await self._create(video)
                    submitted_at, is_new = self._session.clock.time(), True
                    jobs += 1
                if job is None:
                    return None
                may_repeat = may_send and jobs < UPSTREAM_JOBS
                done, again = await self._wait(video, job, submitted_at, is_new=is_new, may_repeat=may_repeat)
                await self._report_budget()
            if not again:
                return done
            job = None

    async def _refusal(self, video: PlannedVideo) -> TogetherVideoError | None:
        """Why this video is not sent now. Under a budget it waits for its turn, and for what jobs in flight leave."""

        stopped = partial(self.breaker.refusal, video.request.model)

        if self._budget is None:
            return stopped()
        return stopped() or await self._budget.promise(video.key, video.estimate_usd, stopped=stopped)

    async def _give_up_unsent(self, video: PlannedVideo, error: TogetherVideoError) -> None:
        """Send nothing more in this run; the video stays planned."""
        self.breaker.open(error)
        if self._budget is not None:
            self._budget.settle(video.key)
        await self._refuse(video, error)

    async def _refuse(self, video: PlannedVideo, error: TogetherVideoError) -> None:
        if isinstance(error, WrongAddress | ServiceUnreachable | UnforeseenErrors | LimitUnavailable):
            await self._ledger.set_failure_class(video.key, error.failure_class)  # planned still: nobody refused it
            return
        state = await self._ledger.refused(video.key, error)
        self._progress.set(video.key, state, error=str(error), failure_class=error.failure_class)
        emit_video_event("failed" if state == State.FAILED else "refused", video)

    async def _create(self, video: PlannedVideo) -> VideoJob | None:
        journal = LedgerJournal(
            self._ledger, self._store, video.key, video.estimate_usd, self._budget, self.breaker, self._progress
        )
        try:
            request, digests = await self._sources.filled(video.request)
            journal.inputs = json.dumps(digests) if digests else None
            job = await create_video(
                unsearched(request),
                row=video.row_id,
                session=unsearched(self._session),
                journal=unsearched(journal),
                give_up_at=self._session.clock.time() + self._wait_seconds,
                wait_for=self._sources.task_runs(video.sources),
            )
        except SourceMissing as error:
            await self._set_error(video, error, State.PLANNED)
        except (
            AccountBlocked,
            BudgetReached,
            LimitUnavailable,
            ServiceStuck,
            ServiceUnreachable,
            UnforeseenErrors,
        ) as error:
            await self._refuse(video, error)
        except (BadParameter, WrongAddress, RateLimited, NeverSent, SubmissionInDoubt) as error:
            # the journal has written what became of it
            if error.failure_class == FailureClass.BAD_PARAMETER:
                emit_video_event("failed", video)
            elif isinstance(error, SubmissionInDoubt):
                emit_video_event("in_doubt", video)
            self._report_connection(error)
        else:
            self.breaker.reached()
            emit_video_event("submitted", video, job_id=job.id)
            return job
        finally:
            if self._budget is not None:
                self._budget.settle(video.key)
                await self._report_budget()
        return None

    async def _report_budget(self) -> None:
        """After money was reserved or charged: an event for each part of the budget that is reached for the first time,
        by any run on this ledger."""
        if self._budget is None or self._budget_is_reported:
            return
        with suppress(LedgerUnavailable):  # the row's next step says so
            committed_usd, reached = await self._ledger.reach_budget_marks(self._budget.cap_usd, BUDGET_PERCENTS)
            self._budget_is_reported = committed_usd * 100 >= self._budget.cap_usd * max(BUDGET_PERCENTS)
            for percent in reached:
                emit_budget_event(
                    percent,
                    committed_usd=committed_usd,
                    budget_usd=self._budget.cap_usd,
                    output_dir=self._store.uri(PAGE_FILE).removesuffix(PAGE_FILE).rstrip("/"),
                )

    def _report_connection(self, error: TogetherVideoError) -> None:
        """Tell the breaker whether a create call that made no job has reached the service."""
        if isinstance(error, ImageChanged):
            return
        if isinstance(error, NeverSent):
            is_polled = (
                State.SUBMITTED in self._progress.states.values()
            )  # the run continues anyway, and may yet reach it
            has_shown = self._session.api.has_shown_a_job
            self.breaker.not_reached(error.reason, may_be_reached=has_shown or is_polled)
        else:
            self.breaker.reached()

    async def _wait(
        self, video: PlannedVideo, job: VideoJob, submitted_at: float, *, is_new: bool, may_repeat: bool
    ) -> tuple[VideoJob | None, bool]:
        """The completed job, or None; and whether the video is planned anew. `is_new`: this run has created the job."""
        try:
            done = await wait_for_video(
                job,
                row=video.row_id,
                model=video.request.model,
                submitted_at=submitted_at,
                deadline=max(submitted_at, self._progress.started_at) + self._wait_seconds,
                session=unsearched(self._session),
            )
        except JobFailed as error:
            self.breaker.job_ended()
            again = may_repeat and error.failure_class in REPEATED_FAILURES
            await self._failed(video, error, again=again)
            return None, again
        except JobNotFound as error:
            is_old = self._session.clock.time() - submitted_at >= GONE_SECONDS
            if is_old and self._session.api.has_shown_a_job:  # else the address may be wrong, which looks the same
                await self._failed(video, JobFailed(error.job_id, None, str(error), error.failure_class), again=False)
            else:
                await self._set_error(video, error, State.SUBMITTED)
            return None, False
        except JobTimedOut as error:
            if is_new:
                self.breaker.job_timed_out()
            await self._set_error(video, error, State.SUBMITTED)
            return None, False
        except AccountBlocked as error:
            self.breaker.refused(error)
            await self._set_error(video, error, State.SUBMITTED)
            return None, False
        self.breaker.job_ended()
        await self._ledger.completed(video.key, done, generation_seconds=done.generation_seconds, polls=done.polls)
        self._progress.set(video.key, State.COMPLETED, error=None, generation_seconds=done.generation_seconds)
        self._progress.polls += done.polls
        self._progress.add_cost(video.key, done.cost_usd)
        return done, False

    async def _set_error(self, video: PlannedVideo, error: TogetherVideoError, state: State) -> None:
        """Write what stands in the way of a video that stays in its state."""
        await self._ledger.set_error(video.key, error, state=state)
        self._progress.set(video.key, state, error=str(error), failure_class=error.failure_class)

    async def _failed(self, video: PlannedVideo, error: JobFailed, *, again: bool) -> None:
        await self._ledger.failed(video.key, error, again=again)
        state = State.PLANNED if again else State.FAILED
        self._progress.set(video.key, state, error=str(error), failure_class=error.failure_class)
        self._progress.add_cost(video.key, error.cost_usd)
        if error.cost_usd is None:
            self._progress.held_failed_usd += video.estimate_usd or 0.0
        if not again:
            emit_video_event("failed", video, job_id=error.job_id, cost_usd=error.cost_usd)

    async def _download(self, video: PlannedVideo, file: str, job: VideoJob) -> bool:
        try:
            clip = await download_video(
                job,
                Path(self._store.scratch) / file,
                row=video.row_id,
                session=unsearched(self._session),
                max_bytes=self._settings.max_clip_bytes,
            )
            self._sources.note_download(video.key, clip.task_run_id)
            file = str(PurePosixPath(file).with_name(clip.path.name))  # it may be a WebM, or its name in use
            published = await self._store.publish(file)  # not behind the downloads that wait: the clip is not safe yet
            if published != file:
                get_run_logger().warning(
                    "%s: another file is named %s: the clip is saved as %s", video.row_id, file, published
                )
            file = published
        except DownloadFailed as error:
            await self._set_error(video, error, State.COMPLETED)
            self._progress.undownloaded.add(video.key)
            self._assets.emit("failed", video, self._store.uri(file), job_id=job.id, cost_usd=job.cost_usd)
            return False
        size, sha256, media = clip.size_bytes, clip.sha256, clip.media.as_dict()
        await self._ledger.downloaded(video.key, file=file, size_bytes=size, sha256=sha256, clip=media)
        learned = {"file": file, "size_bytes": size, "sha256": sha256, "clip": json.dumps(media)}
        self._progress.set(video.key, State.DOWNLOADED, **learned, error=None, failure_class=None)
        self._progress.downloaded_here += 1
        emit_video_event("downloaded", video, job_id=job.id, cost_usd=job.cost_usd)
        self._assets.emit(
            "succeeded",
            video,
            self._store.uri(file),
            job_id=job.id,
            cost_usd=job.cost_usd,
            sha256=clip.sha256,
            size_bytes=clip.size_bytes,
        )
        return True
