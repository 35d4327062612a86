"""Which process runs: told by the process itself, not by its number alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from prefect_together.ledger.runs import process_start, this_machine

has_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system has no /proc")


@pytest.fixture
def child() -> Generator[subprocess.Popen[bytes]]:
    """A process that lives until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        yield process
        process.kill()


def test_a_process_started_once_has_one_start() -> None:
    assert process_start(os.getpid()) == process_start(os.getpid())
    assert process_start(os.getpid()) is not None


def test_two_processes_that_live_at_once_are_told_apart_from_a_later_one_of_the_same_number(
    child: subprocess.Popen[bytes],
) -> None:
    assert process_start(child.pid) not in (None, process_start(os.getpid()))


@has_proc
def test_a_process_that_is_dead_but_not_yet_buried_does_not_run(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert Path(f"/proc/{child.pid}").exists()
    assert process_start(child.pid) is None


def test_a_process_that_is_gone_does_not_run(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()

    assert process_start(child.pid) is None


def test_processes_of_one_machine_give_it_one_name() -> None:
    command = [sys.executable, "-c", "from prefect_together.ledger.runs import this_machine; print(this_machine())"]

    other = subprocess.run(command, check=True, capture_output=True, text=True)

    assert other.stdout.strip() == this_machine()
