"""The shared parts of a run: opened and closed as one, and fresh links for clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from fake_clock import FakeClock
from prefect_together.api.client import PollMissed, open_client
from prefect_together.api.jobs import VideoJob
from prefect_together.api.poll import PollBudget
from prefect_together.api.poll_schedule import DurationStatistics
from prefect_together.api.session import LINK_PAUSES_SECONDS, VideoSession, open_session
from prefect_together.api.submit import SubmitPacer
from prefect_together.errors import AccountBlocked, JobNotFound, LinkExpired
from prefect_together.request.request import VideoRequest
from prefect_together.sandbox import Sandbox
from scripted_api import Answer, ScriptedApi

DONE = VideoJob("job-1", "completed", video_url="https://x/job-1")
REQUEST = VideoRequest(model="minimax/video-01-director", prompt="a cat")


class Asked:
    """A session over an API that answers as laid down, where hours pass in moments."""

    def __init__(self, *answers: Answer) -> None:
        self.clock = clock = FakeClock()
        self.api, self.polls = ScriptedApi(*answers, clock=clock), PollBudget(clock=clock)
        self._session = VideoSession(
            self.api, cast(Any, None), SubmitPacer(clock), self.polls, DurationStatistics(), clock=clock
        )

    async def fresh_link(self) -> str:
        return await self._session.fresh_link("job-1")


async def test_one_session_creates_reads_and_downloads(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        async with open_session(open_client(api_key="key", base_url=sandbox.base_url)) as session:
            job = await session.api.create(REQUEST)
            done = await session.api.retrieve(job.id)
            clip = await session.download(done, tmp_path / "cat.mp4")

    assert clip.path.stat().st_size == clip.size_bytes > 0
    assert session.downloads.http.closed


async def test_a_job_known_by_its_id_alone_is_asked_for_its_link(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        async with open_session(open_client(api_key="key", base_url=sandbox.base_url)) as session:
            job = await session.api.create(REQUEST)
            clip = await session.download(VideoJob(job.id), tmp_path / "cat.mp4")

    assert clip.path.exists()


async def test_an_expired_link_is_renewed_in_the_download(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        async with open_session(open_client(api_key="key", base_url=sandbox.base_url)) as session:
            job = await session.api.create(REQUEST)
            done = await session.api.retrieve(job.id)
            sandbox.expire_links()
            clip = await session.download(done, tmp_path / "cat.mp4")
            reads = sandbox.calls("retrieve")

    assert clip.path.exists()
    assert reads == 2


async def test_a_job_that_is_not_done_has_no_link() -> None:
    with Sandbox(generation_seconds=100) as sandbox:
        async with open_session(open_client(api_key="key", base_url=sandbox.base_url)) as session:
            job = await session.api.create(REQUEST)
            with pytest.raises(LinkExpired, match="has no link"):
                await session.fresh_link(job.id)


@pytest.mark.parametrize("answer", [JobNotFound("job-1"), AccountBlocked(401, None, "no such key")])
async def test_a_link_that_will_not_be_given_is_asked_for_once(answer: Exception) -> None:
    place = Asked(answer)

    with pytest.raises(LinkExpired, match="no fresh link for job job-1"):
        await place.fresh_link()

    assert place.api.calls == 1


async def test_a_link_is_asked_for_again_after_the_wait_that_a_refusal_names() -> None:
    place = Asked(PollMissed("HTTP 429 on retrieve", 60.0, is_rate_limit=True), DONE)

    link = await place.fresh_link()

    assert link == DONE.video_url
    assert place.api.calls == 2
    assert place.api.asked_at[1] - place.api.asked_at[0] >= 60.0


async def test_a_link_is_asked_for_when_polls_may_be_sent() -> None:
    place = Asked(DONE)
    place.polls.refused(30.0)

    await place.fresh_link()

    assert place.clock.monotonic() >= 30.0


async def test_a_refused_question_for_a_link_slows_all_polls() -> None:
    place = Asked(PollMissed("HTTP 503 on retrieve", 60.0, is_rate_limit=True), DONE)
    await place.fresh_link()
    before = place.clock.monotonic()

    for _ in range(200):
        await place.polls.acquire()

    assert place.clock.monotonic() - before > 1.5 * 200 / place.polls.requests_per_second


async def test_an_answer_that_lacks_the_link_for_a_moment_is_asked_for_again() -> None:
    place = Asked(replace(DONE, video_url=None), DONE)

    assert await place.fresh_link() == DONE.video_url
    assert place.api.calls == 2


async def test_a_question_for_a_link_without_an_answer_is_put_again_a_few_times() -> None:
    dropped = PollMissed("APIConnectionError on retrieve: Server disconnected")
    place = Asked(dropped)

    with pytest.raises(LinkExpired, match="no fresh link for job job-1: APIConnectionError"):
        await place.fresh_link()

    assert place.api.calls == 1 + len(LINK_PAUSES_SECONDS)


@pytest.mark.parametrize("fault", ["429", "500", "html", "half-json"])
async def test_one_missed_question_does_not_lose_a_paid_clip(fault: str, tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        client = open_client(api_key="key", base_url=sandbox.base_url)
        async with open_session(client, clock=FakeClock()) as session:
            job = await session.api.create(REQUEST)
            sandbox.fault(fault, endpoint="retrieve")
            link = await session.fresh_link(job.id)

    assert link.startswith("http://")
