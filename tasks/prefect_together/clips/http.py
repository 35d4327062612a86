"""One GET request for a clip: addresses, proxies, redirects, Range and the response's headers. No files, no retries.

The exception says what to do next: `Interrupted` (retry later), `LinkDead` (retry with another link), `RangeRefused`
(retry from the first byte). A `DownloadFailed` cannot be retried.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from prefect_together.errors import DownloadFailed

HEAD_BYTES = 512
QUOTED_CHARACTERS = 100
MAX_REDIRECTS = 10
CONNECT_SECONDS = 20.0
MAX_CONNECTIONS = 64
READ_BUFFER_BYTES = 1 << 18

_DEAD_LINK = frozenset({400, 401, 403, 404, 410})
_TRANSIENT = frozenset({408, 425, 429})
_REDIRECT = frozenset({301, 302, 303, 307, 308})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PRINTABLE_ASCII = re.compile(r"[\x21-\x7e]+")
_CONTENT_RANGE = re.compile(r"bytes\s+(?:(\d+)-\d+|\*)/(\d+|\*)", re.IGNORECASE)


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


class Interrupted(Exception):
    """No response, or one that says to try again later."""

    def __init__(self, reason: str, headers: Mapping[str, str] | None = None) -> None:
        """`headers` are the response's, which may say when to try again."""
        super().__init__(reason, headers)
        self.reason, self.headers = reason, headers or {}


class LinkDead(Exception):
    """The host no longer serves this link (400, 401, 403, 404, 410)."""

    def __init__(self, http_status: int) -> None:
        super().__init__(http_status)
        self.http_status = http_status


class RangeRefused(Exception):
    """The host cannot continue from the bytes received so far. `total_bytes` is the size given in a 416 response."""

    def __init__(self, reason: str, total_bytes: int | None = None) -> None:
        super().__init__(reason, total_bytes)
        self.reason, self.total_bytes = reason, total_bytes


