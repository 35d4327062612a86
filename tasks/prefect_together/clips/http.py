"""One GET for a clip: redirects, Range, and what the answer says. No file, no retries, no Prefect.

What may be tried again is told apart by type: `Interrupted` (later), `LinkDead` (with another link), `RangeRefused`
(from the first byte). What may not is a `DownloadFailed`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from prefect_together.errors import DownloadFailed

HEAD_BYTES = 512
QUOTED_CHARACTERS = 100


def text_excerpt(head: bytes) -> str | None:
    """The first words of a file whose `head` is text (HTML, JSON, XML, a message), or None if it is not.

    For naming an error page that was served as a clip: a video never begins with printable characters only.
    """
    head = head[:HEAD_BYTES]
    text = head.decode("utf-8", errors="ignore")
    lost_bytes = len(head) - len(text.encode())
    is_binary = lost_bytes > 3 or any(ord(character) < 32 and not character.isspace() for character in text)
    words = " ".join(text.removeprefix("\ufeff").split())
    if is_binary or not words:
        return None
    return words if len(words) <= QUOTED_CHARACTERS else words[:QUOTED_CHARACTERS] + "…"


MAX_REDIRECTS = 10
CONNECT_SECONDS = 20.0

_DEAD_LINK = frozenset({400, 401, 403, 404, 410})
_TRANSIENT = frozenset({408, 425, 429})
_REDIRECT = frozenset({301, 302, 303, 307, 308})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_AS_SENT = re.compile(r"[\x21-\x7e]+")
_CONTENT_RANGE = re.compile(r"bytes\s+(?:(\d+)-\d+|\*)/(\d+|\*)", re.IGNORECASE)


class Interrupted(Exception):
    """No answer, or an answer to be had again later."""

    def __init__(self, reason: str, retry_after: str | None = None) -> None:
        super().__init__(reason, retry_after)
        self.reason, self.retry_after = reason, retry_after


class LinkDead(Exception):
    """The host no longer serves this link (400, 401, 403, 404, 410)."""

    def __init__(self, http_status: int) -> None:
        super().__init__(http_status)
        self.http_status = http_status


class RangeRefused(Exception):
    """What the host has does not go on from the bytes that are there. `total_bytes` as a 416 tells it."""

    def __init__(self, reason: str, total_bytes: int | None = None) -> None:
        super().__init__(reason, total_bytes)
        self.reason, self.total_bytes = reason, total_bytes


@dataclass(frozen=True)
class ClipAnswer:
    """An answer whose body is the clip from `start_bytes` on. `validator` is for If-Range (RFC 9110, 13.1.5)."""

    content: aiohttp.StreamReader
    host: str
    start_bytes: int
    total_bytes: int | None
    validator: str | None


@asynccontextmanager
async def get_clip(
    session: aiohttp.ClientSession,
    url: str,
    *,
    start_bytes: int = 0,
    validator: str | None = None,
    stall_seconds: float = 60.0,
) -> AsyncGenerator[ClipAnswer]:
    """Ask for the clip from `start_bytes` on; the answer may start at 0 all the same.

    The session must follow no netrc (`trust_env=False`): user names in links are dropped, so that no
    Authorization header is ever sent. What goes wrong while the body is read is translated too.
    """
    headers: dict[str, str] = {}
    if start_bytes:
        headers["Range"] = f"bytes={start_bytes}-"
        if validator is not None:
            headers["If-Range"] = validator
    host = "the host"
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=stall_seconds)
    try:
        here = _checked(url)
        host = here.host or host
        response = await _follow(session, here, headers, timeout)
        async with response:
            yield _answer_of(response, start_bytes)
    except aiohttp.InvalidURL as error:
        raise DownloadFailed("the link is not a URL") from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise DownloadFailed(f"the certificate of {host} is not valid") from error
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        raise Interrupted(_says(error, host, stall_seconds)) from error


async def _follow(
    session: aiohttp.ClientSession, url: URL, headers: dict[str, str], timeout: aiohttp.ClientTimeout
) -> aiohttp.ClientResponse:
    for _ in range(MAX_REDIRECTS + 1):
        response = await session.get(
            url, headers=headers, allow_redirects=False, timeout=timeout, proxy=_proxy_for(url)
        )
        location = response.headers.get("Location")
        if response.status not in _REDIRECT or location is None:
            return response
        response.release()
        url = _checked(location, base=url)
    raise DownloadFailed(f"the link leads through more than {MAX_REDIRECTS} redirects")


def _checked(url: str, *, base: URL | None = None) -> URL:
    """An http(s) URL without user name. What is ASCII is sent as it stands: links are signed over their spelling."""
    try:
        parsed = URL(url.strip(), encoded=_AS_SENT.fullmatch(url.strip()) is not None)
        parsed = parsed if base is None else base.join(parsed)
        is_web = parsed.scheme in ("http", "https") and bool(parsed.host)
        plain = parsed.with_user(None) if is_web and parsed.raw_user is not None else parsed
    except ValueError as error:
        raise DownloadFailed("the link is not a URL") from error
    if not is_web:
        raise DownloadFailed(f"the link leads to {parsed.scheme or 'no'}://, only http and https are followed")
    return plain


def _proxy_for(url: URL) -> URL | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name for this URL; loopback never goes through one."""
    host = url.host or ""
    if host in _LOOPBACK or proxy_bypass(host):
        return None
    proxy = getproxies().get(url.scheme, "")
    return URL(proxy) if proxy.startswith(("http://", "https://")) else None


def _answer_of(response: aiohttp.ClientResponse, asked_bytes: int) -> ClipAnswer:
    status, host = response.status, response.url.host or "the host"
    range_start, range_total = _content_range(response)
    if status == 416:
        raise RangeRefused(f"{host} has nothing from byte {asked_bytes} on", range_total)
    if status in _DEAD_LINK:
        raise LinkDead(status)
    if status in _TRANSIENT or status >= 500:
        raise Interrupted(f"{host} answered HTTP {status}", response.headers.get("Retry-After"))
    if status == 206 and range_start != asked_bytes:
        raise RangeRefused(f"{host} sent another range than was asked for")
    if status not in (200, 206):
        raise DownloadFailed(f"{host} answered HTTP {status}")
    etag = response.headers.get("ETag", "W/")
    return ClipAnswer(
        content=response.content,
        host=host,
        start_bytes=asked_bytes if status == 206 else 0,
        total_bytes=range_total if status == 206 else response.content_length,
        validator=response.headers.get("Last-Modified") if etag.startswith("W/") else etag,
    )


def _content_range(response: aiohttp.ClientResponse) -> tuple[int | None, int | None]:
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if found is None:
        return None, None
    start, total = found.groups()
    return (None if start is None else int(start)), (None if total == "*" else int(total))


def _says(error: Exception, host: str, stall_seconds: float) -> str:
    """What happened, in words without the link: it is signed, and aiohttp's own messages name it."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"{host} could not be reached within {CONNECT_SECONDS:g} s"
    if isinstance(error, TimeoutError):
        return f"{host} sent nothing for {stall_seconds:g} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {host} ({error.strerror or type(error.os_error).__name__})"
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | ConnectionError):
        return f"{host} dropped the connection"
    return f"{host} did not answer properly ({type(error).__name__})"
