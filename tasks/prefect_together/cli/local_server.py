"""The program of a local run's own Prefect server: it serves until its parent is gone and all is recorded.

Started by `local_prefect` only, as `python -m prefect_together.cli.local_server LISTENER_FD`. It binds nothing itself.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time

import uvicorn
from prefect.server.utilities.messaging import memory

from prefect_together.cli.local_prefect import raise_gc_thresholds

GIVE_UP_SECONDS = 15.0
"""How long a backlog may stand still before it is given up."""


def events_waiting() -> int:
    """Events that the server has accepted and not yet handled, over all of its consumers."""
    return sum(counts["published"] - counts["consumed"] for counts in memory.METRICS.values())


def wait_for_parent(lifeline: int, parent_pid: int) -> None:
    """Blocks until the parent closes `lifeline` or dies (another process may have inherited its end)."""
    while os.getppid() == parent_pid:
        readable, _, _ = select.select([lifeline], [], [], 1.0)
        if readable and not os.read(lifeline, 1):
            return


def wait_for_backlog() -> None:
    """Blocks until no event waits, or none was handled for `GIVE_UP_SECONDS`."""
    waiting, since = events_waiting(), time.monotonic()
    while waiting > 0 and time.monotonic() - since < GIVE_UP_SECONDS:
        time.sleep(0.05)
        if (now_waiting := events_waiting()) != waiting:
            waiting, since = now_waiting, time.monotonic()


def stop_when_done(server: uvicorn.Server, parent_pid: int) -> None:
    wait_for_parent(sys.stdin.fileno(), parent_pid)
    while not server.started and not server.should_exit:
        time.sleep(0.05)  # its migrations are not to be cut short
    wait_for_backlog()
    server.should_exit = True


def main() -> None:
    raise_gc_thresholds()
    listener = socket.socket(fileno=int(sys.argv[1]))
    server = uvicorn.Server(
        uvicorn.Config(
            "prefect.server.api.server:create_app",
            factory=True,
            lifespan="on",
            log_level="error",
            access_log=False,
            timeout_graceful_shutdown=2,
            ws_per_message_deflate=False,  # to compress what stays on this machine costs both ends 1 ms a row
        )
    )
    threading.Thread(target=stop_when_done, args=(server, os.getppid()), daemon=True).start()
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
