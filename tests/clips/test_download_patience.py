"""What passes is waited out, what has expired is renewed, and both have an end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from clip_server import cut, paused, status
from downloader import CLIP, OTHER_CLIP, OTHER_SHA256, SHA256, Downloader, open_downloader
from prefect_together.errors import DownloadFailed, LinkExpired


@pytest.fixture
async def downloader(tmp_path: Path) -> AsyncGenerator[Downloader]:
    async with open_downloader(tmp_path) as opened:
        yield opened


# Patience.


@pytest.mark.parametrize("fault", [cut(0), status(500), status(502), status(503), status(408), status(429)])
async def test_what_passes_is_tried_again_with_growing_pauses(downloader: Downloader, fault: Any) -> None:
    downloader.server.script.extend([fault] * 4)

    clip = await downloader.fetch()

    assert clip.sha256 == SHA256
    for pause_seconds, most_seconds in zip(downloader.clock.slept_seconds, (1, 2, 4, 8), strict=True):
        assert most_seconds / 2 <= pause_seconds <= most_seconds


async def test_a_host_that_gives_nothing_is_given_up(downloader: Downloader) -> None:
    downloader.server.script.extend([status(503)] * 5)

    with pytest.raises(DownloadFailed, match=r"127\.0\.0\.1 answered HTTP 503, given up after 5 requests"):
        await downloader.fetch()

    assert downloader.files() == {}


async def test_progress_renews_the_patience(downloader: Downloader) -> None:
    downloader.server.script.extend([cut(6000)] * 9)

    clip = await downloader.fetch(attempts=2)

    assert clip.sha256 == SHA256
    assert len(downloader.server.seen) == 10


async def test_what_was_received_is_kept_when_given_up(downloader: Downloader) -> None:
    downloader.server.script.extend([cut(30_000), *[status(500)] * 5])
    with pytest.raises(DownloadFailed, match="30000 bytes are kept"):
        await downloader.fetch()
    assert downloader.files() == {"a.mp4.part": CLIP[:30_000]}

    clip = await downloader.fetch()

    assert (clip.sha256, clip.resumed_from) == (SHA256, 30_000)


@pytest.mark.parametrize("ahead_seconds", [0, 3600, -86_400])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_the_hosts_retry_after_is_kept_to_by_its_own_clock(
    downloader: Downloader, form: str, ahead_seconds: float
) -> None:
    now = datetime.fromtimestamp(downloader.clock.time() + ahead_seconds, UTC)
    date = format_datetime(now + timedelta(seconds=77), usegmt=True)
    retry_after = "77" if form == "seconds" else date
    downloader.server.script.append(status(429, Retry_After=retry_after, Date=format_datetime(now, usegmt=True)))

    await downloader.fetch()

    assert downloader.clock.slept_seconds == [pytest.approx(77, abs=1)]  # pyright: ignore[reportUnknownMemberType]


@pytest.mark.parametrize("set_back_seconds", [3600.0, -86_400.0])
async def test_a_wall_clock_that_jumps_makes_no_download_late(downloader: Downloader, set_back_seconds: float) -> None:
    downloader.clock.set_back(set_back_seconds, at_seconds=0.1)
    downloader.server.script.extend([cut(30_000), status(503), paused(10_000), cut(10_000)])

    clip = await downloader.fetch(stall_seconds=0.2)

    assert clip.sha256 == SHA256
    assert sum(downloader.clock.slept_seconds) < 10


@pytest.mark.parametrize(("asked", "slept"), [("99999999", 300), ("soon", 1), ("-5", 1)])
async def test_a_senseless_retry_after_does_no_harm(downloader: Downloader, asked: str, slept: float) -> None:
    downloader.server.script.append(status(503, Retry_After=asked))

    await downloader.fetch()

    assert slept / 2 <= downloader.clock.slept_seconds[0] <= slept


async def test_a_stalled_connection_is_left_and_resumed(downloader: Downloader) -> None:
    downloader.server.script.append(paused(30_000))

    clip = await downloader.fetch(stall_seconds=0.2)

    assert clip.sha256 == SHA256
    assert int(downloader.server.ranges()[1].removeprefix("bytes=").removesuffix("-")) > 20_000


async def test_a_host_that_only_stalls_is_named(downloader: Downloader) -> None:
    downloader.server.script.extend([paused(0)] * 2)

    with pytest.raises(DownloadFailed, match=r"127\.0\.0\.1 sent nothing for 0\.1 s, given up after 2 requests"):
        await downloader.fetch(stall_seconds=0.1, attempts=2)


async def test_a_refused_connection_is_named_without_the_link(downloader: Downloader, unused_tcp_port: int) -> None:
    with pytest.raises(DownloadFailed, match=r"no connection to 127\.0\.0\.1") as failed:
        await downloader.fetch(f"http://127.0.0.1:{unused_tcp_port}/a?signature=secret", attempts=2)

    assert "secret" not in str(failed.value)


# Links that expire.


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
async def test_a_dead_link_is_renewed_and_the_part_resumed(downloader: Downloader, code: int) -> None:
    downloader.server.script.extend([cut(30_000), status(code)])

    async def fresh() -> str:
        return f"{downloader.server.url}/fresh"

    clip = await downloader.fetch(refresh_link=fresh)

    assert (clip.sha256, clip.links) == (SHA256, 2)
    assert [request.path for request in downloader.server.seen] == ["/a", "/a", "/fresh"]
    assert downloader.server.ranges()[2].startswith("bytes=")
    assert "If-Range" not in downloader.server.seen[2].headers


async def test_a_fresh_link_to_another_rendering_starts_afresh(downloader: Downloader) -> None:
    downloader.server.script.extend([cut(30_000), status(403)])

    async def fresh() -> str:
        downloader.server.content = OTHER_CLIP
        return f"{downloader.server.url}/fresh"

    clip = await downloader.fetch(refresh_link=fresh)

    assert clip.sha256 == OTHER_SHA256


async def test_a_dead_link_that_nobody_renews_has_expired(downloader: Downloader) -> None:
    downloader.server.script.extend([cut(30_000), status(410)])

    with pytest.raises(LinkExpired, match="HTTP 410"):
        await downloader.fetch()

    assert downloader.files() == {"a.mp4.part": CLIP[:30_000]}


async def test_fresh_links_that_are_dead_too_are_given_up(downloader: Downloader) -> None:
    downloader.server.script.extend([status(404)] * 9)
    asked: list[str] = []

    async def fresh() -> str:
        asked.append("once")
        return downloader.server.url

    with pytest.raises(LinkExpired):
        await downloader.fetch(refresh_link=fresh)

    assert len(asked) == 2
