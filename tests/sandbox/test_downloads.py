"""The sandbox's clips on the wire: links, ranges, expiry, and everything that goes wrong with a download."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from fake_clock import FakeClock
from prefect_together.sandbox import Sandbox
from prefect_together.sandbox.downloads import ServedFile, parse_range
from sandbox_calls import HTTP, TINY, clip_url, fetch, look, post, raw_exchange


@pytest.fixture
def api() -> Generator[Sandbox]:
    settings: dict[str, Any] = {"late_seconds": 30, "stall_seconds": 30, "too_large_bytes": 3_000_000}
    with Sandbox(**settings) as sandbox:
        yield sandbox


def test_a_clip_is_served_in_parts(api: Sandbox) -> None:
    url = clip_url(api)

    whole = HTTP.get(url)
    rest = HTTP.get(url, headers={"range": "bytes=1000-", "if-range": whole.headers["etag"]})
    changed = HTTP.get(url, headers={"range": "bytes=1000-", "if-range": '"another"'})
    beyond = HTTP.get(url, headers={"range": f"bytes={len(TINY)}-"})

    assert (whole.status_code, whole.content, whole.headers["accept-ranges"]) == (200, TINY, "bytes")
    assert (rest.status_code, rest.content) == (206, TINY[1000:])
    assert rest.headers["content-range"] == f"bytes 1000-{len(TINY) - 1}/{len(TINY)}"
    assert (changed.status_code, changed.content) == (200, TINY)
    assert beyond.status_code == 416


def test_ranges_etags_and_lengths_can_be_switched_off() -> None:
    with Sandbox(ranges=False, etags=False, content_lengths=False) as api:
        answer = HTTP.get(clip_url(api), headers={"range": "bytes=1000-"})

    assert (answer.status_code, answer.content) == (200, TINY)
    assert not {"accept-ranges", "etag", "content-length"} & set(answer.headers)
    assert answer.headers["transfer-encoding"] == "chunked"


def test_a_cut_download_ends_half_way_with_the_whole_length_announced(api: Sandbox) -> None:
    url = clip_url(api)
    api.fault("cut")

    head, _, body = raw_exchange(url).partition(b"\r\n\r\n")

    assert f"content-length: {len(TINY)}".encode() in head
    assert body == TINY[: len(TINY) // 2]


def test_a_reset_download_ends_in_a_tcp_reset(api: Sandbox) -> None:
    url = clip_url(api)
    api.fault("cut-reset")

    with pytest.raises(ConnectionResetError):
        raw_exchange(url)


def test_a_stalled_download_falls_silent_half_way(api: Sandbox) -> None:
    url = clip_url(api)
    api.fault("stall")

    with pytest.raises(TimeoutError):
        raw_exchange(url, timeout=0.3)


@pytest.mark.parametrize(
    ("fault", "length"), [("corrupt", len(TINY)), ("garbage", len(TINY)), ("truncated", len(TINY) // 2)]
)
def test_a_damaged_download_has_a_length_that_fits(api: Sandbox, fault: str, length: int) -> None:
    url = clip_url(api)
    api.fault(fault)

    answer = HTTP.get(url)

    assert (answer.status_code, len(answer.content)) == (200, length)
    assert int(answer.headers["content-length"]) == length
    assert answer.content != TINY


def test_a_download_can_ignore_the_range_or_lack_length_and_etag(api: Sandbox) -> None:
    url = clip_url(api)
    for fault in ("no-range", "no-length", "no-etag"):
        api.fault(fault)

    whole, chunked, bare = (HTTP.get(url, headers={"range": "bytes=1000-"}) for _ in range(3))

    assert (whole.status_code, whole.content) == (200, TINY)
    assert (chunked.status_code, "content-length" in chunked.headers, chunked.content) == (206, False, TINY[1000:])
    assert "etag" not in bare.headers


def test_a_download_can_be_far_too_large(api: Sandbox) -> None:
    url = clip_url(api)
    api.fault("too-large")
    api.fault("endless")

    announced, unannounced = (HTTP.get(url) for _ in range(2))

    assert int(announced.headers["content-length"]) == len(announced.content) == 3_000_000
    assert "content-length" not in unannounced.headers
    assert len(unannounced.content) == 3_000_000


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_expired_link_is_refused_and_the_job_gives_a_fresh_one(status: int) -> None:
    with Sandbox(expired_status=status) as api:
        job_id = post(api).json()["id"]
        old = look(api, job_id).json()["outputs"]["video_url"]
        file = HTTP.get(old, follow_redirects=False).headers["location"]
        api.expire_links()
        fresh = look(api, job_id).json()["outputs"]["video_url"]

        assert (HTTP.get(old).status_code, HTTP.get(file).status_code) == (status, status)
        assert HTTP.get(fresh).content == TINY


def test_links_can_point_to_another_origin() -> None:
    with Sandbox(file_host="localhost") as api:
        link = look(api, post(api).json()["id"]).json()["outputs"]["video_url"]

        assert link.startswith("http://localhost:")
        assert HTTP.get(link).content == TINY


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-200", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=0-1,5-6", None),
        ("bytes=a-b", None),
        ("bytes=-", None),
        ("pages=1-2", None),
    ],
)
def test_ranges_are_read_as_the_standard_says(header: str | None, expected: tuple[int, int] | None) -> None:
    part = parse_range(header, 100)

    assert (None if part is None else (part.start, part.stop)) == expected


def test_a_padded_clip_reads_the_same_in_any_pieces() -> None:
    file = ServedFile.of(TINY, pad_to_bytes=700_000)

    whole = file.read(0, file.size_bytes)
    pieces = b"".join(file.read(start, min(start + 99_999, 700_000)) for start in range(0, 700_000, 99_999))

    assert (file.size_bytes, len(whole)) == (700_000, 700_000)
    assert whole == pieces
    assert whole[len(TINY) + 4 : len(TINY) + 8] == b"free"
    assert int.from_bytes(whole[len(TINY) : len(TINY) + 4]) == 700_000 - len(TINY)


async def test_a_link_expires_with_time_and_is_renewed_before() -> None:
    clock = FakeClock(auto=False)
    with Sandbox(clock=clock, link_seconds=100) as api:
        job_id = post(api).json()["id"]
        links: list[str] = []
        for _ in range(4):
            links.append(look(api, job_id).json()["outputs"]["video_url"])
            await clock.advance(40)

        assert links[0] == links[1] != links[2] == links[3]
        assert [fetch(link).status_code for link in (links[1], links[3])] == [403, 200]
