"""uvicorn as the sandbox needs it: handlers reach their connection's transport, and stopping takes no time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator
from socket import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

TURNS_OF_A_CONNECTION = 6
"""Turns of the loop after which a connection that has just been accepted is known here, or one that is aborted is
closed: two or three each in asyncio."""


class SandboxProtocol(H11Protocol):
    """HTTP/1.1 whose requests find their transport in `scope["state"]["transport"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self.app_state: dict[str, Any] = {**self.app_state, "transport": transport}


class SandboxServer(uvicorn.Server):
    """Serves until `stop`, then drops every connection. Leaves signals to the process."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """To be called on the server's own event loop."""
        self._stopping.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def main_loop(self) -> None:
        self._on_started()
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        # First no more are accepted: asyncio leaks the socket of one that comes in while its server is closed.
        for listener in sockets or []:
            asyncio.get_running_loop().remove_reader(listener)
        for _ in range(TURNS_OF_A_CONNECTION):
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
