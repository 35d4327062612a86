"""Takes every video of a plan from where the ledger has it to its file: which step is next, bounded fan-out, no row
losing another. The steps themselves are the tasks; what the run leaves behind is in `outputs`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prefect_together.download import MAX_CLIP_BYTES
from prefect_together.errors import (
    AccountBlocked,
    BadParameter,
    BudgetReached,
    DownloadFailed,
    JobFailed,
    JobNotFound,
    JobTimedOut,
    NeverSent,
    RateLimited,
    SubmissionInDoubt,
    TogetherVideoError,
)
from prefect_together.jobs import VideoJob
from prefect_together.journal import Breaker, LedgerJournal
from prefect_together.ledger import ClaimLost, Ledger, VideoRecord
from prefect_together.ledger_schema import State
from prefect_together.plan import Plan, PlannedVideo
from prefect_together.remembered import video_of
from prefect_together.session import VideoSession
from prefect_together.slots import Slots
from prefect_together.storage import OutputStore
from prefect_together.tally import Tally
from prefect_together.tasks import create_video, download_video, wait_for_video

MAX_DOWNLOADS = 16
HELD_PAUSE_SECONDS = 2.0
UPSTREAM_JOBS = 2
"""Jobs that one video may use up: one, and one more after an upstream failure."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run goes about its plan. Dollars, minutes; None means no cap."""

    max_in_flight: int = 20
    budget_usd: float | None = None
    max_wait_minutes: float = 60.0
    max_clip_bytes: int = MAX_CLIP_BYTES
    resubmit_in_doubt: bool = False
    retry_failed: bool = False
    collect_only: bool = False


