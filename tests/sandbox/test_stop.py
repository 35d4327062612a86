"""A sandbox that stops drops every connection, and leaves no socket behind."""

from __future__ import annotations

import gc
import socket
import threading
import warnings
from urllib.parse import urlsplit

from prefect_together.sandbox import Sandbox

CONNECTIONS = 20


def test_connections_that_come_while_it_stops_are_dropped_and_none_is_left_unclosed() -> None:
    gc.collect()  # what earlier tests left to the collector is not this sandbox's

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(10):
            sandbox = Sandbox().start()
            address = urlsplit(sandbox.base_url)
            stopping = threading.Thread(target=sandbox.stop)
            clients = [socket.create_connection((address.hostname, address.port or 0)) for _ in range(CONNECTIONS)]
            stopping.start()
            for _ in range(CONNECTIONS):
                try:
                    clients.append(socket.create_connection((address.hostname, address.port or 0)))
                except ConnectionError:
                    break
            stopping.join()
            assert not any(is_open(client) for client in clients)
        gc.collect()

    assert [str(warning.message) for warning in warned] == []


def is_open(client: socket.socket) -> bool:
    """Whether the other side still holds the connection; closes this one.

    It sends a byte: where the listener was closed in the midst of a handshake, only then the kernel says that nobody
    is there.
    """
    with client:
        client.settimeout(1.0)
        try:
            client.sendall(b"x")
            return client.recv(1) != b""
        except TimeoutError:
            return True
        except ConnectionError:
            return False
