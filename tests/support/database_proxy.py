"""A TCP proxy in front of a PostgreSQL server, by which a test takes the database away and brings it back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager


class Proxy:
    """A TCP proxy in front of a database that can be cut off: `cut` breaks what is open and refuses what is new.

    `lose_commit_answers` breaks the connection of each of the next commits when the server has answered that it is
    done, and keeps that answer to itself.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port, self._is_away = target_port, False
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.lose_commit_answers = 0

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
        is_committing = asyncio.Event()

        async def forth() -> None:
            while data := await reader.read(65_536):
                if self.lose_commit_answers and b"COMMIT" in data:
                    is_committing.set()
                far_writer.write(data)
            far_writer.close()

        async def back() -> None:
            while data := await far_reader.read(65_536):
                if is_committing.is_set():
                    self.lose_commit_answers -= 1
                    writer.transport.abort()
                    far_writer.transport.abort()
                    return
                writer.write(data)
            writer.close()

        await asyncio.gather(forth(), back(), return_exceptions=True)


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
