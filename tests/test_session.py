"""The shared parts of a run: opened and closed as one, and fresh links for clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefect_together.client import open_client
from prefect_together.errors import LinkExpired
from prefect_together.jobs import VideoJob
from prefect_together.requests import VideoRequest
from prefect_together.sandbox import Sandbox
from prefect_together.session import open_session

REQUEST = VideoRequest(model="minimax/video-01-director", prompt="a cat")


async def test_one_session_creates_reads_and_downloads(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        async with open_session(open_client(api_key="key", base_url=sandbox.base_url)) as session:
            job = await session.api.create(REQUEST)
            done = await session.api.retrieve(job.id)
            clip = await session.download(done, tmp_path / "cat.mp4")

    assert clip.path.stat().st_size == clip.size_bytes > 0
    assert session.downloads.closed


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
            with pytest.raises(LinkExpired, match="gives no link"):
                await session.fresh_link(job.id)


@pytest.mark.parametrize("fault", ["401", "404", "429", "500", "drop", "html", "half-json"])
async def test_a_link_that_cannot_be_asked_for_now_is_expired(fault: str) -> None:
    with Sandbox() as sandbox:
        async with open_session(open_client(api_key="key", base_url=sandbox.base_url)) as session:
            job = await session.api.create(REQUEST)
            sandbox.fault(fault, endpoint="retrieve", count=2)
            with pytest.raises(LinkExpired, match=f"no fresh link for job {job.id}"):
                await session.fresh_link(job.id)
