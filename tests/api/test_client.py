"""The client: how it is opened, what create sends, and what each answer to a retrieve call means for the wait."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest

from prefect_together.api.client import LONGEST_CALL_SECONDS, PollMissed, VideoApi, open_client
from prefect_together.errors import AccountBlocked, JobNotFound, NotConfigured
from prefect_together.request.media import LocalImage
from prefect_together.request.request import VideoRequest
from raw_server import (
    HTML,
    JOB,
    PAGE,
    Act,
    Exchange,
    answers,
    closes_after_request,
    closes_on_connect,
    drips,
    error_body,
    http_answer,
    is_silent,
    raw_server,
    resets_after_request,
    sends,
)
from sdk_clients import REQUEST, Transport, open_api


async def missed_poll(transport: Transport, act: Act, longest_call_seconds: float = LONGEST_CALL_SECONDS) -> PollMissed:
    async with (
        raw_server(act) as server,
        open_api(transport, server.url, longest_call_seconds=longest_call_seconds) as api,
    ):
        with pytest.raises(PollMissed) as caught:
            await api.retrieve("job-1")
        # The SDK repeats nothing; aiohttp asks once more where a connection broke, which it does for GET only.
        assert server.gets <= (2 if transport == "aiohttp" else 1)
    return caught.value


# Opening


async def test_without_a_key_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOGETHER_API_KEY", raising=False)

    with pytest.raises(NotConfigured, match="TOGETHER_API_KEY"):
        async with open_client(base_url="http://127.0.0.1:1"):
            pass


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1/"])
async def test_a_url_that_ends_in_v1_is_refused(url: str) -> None:
    with pytest.raises(NotConfigured, match="/v1"):
        async with open_client(api_key="key", base_url=url):
            pass


async def test_key_and_url_are_those_of_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(answers(200, JOB)) as server:
        monkeypatch.setenv("TOGETHER_API_KEY", "key-from-environment")
        monkeypatch.setenv("TOGETHER_BASE_URL", server.url)
        async with open_client() as client:
            await VideoApi(client, encode_image=lambda _image: "").retrieve("job-1")

    assert server.heads[0].startswith("GET /v2/videos/job-1 ")
    assert "key-from-environment" in server.heads[0]


# Create


async def test_create_sends_only_what_was_set(transport: Transport) -> None:
    request = VideoRequest(model="m", prompt="a cat", seconds="5", extra_body={"settings": {"audio": False}})

    async with raw_server(answers(200, JOB)) as server, open_api(transport, server.url) as api:
        await api.create(request)

    sent = {"model": "m", "prompt": "a cat", "seconds": "5", "settings": {"audio": False}}
    assert json.loads(server.bodies[0]) == sent
    assert server.heads[0].startswith("POST /v2/videos ")
    assert "user-agent: " in server.heads[0].lower()


async def test_a_local_image_is_read_when_it_is_sent() -> None:
    image = LocalImage(path="/pictures/cat.png", sha256="ab", size_bytes=3, media_type="image/png")
    request = VideoRequest.model_validate({"model": "m", "media": {"frame_images": [{"input_image": image}]}})

    async with raw_server(answers(200, JOB)) as server, open_client(api_key="key", base_url=server.url) as client:
        await VideoApi(client, encode_image=lambda image: f"base64 of {image.path}").create(request)

    [frame] = json.loads(server.bodies[0])["media"]["frame_images"]
    assert frame["input_image"] == "base64 of /pictures/cat.png"


async def test_many_creates_share_the_pool(transport: Transport) -> None:
    numbers = itertools.count()

    async def accepts(exchange: Exchange) -> None:
        while True:
            await exchange.read_request()
            await exchange.send(http_answer(200, json.dumps({"id": f"job-{next(numbers)}"})))

    async with raw_server(accepts) as server, open_api(transport, server.url, max_connections=3) as api:
        await asyncio.gather(*(api.create(REQUEST) for _ in range(30)))

    assert server.posts == 30
    assert server.connections <= 3


# Retrieve


async def test_a_job_is_read_back(transport: Transport) -> None:
    body = {"id": "job-1", "status": "completed", "outputs": {"video_url": "https://x/1", "cost": 0.28}}

    async with raw_server(answers(200, json.dumps(body))) as server, open_api(transport, server.url) as api:
        job = await api.retrieve("job-1")

    assert (job.id, job.is_completed, job.video_url, job.cost_usd) == ("job-1", True, "https://x/1", 0.28)
    assert server.gets == 1


async def test_404_says_that_the_job_is_not_known(transport: Transport) -> None:
    async with raw_server(answers(404, error_body())) as server, open_api(transport, server.url) as api:
        with pytest.raises(JobNotFound, match="job-1"):
            await api.retrieve("job-1")

    assert server.gets == 1


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_blocked_account_is_told_from_a_missed_poll(transport: Transport, status: int) -> None:
    async with raw_server(answers(status, error_body("mend it"))) as server, open_api(transport, server.url) as api:
        with pytest.raises(AccountBlocked, match="mend it"):
            await api.retrieve("job-1")

    assert server.gets == 1


@pytest.mark.parametrize("status", [400, 408, 409, 422, 500, 502, 504, 524, 529, 301, 307])
@pytest.mark.parametrize("body", [error_body(), PAGE], ids=["json", "html"])
async def test_any_other_error_status_is_a_missed_poll(transport: Transport, status: int, body: str) -> None:
    missed = await missed_poll(transport, answers(status, body))

    assert str(status) in missed.reason
    assert not missed.is_rate_limit


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "seconds"), [({"x-ratelimit-reset": "4"}, 4), ({"Retry-After": "9"}, 9), (HTML, None)]
)
async def test_a_refused_poll_says_how_long_to_wait(
    transport: Transport, status: int, headers: dict[str, str], seconds: float | None
) -> None:
    missed = await missed_poll(transport, answers(status, PAGE, headers))

    assert missed.is_rate_limit
    assert missed.retry_after_seconds == seconds


@pytest.mark.parametrize(
    "act",
    [
        closes_on_connect,
        closes_after_request,
        resets_after_request,
        sends(b"\x00\x01 garbage\r\n\r\n"),
        sends(b"HTTP/1.1 204 No Content\r\n\r\n"),
        answers(200, PAGE, HTML),
        answers(200, PAGE),
        answers(200, JOB[:10]),
        answers(200, "[" * 100_000),
        answers(200, "[1]"),
        answers(200, "null"),
        answers(200, "{}"),
        answers(200, error_body()),
        answers(200, b'{"id": "\xff\xfe"}'),
        answers(200, '{"id": "job-1", "seed": ' + "9" * 5000 + "}"),
        answers(200, b"no gzip", {"Content-Encoding": "gzip"}),
    ],
)
async def test_whatever_is_no_answer_is_a_missed_poll(transport: Transport, act: Act) -> None:
    missed = await missed_poll(transport, act)

    assert missed.reason
    assert missed.retry_after_seconds is None


@pytest.mark.parametrize("act", [is_silent, drips(http_answer(200, JOB), pause_seconds=0.1)])
async def test_an_answer_that_takes_too_long_is_a_missed_poll(transport: Transport, act: Act) -> None:
    missed = await missed_poll(transport, act, longest_call_seconds=0.6)

    assert "TimeoutError" in missed.reason


@pytest.mark.parametrize("job_id", ["..", "", "a/b?c=d"])
async def test_an_odd_job_id_reaches_no_other_endpoint(transport: Transport, job_id: str) -> None:
    async with raw_server(answers(404, error_body())) as server, open_api(transport, server.url) as api:
        with pytest.raises((PollMissed, JobNotFound)):
            await api.retrieve(job_id)

    assert all(head.startswith("GET /v2/videos/a%2Fb") for head in server.heads)
