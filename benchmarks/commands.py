"""Runs whole commands as a user would, and times them from outside: to the end, or to the first call of the API."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from children import PEERS, PeerFailed, run_child

from prefect_together.sandbox import SandboxProcess

FLOW = Path(__file__).parents[1] / "flows" / "generate_videos.py"
POLL_SECONDS = 0.02
LIMIT_SECONDS = 300.0


def generate_videos(table: Path, output: Path, *words: str) -> list[str]:
    """The command of this project's main job, all rows in flight."""
    return [sys.executable, str(FLOW), str(table), "--output-dir", str(output), "--max-in-flight", "2000", *words]


def seconds_to_empty_flow(variables: Mapping[str, str]) -> tuple[float, float]:
    """Seconds from the command to the body of an empty flow, and to the end of its process."""
    run = run_child([sys.executable, str(PEERS / "empty_flow.py")], environment=variables)
    began = next(float(line.split()[1]) for line in run.output.splitlines() if line.startswith("BEGAN "))
    return began - run.started_at, run.all_seconds


def seconds_to_first_call(
    command: list[str], endpoint: str, *, api: SandboxProcess, variables: Mapping[str, str]
) -> float:
    """Seconds from the command to the first answered `create` or `retrieve` call; the run is stopped then."""
    before = calls(api, endpoint)
    started = time.monotonic()
    process = subprocess.Popen(
        command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while calls(api, endpoint) == before:
            if process.poll() is not None or time.monotonic() - started > LIMIT_SECONDS:
                raise PeerFailed(f"{' '.join(command)} made no {endpoint} call")
            time.sleep(POLL_SECONDS)
        return time.monotonic() - started
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def calls(api: SandboxProcess, endpoint: str | None = None) -> int:
    """Requests that the sandbox has answered, on one endpoint or on all."""
    answered: Mapping[str, Mapping[str, int]] = api.control.stats()["requests"]
    return sum(sum(counts.values()) for name, counts in answered.items() if endpoint in (None, name))
