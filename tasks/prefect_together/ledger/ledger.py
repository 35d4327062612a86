"""The record of every video and every create call: what is wanted, sent, paid and on disk. No HTTP, no Prefect.

The only source of truth of a run. The intent to send is durable before the request leaves, so that a crash leaves
"possibly billed, $0.28" and not a second bill. A video is worked on by the run that claimed it; claims lapse when
their run is gone. Money is reserved in the transaction that writes the intent, and settled on what the service charged.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Awaitable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from prefect_together.api.jobs import VideoJob
from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.errors import FailureClass, JobFailed, Problem, SettingsInvalid
from prefect_together.ledger import records as ledger_records
from prefect_together.ledger import runs as ledger_runs
from prefect_together.ledger import transitions as operations
from prefect_together.ledger.engine import LedgerEngine, LedgerUnavailable, Operation, open_engine
from prefect_together.ledger.records import LedgerTotals, VideoRecord
from prefect_together.ledger.runs import Run
from prefect_together.ledger.schema import State, attempts, money, tables, to_micro, to_usd
from prefect_together.ledger.transitions import Claim, ClaimLost
from prefect_together.table.plan import PlannedVideo

__all__ = ["Claim", "ClaimLost", "Ledger", "LedgerTotals", "State", "VideoRecord", "open_ledger"]

T = TypeVar("T")

LEDGER_FILE = "ledger.db"
"""The ledger of an output directory that has its own."""
HERE = "."
"""The output directory of a ledger that lies in it: the directory may be moved."""
HEARTBEAT_SECONDS = 15.0
SAVE_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses between tries to write down the id of an accepted job: it is paid, and is known nowhere else."""


