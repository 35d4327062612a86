"""One Prefect server for the whole test session, the one that a local run starts, and short ways to read it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from prefect_together.local_prefect import NO_ANALYTICS, SERVER_SETTINGS, LocalPrefect

ISOLATED = {**NO_ANALYTICS, "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.2", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}
"""Of every test's process: nothing is told to anybody, and nothing starts a server of its own."""


@contextmanager
def running_prefect(home: Path) -> Generator[str]:
    """A server over `home`, for as long as the context lasts; gives its API's URL."""
    log_path = home / "server.log"
    with socket.socket() as listener, log_path.open("wb") as log:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        port = int(listener.getsockname()[1])
        environment = {**os.environ, **SERVER_SETTINGS, "PREFECT_HOME": str(home)}
        environment.pop("PREFECT_API_URL", None)
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "prefect_together.local_server", str(listener.fileno())],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    server = LocalPrefect(port=port, process=process, log_path=log_path)
    try:
        server.wait_until_ready()
        yield f"{server.ui_url}/api"
    finally:
        server.close(wait_seconds=20)
        process.kill()
        process.wait()
