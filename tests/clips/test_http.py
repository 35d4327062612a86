"""What is asked of a host, and where its redirects may lead."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from clip_server import status
from download_place import SHA256, Place, open_place
from prefect_together.errors import DownloadFailed


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    async with open_place(tmp_path) as opened:
        yield opened


# What is sent.


async def test_no_key_cookie_or_password_is_ever_sent(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("TOGETHER_API_KEY", "tgp_secret")
    place.server.script.extend(
        [status(503, Set_Cookie="a=b"), status(302, Location=place.server.url.replace("://", "://me:secret@") + "/b")]
    )

    await place.fetch(place.server.url.replace("://", "://someone:secret@") + "/a")

    assert [request.path for request in place.server.seen] == ["/a", "/a", "/b"]
    for request in place.server.seen:
        assert not {"authorization", "cookie", "proxy-authorization"} & {name.lower() for name in request.headers}
        assert "secret" not in str(request)


async def test_requests_carry_the_packages_name_and_ask_for_plain_bytes(place: Place) -> None:
    await place.fetch()

    assert place.server.seen[0].headers["User-Agent"].startswith("prefect-together/")
    assert place.server.seen[0].headers["Accept-Encoding"] == "identity"


async def test_a_signed_link_is_sent_as_it_is_spelled(place: Place) -> None:
    signed = "/a%2Fb%7e?X-Sig=ab%2Bc%2fd+e%3D&x=%7E&empty="
    place.server.script.append(status(302, Location=signed.replace("a%2F", "c%2F")))

    await place.fetch(signed)

    assert [request.path for request in place.server.seen] == [signed, signed.replace("a%2F", "c%2F")]


# Redirects.


async def test_redirects_are_followed(place: Place) -> None:
    place.server.script.extend(status(code, Location=f"/{code}") for code in (301, 302, 303, 307, 308))

    clip = await place.fetch()

    assert clip.sha256 == SHA256
    assert [request.path for request in place.server.seen] == ["/a", "/301", "/302", "/303", "/307", "/308"]


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/a", "file:///etc/passwd", "data:,x", "http://[/"])
async def test_a_redirect_leads_to_http_only(place: Place, location: str) -> None:
    place.server.script.append(status(302, Location=location))

    with pytest.raises(DownloadFailed, match=r"link leads to|not a URL"):
        await place.fetch()


async def test_redirects_in_a_circle_end(place: Place) -> None:
    place.server.script.extend([status(302, Location="/a")] * 50)

    with pytest.raises(DownloadFailed, match="more than 10 redirects"):
        await place.fetch()


@pytest.mark.parametrize("url", ["ftp://host/a", "not a url:", "http://", "file:///etc/passwd", "http://host:port/"])
async def test_a_link_is_http_only(place: Place, url: str) -> None:
    with pytest.raises(DownloadFailed, match="link"):
        await place.fetch(url)

    assert place.files() == {}
