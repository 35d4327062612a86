"""A server on 127.0.0.1 that does to each connection exactly what a test says, byte by byte; no HTTP library."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus

NO_HEADERS: dict[str, str] = {}
JOB = '{"id": "job-1", "status": "queued"}'
PAGE = "<html><body>Just a moment...</body></html>"
HTML = {"Content-Type": "text/html"}
"""Bodies that are often sent, and the header of such a page."""


@dataclass
class RawServer:
    """`posts` and `gets` count the requests whose head arrived, over all connections."""

    url: str = ""
    heads: list[str] = field(default_factory=list[str])
    bodies: list[bytes] = field(default_factory=list[bytes])
    connections: int = 0
    got_request: asyncio.Event = field(default_factory=asyncio.Event)
    closed_idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def posts(self) -> int:
        return sum(head.startswith("POST ") for head in self.heads)

    @property
    def gets(self) -> int:
        return sum(head.startswith("GET ") for head in self.heads)


@dataclass
class Exchange:
    """One connection, as an `Act` sees it."""

    server: RawServer
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read_head(self) -> str:
        """The request's head; asyncio.IncompleteReadError when the client closed the connection instead."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.server.heads.append(head)
        return head

    async def read_request(self) -> bytes:
        """The whole request; returns its body."""
        length = re.search(r"content-length: *(\d+)", await self.read_head(), re.IGNORECASE)
        body = await self.reader.readexactly(int(length[1]) if length else 0)
        self.server.bodies.append(body)
        self.server.got_request.set()
        return body

    async def send(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def until_gone(self) -> None:
        """Wait until the client closes the connection."""
        while await self.reader.read(1 << 16):
            pass

    def reset(self) -> None:
        """End the connection by RST."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Act = Callable[[Exchange], Awaitable[None]]


@asynccontextmanager
async def raw_server(act: Act, *, tls: ssl.SSLContext | None = None) -> AsyncGenerator[RawServer]:
    """Run `act` on every connection; the connection is closed when it returns."""
    server = RawServer()
    running: list[tuple[asyncio.Task[None], asyncio.StreamWriter]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await act(Exchange(server, reader, writer))
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.append((asyncio.create_task(serve(reader, writer)), writer))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    server.url = f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        await asyncio.sleep(0)  # a connection that has just come is served too, so that it can be closed
        for task, _ in running:
            task.cancel()
        await asyncio.gather(*(task for task, _ in running), return_exceptions=True)
        for _, writer in running:  # also of a task that was cancelled before it began
            writer.transport.abort()
        await asyncio.sleep(0)


def http_answer(status: int, body: bytes | str, headers: dict[str, str] = NO_HEADERS) -> bytes:
    """An HTTP/1.1 answer; Content-Type is JSON and Content-Length right unless `headers` say otherwise."""
    content = body.encode() if isinstance(body, str) else body
    fields = {"Content-Type": "application/json", "Content-Length": str(len(content))} | headers
    known = {each.value: each.phrase for each in HTTPStatus}
    lines = [f"HTTP/1.1 {status} {known.get(status, 'Odd')}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


def error_body(message: str = "no", **more: str) -> str:
    """An error as the service words it."""
    return json.dumps({"error": {"message": message, "type": "some_error", "param": None, "code": None} | more})


def answers(status: int, body: bytes | str, headers: dict[str, str] = NO_HEADERS) -> Act:
    """The same answer to every request of a connection that stays open."""

    async def act(exchange: Exchange) -> None:
        while True:
            await exchange.read_request()
            await exchange.send(http_answer(status, body, headers))

    return act


def sends(content: bytes) -> Act:
    """Bytes after a whole request, then the connection is closed."""

    async def act(exchange: Exchange) -> None:
        await exchange.read_request()
        await exchange.send(content)

    return act


async def closes_on_connect(exchange: Exchange) -> None:
    exchange.writer.close()


async def resets_on_connect(exchange: Exchange) -> None:
    exchange.reset()


async def closes_after_request(exchange: Exchange) -> None:
    await exchange.read_request()


async def resets_after_request(exchange: Exchange) -> None:
    await exchange.read_request()
    exchange.reset()


async def is_silent(exchange: Exchange) -> None:
    await exchange.read_request()
    await exchange.until_gone()


async def says_nothing_at_all(exchange: Exchange) -> None:
    await exchange.until_gone()


async def resets_in_the_upload(exchange: Exchange) -> None:
    await exchange.read_head()
    await exchange.reader.readexactly(1 << 16)
    exchange.reset()


async def closes_in_the_upload(exchange: Exchange) -> None:
    await exchange.read_head()
    await exchange.reader.readexactly(1 << 16)


def answers_in_the_upload(status: int, body: str) -> Act:
    """An answer after the head alone; the rest of the request is read to the end, so that no reset overtakes it."""

    async def act(exchange: Exchange) -> None:
        await exchange.read_head()
        await exchange.send(http_answer(status, body, {"Connection": "close"}))
        exchange.writer.write_eof()
        await exchange.until_gone()

    return act


def drips(content: bytes, *, pause_seconds: float) -> Act:
    """An answer that comes one byte at a time."""

    async def act(exchange: Exchange) -> None:
        await exchange.read_request()
        for place in range(len(content)):
            await exchange.send(content[place : place + 1])
            await asyncio.sleep(pause_seconds)

    return act


def closes_while_idle(status: int, body: str) -> Act:
    """One answer a connection, on keep-alive; then the server closes it without a word."""

    async def act(exchange: Exchange) -> None:
        await exchange.read_request()
        await exchange.send(http_answer(status, body))
        exchange.writer.close()
        await exchange.writer.wait_closed()
        exchange.server.closed_idle.set()

    return act
