"""Common to all peers: the two arguments, the rows, and the figures of the measured body, printed for the parent."""

from __future__ import annotations

import csv
import json
import resource
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 0.5
FIGURES = "FIGURES "


def cpu_seconds() -> float:
    """Processor time of this process so far, all its threads, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextmanager
def body() -> Generator[None]:
    """Around what is measured. The imports come before it; what the process does after it counts as processor time."""
    cpu_before, started = cpu_seconds(), time.perf_counter()
    yield
    figures = {"body_seconds": time.perf_counter() - started, "cpu_before_seconds": cpu_before}
    print(FIGURES + json.dumps(figures), flush=True)


def read_prompts() -> list[dict[str, str]]:
    """The rows of the table that the first argument names."""
    with Path(sys.argv[1]).open(encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table))


def output_directory() -> Path:
    """The second argument, made."""
    directory = Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    return directory
