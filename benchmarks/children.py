"""Runs one peer as a child process and measures it. Knows nothing of what it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
FIGURES = "FIGURES "
KILO = 1 if sys.platform == "darwin" else 1024
"""The unit of ru_maxrss in bytes."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a peer: the wall time of its body, its processor time from there to its end, its largest memory."""

    body_seconds: float
    cpu_seconds: float
    peak_mb: float
    all_seconds: float
    said: str


class PeerFailed(RuntimeError):
    """A peer ended with another exit code than 0; the message holds its last words."""


def run_peer(name: str, *words: str, environment: Mapping[str, str]) -> Run:
    """Run `peers/NAME.py WORDS...` to its end. Raises PeerFailed."""
    return run_child([sys.executable, str(PEERS / f"{name}.py"), *words], environment=environment)


def run_child(command: Sequence[str], *, environment: Mapping[str, str], exit_codes: Sequence[int] = (0,)) -> Run:
    """Run a command to its end; its body is what it tells of it (`peers/stopwatch.py`), else the whole.

    Raises PeerFailed.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    with process.stdout as output:
        said = output.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    all_seconds = time.perf_counter() - started
    if process.returncode not in exit_codes:
        raise PeerFailed(f"{' '.join(command)} ended with {process.returncode}: {said[-3000:]}")
    told = [line.removeprefix(FIGURES) for line in said.splitlines() if line.startswith(FIGURES)]
    figures: dict[str, float] = json.loads(told[-1]) if told else {}
    return Run(
        body_seconds=figures.get("body_seconds", all_seconds),
        cpu_seconds=used.ru_utime + used.ru_stime - figures.get("cpu_before_seconds", 0.0),
        peak_mb=used.ru_maxrss * KILO / 1e6,
        all_seconds=all_seconds,
        said=said,
    )
