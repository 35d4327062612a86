"""What is not a clip is refused, and what cannot be written is reported; the final name stays unused."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest

from clip_files import padded
from clip_server import cut, page, paused, status
from downloader import CLIP, Downloader, open_downloader
from prefect_together.clips.download import download_clip
from prefect_together.clips.http import open_download_session
from prefect_together.errors import ClipInvalid, ClipTooLarge, DownloadFailed, OutputUnwritable
from repository import SUPPORT
from small_disks import mounted_disk, remount_read_only


@pytest.fixture
async def downloader(tmp_path: Path) -> AsyncGenerator[Downloader]:
    async with open_downloader(tmp_path) as opened:
        yield opened


# What is no clip.


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (page("<html><body>Please sign in</body></html>"), "<html><body>Please sign in"),
        (page('{"error": "expired"}', "application/json"), '{"error": "expired"}'),
        (page("no", "video/mp4"), "no"),
    ],
)
async def test_a_page_in_place_of_the_clip_is_quoted(downloader: Downloader, answer: Any, words: str) -> None:
    downloader.server.script.append(answer)

    with pytest.raises(ClipInvalid, match=words):
        await downloader.fetch()

    assert downloader.files() == {}


async def test_a_page_does_not_cost_what_was_received(downloader: Downloader) -> None:
    downloader.server.script.extend([cut(30_000), page("<html>")])

    with pytest.raises(ClipInvalid):
        await downloader.fetch()

    assert downloader.files() == {"a.mp4.part": CLIP[:30_000]}


async def test_a_clip_that_is_cut_at_its_source_is_not_kept(downloader: Downloader) -> None:
    downloader.server.content = CLIP[:-500]

    with pytest.raises(ClipInvalid, match="the MP4 is cut"):
        await downloader.fetch()

    assert downloader.files() == {}


async def test_a_failing_download_leaves_an_earlier_file_alone(downloader: Downloader) -> None:
    downloader.leave(target=b"good")
    downloader.server.content = CLIP[:-500]

    with pytest.raises(ClipInvalid):
        await downloader.fetch()

    assert downloader.files() == {"a.mp4": b"good"}


async def test_an_empty_answer_is_not_a_clip(downloader: Downloader) -> None:
    downloader.server.content = b""

    with pytest.raises(DownloadFailed, match="empty response"):
        await downloader.fetch()

    assert downloader.files() == {}


@pytest.mark.parametrize("code", [204, 304, 405, 451])
async def test_any_other_status_is_reported(downloader: Downloader, code: int) -> None:
    downloader.server.script.append(status(code))

    with pytest.raises(DownloadFailed, match=f"HTTP {code}"):
        await downloader.fetch()


@pytest.mark.parametrize("has_length", [True, False])
async def test_a_clip_above_the_limit_is_refused(downloader: Downloader, has_length: bool) -> None:
    downloader.server.content, downloader.server.has_length = padded(CLIP, 4_000_000), has_length
    size = "4,000,000" if has_length else "more"  # as the response's header says it, before anything is written

    with pytest.raises(ClipTooLarge, match=rf"{size} bytes, the limit is 3,000,000: raise max_clip_megabytes"):
        await downloader.fetch(max_bytes=3_000_000)

    assert downloader.files() == {}


# What cannot be written.


async def test_a_directory_that_goes_away_is_named(downloader: Downloader) -> None:
    downloader.server.script.append(paused(30_000))
    running = asyncio.ensure_future(downloader.fetch())
    await downloader.server.paused.wait()
    downloader.part.unlink()
    downloader.directory.rmdir()
    downloader.server.released.set()

    with pytest.raises(OutputUnwritable, match="the directory is gone"):
        await running


async def test_a_directory_that_is_not_there_is_named(downloader: Downloader) -> None:
    downloader.directory.rmdir()

    with pytest.raises(OutputUnwritable, match="the directory is gone"):
        await downloader.fetch()

    assert downloader.server.seen == []


async def test_a_file_where_the_directory_should_be_is_named(downloader: Downloader) -> None:
    downloader.directory.rmdir()
    downloader.directory.touch()

    with pytest.raises(OutputUnwritable, match="what should be a directory is a file"):
        await downloader.fetch()


async def test_a_full_disk_is_named_and_resumed_when_there_is_room(small_disk: Path, downloader: Downloader) -> None:
    downloader.server.content = padded(CLIP, 400_000)
    downloader.directory = small_disk
    filling = small_disk / "filling"
    filling.write_bytes(bytes(200_000))

    with pytest.raises(OutputUnwritable, match="the disk is full"):
        await downloader.fetch()

    assert set(downloader.files()) == {"filling", "a.mp4.part"}
    filling.unlink()
    clip = await downloader.fetch()
    assert clip.resumed_from > 0
    assert downloader.files() == {"a.mp4": downloader.server.content}


async def test_a_read_only_disk_is_named(small_disk: Path, downloader: Downloader) -> None:
    downloader.directory = small_disk
    remount_read_only(small_disk)

    with pytest.raises(OutputUnwritable, match="the file system is read-only"):
        await downloader.fetch()


@pytest.mark.parametrize(("limit", "reason"), [("fsize", "larger than the system allows"), ("user", "not permitted")])
async def test_limits_of_the_process_are_named(downloader: Downloader, limit: str, reason: str) -> None:
    command = [sys.executable, __file__, limit, downloader.server.url, str(downloader.target)]

    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | {"PYTHONPATH": str(SUPPORT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said, _ = await process.communicate()

    assert reason in said.decode()
    assert "a.mp4" not in downloader.files()


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 512 KiB."""
    with mounted_disk(tmp_path, size_kib=512) as disk:
        yield disk


async def download_within(limit: str, url: str, target: Path) -> None:
    """What the limited process does: say why it could not download."""
    async with open_download_session(base_url=url) as session:
        if limit == "fsize":
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        else:
            target.parent.chmod(0o555)
            os.setresuid(*[65534 if os.getuid() == 0 else os.getuid()] * 3)
        try:
            await download_clip(session, url, target)
        except OutputUnwritable as error:
            print(error)


if __name__ == "__main__":
    asyncio.run(download_within(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
