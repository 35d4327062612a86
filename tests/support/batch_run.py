"""Starts runs of the real flow by fork from a process that has imported everything, with one Prefect server for all.

    with WarmRuns(home) as runs:
        run = runs.start("table.csv", "--output-dir", "out", log=Path("log.txt"))

A run is `python flows/generate_videos.py ...` without the interpreter's start and imports: the same command line, the
same flow and tasks, the same end. As a program it is that warm process: it reads one JSON line for each run.
"""

from __future__ import annotations

import atexit
import csv
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import kill_points
from repository import FLOWS

MODEL = "minimax/video-01-director"
START_SECONDS = 120.0
REAP_SECONDS = 0.02


def wait_until(is_so: Callable[[], bool], *, seconds: float, every_seconds: float = 0.01) -> bool:
    """Whether it came to be within so many seconds."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every_seconds)
    return True


def continued(rows: int, chain: int) -> dict[str, str]:
    """Which row of a table each row continues, where so many rows are a chain."""
    return {f"row-{row:03}": f"row-{row - 1:03}" for row in range(rows) if row % chain}


def write_table(path: Path, *, rows: int, prompt: str, chain: int = 1, stills: bool = False) -> None:
    """A table of rows with ids `row-000` ... and a prompt of their own each, in chains of so many rows.

    With `stills`, each row that continues no other begins with a still, whose prompt is its own too.
    """
    source_of = continued(rows, chain)
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["id", "prompt", "model", "continues", *(["still_prompt"] if stills else [])])
        for one in (f"row-{row:03}" for row in range(rows)):
            still = [f"{prompt}, still {one[4:]}" if one not in source_of else ""] if stills else []
            lines.writerow([one, f"{prompt}, take {one[4:]}", MODEL, source_of.get(one, ""), *still])


@dataclass(frozen=True)
class Run:
    """One run of the flow in a process of its own. `log` has what it printed."""

    pid: int
    log: Path

    @property
    def exit_code(self) -> int | None:
        """As the shell shows it, negative for a signal; None while it runs."""
        path = _exit_path(self.log)
        return int(path.read_text()) if path.exists() else None

    def send(self, number: signal.Signals) -> None:
        if self.exit_code is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def kill(self) -> int:
        """SIGKILL it; returns when it is gone, with its exit code: -9, or its own if it had just ended."""
        self.send(signal.SIGKILL)
        return self.wait(30)

    def wait(self, seconds: float) -> int:
        """Its exit code. Raises TimeoutError with the end of its log."""
        if not wait_until(lambda: self.exit_code is not None, seconds=seconds):
            raise TimeoutError(f"run {self.pid} still goes on after {seconds} s:\n{self.log.read_text()[-3000:]}")
        code = self.exit_code
        assert code is not None
        return code


class WarmRuns:
    """The warm process and Prefect's server, both for as long as the context lasts. `home` is their PREFECT_HOME."""

    def __init__(self, home: Path, *, base_url: str) -> None:
        self._home, self._base_url = home, base_url
        self._process: subprocess.Popen[str] | None = None
        self._number = 0

    @property
    def environment(self) -> dict[str, str]:
        """What every run sees: the sandbox's address, a key, no settings of this user."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TOGETHER_"))}
        # Kills leave a run's last events unsent; the client's own retries must not hold up the next run.
        return own | {
            "PREFECT_HOME": str(self._home),
            "TOGETHER_API_KEY": "sandbox-key",
            "TOGETHER_BASE_URL": self._base_url,
        }

    def __enter__(self) -> Self:
        command = [sys.executable, str(Path(__file__))]
        self._home.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=self._home,
            start_new_session=True,
        )
        self.api_url = self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(START_SECONDS)
        process.stdout.close()

    def start(self, *words: str, log: Path | None = None, environment: dict[str, str] | None = None) -> Run:
        """Run `flows/generate_videos.py` with these words of the command line."""
        self._number += 1
        log = log or self._home / f"run-{self._number:04}.log"
        _exit_path(log).unlink(missing_ok=True)
        assert self._process is not None
        assert self._process.stdin is not None
        order = {"words": words, "log": str(log), "environment": environment or {}}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return Run(int(self._answer()), log)

    def _answer(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError("the warm process has ended")
        return line


def _exit_path(log: Path) -> Path:
    return log.with_name(f"{log.name}.exit")


def serve_orders() -> None:
    """Fork a run for each line of stdin, write down how each ends; at the end of stdin kill what still runs."""
    from prefect_together.cli.local_prefect import prepare_prefect

    local = prepare_prefect()
    assert local is not None
    from prefect_together.cli.run_flow import flow_script

    for module in ("cli.terminal", "flows.entrypoints", "flows.run"):
        import_module(f"prefect_together.{module}")
    local.wait_until_ready()
    print(os.environ["PREFECT_API_URL"], flush=True)
    running: dict[int, Path] = {}
    lines = os.fdopen(os.dup(0), "rb", buffering=0)
    while True:
        readable, _, _ = select.select([lines], [], [], REAP_SECONDS)
        if readable:
            line = lines.readline()
            if not line:
                break
            order = json.loads(line)
            pid = os.fork()
            if pid == 0:
                atexit.unregister(local.close_at_exit)
                take_over(order)
                kill_points.arm()
                flow_script("generate_videos")
            running[pid] = Path(order["log"])
            print(pid, flush=True)
        reap(running, os.WNOHANG)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    reap(running, 0)


def reap(running: dict[int, Path], options: int) -> None:
    """Write the exit codes of the runs that have ended."""
    for pid, log in list(running.items()):
        ended, status = os.waitpid(pid, options)
        if ended:
            del running[pid]
            aside = log.with_name(f"{log.name}.aside")
            aside.write_text(str(os.waitstatus_to_exitcode(status)))
            aside.replace(_exit_path(log))


def take_over(order: dict[str, Any]) -> None:
    """Give this process the output, the environment and the command line of a run."""
    with Path(order["log"]).open("wb", buffering=0) as log, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.update(order["environment"])
    sys.argv = [str(FLOWS / "generate_videos.py"), *order["words"]]


if __name__ == "__main__":
    serve_orders()
