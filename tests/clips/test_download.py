"""A clip is on disk whole and checked, also when it was cut on the way: over a real socket."""

from __future__ import annotations

import asyncio
import hashlib
import tracemalloc
from collections.abc import AsyncGenerator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_run import wait_until
from clip_files import padded
from clip_server import ClipServer, cut, paused, status, wrong_range
from downloader import CLIP, OTHER_CLIP, OTHER_SHA256, SHA256, Downloader, open_downloader
from prefect_together.clips.download import FLUSH_BYTES, DownloadedClip, download_clip
from prefect_together.clips.http import open_download_session
from prefect_together.errors import DownloadFailed


@pytest.fixture
async def downloader(tmp_path: Path) -> AsyncGenerator[Downloader]:
    async with open_downloader(tmp_path) as opened:
        yield opened


# What a good download gives.


async def test_a_clip_is_stored_with_its_facts(downloader: Downloader) -> None:
    clip = await downloader.fetch()

    assert downloader.files() == {"a.mp4": CLIP}
    assert (clip.path, clip.size_bytes, clip.sha256) == (downloader.target, len(CLIP), SHA256)
    assert (clip.resumed_from, clip.links) == (0, 1)
    assert (clip.media.width, clip.media.height, clip.media.fps) == (96, 64, 12.0)


async def test_a_clip_without_length_is_taken_whole(downloader: Downloader) -> None:
    downloader.server.has_length = False

    assert (await downloader.fetch()).sha256 == SHA256


# Going on after an interruption.


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, len(CLIP)), max_size=4),
    has_ranges=st.booleans(),
    has_etag=st.booleans(),
    has_length=st.booleans(),
)
def test_a_clip_cut_at_any_byte_comes_out_the_same(
    cuts: list[int], has_ranges: bool, has_etag: bool, has_length: bool
) -> None:
    async def run() -> DownloadedClip:
        with TemporaryDirectory() as directory:
            async with open_downloader(Path(directory)) as downloader:
                downloader.server.script.extend(cut(after_bytes) for after_bytes in cuts)
                downloader.server.has_ranges, downloader.server.has_length = has_ranges, has_length
                downloader.server.etag = '"one"' if has_etag else None
                return await downloader.fetch()

    clip = asyncio.run(run())

    assert clip.sha256 == SHA256


@settings(max_examples=25, deadline=None)
@given(kept_bytes=st.integers(0, len(CLIP)), has_ranges=st.booleans())
def test_what_a_killed_process_left_is_resumed(kept_bytes: int, has_ranges: bool) -> None:
    async def run() -> tuple[DownloadedClip, list[str]]:
        with TemporaryDirectory() as directory:
            async with open_downloader(Path(directory)) as downloader:
                downloader.leave(part=CLIP[:kept_bytes])
                downloader.server.has_ranges = has_ranges
                return await downloader.fetch(), downloader.server.ranges()

    clip, ranges = asyncio.run(run())

    assert clip.sha256 == SHA256
    assert len(ranges) == 1
    if has_ranges and kept_bytes > 1:
        assert clip.resumed_from == kept_bytes
        assert int(ranges[0].removeprefix("bytes=").removesuffix("-")) < kept_bytes


@pytest.mark.parametrize("kept", [OTHER_CLIP[:20_000], bytes(20_000), OTHER_CLIP + OTHER_CLIP])
async def test_the_rest_of_another_clip_is_not_resumed(downloader: Downloader, kept: bytes) -> None:
    downloader.leave(part=kept)

    clip = await downloader.fetch()

    assert (clip.sha256, clip.resumed_from) == (SHA256, 0)


async def test_a_part_that_was_damaged_long_before_its_end_is_fetched_again(downloader: Downloader) -> None:
    downloader.leave(part=bytes(10_000) + CLIP[10_000:50_000])

    clip = await downloader.fetch()

    assert (clip.sha256, clip.resumed_from) == (SHA256, 0)
    assert downloader.server.ranges()[1:] == [""]


async def test_a_clip_that_changed_meanwhile_is_fetched_from_its_start(downloader: Downloader) -> None:
    async def change(running: ClipServer, request: web.Request) -> web.StreamResponse:
        response = await cut(30_000)(running, request)
        running.content, running.etag = OTHER_CLIP, '"two"'
        return response

    downloader.server.script.append(change)

    clip = await downloader.fetch()

    assert clip.sha256 == OTHER_SHA256
    assert downloader.server.seen[1].headers["If-Range"] == '"one"'


async def test_a_206_of_another_range_is_not_used(downloader: Downloader) -> None:
    downloader.server.script.extend([cut(30_000), wrong_range()])

    assert (await downloader.fetch()).sha256 == SHA256
    assert downloader.server.ranges()[2] == ""


async def test_a_416_for_a_whole_part_completes_it(downloader: Downloader) -> None:
    downloader.leave(part=CLIP)
    downloader.server.script.append(status(416, Content_Range=f"bytes */{len(CLIP)}"))

    clip = await downloader.fetch()

    assert (clip.sha256, clip.resumed_from, len(downloader.server.seen)) == (SHA256, len(CLIP), 1)


async def test_a_416_otherwise_starts_afresh(downloader: Downloader) -> None:
    downloader.leave(part=CLIP[:9000])
    downloader.server.script.append(status(416))

    assert (await downloader.fetch()).sha256 == SHA256


# Many at once, and being stopped.


async def test_fifty_clips_at_once_arrive_over_a_bounded_pool(downloader: Downloader, tmp_path: Path) -> None:
    downloader.server.content = padded(CLIP, 400_000)

    targets = [tmp_path / f"{number}.mp4" for number in range(50)]

    async with open_download_session(base_url=downloader.server.url, connections=10) as session:
        clips = await asyncio.gather(*(download_clip(session, downloader.server.url, target) for target in targets))

    assert {clip.sha256 for clip in clips} == {hashlib.sha256(downloader.server.content).hexdigest()}
    assert set(downloader.files()) == {target.name for target in targets}
    assert downloader.server.open_most <= 10


async def test_a_cancelled_download_can_be_resumed_at_once(downloader: Downloader) -> None:
    downloader.server.content = padded(CLIP, 4_000_000)
    downloader.server.script.append(paused(3_000_000))
    running = asyncio.ensure_future(downloader.fetch())
    await downloader.server.paused.wait()
    assert await asyncio.to_thread(wait_until, lambda: downloader.part.stat().st_size >= FLUSH_BYTES, seconds=30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert set(downloader.files()) == {"a.mp4.part"}

    clip = await downloader.fetch()

    assert clip.sha256 == hashlib.sha256(downloader.server.content).hexdigest()
    assert clip.resumed_from >= FLUSH_BYTES


async def test_two_downloads_of_one_clip_do_not_mix(downloader: Downloader) -> None:
    downloader.server.script.append(paused(30_000))
    first = asyncio.ensure_future(downloader.fetch())
    await downloader.server.paused.wait()

    with pytest.raises(DownloadFailed, match="another download"):
        await downloader.fetch()

    downloader.server.released.set()
    assert (await first).sha256 == SHA256


async def test_memory_does_not_grow_with_the_clip(downloader: Downloader) -> None:
    downloader.server.content = padded(CLIP, 30_000_000)
    tracemalloc.start()
    try:
        await downloader.fetch()
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most_bytes < 6_000_000
