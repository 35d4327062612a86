"""The five answers to a create call, over real sockets, on both of the SDK's transports: the class, and how many POSTs
reached the server. What is in doubt has a file of its own."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import time

import httpx
import pytest
import together

from prefect_together.api.client import classify_submission, error_fields
from prefect_together.api.foreign_text import ForeignText
from prefect_together.errors import (
    AccountBlocked,
    BadParameter,
    NeverSent,
    RateLimited,
    SubmissionInDoubt,
    SubmissionRefused,
)
from raw_server import (
    HTML,
    JOB,
    PAGE,
    Exchange,
    answers,
    closes_while_idle,
    error_body,
    http_answer,
    raw_server,
)
from sdk_clients import REQUEST, Transport, open_api, refusal_of

IN_YEAR_2100 = 4_102_444_800
"""Seconds since 1970: farther away than anybody waits, whenever the test runs."""

LOOP_TURNS = 10
"""In which a client reads the end of a connection that the kernel has, and closes its own side; three are enough."""

# Accepted


@pytest.mark.parametrize(
    "body",
    [
        JOB,
        '{"id": "job-1"}',
        '{"id": "job-1", "status": null, "outputs": null}',
        '{"id": "job-1", "status": "reticulating", "seed": 99999999999999999999999}',
        '{"id": "job-1", "outputs": [1], "error": [2], "created_at": {"a": 1}}',
    ],
)
async def test_an_answer_with_an_id_is_accepted(transport: Transport, body: str) -> None:
    async with raw_server(answers(200, body)) as server, open_api(transport, server.url) as api:
        job = await api.create(REQUEST)

    assert (job.id, server.posts) == ("job-1", 1)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json; charset=klingon"},
        {"Content-Type": "text/plain"},
        {"Content-Encoding": "gzip"},
    ],
    ids=["unknown charset", "text/plain", "gzip"],
)
async def test_a_job_is_accepted_however_it_is_labelled(transport: Transport, headers: dict[str, str]) -> None:
    body = gzip.compress(JOB.encode()) if "Content-Encoding" in headers else JOB.encode()

    async with raw_server(answers(200, body, headers)) as server, open_api(transport, server.url) as api:
        job = await api.create(REQUEST)

    assert (job.id, server.posts) == ("job-1", 1)


async def test_a_connection_that_was_closed_while_idle_costs_no_second_post(transport: Transport) -> None:
    act = closes_while_idle(200, JOB)

    async with raw_server(act) as server, open_api(transport, server.url) as api:
        await api.create(REQUEST)
        await server.closed_idle.wait()
        for _ in range(LOOP_TURNS):
            await asyncio.sleep(0)
        with pytest.raises(SubmissionInDoubt, match="another video's job"):  # the server answers with the same id
            await api.create(REQUEST)

    assert (server.posts, server.connections) == (2, 2)


async def test_a_reused_connection_that_closes_on_the_request_is_in_doubt(transport: Transport) -> None:
    async def act(exchange: Exchange) -> None:
        await exchange.read_request()
        await exchange.send(http_answer(200, JOB))
        await exchange.read_request()

    async with raw_server(act) as server, open_api(transport, server.url) as api:
        await api.create(REQUEST)
        with pytest.raises(SubmissionInDoubt):
            await api.create(REQUEST)

    assert (server.posts, server.connections) == (2, 1)


# Refused


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_a_bad_parameter_is_refused_with_its_field(transport: Transport, status: int) -> None:
    body = error_body("fps is not supported", param="fps", code="unsupported")

    error, server = await refusal_of(transport, answers(status, body))

    assert isinstance(error, BadParameter)
    assert (error.http_status, error.code, error.param) == (status, "unsupported", "fps")
    assert error.message == "fps is not supported"
    assert server.posts == 1


@pytest.mark.parametrize("status", [401, 402, 403])
@pytest.mark.parametrize("body", [error_body("Invalid API key"), PAGE], ids=["json", "html"])
async def test_a_blocked_account_is_refused_as_such(transport: Transport, status: int, body: str) -> None:
    error, server = await refusal_of(transport, answers(status, body))

    assert isinstance(error, AccountBlocked)
    assert error.http_status == status
    assert server.posts == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset": "12.5"}, 12.5),
        ({"X-RateLimit-Reset": "7"}, 7),
        ({"x-ratelimit-reset": str(IN_YEAR_2100)}, 300),
        ({"Retry-After": "9"}, 9),
        ({"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}, 300),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30),
        ({"x-ratelimit-reset": "5", "Retry-After": "20"}, 20),
        ({"Retry-After": "-5"}, 0),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_refusal_for_rate_says_how_long_to_wait(
    transport: Transport, status: int, headers: dict[str, str], seconds: float | None
) -> None:
    error, server = await refusal_of(transport, answers(status, error_body("slow down"), headers))

    assert isinstance(error, RateLimited)
    assert (error.http_status, error.message) == (status, "slow down")
    assert error.retry_after_seconds == (None if seconds is None else pytest.approx(seconds))
    assert server.posts == 1


async def test_a_reset_given_as_unix_time_is_counted_from_now(transport: Transport) -> None:
    reset_at = time.time() + 200

    error, _ = await refusal_of(transport, answers(429, error_body(), {"x-ratelimit-reset": str(reset_at)}))

    assert isinstance(error, RateLimited)
    assert error.retry_after_seconds is not None
    assert reset_at - time.time() <= error.retry_after_seconds <= 200


@pytest.mark.parametrize("body", [PAGE, "", "[]", "slow down"])
async def test_429_is_refused_for_rate_whatever_its_body(transport: Transport, body: str) -> None:
    error, server = await refusal_of(transport, answers(429, body, HTML))

    assert isinstance(error, RateLimited)
    assert server.posts == 1


# The function itself


@pytest.mark.parametrize("error", [ValueError("half"), RecursionError("deep"), httpx.ReadError("gone"), TimeoutError()])
def test_what_is_not_known_to_be_safe_is_in_doubt(error: Exception) -> None:
    assert isinstance(classify_submission(error), SubmissionInDoubt)


@pytest.mark.parametrize("cause", [None, RuntimeError("the client has been closed"), OSError("odd"), ssl.SSLError()])
def test_a_connection_error_of_an_unknown_cause_is_in_doubt(cause: Exception | None) -> None:
    error = together.APIConnectionError(request=httpx.Request("POST", "http://127.0.0.1/v2/videos"))
    error.__cause__ = cause

    assert isinstance(classify_submission(error), SubmissionInDoubt)


@pytest.mark.parametrize(
    "status", [*range(400, 420), 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, *range(500, 531)]
)
def test_every_error_status_has_its_class(status: int) -> None:
    response = httpx.Response(status, request=httpx.Request("POST", "http://127.0.0.1/v2/videos"))
    error = together.APIStatusError("no", response=response, body={"error": {"message": "no"}})

    answer = classify_submission(error)

    may_be_sent_again = isinstance(answer, RateLimited | NeverSent)
    assert may_be_sent_again == (status in {429, 503})
    assert isinstance(answer, SubmissionRefused) == (status in {400, 401, 402, 403, 404, 413, 422, 429, 503})


def test_a_key_that_the_service_repeats_is_taken_out_of_its_message() -> None:
    body = {"error": {"message": "Invalid API key: tgp-very-secret", "code": "invalid_api_key"}}

    code, message, _ = error_fields(body, "", texts=ForeignText("tgp-very-secret"))

    assert (code, message) == ("invalid_api_key", "Invalid API key: [key]")
