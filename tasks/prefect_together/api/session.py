"""What many rows share: a client, a submit rate, a poll budget, duration statistics, a download pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from together import AsyncTogether

from prefect_together.api.client import PollMissed, TracedApi, VideoApi, add_to_span, call_span, is_traced
from prefect_together.api.jobs import VideoJob, shown_status
from prefect_together.api.poll import REQUESTS_PER_SECOND, PollBudget, job_failed
from prefect_together.api.poll_schedule import DurationStatistics
from prefect_together.api.submit import SubmitPacer
from prefect_together.clips.download import MAX_CLIP_BYTES, DownloadedClip, download_clip
from prefect_together.clips.http import DownloadSession, open_download_session
from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.errors import AccountBlocked, JobNotFound, LinkExpired, NoLink, StillGone
from prefect_together.request.images import encode_image
from prefect_together.stills.request import MAX_STILL_BYTES

if TYPE_CHECKING:
    from prefect_together.clips.inspection import MediaFacts

MAX_DOWNLOADS = 16
"""Downloads at once."""
LINK_PAUSES_SECONDS = (1.0, 4.0, 15.0)
"""The least pauses before a fresh link is asked for again when there was no answer, or none with a link."""


@dataclass(slots=True, eq=False)
class VideoSession:
    """The shared parts of a run; open one with `open_session` and hand it to the tasks of many rows."""

    api: VideoApi
    downloads: DownloadSession
    pacer: SubmitPacer
    poll_budget: PollBudget
    durations: DurationStatistics
    clock: Clock = SYSTEM_CLOCK
    download_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_DOWNLOADS))

    async def fresh_link(self, job_id: str) -> str:
        """Ask the job for its link again, within the poll budget; again a few times if there is none in an answer.

        Raises NoLink if the job is completed and still has none, LinkExpired if there is none to be had now.
        """
        pauses = iter(LINK_PAUSES_SECONDS)
        while True:
            await self.poll_budget.acquire()
            asked_wait_seconds = 0.0
            try:
                job = await self.api.retrieve(job_id)
            except PollMissed as missed:
                if missed.is_rate_limit:
                    self.poll_budget.refused(missed.retry_after_seconds)
                asked_wait_seconds = missed.retry_after_seconds or 0.0
                problem: LinkExpired | NoLink = LinkExpired(f"no fresh link for job {job_id}: {missed}")
            except (JobNotFound, AccountBlocked) as error:
                raise LinkExpired(f"no fresh link for job {job_id}: {error}") from error
            else:
                if job.video_url and job.is_completed:
                    return job.video_url
                if job.is_failed:
                    raise LinkExpired(str(job_failed(job)))
                if not job.is_completed:
                    raise LinkExpired(f"job {job_id} is {shown_status(job.status)} and has no link")
                problem = NoLink(job_id, job.cost_usd)  # an answer may lack it for a moment
            pause_seconds = next(pauses, None)
            if pause_seconds is None:
                raise problem
            await self.clock.sleep(max(pause_seconds, asked_wait_seconds))

    async def download(self, job: VideoJob, target: Path, *, max_bytes: int = MAX_CLIP_BYTES) -> DownloadedClip:
        """Fetch and check the clip of a completed job; see `download_clip`. Asks for a fresh link if there is none.

        At most `download_slots` at once; a download that Prefect will retry later holds no slot meanwhile.
        """
        span_of_call = call_span("download_video", job_id=job.id, model=job.model, cost_usd=job.cost_usd)
        async with self.download_slots:
            with span_of_call as span:
                url = job.video_url or await self.fresh_link(job.id)
                clip = await download_clip(
                    self.downloads,
                    url,
                    target,
                    refresh_link=lambda: self.fresh_link(job.id),
                    max_bytes=max_bytes,
                    clock=self.clock,
                )
                add_to_span(span, size_bytes=clip.size_bytes)
                return clip

    async def download_still(self, job: VideoJob, target: Path) -> DownloadedClip:
        """Fetch and check the picture of a still. There is one link to it, and no other to be had.

        Raises StillGone when the link is gone, else as `download_clip`.
        """
        url = job.video_url
        if url is None:
            raise StillGone(job.id, job.cost_usd)

        async def same_link() -> str:
            return url

        async with self.download_slots:
            with call_span("download_still", job_id=job.id, model=job.model, cost_usd=job.cost_usd) as span:
                try:
                    picture = await download_clip(
                        self.downloads,
                        url,
                        target,
                        refresh_link=same_link,
                        max_bytes=MAX_STILL_BYTES,
                        clock=self.clock,
                        inspect=_inspected_picture,
                    )
                except LinkExpired as error:
                    raise StillGone(job.id, job.cost_usd) from error
                add_to_span(span, size_bytes=picture.size_bytes)
                return picture


def _inspected_picture(path: Path) -> MediaFacts:
    from prefect_together.stills.picture import inspect_picture  # Pillow is loaded with the first still, in a thread

    return inspect_picture(path)


@asynccontextmanager
async def open_session(
    client: AbstractAsyncContextManager[AsyncTogether],
    *,
    durations: DurationStatistics | None = None,
    requests_per_second: float = REQUESTS_PER_SECOND,
    clock: Clock = SYSTEM_CLOCK,
) -> AsyncGenerator[VideoSession]:
    """Open the client and all that goes with it; everything is closed on leaving."""
    api_class = TracedApi if is_traced() else VideoApi
    async with (
        client as together_client,
        open_download_session(base_url=str(together_client.base_url)) as downloads,
    ):
        yield VideoSession(
            api=api_class(together_client, encode_image=encode_image),
            downloads=downloads,
            pacer=SubmitPacer(clock),
            poll_budget=PollBudget(requests_per_second=requests_per_second, clock=clock),
            durations=durations or DurationStatistics(),
            clock=clock,
        )
