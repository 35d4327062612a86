"""Runs one peer as a child process and measures it. It does not depend on what the peer does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
FIGURES = "FIGURES "
USED = "USED "
LAUNCH = (sys.executable, "-S", str(Path(__file__).parent / "launch.py"))


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a peer: the wall time of its body, its processor time from there to its end, its largest memory; the
    wall time of the whole process, and when that was started (unix seconds)."""

    body_seconds: float
    cpu_seconds: float
    peak_mb: float
    all_seconds: float
    started_at: float
    output: str


class PeerFailed(RuntimeError):
    """A peer ended with an exit code other than 0; the message contains its last output."""


def run_peer(name: str, *words: str, environment: Mapping[str, str]) -> Run:
    """Run `peers/NAME.py WORDS...` to its end. Raises PeerFailed."""
    return run_child([sys.executable, str(PEERS / f"{name}.py"), *words], environment=environment)


def run_child(command: Sequence[str], *, environment: Mapping[str, str], exit_codes: Sequence[int] = (0,)) -> Run:
    """Run a command to its end; its body is what it reports as such (`peers/stopwatch.py`), else the whole process.

    Raises PeerFailed.
    """
    process = subprocess.run(
        [*LAUNCH, *command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    output, _, used_line = process.stdout.rpartition(USED)
    if process.returncode not in exit_codes:
        raise PeerFailed(f"{' '.join(command)} ended with {process.returncode}: {output[-3000:]}")
    used: dict[str, float] = json.loads(used_line)
    reported = [line.removeprefix(FIGURES) for line in output.splitlines() if line.startswith(FIGURES)]
    figures: dict[str, float] = json.loads(reported[-1]) if reported else {}
    return Run(
        body_seconds=figures.get("body_seconds", used["all_seconds"]),
        cpu_seconds=used["cpu_seconds"] - figures.get("cpu_before_seconds", 0.0),
        peak_mb=used["peak_bytes"] / 1e6,
        all_seconds=used["all_seconds"],
        started_at=used["started_at"],
        output=output,
    )
