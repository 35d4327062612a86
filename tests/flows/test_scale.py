"""Thousands of rows on the server of a local run: every record is complete, and memory stays low."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from batch_run import FLOWS, write_table
from prefect_together.sandbox import SandboxProcess
from repository import ROOT

pytestmark = [pytest.mark.scale, pytest.mark.timeout(900)]

ROWS = 2000
MAX_BYTES = 400_000_000
"""Measured: 400 MB at 10,000 rows, of which 260 are there before the first; at most 60 are events not yet sent."""
LAUNCH = ROOT / "benchmarks" / "launch.py"


@dataclass(frozen=True)
class Ended:
    """A run of the command, without a configured server, and the largest memory of its process."""

    exit_code: int
    peak_bytes: int
    home: Path


@pytest.fixture(scope="module")
def api() -> Generator[SandboxProcess]:
    with SandboxProcess(arguments=["--clip", "tiny", "--generation-seconds", "0.5"]) as running:
        yield running


def run(api: SandboxProcess, place: Path, *, rows: int) -> Ended:
    place.mkdir()
    table, home = place / "table.csv", place / "prefect"
    write_table(table, rows=rows, prompt="A lighthouse in the storm")
    words = [str(table), "--output-dir", str(place / "out"), "--max-in-flight", "200"]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TOGETHER_"))}
    variables = {"PREFECT_HOME": str(home), "TOGETHER_API_KEY": "key", "TOGETHER_BASE_URL": api.base_url}
    # Through a small program: a process begins with its parent's largest memory, here that of all tests, as its own.
    command = [sys.executable, "-S", str(LAUNCH), sys.executable, str(FLOWS / "generate_videos.py"), *words]
    done = subprocess.run(command, env=own | variables, cwd=place, capture_output=True, text=True, check=False)
    used = json.loads(done.stdout.rpartition("USED ")[2])
    return Ended(done.returncode, used["peak_bytes"], home)


def recorded(home: Path, question: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(home / "prefect.db")
    try:
        return connection.execute(question).fetchall()
    finally:
        connection.close()


def test_of_thousands_of_rows_every_task_run_is_recorded_and_memory_stays_low(
    api: SandboxProcess, tmp_path: Path
) -> None:
    ended = run(api, tmp_path / "run", rows=ROWS)

    assert ended.exit_code == 0
    assert recorded(ended.home, "select state_type, count(*) from task_run group by 1") == [("COMPLETED", 3 * ROWS)]
    assert recorded(ended.home, "select count(*) from task_run_state") == [(9 * ROWS,)]
    assert recorded(ended.home, "select state_type from flow_run") == [("COMPLETED",)]
    assert ended.peak_bytes < MAX_BYTES