class Ledger:
    """One run's door to the ledger. Open it with `open_ledger`."""

    def __init__(self, engine: LedgerEngine, run: Run, clock: Clock) -> None:
        self._engine, self.run, self._clock = engine, run, clock

    @property
    def url(self) -> str:
        """Where the ledger is, without a password."""
        return self._engine.url

    async def plan(self, wanted: Sequence[PlannedVideo], *, output_dir: str = HERE) -> dict[str, VideoRecord]:
        """Enter what is not there yet with a file name of its own; return the records of all by key."""
        now = self._clock.time()
        return await self._engine.run(
            lambda connection: ledger_records.enter(connection, wanted, output_dir=output_dir, now=now)
        )

    async def records(self, keys: Sequence[str] | None = None) -> dict[str, VideoRecord]:
        """The records of these keys, or of the whole ledger, by key."""
        return await self._engine.run(lambda connection: ledger_records.read_records(connection, keys))

    async def claim(self, key: str, *, resend_attempt: int | None = None, states: Collection[State] = ()) -> Claim:
        """Take a video for this run, unless a living run has it (`held`).

        A `submitting` video whose run is gone becomes `in_doubt`; a `refused` one is `planned` again. So is one in one
        of `states` (in_doubt, failed: sent again because the user said so), its money kept reserved, but only if its
        attempts still are `resend_attempt`, as when the user said so: another run may have sent it again since.
        """
        now = self._clock.time()
        return await self._engine.run(
            lambda connection: operations.claim(
                connection, key, self.run, now=now, resend_attempt=resend_attempt, states=states
            ),
            order=(0, key),
        )

    async def living(self, run_ids: Collection[str]) -> frozenset[str]:
        """Those of these other runs that still work: the claims of the rest have lapsed."""
        others, now = set(run_ids) - {self.run.run_id}, self._clock.time()
        return await self._engine.run(lambda connection: ledger_runs.living(connection, others, now))

    async def release(self, key: str) -> None:
        """Give a video back, wherever it stands: another run need not wait for the end of this one."""
        run_id = self.run.run_id
        await self._engine.run(lambda connection: operations.release(connection, key, run_id), order=(1, key))

    async def intend(self, key: str, *, estimate_usd: float | None, budget_usd: float | None) -> int:
        """Write the intent to send and reserve its money; return the number of the attempt.

        Raises BudgetReached if the cap could be passed (or the price is unknown under a cap), ClaimLost if another
        run has the video. In both cases nothing is written and nothing may be sent.
        """
        now, estimate, budget = self._clock.time(), to_micro(estimate_usd), to_micro(budget_usd)
        return await self._engine.run(
            lambda connection: operations.intend(connection, key, self.run.run_id, estimate, budget, now),
            order=(1, key),
        )

    async def accepted(self, key: str, attempt: int, job: VideoJob) -> None:
        """Write the job's id: from now on the job can be found again. Tries for half a minute; the error has the id."""
        now = self._clock.time()

        def save() -> asyncio.Future[None]:
            return asyncio.ensure_future(
                self._engine.run(
                    lambda connection: operations.accepted(connection, key, attempt, job.id, now), order=(1, key)
                )
            )

        for pause in (*SAVE_PAUSES_SECONDS, None):
            saving, stopped = save(), False
            while not saving.done() or saving.cancelled():
                saving = save() if saving.cancelled() else saving
                stopped |= await _stopped(asyncio.wait([saving]))
            error = saving.exception()
            if isinstance(error, LedgerUnavailable):
                if pause is not None and not stopped and not await _stopped(self._clock.sleep(pause)):
                    continue
                reason = f"{error.reason}; keep this id: job {job.id} was accepted, is paid, and could not be written"
                raise LedgerUnavailable(error.url, reason) from error
            saving.result()
            if stopped:
                raise asyncio.CancelledError
            return

    async def not_accepted(
        self, key: str, attempt: int, error: str, *, state: State, failure_class: FailureClass | None = None
    ) -> None:
        """The attempt did not make a job: give its reservation back. `state` is planned, failed or refused."""
        now = self._clock.time()
        await self._engine.run(
            lambda connection: operations.not_accepted(connection, key, attempt, error, state, failure_class, now),
            order=(1, key),
        )

    async def in_doubt(self, key: str, attempt: int, reason: str) -> None:
        """The attempt may have made a job that cannot be found: keep its money reserved."""
        now = self._clock.time()
        await self._engine.run(
            lambda connection: operations.in_doubt(connection, key, attempt, reason, now), order=(1, key)
        )

    async def not_resent(self, key: str, *, state: State, error: str, failure_class: FailureClass | None) -> bool:
        """A video that was to be sent again was not taken: it is failed or in doubt as before. False if it was."""
        run_id = self.run.run_id
        return await self._engine.run(
            lambda connection: operations.not_resent(connection, key, run_id, state, error, failure_class),
            order=(1, key),
        )

    async def refused(self, key: str, error: str) -> None:
        """The video was not sent because of the budget or the account; a later run takes it up."""
        await self._engine.run(lambda connection: operations.refused(connection, key, error), order=(1, key))

    async def completed(self, key: str, job: VideoJob, *, generation_seconds: float | None, polls: int) -> None:
        """The job is done: keep its link, settle its money on what was charged (if not told, on the estimate)."""
        now, cost = self._clock.time(), to_micro(job.cost_usd)
        await self._engine.run(
            lambda connection: operations.completed(connection, key, job, cost, generation_seconds, polls, now),
            order=(1, key),
        )

    async def failed(self, key: str, error: JobFailed, *, again: bool) -> None:
        """The job was given up. Its money stays reserved unless the service named a cost. `again` plans it anew."""
        cost = to_micro(error.cost_usd)
        await self._engine.run(
            lambda connection: operations.failed(
                connection, key, error.job_id, error.failure_class, str(error), cost, again=again
            ),
            order=(1, key),
        )

    async def downloaded(
        self, key: str, *, file: str, size_bytes: int, sha256: str, clip: Mapping[str, object]
    ) -> None:
        """The checked clip is there as `file`, which need not be the name that was planned; the claim is released."""
        now, run_id = self._clock.time(), self.run.run_id
        await self._engine.run(
            lambda connection: operations.downloaded(
                connection, key, run_id, file=file, size_bytes=size_bytes, sha256=sha256, clip=clip, now=now
            ),
            order=(1, key),
        )

    async def files_are_gone(self, keys: Sequence[str], *, output_dir: str) -> None:
        """Downloaded clips are not under their names here: they are `completed` and fetched again, unpaid."""
        values = {"state": State.COMPLETED, "output_dir": output_dir, "error": "the file was gone or changed"}
        await self._update(keys, State.DOWNLOADED, values)

    async def note(self, key: str, error: str, *, state: State, failure_class: FailureClass | None = None) -> None:
        """Say what stands in the way of a video in this state, without changing the state."""
        await self._update([key], state, {"error": ledger_records.plain(error), "failure_class": failure_class})

    async def remember_table(self, output_dir: str, content: str, *, is_sandbox: bool) -> None:
        """Keep the table of an output directory; see `remembered`.

        Raises SettingsInvalid if the directory's or the ledger's videos are the sandbox's and this run's are not, or
        the reverse: a row is the same row in every directory, and what was paid for at one is not there at the other.
        """
        now = self._clock.time()
        values = {"content": ledger_records.plain(content), "is_sandbox": is_sandbox, "written_at": now}

        def write(connection: Connection) -> None:
            if connection.execute(select(attempts.c.video_key).limit(1)).first() is None:  # nothing was ever sent
                connection.execute(delete(tables).where(tables.c.is_sandbox != is_sandbox))
            found = connection.execute(select(tables.c.output_dir, tables.c.is_sandbox))
            kinds = {row.output_dir: row.is_sandbox for row in found}
            if kinds.get(output_dir, is_sandbox) != is_sandbox:
                raise SettingsInvalid([Problem(_other_service("output directory", is_sandbox), column="output_dir")])
            if kinds and is_sandbox not in kinds.values():
                raise SettingsInvalid([Problem(_other_service("ledger", is_sandbox), column="ledger")])
            insert = postgres_insert if connection.dialect.name == "postgresql" else sqlite_insert
            statement = insert(tables).values(output_dir=output_dir, **values)
            connection.execute(statement.on_conflict_do_update(index_elements=["output_dir"], set_=values))

        await self._engine.run(write, order=(2, output_dir))

    async def remembered_table(self, output_dir: str) -> str | None:
        """What `remember_table` kept last for this output directory."""
        statement = select(tables.c.content).where(tables.c.output_dir == output_dir)
        return await self._engine.run(lambda connection: connection.execute(statement).scalar_one_or_none())

    async def paid_but_absent(self, keys: Collection[str], *, output_dir: str) -> list[VideoRecord]:
        """Videos of an output directory that are submitted or completed, worked on by nobody, and not among `keys`."""
        now = self._clock.time()
        return await self._engine.run(
            lambda connection: ledger_records.paid_but_absent(connection, keys, output_dir=output_dir, now=now)
        )

    async def transaction(self, operation: Operation[T]) -> T:
        """Run the operation of another module in a transaction; see `LedgerEngine.run`."""
        return await self._engine.run(operation, order=(2, ""))

    async def committed_usd(self) -> float:
        """What is paid or reserved over the whole ledger."""
        statement = select(money.c.committed_micro_usd)
        committed = await self._engine.run(lambda connection: connection.execute(statement).scalar_one())
        return to_usd(committed) or 0.0

    async def totals(self) -> LedgerTotals:
        """Counts and dollars over the whole ledger."""
        return await self._engine.run(ledger_records.totals)

    async def durations(self, models: Iterable[str]) -> dict[str, list[float]]:
        """The newest generation times of each model in seconds, in the order in which the jobs were sent."""

        def read(connection: Connection) -> dict[str, list[float]]:
            return {model: ledger_records.durations(connection, model) for model in models}

        return await self._engine.run(read)

    async def _update(self, keys: Sequence[str], state: State, values: Mapping[str, object]) -> None:
        await self._engine.run(
            lambda connection: operations.rewrite(connection, keys, state, values), order=(1, min(keys, default=""))
        )

    async def _keep_alive(self) -> None:
        while True:
            await self._clock.sleep(HEARTBEAT_SECONDS)
            beat = partial(ledger_runs.beat, run=self.run, now=self._clock.time())
            with contextlib.suppress(LedgerUnavailable):  # the next beat may get through
                await self._engine.run(beat, order=(2, ""))


