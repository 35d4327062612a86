"""A TCP proxy in front of a PostgreSQL server, by which a test takes the database away and brings it back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager


class Proxy:
    """A TCP proxy in front of a database that can be cut off: `away` breaks what is open and refuses what is new."""

    def __init__(self, target_port: int) -> None:
        self._target_port, self._is_away = target_port, False
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def cut(self) -> None:
        self._is_away = True
        for writer in self._writers:
            writer.transport.abort()

    def restore(self) -> None:
        self._is_away = False

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_away:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers |= {writer, far_writer}
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer), return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


@contextmanager
def proxy_in_a_thread(target_port: int) -> Generator[tuple[Proxy, asyncio.AbstractEventLoop]]:
    """A proxy for code that has an event loop of its own, and the loop in which its methods may be called."""
    loop, proxy = asyncio.new_event_loop(), Proxy(target_port)
    server = loop.run_until_complete(proxy.serve())
    thread = threading.Thread(target=loop.run_forever, name="database-proxy")
    thread.start()
    try:
        yield proxy, loop
    finally:
        loop.call_soon_threadsafe(proxy.cut)
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
