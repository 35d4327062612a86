"""What is asked of a host, and where its redirects may lead."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from clip_server import status
from downloader import SHA256, Downloader, open_downloader
from prefect_together.errors import DownloadFailed


@pytest.fixture
async def downloader(tmp_path: Path) -> AsyncGenerator[Downloader]:
    async with open_downloader(tmp_path) as opened:
        yield opened


# What is sent.


async def test_no_key_cookie_or_password_is_ever_sent(
    downloader: Downloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("TOGETHER_API_KEY", "tgp_secret")
    downloader.server.script.extend(
        [
            status(503, Set_Cookie="a=b"),
            status(302, Location=downloader.server.url.replace("://", "://me:secret@") + "/b"),
        ]
    )

    await downloader.fetch(downloader.server.url.replace("://", "://someone:secret@") + "/a")

    assert [request.path for request in downloader.server.seen] == ["/a", "/a", "/b"]
    for request in downloader.server.seen:
        assert not {"authorization", "cookie", "proxy-authorization"} & {name.lower() for name in request.headers}
        assert "secret" not in str(request)


async def test_requests_carry_the_packages_name_and_ask_for_plain_bytes(downloader: Downloader) -> None:
    await downloader.fetch()

    assert downloader.server.seen[0].headers["User-Agent"].startswith("prefect-together/")
    assert downloader.server.seen[0].headers["Accept-Encoding"] == "identity"


async def test_a_signed_link_is_sent_as_it_is_spelled(downloader: Downloader) -> None:
    signed = "/a%2Fb%7e?X-Sig=ab%2Bc%2fd+e%3D&x=%7E&empty="
    downloader.server.script.append(status(302, Location=signed.replace("a%2F", "c%2F")))

    await downloader.fetch(signed)

    assert [request.path for request in downloader.server.seen] == [signed, signed.replace("a%2F", "c%2F")]


# Redirects.


async def test_redirects_are_followed(downloader: Downloader) -> None:
    downloader.server.script.extend(status(code, Location=f"/{code}") for code in (301, 302, 303, 307, 308))

    clip = await downloader.fetch()

    assert clip.sha256 == SHA256
    assert [request.path for request in downloader.server.seen] == ["/a", "/301", "/302", "/303", "/307", "/308"]


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/a", "file:///etc/passwd", "data:,x", "http://[/"])
async def test_a_redirect_leads_to_http_only(downloader: Downloader, location: str) -> None:
    downloader.server.script.append(status(302, Location=location))

    with pytest.raises(DownloadFailed, match=r"link leads to|not a URL"):
        await downloader.fetch()


async def test_redirects_in_a_circle_end(downloader: Downloader) -> None:
    downloader.server.script.extend([status(302, Location="/a")] * 50)

    with pytest.raises(DownloadFailed, match="more than 10 redirects"):
        await downloader.fetch()


@pytest.mark.parametrize("url", ["ftp://host/a", "not a url:", "http://", "file:///etc/passwd", "http://host:port/"])
async def test_a_link_is_http_only(downloader: Downloader, url: str) -> None:
    with pytest.raises(DownloadFailed, match="link"):
        await downloader.fetch(url)

    assert downloader.files() == {}
