"""The steps of deployments/README.md, typed as they stand there on an empty HOME, up to a run by schedule."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from prefect_together.sandbox import Sandbox
from repository import ROOT

README = (ROOT / "deployments" / "README.md").read_text()
BIN = Path(sys.executable).parent
SECTIONS = ("# Deployments", "## The key", "## With a worker")
KEY = "sk-typed-at-a-shell-5519"
COMPLETED = "Finished in state Completed('3 downloaded of 3 rows"
STEP_SECONDS = 400.0


def lines_of(section: str) -> list[str]:
    """The command lines of a section of the README, comments included."""
    text = README.split(f"{section}\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


class Terminal:
    """Somebody at a shell with an empty HOME, in a fresh checkout: types lines, some in terminals of their own."""

    def __init__(self, home: Path, checkout: Path, *, port: int, worker_environment: dict[str, str]) -> None:
        self._checkout, self._port, self._worker_environment = checkout, port, worker_environment
        self._home, self._others = home, list[subprocess.Popen[bytes]]()
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TOGETHER_"))}
        self.environment = own | {"HOME": str(home), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        self._seen_id = ""

    def type(self, line: str) -> str:
        """What it prints. `4200` is another port here, `...` the key, `ID` the id that was shown before."""
        command, _, comment = line.partition("  #")
        command = command.replace("4200", str(self._port)).replace("TOGETHER_API_KEY=...", f"TOGETHER_API_KEY={KEY}")
        command = re.sub(r"\bID\b", self._seen_id, command)
        if command.startswith("export "):
            self.environment |= dict(word.split("=", 1) for word in command.split()[1:])
            return ""
        if "terminal of its own" in comment:
            self._open_terminal(command.strip())
            return ""
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self._checkout,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}\n{self.said()}"
        if shown := re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", done.stdout):
            self._seen_id = shown[0]
        return done.stdout

    def _open_terminal(self, command: str) -> None:
        is_server = "server start" in command
        environment = self.environment | ({} if is_server else self._worker_environment)
        words = f"exec {command} --port {self._port}" if is_server else f"exec {command}"
        with (self._home / f"terminal-{len(self._others)}.log").open("wb") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", words],
                cwd=self._checkout,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._others.append(process)
        if is_server:
            wait_until(self._server_answers)

    def _server_answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def said(self) -> str:
        """What the other terminals show."""
        logs = sorted(self._home.glob("terminal-*.log"))
        return "\n".join(log.read_text(errors="replace") for log in logs)

    def close(self) -> None:
        for process in reversed(self._others):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


OUR_ERROR = re.compile(r'File "[^"]*/(prefect_together|flows|deployments)/')
"""A line of a stack trace in this project's code. (A busy Prefect server on SQLite prints traces of its own.)"""


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + STEP_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.5)


@pytest.fixture
def terminal(tmp_path: Path) -> Generator[Terminal]:
    home, checkout = tmp_path / "home", tmp_path / "prefect-together"
    home.mkdir()
    for folder in ("flows", "deployments", "examples"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with Sandbox(is_marked=False) as sandbox:
        service = {"TOGETHER_API_KEY": KEY, "TOGETHER_BASE_URL": sandbox.base_url}
        opened = Terminal(home, checkout, port=port, worker_environment=service)
        try:
            yield opened
        finally:
            opened.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_steps_of_the_readme_lead_to_a_run_by_schedule(terminal: Terminal, tmp_path: Path) -> None:
    said = {line: terminal.type(line) for section in SECTIONS for line in lines_of(section)}

    nightly = tmp_path / "prefect-together" / "out" / "nightly"
    wait_until(lambda: len(list(nightly.glob("videos/*.mp4"))) == 3 and (nightly / "results.csv").exists())
    wait_until(lambda: terminal.said().count(COMPLETED) >= 2)  # the one that was asked for, and one by schedule
    assert "together-credentials/team-video" in "".join(said.values())
    assert "Resumed schedule" in "".join(said.values())
    assert OUR_ERROR.search(terminal.said()) is None
    assert len(list((tmp_path / "prefect-together" / "out" / "videos").glob("videos/*.mp4"))) == 3
