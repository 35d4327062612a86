"""A file server on 127.0.0.1 that goes wrong as told, one answer of the script per request."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from aiohttp import web

Answer = Callable[["ClipServer", web.Request], Awaitable[web.StreamResponse]]

BLOCK_BYTES = 1 << 16


@dataclass
class Seen:
    """A request as it came."""

    path: str
    headers: dict[str, str]


@dataclass
class ClipServer:
    """Serves `content` at every path, with Range, once the `script` of other answers is used up."""

    content: bytes
    url: str = ""
    etag: str | None = '"one"'
    has_ranges: bool = True
    has_length: bool = True
    script: deque[Answer] = field(default_factory=deque[Answer])
    seen: list[Seen] = field(default_factory=list[Seen])
    paused: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    open_now: int = 0
    open_most: int = 0

    def ranges(self) -> list[str]:
        """The Range header of each request so far, empty where there was none."""
        return [request.headers.get("Range", "") for request in self.seen]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(Seen(request.raw_path, dict(request.headers)))
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        try:
            return await (self.script.popleft() if self.script else whole())(self, request)
        finally:
            self.open_now -= 1

    async def begin(self, request: web.Request) -> tuple[web.StreamResponse, bytes]:
        """The head of an answer with the clip, and the bytes that belong to it."""
        headers = {"Content-Type": "video/mp4"}
        start = 0
        if self.etag is not None:
            headers["ETag"] = self.etag
        wanted = request.headers.get("Range", "")
        is_same = request.headers.get("If-Range", self.etag) == self.etag
        if wanted and self.has_ranges and is_same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.content):
                refused = web.Response(status=416, headers={"Content-Range": f"bytes */{len(self.content)}"})
                await refused.prepare(request)
                return refused, b""
            headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        response = web.StreamResponse(status=206 if "Content-Range" in headers else 200, headers=headers)
        body = self.content[start:]
        if self.has_length:
            response.content_length = len(body)
        await response.prepare(request)
        return response, body


def whole() -> Answer:
    """The clip, or what of it was asked for."""

    async def answer(server: ClipServer, request: web.Request) -> web.StreamResponse:
        response, body = await server.begin(request)
        for start in range(0, len(body), BLOCK_BYTES):
            await response.write(body[start : start + BLOCK_BYTES])
        return response

    return answer


def cut(after_bytes: int) -> Answer:
    """The connection is dropped after so many bytes of the body."""

    async def answer(server: ClipServer, request: web.Request) -> web.StreamResponse:
        response, body = await server.begin(request)
        await response.write(body[:after_bytes])
        if request.transport is not None:
            request.transport.close()
        return response

    return answer


def paused(after_bytes: int) -> Answer:
    """Nothing more comes after so many bytes, until the test releases the server."""

    async def answer(server: ClipServer, request: web.Request) -> web.StreamResponse:
        response, body = await server.begin(request)
        await response.write(body[:after_bytes])
        server.paused.set()
        await server.released.wait()
        with suppress(ConnectionResetError):  # the client may have given up long ago
            await response.write(body[after_bytes:])
        return response

    return answer


def status(code: int, body: str = "", **headers: str) -> Answer:
    """Another status; `Retry_After="7"` becomes the header Retry-After."""

    async def answer(_server: ClipServer, _request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=code, text=body, headers=named)

    return answer


def page(text: str, content_type: str = "text/html") -> Answer:
    """A page with 200 where the clip should be."""

    async def answer(_server: ClipServer, _request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, content_type=content_type)

    return answer


def wrong_range() -> Answer:
    """A 206 that starts elsewhere than was asked for."""

    async def answer(server: ClipServer, _request: web.Request) -> web.StreamResponse:
        total = len(server.content)
        headers = {"Content-Range": f"bytes 10-{total - 1}/{total}"}
        return web.Response(status=206, body=server.content[10:], headers=headers)

    return answer


@asynccontextmanager
async def serving(content: bytes) -> AsyncGenerator[ClipServer]:
    """A running server; its `url` ends without a slash."""
    server = ClipServer(content)
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port: int = runner.addresses[0][1]
        server.url = f"http://127.0.0.1:{port}"
        yield server
    finally:
        server.released.set()
        await runner.cleanup()
