"""Runs batches over a real ledger, with a service and a download that a test scripts."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from prefect import flow

from ledger_rows import a_video
from prefect_server import PrefectServer
from prefect_together.api.client import VideoApi
from prefect_together.api.jobs import VideoJob
from prefect_together.api.poll import PollBudget
from prefect_together.api.poll_schedule import DurationStatistics
from prefect_together.api.session import VideoSession
from prefect_together.api.submit import SubmitPacer
from prefect_together.clips.download import MAX_CLIP_BYTES, DownloadedClip
from prefect_together.clips.inspection import MediaFacts
from prefect_together.clips.store import LocalStore
from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.errors import JobNotFound, ServiceUnreachable
from prefect_together.execution.batch import Batch
from prefect_together.execution.settings import ALONE, Partition, RunSettings
from prefect_together.ledger.engine import LedgerUnavailable
from prefect_together.ledger.ledger import HERE, Ledger, open_ledger
from prefect_together.ledger.records import LedgerTotals, VideoRecord
from prefect_together.request.request import VideoRequest
from prefect_together.results.progress import Progress
from prefect_together.table.plan import Plan, PlannedVideo

T = TypeVar("T")


CLIP = b"clip"


FACTS = MediaFacts("mp4", 1.0, 24.0, 16, 16, False, "h264")


Answer = Callable[[str], VideoJob]


def done(cost_usd: float | None = 0.28) -> Answer:
    return lambda job_id: VideoJob(job_id, "completed", video_url=f"https://x/{job_id}", cost_usd=cost_usd)


def gave_up(cost_usd: float | None = None) -> Answer:
    return lambda job_id: VideoJob(job_id, "failed", error_message="gpu lost", cost_usd=cost_usd)


def working(job_id: str) -> VideoJob:
    return VideoJob(job_id, "in_progress")


def unknown(job_id: str) -> VideoJob:
    raise JobNotFound(job_id)


class Service(VideoApi):
    """Takes every job; `answers` says what a job is when it is looked at, by its id, else `usual`."""

    def __init__(self, usual: Answer | None = None, answers: Mapping[str, Answer] | None = None) -> None:
        self.usual, self.answers = usual or done(), dict(answers or {})
        self.created: list[str | None] = []
        self.on_create: Callable[[], Awaitable[None]] | None = None
        self.has_shown = False

    @property
    def has_shown_a_job(self) -> bool:
        return self.has_shown

    async def create(self, request: VideoRequest) -> VideoJob:
        self.created.append(request.prompt)
        number = len(self.created)
        if self.on_create is not None:
            await self.on_create()
        return VideoJob(f"job-{number}", "queued")

    async def retrieve(self, job_id: str) -> VideoJob:
        job = self.answers.get(job_id, self.usual)(job_id)
        self.has_shown = True
        return job


class Session(VideoSession):
    """Downloads nothing: a clip is four bytes."""

    async def download(self, job: VideoJob, target: Path, *, max_bytes: int = MAX_CLIP_BYTES) -> DownloadedClip:
        await asyncio.to_thread(target.write_bytes, CLIP)
        return DownloadedClip(target, len(CLIP), "ab", FACTS, 0, 1)


@dataclass
class Ended:
    """What a run left in the ledger, and what it raised."""

    error: BaseException | None
    records: dict[str, VideoRecord]
    totals: LedgerTotals
    progress: Progress

    @property
    def states(self) -> Counter[str]:
        return Counter(record.state.value for record in self.records.values())

    def of(self, video: PlannedVideo) -> VideoRecord:
        return self.records[video.key]


OpenLedger = Callable[[str], AbstractAsyncContextManager[Ledger]]


@dataclass
class BatchHarness:
    """A ledger and output directories from which batches run, inside a flow as tasks want it."""

    prefect: PrefectServer
    folder: Path
    clock: Clock = SYSTEM_CLOCK
    opened: OpenLedger = field(default=lambda url: open_ledger(url))
    session: type[Session] = Session

    @property
    def url(self) -> str:
        return str(self.folder / "ledger.db")

    def ledger(self, work: Callable[[Ledger], Awaitable[T]]) -> T:
        """What some other run does in the ledger."""

        async def main() -> T:
            async with open_ledger(self.url) as ledger:
                return await work(ledger)

        return asyncio.run(main())

    def buy(self, video: PlannedVideo, job_id: str, *, output_dir: str = HERE, submitted_ago: float = 0.0) -> None:
        """A run that ended before its job was done."""

        async def work(ledger: Ledger) -> None:
            await ledger.plan([video], output_dir=output_dir)
            await ledger.claim(video.key)
            attempt = await ledger.intend(video.key, estimate_usd=video.estimate_usd, budget_usd=None)
            await ledger.accepted(video.key, attempt, VideoJob(job_id))

        self.ledger(work)
        with sqlite3.connect(self.url) as connection:
            connection.execute("UPDATE videos SET submitted_at = ?", (self.clock.time() - submitted_ago,))
        connection.close()

    def run(
        self,
        videos: list[PlannedVideo],
        service: VideoApi,
        *,
        output_dir: str = HERE,
        out: str = "out",
        store: LocalStore | None = None,
        at_once: int = 1,
        partition: Partition = ALONE,
        on_batch: Callable[[Batch], None] | None = None,
        **settings: Any,
    ) -> Ended:
        """One batch over these videos, or several at once in the same ledger, and what the first of them
        left. `on_batch` gets each before it runs."""

        @flow(name="a-batch", persist_result=False)
        async def work() -> Ended:
            into = store or LocalStore(self.folder / out)
            run = (
                self._run(videos, service, RunSettings(**settings), output_dir, into, partition, on_batch)
                for _ in range(at_once)
            )
            return (await asyncio.gather(*run))[0]

        return self.prefect.run(work)

    async def _run(
        self,
        videos: list[PlannedVideo],
        service: VideoApi,
        settings: RunSettings,
        output_dir: str,
        store: LocalStore,
        partition: Partition,
        on_batch: Callable[[Batch], None] | None,
    ) -> Ended:
        clock = self.clock
        soon = DurationStatistics(min_seconds=0.01, max_seconds=0.05) if clock is SYSTEM_CLOCK else DurationStatistics()
        session = self.session(service, cast(Any, None), SubmitPacer(clock), PollBudget(clock=clock), soon, clock)
        progress, error = Progress(clock.time()), None
        await store.prepare()
        async with self.opened(self.url) as ledger:
            batch = Batch(
                Plan("table.csv", (), (), {video.key: video for video in videos}, ()),
                ledger=ledger,
                session=session,
                store=store,
                settings=settings,
                progress=progress,
                logger=logging.getLogger(__name__),
                output_dir=output_dir,
                partition=partition,
            )
            if on_batch is not None:
                on_batch(batch)
            try:
                async with asyncio.timeout(110):
                    await batch.run()
            except (LedgerUnavailable, ServiceUnreachable, BaseExceptionGroup) as raised:
                error = raised
        async with open_ledger(self.url) as ledger:
            return Ended(error, await ledger.records(), await ledger.totals(), progress)


def some(count: int, *, usd: float = 0.28) -> list[PlannedVideo]:
    return [a_video(f"r{number}", prompt=f"take {number}", usd=usd) for number in range(count)]
