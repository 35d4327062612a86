"""A create call that made no connection was never sent and may be sent again: over real sockets, on both transports."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Generator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from prefect_together.errors import NeverSent
from raw_server import (
    JOB,
    Act,
    Exchange,
    answers,
    closes_on_connect,
    http_answer,
    raw_server,
    resets_on_connect,
    says_nothing_at_all,
    sends,
)
from sdk_clients import REQUEST, SHORT, Transport, open_api, refusal_at, refusal_of


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
    error = await refusal_at(transport, f"http://127.0.0.1:{full_backlog}", create_timeout=SHORT)

    assert isinstance(error, NeverSent)
    assert "Timeout" in error.reason


async def test_a_call_that_gets_no_connection_from_the_pool_is_never_sent(transport: Transport) -> None:
    answered = asyncio.Event()

    async def act(exchange: Exchange) -> None:
        await exchange.read_request()
        await answered.wait()
        await exchange.send(http_answer(200, JOB))

    patient = httpx.Timeout(60, pool=0.2)
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
        error = await refusal_at(transport, server.url.replace("http:", "https:"), create_timeout=SHORT)

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


def _own_certificate(directory: Path) -> ssl.SSLContext:
    """A server's context with a certificate that it has signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    now, hour = datetime.now(UTC), timedelta(hours=1)
    builder = builder.not_valid_before(now - hour).not_valid_after(now + hour)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    pem += key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    file = directory / "own.pem"
    file.write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
