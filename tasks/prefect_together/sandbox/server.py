"""The sandbox on a socket of 127.0.0.1: in a thread for tests, as the whole of a process, or as a child process."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.sandbox.faults import Command, SandboxControl, Scripting, carry_out, parse_rule
from prefect_together.sandbox.settings import TINY, Generation, SandboxSettings

if TYPE_CHECKING:
    from prefect_together.sandbox.answers import RecordedRequest
    from prefect_together.sandbox.app import SandboxServer
    from prefect_together.sandbox.service import VideoService

HOST = "127.0.0.1"
KEEP_ALIVE_SECONDS = 3600
"""Long: a server that closes an idle connection just as a request comes would be a fault nobody asked for."""
START_SECONDS = 30.0

T = TypeVar("T")


@dataclass(frozen=True)
class RunningServer:
    """A sandbox that answers requests, and the event loop it lives on."""

    service: VideoService
    server: SandboxServer
    loop: asyncio.AbstractEventLoop


async def serve(
    settings: SandboxSettings,
    *,
    port: int = 0,
    clock: Clock = SYSTEM_CLOCK,
    faults: Iterable[str] = (),
    on_ready: Callable[[RunningServer], None],
) -> None:
    """Serve until the server is told to stop. `on_ready` is called once requests are answered.

    Raises OSError when the port is taken or the state directory cannot be written, ValueError for an unknown fault.
    """
    import uvicorn  # here, so that naming a sandbox costs no import of a web server

    from prefect_together.sandbox.app import SandboxProtocol, SandboxServer, sandbox_app
    from prefect_together.sandbox.service import VideoService

    rules = [parse_rule(text) for text in faults]
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        service = VideoService(settings, clock)
        try:
            for name, endpoint, rate in rules:
                service.faults.add(name, endpoint=endpoint, rate=rate)
            port = listener.getsockname()[1]
            service.base_url = f"http://{HOST}:{port}"
            service.file_url = f"http://{settings.file_host}:{port}"
            await service.start()
            config = uvicorn.Config(
                sandbox_app(service),
                http=SandboxProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
            server = SandboxServer(config, lambda: on_ready(RunningServer(service, server, asyncio.get_running_loop())))
            await server.serve(sockets=[listener])
        finally:
            await service.close()


class Started(ABC):
    """A server that runs for as long as a `with` or `async with` lasts."""

    @abstractmethod
    def start(self) -> Self: ...
    @abstractmethod
    def stop(self) -> None: ...

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)


class Sandbox(Started, Scripting):
    """A sandbox in a thread of this process, for tests: `with Sandbox() as api: ... api.base_url`.

    Clips are one tiny ready-made file unless `clip="render"`, and jobs take 0 s unless `generation_seconds` says
    otherwise (`"3"`, `"lognormal:90:0.35"`; see `Generation`). Further settings are those of `SandboxSettings`.
    """

    def __init__(
        self,
        *,
        generation_seconds: str | float = 0,
        clip: str = TINY,
        port: int = 0,
        clock: Clock = SYSTEM_CLOCK,
        **settings: Any,
    ) -> None:
        self.settings = SandboxSettings(
            generation=Generation.parse(str(generation_seconds)), clip=clip, keep_requests=100_000
        )
        self.settings = replace(self.settings, **settings)
        self._port, self._clock = port, clock
        self._running: RunningServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Returns when requests are answered. Raises what kept the server from starting."""
        ready: Future[RunningServer] = Future()

        def run() -> None:
            try:
                asyncio.run(serve(self.settings, port=self._port, clock=self._clock, on_ready=ready.set_result))
            except (OSError, ValueError) as error:
                if ready.done():
                    raise
                ready.set_exception(error)

        self._thread = threading.Thread(target=run, name="together-sandbox", daemon=True)
        self._thread.start()
        self._running = ready.result(START_SECONDS)
        return self

    def stop(self) -> None:
        """Drop every connection and end. Jobs are gone unless there is a `state_dir`."""
        running, thread = self._running, self._thread
        self._running = self._thread = None
        if running is not None and thread is not None:
            running.loop.call_soon_threadsafe(running.server.stop)
            thread.join(START_SECONDS)

    @property
    def base_url(self) -> str:
        """What TOGETHER_BASE_URL is set to, without a slash at its end."""
        return self._service.base_url

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request so far, oldest first."""
        return self._on_loop(lambda: list(self._service.recorder.requests))

    def clear_faults(self) -> None:
        """End all faults, those with a share of all requests too."""
        self._on_loop(self._service.faults.clear)

    def expire_links(self) -> None:
        """Make every link handed out so far invalid."""
        self._on_loop(self._service.expire_links)

    def calls(self, endpoint: str) -> int:
        """How many requests came in for create, retrieve, images, link, download, models or whoami."""
        return self._on_loop(lambda: self._service.recorder.calls(endpoint))

    def accepted(self, prompt: str | None = None) -> int:
        """How many jobs were accepted, of all or of one prompt: above 1, somebody pays twice."""
        return self._on_loop(lambda: len(self._service.jobs) if prompt is None else self._service.accepted(prompt))

    def jobs(self) -> list[dict[str, Any]]:
        """Every job with its prompt, status, times, reads, downloads and cost."""
        return self._on_loop(self._service.job_list)

    def images(self) -> list[dict[str, Any]]:
        """Every picture with its prompt, seed, size, downloads and cost."""
        return self._on_loop(self._service.image_list)

    def stats(self) -> dict[str, Any]:
        """Counts of requests by endpoint and answer, jobs and pictures by prompt, dollars billed."""
        return self._on_loop(self._service.stats)

    def _order(self, order: Command, fields: Mapping[str, Any]) -> None:
        self._on_loop(lambda: carry_out(self._service, order, fields))

    @property
    def _service(self) -> VideoService:
        if self._running is None:
            raise RuntimeError("the sandbox is not running")
        return self._running.service

    def _on_loop(self, call: Callable[[], T]) -> T:
        """Run `call` on the server's event loop, where its state lives."""
        if self._running is None:
            raise RuntimeError("the sandbox is not running")
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(call())
            except (ValueError, TypeError, KeyError) as error:
                result.set_exception(error)

        self._running.loop.call_soon_threadsafe(run)
        return result.result(START_SECONDS)


