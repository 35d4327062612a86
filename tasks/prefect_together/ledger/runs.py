"""The runs of a ledger, with their heartbeats, and which of them are alive. Over an open transaction."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, func, select, update

from prefect_together.ledger.schema import insert_into, money, runs, videos

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


CLAIM_SECONDS = 120.0
"""A run of another machine without a heartbeat for so long is gone. On the same machine its process tells at once."""

OWN_RUNS: set[str] = set()
"""The runs that are open in this process."""


@dataclass(frozen=True, slots=True)
class Run:
    """Who works: one opening of the ledger by one process."""

    run_id: str
    machine: str
    pid: int
    process_start: str


def this_process(run_id: str) -> Run:
    """The run of this process."""
    pid = os.getpid()
    return Run(run_id, this_machine(), pid, process_start(pid) or "")


def begin(connection: Connection, run: Run, now: float) -> None:
    """Enter a run that begins, and the ledger's row of money if this is its first."""
    connection.execute(insert_into(connection, money).on_conflict_do_nothing(), [{"id": 1, "committed_micro_usd": 0}])
    connection.execute(
        insert_into(connection, runs)
        .values(
            run_id=run.run_id,
            host=socket.gethostname(),
            machine=run.machine,
            pid=run.pid,
            process_start=run.process_start,
            started_at=now,
            heartbeat_at=database_now(connection, now),
        )
        .on_conflict_do_nothing()  # the database went before it said that it was done
    )


def beat(connection: Connection, run: Run, now: float) -> None:
    """Say that a run still works."""
    heartbeat = {"heartbeat_at": database_now(connection, now)}
    connection.execute(update(runs).where(runs.c.run_id == run.run_id).values(**heartbeat))


def end(connection: Connection, run: Run, now: float) -> None:
    """Enter that a run has ended, and give back what it had claimed."""
    connection.execute(update(videos).where(videos.c.owner == run.run_id).values(owner=None))
    connection.execute(update(runs).where(runs.c.run_id == run.run_id).values(ended_at=now))


def alive_among(connection: Connection, run_ids: Collection[str], now: float) -> frozenset[str]:
    """Those of these runs that still work."""
    return frozenset(run_id for run_id in run_ids if is_alive(connection, run_id, now))


def is_alive(connection: Connection, run_id: str, now: float) -> bool:
    """Whether a run still works: in this process it is known, on this machine its process tells, else its heartbeat."""
    if run_id in OWN_RUNS:
        return True
    row = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
    if row is None or row.ended_at is not None:
        return False
    if row.machine == this_machine():
        return row.pid != os.getpid() and process_start(row.pid) == row.process_start
    return bool(row.heartbeat_at >= database_now(connection, now) - CLAIM_SECONDS)


def database_now(connection: Connection, now: float) -> float:
    """The time by one clock for all who share the database: PostgreSQL's own; for SQLite this machine's, `now`."""
    if connection.dialect.name != "postgresql":
        return now
    return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())
