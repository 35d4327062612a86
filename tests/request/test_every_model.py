"""Each model that was not shut down, in every mode that it has: it is served, and the clip is what was asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalogue_examples import every_model_and_mode, example_request
from prefect_together.api.client import open_client
from prefect_together.api.jobs import VideoJob
from prefect_together.api.poll import wait
from prefect_together.api.poll_schedule import DurationStatistics
from prefect_together.api.session import VideoSession, open_session
from prefect_together.clips.inspection import inspect_clip
from prefect_together.request.request import VideoRequest
from prefect_together.sandbox import Sandbox

EVERYTHING = every_model_and_mode()


@pytest.fixture(scope="module")
def api() -> Generator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@dataclass(frozen=True)
class Served:
    job: VideoJob
    size_bytes: int


async def served(session: VideoSession, request: VideoRequest, target: Path) -> Served:
    """Create, look once, download: the sandbox's jobs take no time."""
    created = await session.api.create(request)
    job = await session.api.retrieve(created.id)
    clip = await session.download(job, target)
    return Served(job, clip.size_bytes)


@pytest.fixture
async def session(api: Sandbox) -> AsyncGenerator[VideoSession]:
    async with open_session(open_client(api_key="key", base_url=api.base_url)) as opened:
        yield opened


async def test_every_model_is_served_to_its_end_in_every_mode(session: VideoSession, tmp_path: Path) -> None:
    work = [
        served(session, example_request(model, mode), tmp_path / f"{number}.mp4")
        for number, (model, mode) in enumerate(EVERYTHING)
    ]

    clips = await asyncio.gather(*work)

    assert [clip.job.status for clip in clips] == ["completed"] * len(EVERYTHING)
    assert [clip.job.model for clip in clips] == [model for model, _ in EVERYTHING]
    assert all(clip.size_bytes > 1000 and clip.job.cost_usd is not None for clip in clips)


async def test_what_is_sent_is_what_was_set_and_seconds_are_text(api: Sandbox, session: VideoSession) -> None:
    for model, mode in EVERYTHING:
        request = example_request(model, mode)

        await session.api.create(request)

        body = api.requests[-1].body
        assert set(body) <= {"model", "prompt", "width", "height", "resolution", "ratio", "seconds", "media"}
        assert isinstance(body.get("seconds", ""), str)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_every_clip_has_the_size_length_and_rate_that_were_asked_for(tmp_path: Path) -> None:
    book = DurationStatistics(max_seconds=0.25)
    with Sandbox(clip="shared") as rendering:
        async with open_session(open_client(api_key="key", base_url=rendering.base_url)) as session:
            for number, (model, mode) in enumerate(EVERYTHING):
                request = example_request(model, mode)
                target = tmp_path / f"{number}.mp4"
                job = await session.api.create(request)

                job = await wait(
                    session.api,
                    job.id,
                    model=model,
                    submitted_at=time.time() - 60,
                    deadline=time.time() + 60,
                    durations=book,
                    poll_budget=session.poll_budget,
                )
                clip = await session.download(job, target)

                facts = inspect_clip(target)
                assert facts == clip.media
                if request.width is not None:
                    assert (facts.width, facts.height) == (request.width, request.height), (model, mode)
                if request.seconds is not None:
                    assert abs((facts.duration_seconds or 0) - float(request.seconds)) < 0.2, (model, mode)