READY = "sandbox ready on "
CHILD_START_SECONDS = 60.0
STOP_SECONDS = 10.0


class SandboxFailed(RuntimeError):
    """The sandbox did not start; the message holds what it said."""


class SandboxProcess(Started):
    """`python -m prefect_together.sandbox` as a child: `with SandboxProcess(speed=10) as api: ... api.base_url`.

    It has a session of its own, so that Ctrl-C in the shell reaches the caller only, and ends when the caller's end
    of its stdin closes: however the caller ends, the sandbox does not outlive it. With a `state_dir` the next sandbox
    over the same directory knows the jobs of this one. `arguments` are further words of the command line.
    """

    def __init__(
        self,
        *,
        speed: float = 1.0,
        state_dir: str | Path | None = None,
        port: int = 0,
        arguments: Sequence[str] = (),
    ) -> None:
        self._command = [sys.executable, "-m", "prefect_together.sandbox", "--exit-with-parent"]
        self._command += ["--port", str(port), "--speed", str(speed), *arguments]
        if state_dir is not None:
            self._command += ["--state-dir", str(state_dir)]
        self._process: subprocess.Popen[str] | None = None
        self._base_url = ""

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT`; empty before the start."""
        return self._base_url

    @property
    def control(self) -> SandboxControl:
        """Its scripts, faults and figures."""
        return SandboxControl(self._base_url)

    @property
    def pid(self) -> int | None:
        """The process's id; None while it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> Self:
        """Returns when requests are answered. Raises SandboxFailed with the child's own words."""
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                start_new_session=True,
            )
            self._process = process
            assert process.stdout is not None
            overdue = threading.Timer(CHILD_START_SECONDS, process.kill)
            overdue.start()
            try:
                line = process.stdout.readline()
            finally:
                overdue.cancel()
            if not line.startswith(READY):
                self.stop()
                said.seek(0)
                raise SandboxFailed(f"the sandbox did not start: {said.read().strip() or line.strip()}")
        self._base_url = line.removeprefix(READY).strip()
        return self

    def stop(self) -> None:
        """Close its stdin, at which it ends; after ten seconds it is killed."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
