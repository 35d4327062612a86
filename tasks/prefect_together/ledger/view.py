"""Reads a ledger without being a run in it: nothing is created, claimed or written."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine, or_, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from prefect_together.api.poll_schedule import DurationStatistics
from prefect_together.clips.remote_store import open_store, output_name
from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.ledger.engine import LedgerUnavailable, Operation, parse_ledger_url
from prefect_together.ledger.ledger import HERE, LEDGER_FILE
from prefect_together.ledger.records import (
    LedgerTotals,
    Unsettled,
    VideoRecord,
    durations,
    read_records,
    totals,
    unsettled,
)
from prefect_together.ledger.runs import CLAIM_SECONDS, process_start, this_machine
from prefect_together.ledger.schema import Outcome, attempts, runs, tables, videos
from prefect_together.ledger.states import STATES, State
from prefect_together.problems import SettingsInvalid

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Doubt:
    """A create call without an answer: sent at `sent_at` (unix seconds), possibly billed `reserved_usd`.

    `is_open`: its video still waits for somebody to decide; else it was sent again, or came after all.
    """

    row_id: str
    take: int
    model: str
    attempt: int
    sent_at: float
    reserved_usd: float
    reason: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class RunAtWork:
    """A run that still works: on this machine by its process, elsewhere by its heartbeat. Times are unix seconds."""

    pid: int
    is_here: bool
    started_at: float
    heartbeat_at: float


@dataclass(frozen=True, slots=True)
class LedgerView:
    """A ledger at one moment. `tables` has the last table of each output directory, see `plans`.

    `is_sandbox`: its videos are the sandbox's imitations, its dollars nobody's.
    """

    url: str
    totals: LedgerTotals
    records: Mapping[str, VideoRecord]
    doubts: tuple[Doubt, ...]
    runs: tuple[RunAtWork, ...]
    tables: Mapping[str, str]
    is_sandbox: bool
    durations: Mapping[str, list[float]]
    unsettled: Mapping[str, Unsettled]

    def statistics(self) -> DurationStatistics:
        """The duration statistics of its jobs."""
        durations = DurationStatistics()
        for model, seconds in self.durations.items():
            durations.load(model, seconds)
        return durations

    def table_of(self, output_dir: str) -> str | None:
        """The last table of an output directory, however that is spelt; None if there was none."""
        is_its_own = Path(ledger_of(output_dir)).resolve() == Path(self.url).resolve()
        names = (output_name(output_dir), *([HERE] if is_its_own else []))
        found = next((self.tables[name] for name in names if name in self.tables), None)
        if found is None and len(self.tables) == 1:
            return next(iter(self.tables.values()))
        return found


def ledger_of(output_dir: str, ledger: str | None = None) -> str:
    """Where the ledger of an output directory is: `ledger` if given, else its own. Raises SettingsInvalid."""
    return ledger or str(open_store(output_dir).local_dir / LEDGER_FILE)


async def read_ledger(url: str) -> LedgerView:
    """Everything that a ledger says, in one read-only transaction.

    Raises SettingsInvalid if there is no such ledger, LedgerUnavailable if it cannot be read.
    """
    parsed = parse_ledger_url(url)
    shown = parsed.render_as_string(hide_password=True)
    is_file = parsed.get_backend_name() == "sqlite"
    try:
        values = await (asyncio.to_thread(_read_sqlite, parsed, _view) if is_file else _read_postgres(parsed, _view))
    except (DBAPIError, OSError) as error:
        raise LedgerUnavailable(shown, str(getattr(error, "orig", None) or error)) from error
    return LedgerView(url=parsed.database if is_file and parsed.database else shown, **values)


def _read_sqlite(url: URL, work: Operation[T]) -> T:
    path = Path(url.database or "").absolute()
    if not path.is_file():
        raise SettingsInvalid.of(f"no ledger at {path}: no run has been made with it")
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True))
    try:
        with engine.connect() as connection:
            return work(connection)
    finally:
        engine.dispose()


async def _read_postgres(url: URL, work: Operation[T]) -> T:
    from sqlalchemy.ext.asyncio import create_async_engine  # brings the whole ORM with it

    engine = create_async_engine(url, pool_size=1, max_overflow=0, execution_options={"postgresql_readonly": True})
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def _view(connection: Connection) -> dict[str, Any]:
    records = read_records(connection, None)
    models = {record.model for record in records.values()}
    saved = connection.execute(select(tables.c.output_dir, tables.c.content, tables.c.is_sandbox)).all()
    return {
        "totals": totals(connection),
        "records": records,
        "doubts": _doubts(connection, records),
        "runs": _runs_at_work(connection),
        "tables": {str(row.output_dir): str(row.content) for row in saved},
        "is_sandbox": bool(saved) and all(row.is_sandbox for row in saved),
        "unsettled": unsettled(connection),
        "durations": {model: durations(connection, model) for model in sorted(models)},
    }


def _doubts(connection: Connection, records: Mapping[str, VideoRecord]) -> tuple[Doubt, ...]:
    sending = select(videos.c.video_key).where(videos.c.state == State.SUBMITTING)
    unanswered = attempts.c.outcome.is_(None) & attempts.c.video_key.in_(sending)
    wanted = select(attempts).where(or_(attempts.c.outcome == Outcome.IN_DOUBT, unanswered))
    found: list[Doubt] = []
    for row in connection.execute(wanted.order_by(attempts.c.intent_at)):
        record = records[row.video_key]
        is_latest = row.attempt == record.attempts and STATES[record.state].is_unanswered
        reason = row.error or "no answer yet; in doubt if its run is gone"
        usd = row.reserved_micro_usd / 1e6
        found.append(
            Doubt(record.row_id, record.take, record.model, row.attempt, row.intent_at, usd, reason, is_latest)
        )
    return tuple(found)


def _runs_at_work(connection: Connection) -> tuple[RunAtWork, ...]:
    found: list[RunAtWork] = []
    for row in connection.execute(select(runs).where(runs.c.ended_at.is_(None)).order_by(runs.c.started_at)):
        is_here = row.machine == this_machine()
        is_recent = row.heartbeat_at >= SYSTEM_CLOCK.time() - CLAIM_SECONDS
        if process_start(row.pid) == row.process_start if is_here else is_recent:
            found.append(RunAtWork(row.pid, is_here, row.started_at, row.heartbeat_at))
    return tuple(found)
