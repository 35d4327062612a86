"""The record of every video and every create call: what is wanted, sent, paid and on disk.

The only source of truth of a run. The intent to send is durable before the request leaves, so that a crash leaves
"possibly billed, $0.28" and not a second bill. A video is worked on by the run that claimed it; claims lapse when
their run is gone. Money is reserved in the transaction that writes the intent, and settled on what the service charged.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, delete, select

from prefect_together.clock import SYSTEM_CLOCK, Clock, in_background
from prefect_together.ledger import runs as ledger_runs
from prefect_together.ledger.engine import LedgerUnavailable, Operation, in_transaction, open_engine
from prefect_together.ledger.records import (
    LedgerTotals,
    Unsettled,
    VideoRecord,
    durations,
    plain,
    read_records,
    totals,
    unsettled,
)
from prefect_together.ledger.runs import alive_among
from prefect_together.ledger.schema import attempts, budget_marks, insert_into, money, tables, to_micro, to_usd, videos
from prefect_together.ledger.states import State, states_where
from prefect_together.ledger.transitions import Transitions
from prefect_together.problems import SettingsInvalid
from prefect_together.table.plan import PlannedVideo

T = TypeVar("T")

LEDGER_FILE = "ledger.db"
"""The ledger of an output directory that has its own."""
HERE = "."
"""The output directory of a ledger that lies in it: the directory may be moved."""
HEARTBEAT_SECONDS = 15.0


class Ledger(Transitions):
    """One run's connection to the ledger: what it reads and keeps, and, as `Transitions`, what it does to the videos.

    Open it with `open_ledger`.
    """

    @property
    def url(self) -> str:
        """Where the ledger is, without a password."""
        return self.engine.url

    @in_transaction()
    def plan(
        self, connection: Connection, wanted: Sequence[PlannedVideo], *, output_dir: str = HERE
    ) -> dict[str, VideoRecord]:
        """Enter what is not there yet with a file name of its own; return the records of all by key."""
        if connection.dialect.name == "postgresql":  # two runs must not give one file name to two videos
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7364002)")
        known = read_records(connection, [want.key for want in wanted])
        new = {want.key: want for want in wanted if want.key not in known}
        if new:
            files = select(videos.c.file).where(videos.c.output_dir == output_dir)
            taken = {str(file).casefold() for file in connection.scalars(files)}
            now = self.clock.time()
            rows = [_as_row(want, output_dir, taken, now) for want in new.values()]
            connection.execute(insert_into(connection, videos).on_conflict_do_nothing(), rows)
            known |= read_records(connection, list(new))
        return known

    @in_transaction()
    def records(self, connection: Connection, keys: Sequence[str] | None = None) -> dict[str, VideoRecord]:
        """The records of these keys, or of the whole ledger, by key."""
        return read_records(connection, keys)

    @in_transaction()
    def paid_but_absent(self, connection: Connection, keys: Collection[str], *, output_dir: str) -> list[VideoRecord]:
        """Videos of an output directory that have a job, are worked on by nobody, and are not among `keys`."""
        with_a_job = states_where(lambda facts: facts.has_job)
        statement = select(videos.c.video_key).where(videos.c.state.in_(with_a_job), videos.c.output_dir == output_dir)
        absent = [str(key) for key in connection.scalars(statement) if key not in keys]
        records = read_records(connection, absent)
        owners = {record.owner for record in records.values() if record.owner is not None}
        alive = alive_among(connection, owners, self.clock.time())
        return [record for record in records.values() if record.owner not in alive]

    @in_transaction()
    def other_runs_alive(self, connection: Connection, run_ids: Collection[str]) -> frozenset[str]:
        """Those of these runs, other than this one, that still work: the claims of the rest have lapsed."""
        return alive_among(connection, set(run_ids) - {self.run.run_id}, self.clock.time())

    @in_transaction(order=2)
    def save_table(self, connection: Connection, output_dir: str, content: str, *, is_sandbox: bool) -> None:
        """Keep the table of an output directory in the form of `ledger.plans`.

        Raises SettingsInvalid if the directory's or the ledger's videos are the sandbox's and this run's are not, or
        the reverse: a row is the same row in every directory, and what was paid for at one is not there at the other.
        """
        values = {"content": plain(content), "is_sandbox": is_sandbox, "written_at": self.clock.time()}
        if connection.execute(select(attempts.c.video_key).limit(1)).first() is None:  # nothing was ever sent
            connection.execute(delete(tables).where(tables.c.is_sandbox != is_sandbox))
        found = connection.execute(select(tables.c.output_dir, tables.c.is_sandbox))
        kinds = {row.output_dir: row.is_sandbox for row in found}
        if kinds.get(output_dir, is_sandbox) != is_sandbox:
            raise SettingsInvalid.of(_other_service("output directory", is_sandbox), column="output_dir")
        if kinds and is_sandbox not in kinds.values():
            raise SettingsInvalid.of(_other_service("ledger", is_sandbox), column="ledger")
        statement = insert_into(connection, tables).values(output_dir=output_dir, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["output_dir"], set_=values))

    @in_transaction()
    def last_table(self, connection: Connection, output_dir: str) -> str | None:
        """What `save_table` kept last for this output directory."""
        return connection.scalar(select(tables.c.content).where(tables.c.output_dir == output_dir))

    @in_transaction()
    def committed_usd(self, connection: Connection) -> float:
        """What is paid or reserved over the whole ledger."""
        return to_usd(connection.execute(select(money.c.committed_micro_usd)).scalar_one()) or 0.0

    @in_transaction(order=2)
    def reach_budget_marks(
        self, connection: Connection, budget_usd: float, percents: Sequence[int]
    ) -> tuple[float, list[int]]:
        """What is paid or reserved, and which of these percentages of the budget that has reached for the first time.

        Over all runs on this ledger each percentage of one budget is returned once; the money may become less again.
        """
        committed = connection.execute(select(money.c.committed_micro_usd)).scalar_one()
        budget, now = to_micro(budget_usd), self.clock.time()
        reached = [
            {"budget_micro_usd": budget, "percent": percent, "reached_at": now}
            for percent in percents
            if budget and committed * 100 >= budget * percent
        ]
        new: list[int] = []
        if reached:
            statement = insert_into(connection, budget_marks).values(reached).on_conflict_do_nothing()
            new = sorted(connection.scalars(statement.returning(budget_marks.c.percent)))
        return to_usd(committed) or 0.0, new

    @in_transaction()
    def totals(self, connection: Connection) -> LedgerTotals:
        """Dollars over the whole ledger."""
        return totals(connection)

    @in_transaction()
    def unsettled(self, connection: Connection) -> dict[str, Unsettled]:
        """What is unsettled of each video of the ledger that has such calls, by key."""
        return unsettled(connection)

    @in_transaction()
    def durations(self, connection: Connection, models: Iterable[str]) -> dict[str, list[float]]:
        """The newest generation times of each model in seconds, in the order in which the jobs were sent."""
        return {model: durations(connection, model) for model in models}

    async def transaction(self, operation: Operation[T]) -> T:
        """Run the operation of another module in a transaction; see `LedgerEngine.run`."""
        return await self.engine.run(operation, order=(2, ""))

    async def send_heartbeats(self) -> None:
        """Say every 15 seconds that this run still works, until cancelled."""
        while True:
            await self.clock.sleep(HEARTBEAT_SECONDS)
            with contextlib.suppress(LedgerUnavailable):  # the next one may get through
                await self.transaction(partial(ledger_runs.beat, run=self.run, now=self.clock.time()))


@asynccontextmanager
async def open_ledger(url: str, *, clock: Clock = SYSTEM_CLOCK) -> AsyncGenerator[Ledger]:
    """Open the ledger at a path (SQLite) or a `postgresql://` URL as a new run; on leaving, its claims are given back.

    Raises SettingsInvalid for another kind of URL, LedgerUnavailable if the database does not answer.
    """
    async with open_engine(url, clock=clock) as engine:
        run = ledger_runs.this_process(str(uuid.uuid4()))
        ledger = Ledger(engine, run, clock)
        await engine.run(partial(ledger_runs.begin, run=run, now=clock.time()))
        ledger_runs.OWN_RUNS.add(run.run_id)
        try:
            async with in_background(ledger.send_heartbeats()):
                yield ledger
        finally:
            ledger_runs.OWN_RUNS.discard(run.run_id)
            with contextlib.suppress(LedgerUnavailable):  # its claims lapse with its process
                await engine.run(partial(ledger_runs.end, run=run, now=clock.time()), order=(3, ""))


def _other_service(what: str, is_sandbox: bool) -> str:
    if is_sandbox:
        return f"holds real videos: choose another {what} for the sandbox"
    return f"holds the sandbox's imitations: choose another {what} for real videos"


def _as_row(want: PlannedVideo, output_dir: str, taken: set[str], now: float) -> dict[str, object]:
    file = want.free_file(taken)
    taken.add(file.casefold())
    return {
        "video_key": want.key,
        "kind": want.kind,
        "row_id": plain(want.row_id),
        "take": want.take,
        "fingerprint": want.fingerprint,
        "model": want.request.model,
        "prompt": want.request.prompt and plain(want.request.prompt),
        "parameters": json.dumps(want.request.parameters(with_prompt=False)),
        "output_dir": output_dir,
        "file": file,
        "state": State.PLANNED,
        "attempts": 0,
        "jobs": 0,
        "polls": 0,
        "planned_at": now,
    }
