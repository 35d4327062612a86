"""Takes one video from its state in the ledger to its file: the next step, and what each error means."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path, PurePosixPath

from prefect.logging import get_run_logger

from prefect_together.api.jobs import VideoJob
from prefect_together.api.session import VideoSession
from prefect_together.clips.download import DownloadedClip
from prefect_together.clips.part_file import make_folder
from prefect_together.clips.store import OutputStore, in_thread
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
    NoLink,
    RateLimited,
    ServiceStuck,
    ServiceUnreachable,
    SourceMissing,
    SubmissionInDoubt,
    TogetherVideoError,
    UnforeseenErrors,
    WrongAddress,
)
from prefect_together.execution.admission import BudgetQueue, ChainBudget, LedgerJournal, Slots
from prefect_together.execution.circuit_breaker import CircuitBreaker
from prefect_together.execution.settings import RunSettings
from prefect_together.execution.sources import SourceClips
from prefect_together.ledger.engine import LedgerUnavailable
from prefect_together.ledger.ledger import Ledger
from prefect_together.ledger.records import VideoRecord
from prefect_together.ledger.states import State
from prefect_together.ledger.transitions import REPEATED_FAILURES, RUN_ENDED, ClaimLost
from prefect_together.prefect_internals import unvisited
from prefect_together.results.outputs import PAGE_FILE
from prefect_together.results.progress import Progress
from prefect_together.steps.assets import ClipAssets
from prefect_together.steps.events import BUDGET_PERCENTS, emit_budget_event, emit_video_event
from prefect_together.steps.global_limit import GlobalLimit, LimitUnavailable
from prefect_together.steps.stills import create_still, download_still
from prefect_together.steps.tasks import create_video, download_video, wait_for_video
from prefect_together.stills.request import StillRequest
from prefect_together.table.plan import PlannedVideo

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
            budget = ChainBudget if settings.whole_chains else BudgetQueue
            self._budget = budget(settings.budget_usd, committed_usd=ledger.committed_usd, slots=self._slots)
        self.not_paused = asyncio.Event()
        self.not_paused.set()
        self.breaker = CircuitBreaker(max_in_flight=settings.max_in_flight)

    def raise_limit(self, by: int) -> None:
        """Raise `max_in_flight` for good."""
        self._slots.raise_limit(by)

    @property
    def chain_budget(self) -> ChainBudget | None:
        """The budget, if whole chains are to be asked for before their first video runs."""
        return self._budget if isinstance(self._budget, ChainBudget) else None

    async def run(self, video: PlannedVideo, seen: VideoRecord, *, may_send: bool) -> bool:
        """Take the video as far as it goes; False if another living run has it.

        `seen` is its record when the run began: only what is unchanged since is sent again. `may_send` is False for a
        video whose request is no longer known: it is only collected.
        """
        again = self._settings.states_to_resend(video.kind) if may_send else ()
        claim = await self._ledger.claim(video.key, resend_attempt=seen.attempts, states=again)
        record = claim.record
        self._progress.update(record)
        if not claim.is_ours:
            return False
        if record.state == State.IN_DOUBT and seen.state == State.SUBMITTING:
            self._progress.reserved_in_doubt_usd += record.estimate_usd or 0.0
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
        if video.kind == "still":
            return await self._make_still(video, record, may_send=may_send)
        job: VideoJob | None = None
        if record.state == State.SUBMITTED or (record.state == State.PLANNED and may_send):
            job = await self._generate(video, record, may_send=may_send)
        elif record.state == State.COMPLETED and record.job_id is not None:
            # Without its link: that of an earlier run may have expired, and a sandbox has another port each time.
            job = VideoJob(record.job_id, "completed", record.model, cost_usd=record.cost_usd)
        return job is not None and await self._download(video, record.file, job)

    async def _make_still(self, video: PlannedVideo, record: VideoRecord, *, may_send: bool) -> bool:
        """Have the picture made, unless it is, and download it from the one link that came with the answer.

        It is completed when it is there. Without a link it has failed: the money is spent.
        """
        is_settled, job = record.state == State.COMPLETED, None
        if record.job_id is not None and record.state in (State.SUBMITTED, State.COMPLETED):
            link, usd = record.video_url, record.estimate_usd
            job = VideoJob(record.job_id, "completed", record.model, video_url=link, cost_usd=usd)
        elif record.state == State.PLANNED and may_send:
            job = await self._generate(video, record, may_send=may_send)
        if job is None:
            return False
        target = Path(self._store.local_dir) / record.file
        try:
            await in_thread(make_folder, target.parent)
            request = video.request if isinstance(video.request, StillRequest) else None
            picture = await download_still(
                job, target, request=request, row=video.label, session=unvisited(self._session)
            )
            file = await self._published(video, record.file, picture)
        except NoLink as error:
            cost_usd = None if is_settled else job.cost_usd
            await self._failed(video, JobFailed(job.id, None, str(error), error.failure_class, cost_usd), again=False)
            return False
        except DownloadFailed as error:
            await self._set_error(video, error, State.COMPLETED if is_settled else State.SUBMITTED)
            self._progress.undownloaded.add(video.key)
            return False
        if not is_settled:
            await self._completed(video, job)
        await self._downloaded(video, file, picture, job)
        return True

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
                    await self.not_paused.wait()
                    job = await self._create(video)
                    submitted_at, is_new = self._session.clock.time(), True
                    jobs += 1
                if job is None or video.kind == "still":
                    return job
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
            self._budget.release(video.key)
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
            give_up_at = self._session.clock.time() + self._wait_seconds
            session, kept = unvisited(self._session), unvisited(journal)
            if isinstance(video.request, StillRequest):
                still = unvisited(video.request)
                job = await create_still(still, row=video.label, session=session, journal=kept, give_up_at=give_up_at)
            else:
                request, digests = await self._sources.filled(video.request)
                journal.inputs = json.dumps(digests) if digests else None
                job = await create_video(
                    unvisited(request),
                    row=video.label,
                    session=session,
                    journal=kept,
                    give_up_at=give_up_at,
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
                self._budget.release(video.key)
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
                row=video.label,
                model=video.request.model,
                submitted_at=submitted_at,
                deadline=max(submitted_at, self._progress.started_at) + self._wait_seconds,
                session=unvisited(self._session),
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
        await self._completed(video, done)
        return done, False

    async def _completed(self, video: PlannedVideo, done: VideoJob) -> None:
        await self._ledger.completed(video.key, done, generation_seconds=done.generation_seconds, polls=done.polls)
        self._progress.set(video.key, State.COMPLETED, error=None, generation_seconds=done.generation_seconds)
        self._progress.add_cost(video.key, done.cost_usd)

    async def _set_error(self, video: PlannedVideo, error: TogetherVideoError, state: State) -> None:
        """Write what stands in the way of a video that stays in its state."""
        await self._ledger.set_error(video.key, error, state=state)
        self._progress.set(video.key, state, error=str(error), failure_class=error.failure_class)

    async def _failed(self, video: PlannedVideo, error: JobFailed, *, again: bool) -> None:
        await self._ledger.failed(video.key, error, again=again)
        state = State.PLANNED if again else State.FAILED
        self._progress.set(video.key, state, error=str(error), failure_class=error.failure_class)
        self._progress.add_cost(video.key, error.cost_usd)
        if error.cost_usd is None and error.failure_class != FailureClass.NO_LINK:  # that was settled before
            self._progress.reserved_failed_usd += video.estimate_usd or 0.0
        if not again:
            emit_video_event("failed", video, job_id=error.job_id, cost_usd=error.cost_usd)

    async def _download(self, video: PlannedVideo, file: str, job: VideoJob) -> bool:
        try:
            clip = await download_video(
                job,
                Path(self._store.local_dir) / file,
                row=video.label,
                session=unvisited(self._session),
                max_bytes=self._settings.max_clip_megabytes * 1_000_000,
            )
            file = await self._published(video, file, clip)
        except DownloadFailed as error:
            await self._set_error(video, error, State.COMPLETED)
            self._progress.undownloaded.add(video.key)
            self._assets.emit("failed", video, self._store.uri(file), job_id=job.id, cost_usd=job.cost_usd)
            return False
        await self._downloaded(video, file, clip, job)
        return True

    async def _published(self, video: PlannedVideo, file: str, clip: DownloadedClip) -> str:
        """Put a downloaded file into the output; the name that it has there."""
        self._sources.note_download(video.key, clip.task_run_id)
        file = str(PurePosixPath(file).with_name(clip.path.name))  # it may be a WebM, or its name in use
        published = await self._store.publish(file)  # not behind the downloads that wait: the clip is not safe yet
        if published != file:
            get_run_logger().warning(
                "%s: another file is named %s: the clip is saved as %s", video.label, file, published
            )
        return published

    async def _downloaded(self, video: PlannedVideo, file: str, clip: DownloadedClip, job: VideoJob) -> None:
        size, sha256, media = clip.size_bytes, clip.sha256, clip.media.as_dict()
        await self._ledger.downloaded(video.key, file=file, size_bytes=size, sha256=sha256, clip=media)
        learned = {"file": file, "size_bytes": size, "sha256": sha256, "clip": json.dumps(media)}
        self._progress.set(video.key, State.DOWNLOADED, **learned, error=None, failure_class=None)
        self._progress.downloaded_here += video.kind == "video"
        emit_video_event("downloaded", video, job_id=job.id, cost_usd=job.cost_usd)
        sources = (await self._ledger.records(list(video.sources))).values() if video.sources else ()
        self._assets.emit(
            "succeeded",
            video,
            self._store.uri(file),
            sources=[self._store.uri(source.file) for source in sources],
            job_id=job.id,
            cost_usd=job.cost_usd,
            sha256=clip.sha256,
            size_bytes=clip.size_bytes,
        )