class PublicResolver(AbstractResolver):
    """Resolves host names for clip links, and refuses addresses that are not public (loopback, link-local, private).

    They are allowed if the API's base URL has such an address itself, as the sandbox and a service in the same network
    do. A name that a proxy resolves cannot be checked here.
    """

    def __init__(self, base_url: str | None) -> None:
        self._resolver = aiohttp.DefaultResolver()
        self._base_host = URL(base_url).host if base_url else None
        self._base_is_public: bool | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`. Raises DownloadFailed if one of them is refused."""
        found = await self._resolver.resolve(host, port, family)
        if host not in _proxy_hosts():
            await self.check(host, [result["host"] for result in found])
        return found

    async def check(self, host: str, addresses: Iterable[str] | None = None) -> None:
        """Raises DownloadFailed if an address of `host` is refused; without `addresses`, if `host` is one itself."""
        for address in _literal(host) if addresses is None else addresses:
            if not _is_public(address) and await self._api_is_public():
                raise DownloadFailed(
                    f"the link leads to {host}, which is not a public address ({address}):"
                    " such links are only followed if the base URL of the API is not public either"
                )

    async def _api_is_public(self) -> bool:
        if self._base_host is None:
            return True
        if self._base_is_public is None:
            try:
                found = await self._resolver.resolve(self._base_host, family=socket.AF_UNSPEC)
            except OSError:  # only a proxy can resolve it
                found = []
            self._base_is_public = all(_is_public(result["host"]) for result in found)
        return self._base_is_public

    async def close(self) -> None:
        await self._resolver.close()


def _literal(host: str) -> list[str]:
    """The address that a host such as "10.0.0.1", "127.1" or "::1" stands for, without a lookup; empty for a name."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_global


@dataclass(frozen=True, eq=False)
class DownloadSession:
    """The connections of many downloads; see `open_download_session`."""

    http: aiohttp.ClientSession
    resolver: PublicResolver


@asynccontextmanager
async def open_download_session(
    *, base_url: str | None = None, connections: int = MAX_CONNECTIONS
) -> AsyncGenerator[DownloadSession]:
    """A session for downloads, with at most `connections` open at once.

    Links to addresses that are not public are only followed if `base_url`, the API's, is not public either. The session
    has no API key, keeps no cookies and reads no netrc file; proxies of the environment are used.
    """
    resolver = PublicResolver(base_url)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, resolver=resolver),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "User-Agent": f"prefect-together/{version('prefect-together')}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        },
        auto_decompress=False,
        read_bufsize=READ_BUFFER_BYTES,
        trust_env=False,  # it would read netrc; `_proxy_for` reads the proxies
    ) as http:
        yield DownloadSession(http, resolver)


@dataclass(frozen=True)
class ClipResponse:
    """A response whose body is the clip from `start_bytes` on. `validator` is for If-Range (RFC 9110, 13.1.5)."""

    content: aiohttp.StreamReader
    host: str
    start_bytes: int
    total_bytes: int | None
    validator: str | None


@asynccontextmanager
async def get_clip(
    session: DownloadSession,
    url: str,
    *,
    start_bytes: int = 0,
    validator: str | None = None,
    stall_seconds: float = 60.0,
) -> AsyncGenerator[ClipResponse]:
    """Request the clip from `start_bytes` on; the response may still start at 0.

    User names in links are dropped, so that no Authorization header is ever sent. Errors while the body is read are
    translated too.
    """
    headers: dict[str, str] = {}
    if start_bytes:
        headers["Range"] = f"bytes={start_bytes}-"
        if validator is not None:
            headers["If-Range"] = validator
    host = "the host"
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=stall_seconds)
    try:
        checked = _checked_url(url)
        host = checked.host or host
        response = await _follow(session, checked, headers, timeout)
        async with response:
            yield _clip_response(response, start_bytes)
    except aiohttp.InvalidURL as error:
        raise DownloadFailed("the link is not a URL") from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise DownloadFailed(f"the certificate of {host} is not valid") from error
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        raise Interrupted(_message(error, host, stall_seconds)) from error


async def _follow(
    session: DownloadSession, url: URL, headers: dict[str, str], timeout: aiohttp.ClientTimeout
) -> aiohttp.ClientResponse:
    for _ in range(MAX_REDIRECTS + 1):
        await session.resolver.check(url.host or "")  # aiohttp does not resolve it if it is an address
        response = await session.http.get(
            url, headers=headers, allow_redirects=False, timeout=timeout, proxy=_proxy_for(url)
        )
        location = response.headers.get("Location")
        if response.status not in _REDIRECT or location is None:
            return response
        response.release()
        url = _checked_url(location, base=url)
    raise DownloadFailed(f"the link leads through more than {MAX_REDIRECTS} redirects")


def _checked_url(url: str, *, base: URL | None = None) -> URL:
    """An http(s) URL without user name. ASCII URLs are sent unchanged: the signature covers their exact spelling."""
    try:
        parsed = URL(url.strip(), encoded=_PRINTABLE_ASCII.fullmatch(url.strip()) is not None)
        parsed = parsed if base is None else base.join(parsed)
        is_web = parsed.scheme in ("http", "https") and bool(parsed.host)
        plain = parsed.with_user(None) if is_web and parsed.raw_user is not None else parsed
    except ValueError as error:
        raise DownloadFailed("the link is not a URL") from error
    if not is_web:
        raise DownloadFailed(f"the link leads to {parsed.scheme or 'no'}://, only http and https are followed")
    return plain


def _proxy_for(url: URL) -> URL | None:
    """The proxy for this URL by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; none for loopback."""
    host = url.host or ""
    if host in _LOOPBACK or proxy_bypass(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return _proxy_url(proxy) if proxy else None


def _proxy_url(proxy: str) -> URL:
    """A proxy of the environment as a URL; "host:port" is http, as for the API client."""
    try:
        url = URL(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError as error:
        raise DownloadFailed(
            "the proxy of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) is not a URL"
        ) from error
    if url.scheme not in ("http", "https"):
        raise DownloadFailed(
            f"the environment's proxy is a {url.scheme}:// URL: downloads need one of http:// or https://"
            " (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY)"
        )
    return url


def _proxy_hosts() -> set[str | None]:
    """The hosts of the environment's proxies, which may well be in the private network."""
    hosts: set[str | None] = set()
    for scheme in ("http", "https", "all"):
        with suppress(DownloadFailed):  # what is wrong with a proxy is said when it is used
            hosts.add(_proxy_url(getproxies().get(scheme, "")).host)
    return hosts


def _clip_response(response: aiohttp.ClientResponse, requested_bytes: int) -> ClipResponse:
    status, host = response.status, response.url.host or "the host"
    range_start, range_total = _content_range(response)
    if status == 416:
        raise RangeRefused(f"{host} has nothing from byte {requested_bytes} on", range_total)
    if status in _DEAD_LINK:
        raise LinkDead(status)
    if status in _TRANSIENT or status >= 500:
        raise Interrupted(f"{host} answered HTTP {status}", response.headers)
    if status == 206 and range_start != requested_bytes:
        raise RangeRefused(f"{host} sent another range than was requested")
    if status not in (200, 206):
        raise DownloadFailed(f"{host} answered HTTP {status}")
    etag = response.headers.get("ETag", "W/")
    return ClipResponse(
        content=response.content,
        host=host,
        start_bytes=requested_bytes if status == 206 else 0,
        total_bytes=range_total if status == 206 else response.content_length,
        validator=response.headers.get("Last-Modified") if etag.startswith("W/") else etag,
    )


def _content_range(response: aiohttp.ClientResponse) -> tuple[int | None, int | None]:
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if found is None:
        return None, None
    start, total = found.groups()
    return (None if start is None else int(start)), (None if total == "*" else int(total))


def _message(error: Exception, host: str, stall_seconds: float) -> str:
    """What happened, without the link, which is a credential: aiohttp's own messages contain it."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"{host} could not be reached within {CONNECT_SECONDS:g} s"
    if isinstance(error, TimeoutError):
        return f"{host} sent nothing for {stall_seconds:g} s"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered HTTP {error.status}"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"no connection to the proxy {error.host} ({error.strerror or type(error.os_error).__name__})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {host} ({error.strerror or type(error.os_error).__name__})"
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | ConnectionError):
        return f"{host} dropped the connection"
    return f"{host} did not answer properly ({type(error).__name__})"
