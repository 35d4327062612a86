"""One Prefect server for the whole test session, the same that a local run starts, and short ways to read from it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from prefect_together.cli.local_prefect import NO_ANALYTICS, SERVER_SETTINGS, LocalPrefect

if TYPE_CHECKING:  # Prefect reads its settings when it is imported
    from prefect.context import SettingsContext

T = TypeVar("T")

PATIENT = {**NO_ANALYTICS, "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120"}
"""Settings of a process that may start Prefect's temporary server: a busy one takes more than 20 s."""

ISOLATED = {**PATIENT, "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.1"}
"""Settings of the tests' own process: it tells nobody anything, and sends its logs soon."""


@dataclass(frozen=True)
class PrefectServer:
    """A running server: its API's URL, its PREFECT_HOME with the database, its process."""

    api_url: str
    home: Path
    pid: int

    @cached_property
    def _settings(self) -> SettingsContext:
        """Made once: Prefect takes 60 ms to read all its settings."""
        from prefect.context import get_settings_context
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: self.api_url}):
            return get_settings_context()

    @contextmanager
    def used(self) -> Generator[None]:
        """Within it, flows and clients of this process talk to this server."""
        with self._settings.model_copy():
            yield

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run async work in a loop of its own against this server, and send what Prefect still holds of it."""

        async def main() -> T:
            return await work()

        with self.used():
            result = asyncio.run(main())
            send_the_rest()
        return result

    def flow_run(self, run_id: UUID) -> Any:
        """The flow run as the server has it, its state included."""
        from prefect.client.orchestration import get_client

        async def read() -> Any:
            async with get_client() as client:
                return await client.read_flow_run(run_id)

        return self.run(read)

    def task_runs(self, run_id: UUID, *, count: int, seconds: float = 60.0) -> list[Any]:
        """The task runs of a flow run as soon as so many of them are recorded as ended."""
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        async def read() -> list[Any]:
            async with get_client() as client:
                deadline = time.monotonic() + seconds
                while True:
                    runs = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
                    ended = [run for run in runs if run.state is not None and run.state.is_final()]
                    if len(ended) >= count or time.monotonic() > deadline:
                        return ended
                    await asyncio.sleep(0.05)

        return self.run(read)

    def logs(self, run_id: UUID) -> list[str]:
        """The log lines of a flow run and of its tasks, oldest first."""
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

        async def read() -> list[str]:
            async with get_client() as client:
                wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
                lines = await client.read_logs(log_filter=wanted, limit=200)
                return [line.message for line in sorted(lines, key=lambda line: line.timestamp)]

        return self.run(read)

    def all_logs(self) -> list[str]:
        """The newest log lines of all runs, in no order worth a word."""
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.sorting import LogSort

        async def read() -> list[str]:
            lines: list[str] = []
            async with get_client() as client:
                while page := await client.read_logs(limit=200, offset=len(lines), sort=LogSort.TIMESTAMP_DESC):
                    lines += [line.message for line in page]
            return lines

        return self.run(read)

    def events(self, prefix: str, *, count: int, seconds: float = 60.0) -> list[Any]:
        """The recorded events whose names begin so, oldest first, as soon as there are so many of them."""
        from prefect.client.orchestration import get_client
        from prefect.events.filters import EventFilter, EventNameFilter

        async def read() -> list[Any]:
            deadline = time.monotonic() + seconds
            async with get_client() as client:
                while True:
                    page = await client.read_events(
                        filter=EventFilter(event=EventNameFilter(prefix=[prefix])), limit=50
                    )
                    if len(page.events) >= count or time.monotonic() > deadline:
                        return sorted(page.events, key=lambda event: event.occurred)
                    await asyncio.sleep(0.05)

        return self.run(read)

    def artifacts(self, run_id: UUID) -> dict[str, Any]:
        """The artifacts of a flow run by key."""
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

        async def read() -> dict[str, Any]:
            async with get_client() as client:
                wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
                return {str(one.key): one for one in await client.read_artifacts(artifact_filter=wanted)}

        return self.run(read)


def send_the_rest() -> None:
    """Send the events and log lines that Prefect's threads still hold."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all()
    APILogWorker.drain_all()


@contextmanager
def running_prefect(home: Path, listener: socket.socket, **settings: str) -> Generator[PrefectServer]:
    """A server over `home` on a bound socket, with these settings too, for as long as the context lasts."""
    log_path = home / "server.log"
    listener.listen(2048)
    port = int(listener.getsockname()[1])
    ui = {"PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api"}
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "prefect_together.cli.local_server", str(listener.fileno())],
            env={**os.environ, **SERVER_SETTINGS, **ui, **settings, "PREFECT_HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    listener.close()
    server = LocalPrefect(port=port, process=process, log_path=log_path)
    try:
        server.wait_until_ready()
        yield PrefectServer(f"{server.ui_url}/api", home, process.pid)
    finally:
        send_the_rest()
        server.close(wait_seconds=0.5)
        if process.poll() is None:
            process.kill()
            process.wait()
