"""The sandbox as a child process that ends with its parent. No HTTP, no event loop of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from prefect_together.sandbox.remote import SandboxControl

READY = "sandbox ready on "
START_SECONDS = 60.0
STOP_SECONDS = 10.0


class SandboxFailed(RuntimeError):
    """The sandbox did not start; the message holds what it said."""


class SandboxProcess:
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
            overdue = threading.Timer(START_SECONDS, process.kill)
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

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)
