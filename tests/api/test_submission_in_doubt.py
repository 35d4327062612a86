"""Create calls without a usable answer, over real sockets, on both transports: each is in doubt, and is sent once."""

from __future__ import annotations

import socket

import pytest

from prefect_together.errors import BadParameter, SubmissionInDoubt
from raw_server import (
    HTML,
    JOB,
    PAGE,
    Act,
    Exchange,
    answers,
    answers_in_the_upload,
    closes_after_request,
    closes_in_the_upload,
    closes_on_connect,
    drips,
    error_body,
    http_answer,
    is_silent,
    raw_server,
    resets_after_request,
    resets_in_the_upload,
    resets_on_connect,
    sends,
)
from sdk_clients import LARGE_REQUEST, REQUEST, Transport, open_api, patience, refusal_of

LARGE_BODY = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")  # of aiohttp


# Without an answer


@pytest.mark.parametrize(
    ("act", "posts"),
    [
        (closes_on_connect, 0),
        (resets_on_connect, 0),
        (closes_after_request, 1),
        (resets_after_request, 1),
        (is_silent, 1),
    ],
    ids=["close before", "reset before", "close after", "reset after", "late answer"],
)
async def test_no_answer_on_a_connection_that_was_made_is_in_doubt(transport: Transport, act: Act, posts: int) -> None:
    error, server = await refusal_of(transport, act)

    assert isinstance(error, SubmissionInDoubt)
    assert error.reason.startswith("no answer: ")
    assert (server.posts, server.connections) == (posts, 1)


@LARGE_BODY
@pytest.mark.parametrize("act", [resets_in_the_upload, closes_in_the_upload, is_silent], ids=lambda act: act.__name__)
async def test_a_large_request_that_is_cut_is_in_doubt(transport: Transport, act: Act) -> None:
    async with raw_server(act) as server, open_api(transport, server.url, create_timeout=patience(act)) as api:
        with pytest.raises(SubmissionInDoubt):
            await api.create(LARGE_REQUEST)

    assert (server.posts, server.connections) == (1, 1)


@LARGE_BODY
async def test_a_refusal_in_the_middle_of_the_upload_is_heard(transport: Transport) -> None:
    act = answers_in_the_upload(413, error_body("too large"))

    async with raw_server(act) as server, open_api(transport, server.url) as api:
        with pytest.raises(BadParameter, match=r"413.*too large"):
            await api.create(LARGE_REQUEST)

    assert server.posts == 1


async def test_an_answer_that_trickles_in_is_in_doubt_after_the_longest_call(transport: Transport) -> None:
    act = drips(http_answer(200, JOB), pause_seconds=0.1)

    async with raw_server(act) as server, open_api(transport, server.url, longest_call_seconds=0.5) as api:
        with pytest.raises(SubmissionInDoubt, match="no whole answer"):
            await api.create(REQUEST)

    assert server.posts == 1


# An answer that says nothing


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (408, error_body(), {}),
        (409, error_body(), {}),
        (500, error_body(), {}),
        (500, "", {}),
        (500, "[" * 100_000, {}),
        (502, PAGE, HTML),
        (503, PAGE, HTML),
        (503, "", {}),
        (503, '["overloaded"]', {}),
        (503, '{"message": "no healthy upstream"}', {}),
        (504, PAGE, HTML),
        (524, PAGE, HTML),
        (529, error_body(), {}),
        (418, error_body(), {}),
        (999, "{}", {}),
        (200, PAGE, HTML),
        (200, PAGE, {}),
        (200, JOB[: len(JOB) // 2], {}),
        (200, "{}", {}),
        (200, '{"id": 7}', {}),
        (200, '{"id": ""}', {}),
        (200, error_body(), {}),
        (200, "[1]", {}),
        (200, "null", {}),
        (200, "", {}),
        (200, b'{"id": "\xff\xfe"}', {}),
        (200, b"no gzip at all", {"Content-Encoding": "gzip"}),
        (429, b"no gzip at all", {"Content-Encoding": "gzip"}),
        (200, "[" * 100_000, {}),
        (200, '{"id": "job-1", "seed": ' + "9" * 5000 + "}", {}),
        (200, JOB, {"Content-Length": "500"}),
        (201, PAGE, HTML),
        (300, JOB, {}),
        (304, "", {}),
    ],
)
async def test_an_answer_that_is_no_answer_is_in_doubt(
    transport: Transport, status: int, body: bytes | str, headers: dict[str, str]
) -> None:
    async def act(exchange: Exchange) -> None:
        await exchange.read_request()
        await exchange.send(http_answer(status, body, headers))

    error, server = await refusal_of(transport, act)

    assert isinstance(error, SubmissionInDoubt)
    assert len(error.reason) <= 300
    assert server.posts == 1


@pytest.mark.parametrize(
    "content",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 O",
        b"HTTP/1.1 abc\r\n\r\n",
        b"\x00\x01 garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n" + JOB[:8].encode() + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + JOB.encode(),
    ],
    ids=["204", "100", "101", "half a head", "no status", "garbage", "long header", "cut chunks", "bad chunks"],
)
async def test_broken_http_is_in_doubt(transport: Transport, content: bytes) -> None:
    error, server = await refusal_of(transport, sends(content))

    assert isinstance(error, SubmissionInDoubt)
    assert server.posts == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_in_doubt_and_not_followed(status: int) -> None:
    error, server = await refusal_of("aiohttp", answers(status, "", {"Location": "/v2/videos"}))

    assert isinstance(error, SubmissionInDoubt)
    assert (server.posts, server.gets) == (1, 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_that_a_client_follows_to_a_dead_end_was_sent_all_the_same(status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead_end = f"http://127.0.0.1:{listener.getsockname()[1]}/v2/videos"

    error, server = await refusal_of("httpx", answers(status, "", {"Location": dead_end}))

    assert isinstance(error, SubmissionInDoubt)
    assert server.posts == 1