class Batch:
    """One run over a plan. `await batch.run()`; the ledger then says how far each video came."""

    def __init__(
        self,
        plan: Plan,
        *,
        ledger: Ledger,
        session: VideoSession,
        store: OutputStore,
        settings: RunSettings,
        tally: Tally,
        logger: logging.Logger | logging.LoggerAdapter[logging.Logger],
    ) -> None:
        self._plan, self._ledger, self._session, self._store = plan, ledger, session, store
        self._settings, self._tally, self._logger = settings, tally, logger
        self._started_at = tally.started_at
        self._breaker = Breaker()
        self._slots = Slots(settings.max_in_flight)
        self._downloads = asyncio.Semaphore(MAX_DOWNLOADS)
        self._held: list[PlannedVideo] = []
        self._refuse_from_usd: float | None = None
        self._unexpected: list[BaseException] = []

    async def run(self) -> None:
        """Work until every video is finished, in doubt, refused, held by nobody else, or past its deadline.

        Raises what a row did not foresee, after all other rows are through.
        """
        records = await self._ledger.plan(list(self._plan.videos.values()))
        for key, record in records.items():
            self._tally.set(key, record.state)
            self._count_money(record)
        await self._find_lost_files(records)
        self._tally.begin()
        todo = [video for key, video in self._plan.videos.items() if self._is_open(records[key])]
        there = (State.SUBMITTED, State.COMPLETED, State.SUBMITTING)
        todo += await self._paid_but_absent(records)
        todo.sort(key=lambda video: records[video.key].state not in there)
        await self._run_all(todo, records)
        deadline = self._started_at + self._settings.max_wait_minutes * 60
        while self._held and self._session.clock.time() < deadline:
            held, self._held = self._held, []
            await self._session.clock.sleep(HELD_PAUSE_SECONDS)
            await self._run_all(held, records)
        if self._unexpected:
            raise BaseExceptionGroup("rows ended by an error that was not foreseen", self._unexpected)

    async def _paid_but_absent(self, records: dict[str, VideoRecord]) -> list[PlannedVideo]:
        """What is paid is collected, even if its row has been changed or taken out of the table since."""
        absent = await self._ledger.paid_but_absent(self._plan.videos.keys())
        if absent:
            self._logger.warning(
                "%d paid videos belong to rows that have changed or are gone: they are collected into videos/ too",
                len(absent),
            )
        records.update({record.video_key: record for record in absent})
        return [video_of(record) for record in absent]

    def _is_open(self, record: VideoRecord) -> bool:
        if record.state == State.DOWNLOADED:
            return self._tally.states[record.video_key] != State.DOWNLOADED
        if record.state == State.FAILED:
            return self._settings.retry_failed
        if record.state == State.IN_DOUBT:
            return self._settings.resubmit_in_doubt
        if record.state in (State.PLANNED, State.REFUSED):
            return not self._settings.collect_only
        return True

    async def _find_lost_files(self, records: Mapping[str, VideoRecord]) -> None:
        """A downloaded clip that is gone or has another size is fetched again."""
        downloaded = [record for record in records.values() if record.state == State.DOWNLOADED]
        sizes = await self._store.sizes([record.file for record in downloaded])
        for record in downloaded:
            if sizes.get(record.file) != record.size_bytes:
                self._logger.warning("%s: %s is gone or changed, fetching it again", record.row_id, record.file)
                await self._ledger.file_is_gone(record.video_key)
                self._tally.set(record.video_key, State.COMPLETED)

    async def _run_all(self, todo: list[PlannedVideo], records: Mapping[str, VideoRecord]) -> None:
        """Run these videos: those at the provider at once, the others as room is made for them."""
        room = asyncio.Semaphore(self._settings.max_in_flight + 2 * MAX_DOWNLOADS)
        running: set[asyncio.Task[None]] = set()

        def is_over(task: asyncio.Task[None], has_room: bool) -> None:
            running.discard(task)
            if has_room:
                room.release()
            if not task.cancelled() and (error := task.exception()) is not None:
                self._unexpected.append(error)

        try:
            for video in todo:
                has_room = records[video.key].state not in (State.SUBMITTED, State.COMPLETED)
                if has_room:
                    await room.acquire()
                if self._unexpected:
                    break
                running.add(task := asyncio.create_task(self._run_video(video)))
                task.add_done_callback(partial(is_over, has_room=has_room))
            while running:
                await asyncio.wait(running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _run_video(self, video: PlannedVideo) -> None:
        claim = await self._ledger.claim(
            video.key,
            resubmit_in_doubt=self._settings.resubmit_in_doubt,
            retry_failed=self._settings.retry_failed,
        )
        record = claim.record
        self._tally.set(video.key, record.state)
        if record.cost_usd is not None:
            self._tally.costs_usd[video.key] = record.cost_usd
        if claim.held:
            self._held.append(video)
            return
        job: VideoJob | None = None
        if record.state in (State.PLANNED, State.SUBMITTED):
            job = await self._generate(video, record)
        elif record.state == State.COMPLETED and record.job_id is not None:
            job = VideoJob(record.job_id, "completed", record.model, record.video_url)
        if job is not None:
            async with self._downloads:
                await self._download(video, record.file, job)
        await self._ledger.release(video.key)

    async def _generate(self, video: PlannedVideo, record: VideoRecord) -> VideoJob | None:
        """Create the job unless there is one, wait for it; one more job after an upstream failure."""
        jobs = record.jobs
        job = VideoJob(record.job_id, model=record.model) if record.job_id and record.state == State.SUBMITTED else None
        submitted_at = record.submitted_at or self._session.clock.time()
        while True:
            async with self._slots.slot(already_there=job is not None):
                if job is None:
                    job = await self._create(video)
                    submitted_at = self._session.clock.time()
                    jobs += 1
                if job is None:
                    return None
                done, again = await self._wait(video, job, submitted_at, may_repeat=jobs < UPSTREAM_JOBS)
            if not again:
                return done
            job = None

    async def _create(self, video: PlannedVideo) -> VideoJob | None:
        refusal = self._refusal(video)
        if refusal is not None:
            await self._refuse(video, refusal)
            return None
        journal = LedgerJournal(
            self._ledger,
            video.key,
            video.estimate_usd,
            self._settings.budget_usd,
            self._breaker,
            self._tally,
        )
        give_up_at = self._started_at + self._settings.max_wait_minutes * 60
        give_up_at = max(give_up_at, self._session.clock.time() + 60)
        try:
            return await create_video(
                video.request, row=video.row_id, session=self._session, journal=journal, give_up_at=give_up_at
            )
        except BudgetReached as error:
            known = error.estimate_usd
            self._refuse_from_usd = known if self._refuse_from_usd is None else min(self._refuse_from_usd, known or 0)
            await self._refuse(video, error)
        except AccountBlocked as error:
            await self._refuse(video, error)
        except (BadParameter, RateLimited, NeverSent, SubmissionInDoubt):
            self._refuse_from_usd = None  # the journal has it, and a reservation may have been given back
        except ClaimLost:
            self._held.append(video)
        return None

    def _refusal(self, video: PlannedVideo) -> TogetherVideoError | None:
        """Why this video need not even be tried now; spares a failing task run for each row above the budget."""
        if self._breaker.reason is not None:
            return self._breaker.reason
        budget = self._settings.budget_usd
        if budget is None:
            return None
        if video.estimate_usd is None:
            return BudgetReached(budget, 0.0, None)
        if self._refuse_from_usd is not None and video.estimate_usd >= self._refuse_from_usd:
            return BudgetReached(budget, budget, video.estimate_usd)
        return None

    async def _refuse(self, video: PlannedVideo, error: TogetherVideoError) -> None:
        await self._ledger.refused(video.key, str(error))
        self._tally.set(video.key, State.REFUSED)

    async def _wait(
        self, video: PlannedVideo, job: VideoJob, submitted_at: float, *, may_repeat: bool
    ) -> tuple[VideoJob | None, bool]:
        """The completed job, or None; and whether the video is planned anew."""
        deadline = max(submitted_at, self._started_at) + self._settings.max_wait_minutes * 60
        try:
            done = await wait_for_video(
                job,
                row=video.row_id,
                model=video.request.model,
                submitted_at=submitted_at,
                deadline=deadline,
                session=self._session,
            )
        except JobFailed as error:
            again = may_repeat and error.failure_class in ("upstream", "cancelled") and not self._settings.collect_only
            await self._ledger.failed(video.key, error.failure_class, str(error), cost_usd=error.cost_usd, again=again)
            self._tally.set(video.key, State.PLANNED if again else State.FAILED)
            return None, again
        except JobNotFound as error:
            await self._ledger.failed(video.key, "not_found", str(error), cost_usd=None, again=False)
            self._tally.set(video.key, State.FAILED)
            return None, False
        except JobTimedOut as error:
            await self._ledger.note(video.key, str(error))
            return None, False
        except AccountBlocked as error:
            self._breaker.reason = self._breaker.reason or error
            await self._ledger.note(video.key, str(error))
            return None, False
        await self._ledger.completed(video.key, done, generation_seconds=done.generation_seconds, polls=done.polls)
        self._tally.set(video.key, State.COMPLETED)
        self._tally.polls += done.polls
        if done.cost_usd is not None:
            self._tally.costs_usd[video.key] = done.cost_usd
            self._refuse_from_usd = None
        return done, False

    async def _download(self, video: PlannedVideo, file: str, job: VideoJob) -> None:
        target = Path(self._store.scratch) / file
        try:
            clip = await download_video(
                job, target, row=video.row_id, session=self._session, max_bytes=self._settings.max_clip_bytes
            )
            await self._store.publish(clip.path, file)
        except DownloadFailed as error:
            await self._ledger.note(video.key, str(error), "download")
            return
        await self._ledger.downloaded(
            video.key, size_bytes=clip.size_bytes, sha256=clip.sha256, clip=clip.media.as_dict()
        )
        self._tally.set(video.key, State.DOWNLOADED)

    def _count_money(self, record: VideoRecord) -> None:
        video = self._plan.videos[record.video_key]
        if video.estimate_usd is not None:
            self._tally.estimates_usd[record.video_key] = video.estimate_usd
        if record.cost_usd is not None:
            self._tally.costs_usd[record.video_key] = record.cost_usd
