"""What the peers need: the sandbox and a Prefect server as processes of their own, a table, environment variables."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from prefect_together.cli.local_prefect import NO_ANALYTICS, SERVER_SETTINGS, LocalPrefect
from prefect_together.sandbox import SandboxProcess

MODEL = "minimax/video-01-director"
IDLE_FRACTION = 0.05
"""Fraction of a processor below which a server counts as idle."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running Prefect server."""

    api_url: str
    pid: int

    def cpu_seconds(self) -> float:
        """Its processor time so far."""
        used = psutil.Process(self.pid).cpu_times()
        return used.user + used.system

    def await_idle(self, limit_seconds: float = 300.0) -> None:
        """Block until its backlog is processed: it was idle for a second."""
        deadline = time.monotonic() + limit_seconds
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(1.0)
            now = self.cpu_seconds()
            if now - before < IDLE_FRACTION:
                return
            before = now


@contextmanager
def prefect_server(home: Path, *, settings: Mapping[str, str] = SERVER_SETTINGS) -> Generator[Server]:
    """The server that a local run starts, on SQLite in `home`, or one with other settings; for many runs."""
    home.mkdir(parents=True, exist_ok=True)
    log_path = home / "server.log"
    with socket.socket() as listener, log_path.open("wb") as log:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        port = int(listener.getsockname()[1])
        ui_api_url = f"http://127.0.0.1:{port}/api"
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "prefect_together.cli.local_server", str(listener.fileno())],
            env={**os.environ, **settings, **NO_ANALYTICS, "PREFECT_HOME": str(home), "PREFECT_UI_API_URL": ui_api_url},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    local = LocalPrefect(port=port, process=process, log_path=log_path)
    try:
        local.wait_until_ready()
        yield Server(f"{local.ui_url}/api", process.pid)
    finally:
        local.close(wait_seconds=4)
        if process.poll() is None:
            process.kill()
            process.wait()


@contextmanager
def sandbox(*, generation_seconds: str = "2", arguments: Sequence[str] = ()) -> Generator[SandboxProcess]:
    """The imitated service with a clip of a few kilobytes for every job."""
    words = ["--clip", "tiny", "--generation-seconds", generation_seconds, *arguments]
    with SandboxProcess(arguments=words) as running:
        yield running


@contextmanager
def scratch() -> Generator[Path]:
    """A temporary directory."""
    with tempfile.TemporaryDirectory(prefix="prefect-together-bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def environment(home: Path, *, sandbox_url: str = "", api_url: str = "") -> dict[str, str]:
    """The peers' environment variables: none of the user's own Prefect or Together settings."""
    values = {
        **NO_ANALYTICS,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a busy machine takes more than the default of 20
        "TOGETHER_API_KEY": "sandbox",
    }
    if sandbox_url:
        values["TOGETHER_BASE_URL"] = sandbox_url
    if api_url:
        values["PREFECT_API_URL"] = api_url
    return values


def write_prompts(path: Path, rows: int) -> Path:
    """Write a table of `rows` different prompts."""
    with path.open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["id", "prompt", "model", "width", "height"])
        for row in range(rows):
            writer.writerow([f"{row:05}", f"A lighthouse in the storm, take {row}", MODEL, 1366, 768])
    return path
