"""Which process on which machine this is, and whether another one still runs. No Prefect."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

ZOMBIE = "Z"


@cache
def this_machine() -> str:
    """One name for one start of one machine (and one pid namespace of it): pids can be compared only within it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - a name, not a path
    except OSError:
        import psutil  # here and below: for systems without /proc alone

        return f"{socket.gethostname()}/{psutil.boot_time():.0f}"
    return f"{boot}/{namespace}"


def process_start(pid: int) -> str | None:
    """When the process was started, in a form that a changed clock does not change; None if it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return _start_by_clock(pid) if not Path("/proc/self/stat").exists() else None
    return None if fields[0] == ZOMBIE else fields[19]


def _start_by_clock(pid: int) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except psutil.Error:
        return None
