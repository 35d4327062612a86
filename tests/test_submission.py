"""The five answers to a create call, over real sockets, on both of the SDK's transports: the class, and how many POSTs
reached the server. What is in doubt has a file of its own."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import time
from collections.abc import Generator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
import together
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from prefect_together.errors import (
    AccountBlocked,
    BadParameter,
    NeverSent,
    RateLimited,
    SubmissionInDoubt,
    SubmissionRefused,
    TogetherVideoError,
)
from prefect_together.submission import classify_submission, error_fields
from raw_server import (
    HTML,
    JOB,
    PAGE,
    Act,
    Exchange,
    RawServer,
    answers,
    closes_on_connect,
    closes_while_idle,
    error_body,
    http_answer,
    raw_server,
    resets_on_connect,
    says_nothing_at_all,
    sends,
)
from sdk_clients import REQUEST, Transport, open_api


async def refusal_of(
    transport: Transport, act: Act, *, tls: ssl.SSLContext | None = None
) -> tuple[TogetherVideoError, RawServer]:
    """What one create call raises at a server that does `act`."""
    async with raw_server(act, tls=tls) as server, open_api(transport, server.url) as api:
        with pytest.raises(TogetherVideoError) as caught:
            await api.create(REQUEST)
    return caught.value, server


async def refusal_at(transport: Transport, base_url: str) -> TogetherVideoError:
    async with open_api(transport, base_url) as api:
        with pytest.raises(TogetherVideoError) as caught:
            await api.create(REQUEST)
    return caught.value


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
        await asyncio.sleep(0.05)  # until the client's side has seen it too
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


# Never sent


async def test_a_refused_port_is_never_sent(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    error = await refusal_at(transport, f"http://127.0.0.1:{port}")

    assert isinstance(error, NeverSent)
    assert "Connect" in error.reason


async def test_a_host_without_an_address_is_never_sent(transport: Transport) -> None:
    error = await refusal_at(transport, "http://nowhere.invalid")

    assert isinstance(error, NeverSent)


@pytest.fixture
def full_backlog() -> Generator[int]:
    """The port of a listener that takes no further connection: what comes now waits for ever."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_a_connect_that_takes_too_long_is_never_sent(transport: Transport, full_backlog: int) -> None:
    error = await refusal_at(transport, f"http://127.0.0.1:{full_backlog}")

    assert isinstance(error, NeverSent)
    assert "Timeout" in error.reason


async def test_a_call_that_gets_no_connection_from_the_pool_is_never_sent(transport: Transport) -> None:
    answered = asyncio.Event()

    async def act(exchange: Exchange) -> None:
        await exchange.read_request()
        await answered.wait()
        await exchange.send(http_answer(200, JOB))

    patient = httpx.Timeout(5, pool=0.2)
    async with (
        raw_server(act) as server,
        open_api(transport, server.url, max_connections=1, create_timeout=patient) as api,
    ):
        first = asyncio.create_task(api.create(REQUEST))
        await server.got_request.wait()
        with pytest.raises(NeverSent):
            await api.create(REQUEST)
        answered.set()
        await first

    assert server.posts == 1


@pytest.mark.parametrize(
    "act", [sends(b"x"), closes_on_connect, resets_on_connect, says_nothing_at_all], ids=lambda act: act.__name__
)
async def test_a_tls_handshake_that_fails_is_never_sent(transport: Transport, act: Act) -> None:
    async with raw_server(act) as server:
        error = await refusal_at(transport, server.url.replace("http:", "https:"))

    assert isinstance(error, NeverSent)
    assert server.posts == 0


async def test_a_certificate_that_nobody_trusts_is_never_sent(transport: Transport, tmp_path: Path) -> None:
    error, server = await refusal_of(transport, answers(200, JOB), tls=_own_certificate(tmp_path))

    assert isinstance(error, NeverSent)
    assert "certificate" in error.reason.lower()
    assert server.posts == 0


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_a_proxy_that_refuses_the_tunnel_is_never_sent(
    transport: Transport, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(exchange: Exchange) -> None:
        await exchange.read_head()
        await exchange.send(http_answer(status, ""))

    async with raw_server(act) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        error = await refusal_at(transport, "https://api.invalid")

    assert isinstance(error, NeverSent)
    assert [head.split()[0] for head in proxy.heads] == ["CONNECT"]


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


def _soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset": "12.5"}, 12.5),
        ({"X-RateLimit-Reset": "7"}, 7),
        ({"x-ratelimit-reset": str(time.time() + 1000)}, 300),
        ({"Retry-After": "9"}, 9),
        ({"Retry-After": format_datetime(_soon(3600), usegmt=True)}, 300),
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
    error, _ = await refusal_of(transport, answers(429, error_body(), {"x-ratelimit-reset": str(time.time() + 60)}))

    assert isinstance(error, RateLimited)
    assert error.retry_after_seconds == pytest.approx(60, abs=5)


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


def _own_certificate(directory: Path) -> ssl.SSLContext:
    """A server's context with a certificate that it has signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(_soon(-3600)).not_valid_after(_soon(3600))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    pem += key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    file = directory / "own.pem"
    file.write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def test_a_key_that_the_service_repeats_is_taken_out_of_its_message() -> None:
    body = {"error": {"message": "Invalid API key: tgp-very-secret", "code": "invalid_api_key"}}

    code, message, _ = error_fields(body, "", secret="tgp-very-secret")

    assert (code, message) == ("invalid_api_key", "Invalid API key: [key]")