@asynccontextmanager
async def open_ledger(url: str, *, clock: Clock = SYSTEM_CLOCK) -> AsyncGenerator[Ledger]:
    """Open the ledger at a path (SQLite) or a `postgresql://` URL as a new run; on leaving, its claims are given back.

    Raises SettingsInvalid for another kind of URL, LedgerUnavailable if the database does not answer.
    """
    async with open_engine(url) as engine:
        run = ledger_runs.this_process(str(uuid.uuid4()))
        ledger = Ledger(engine, run, clock)
        await engine.run(partial(ledger_runs.begin, run=run, now=clock.time()))
        ledger_runs.OWN_RUNS.add(run.run_id)
        heartbeat = asyncio.create_task(ledger._keep_alive())  # pyright: ignore[reportPrivateUsage]
        try:
            yield ledger
        finally:
            heartbeat.cancel()
            await asyncio.gather(heartbeat, return_exceptions=True)
            ledger_runs.OWN_RUNS.discard(run.run_id)
            await engine.run(partial(ledger_runs.end, run=run, now=clock.time()), order=(3, ""))


async def _stopped(work: Awaitable[object]) -> bool:
    """Wait; True if cancelled meanwhile: the caller has something to finish or to say before it ends."""
    try:
        await work
    except asyncio.CancelledError:
        return True
    return False


def _other_service(what: str, is_sandbox: bool) -> str:
    if is_sandbox:
        return f"holds real videos: choose another {what} for the sandbox"
    return f"holds the sandbox's imitations: choose another {what} for real videos"
