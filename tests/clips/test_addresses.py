"""Which addresses a clip's link may lead to, and through which proxies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from clip_server import status
from downloader import SHA256, Downloader, open_downloader
from prefect_together.clips.http import open_download_session
from prefect_together.errors import DownloadFailed

PUBLIC_API = "https://1.1.1.1/v1"


@pytest.fixture
async def downloader(tmp_path: Path) -> AsyncGenerator[Downloader]:
    """A downloader whose server is on loopback, as the sandbox is, and so is the base URL."""
    async with open_downloader(tmp_path) as opened:
        yield opened


@pytest.fixture
async def of_a_public_api(downloader: Downloader) -> AsyncGenerator[Downloader]:
    async with open_download_session(base_url=PUBLIC_API) as session:
        downloader.session = session
        yield downloader


PRIVATE = [
    *("127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"),
    *("169.254.169.254", "[fe80::1]", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.100.100.200", "[fd00::1]"),
]


@pytest.mark.parametrize("host", PRIVATE)
async def test_a_link_to_an_address_that_is_not_public_is_refused(of_a_public_api: Downloader, host: str) -> None:
    port = of_a_public_api.server.url.rpartition(":")[2]

    with pytest.raises(DownloadFailed, match=r"not a public address|canonical"):
        await of_a_public_api.fetch(f"http://{host}:{port}/a")

    assert of_a_public_api.server.seen == []
    assert of_a_public_api.clock.slept_seconds == []


@pytest.mark.parametrize("base_url", [PUBLIC_API, None, "https://no-such-host.invalid"])
async def test_a_redirect_to_a_private_address_is_refused(
    downloader: Downloader, monkeypatch: pytest.MonkeyPatch, base_url: str | None
) -> None:
    monkeypatch.setenv("http_proxy", downloader.server.url)  # stands for a public host
    monkeypatch.setenv("no_proxy", "169.254.169.254")
    downloader.server.script.append(status(302, Location="http://169.254.169.254/latest/meta-data"))

    async with open_download_session(base_url=base_url) as downloader.session:
        with pytest.raises(DownloadFailed, match=r"169\.254\.169\.254, which is not a public address"):
            await downloader.fetch("http://clips.invalid/a")

    assert [request.path for request in downloader.server.seen] == ["http://clips.invalid/a"]


@pytest.mark.parametrize("base_url", ["http://localhost:1/v1", "http://10.0.0.1", "http://[fd00::1]:8000"])
async def test_a_base_url_that_is_private_allows_private_links(downloader: Downloader, base_url: str) -> None:
    async with open_download_session(base_url=base_url) as downloader.session:
        clip = await downloader.fetch()

    assert clip.sha256 == SHA256


# Proxies of the environment.


async def test_the_proxies_of_the_environment_are_used_but_not_for_loopback(
    downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", downloader.server.url)

    await downloader.fetch("http://clips.invalid/a")
    await downloader.fetch("/b", name="b.mp4")

    assert [request.path for request in downloader.server.seen] == ["http://clips.invalid/a", "/b"]


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("has_scheme", [True, False])
async def test_a_proxy_may_be_private_and_is_sent_its_password(
    of_a_public_api: Downloader, monkeypatch: pytest.MonkeyPatch, name: str, has_scheme: bool
) -> None:
    downloader = of_a_public_api
    host = downloader.server.url.removeprefix("http://")
    monkeypatch.setenv(name, f"http://me:secret@{host}" if has_scheme else f"me:secret@{host}")

    await downloader.fetch("http://clips.invalid/a")

    assert downloader.server.seen[0].headers["Proxy-Authorization"] == "Basic bWU6c2VjcmV0"
    assert "Authorization" not in downloader.server.seen[0].headers


async def test_hosts_of_no_proxy_are_reached_directly(
    downloader: Downloader, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    host = "127.0.0.2"  # not one of those that never go through a proxy
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_tcp_port}")
    monkeypatch.setenv("no_proxy", f"clips.invalid,{host}")

    with pytest.raises(DownloadFailed, match=f"no connection to {host}"):
        await downloader.fetch(f"http://{host}:{unused_tcp_port}/a", attempts=1)


async def test_a_proxy_that_cannot_be_reached_is_named(
    downloader: Downloader, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setenv("https_proxy", f"http://me:secret@127.0.0.1:{unused_tcp_port}")

    with pytest.raises(DownloadFailed, match=r"no connection to the proxy 127\.0\.0\.1") as failed:
        await downloader.fetch("https://clips.invalid/a")

    assert "secret" not in str(failed.value)


async def test_an_https_link_goes_through_a_tunnel_of_the_proxy(
    downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        monkeypatch.setenv("https_proxy", f"http://me:secret@127.0.0.1:{port}")
        with pytest.raises(DownloadFailed, match="the proxy answered HTTP 403"):
            await downloader.fetch("https://clips.invalid/a?signature=s", attempts=1)

    assert requests[0].startswith(b"CONNECT clips.invalid:443 ")
    assert b"signature" not in requests[0]


async def test_a_proxy_of_another_kind_is_said_and_not_passed_by(
    downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")

    with pytest.raises(DownloadFailed, match="socks5:// URL"):
        await downloader.fetch("http://clips.invalid/a")
