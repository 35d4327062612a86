"""The ledger's transitions as functions over an open transaction. They decide; when to commit is the engine's matter.

Each raises before it has written anything, or not at all: many of them share one transaction.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, RowMapping, case, func, insert, select, update

from prefect_together.errors import BudgetReached, FailureClass, TogetherVideoError
from prefect_together.jobs import VideoJob
from prefect_together.ledger_schema import Outcome, State, attempts, money, runs, to_usd, videos
from prefect_together.process import process_start, this_machine

READ_CHUNK = 500
CLAIM_SECONDS = 120.0
"""A run of another machine without a heartbeat for so long is gone. On the same machine its process tells at once."""

OWN_RUNS: set[str] = set()
"""The runs that are open in this process."""


class ClaimLost(TogetherVideoError):
    """Another run has taken the video over, because this one showed no sign of life for too long."""

    def __init__(self, key: str, state: str) -> None:
        super().__init__(key, state)
        self.key, self.state = key, state

    def __str__(self) -> str:
        return f"video {self.key} ({self.state}) was taken over by another run"


@dataclass(frozen=True, slots=True)
class Run:
    """Who works: one opening of the ledger by one process."""

    run_id: str
    machine: str
    pid: int
    process_start: str


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One video as the ledger knows it; the columns are those of `ledger_schema.videos`."""

    video_key: str
    row_id: str
    take: int
    fingerprint: str
    model: str
    prompt: str | None
    parameters: str
    output_dir: str
    file: str
    state: State
    attempts: int
    jobs: int
    estimate_micro_usd: int | None
    cost_micro_usd: int | None
    job_id: str | None
    video_url: str | None
    failure_class: FailureClass | None
    error: str | None
    planned_at: float
    submitted_at: float | None
    completed_at: float | None
    downloaded_at: float | None
    generation_seconds: float | None
    polls: int
    size_bytes: int | None
    sha256: str | None
    clip: str | None
    owner: str | None

    @property
    def estimate_usd(self) -> float | None:
        return to_usd(self.estimate_micro_usd)

    @property
    def cost_usd(self) -> float | None:
        return to_usd(self.cost_micro_usd)


@dataclass(frozen=True, slots=True)
class Claim:
    """A video's record after the claim; `held` if another living run works on it."""

    record: VideoRecord
    held: bool


_RECORD_COLUMNS = [videos.c[field.name] for field in fields(VideoRecord)]


def this_process(run_id: str) -> Run:
    """The run of this process."""
    pid = os.getpid()
    return Run(run_id, this_machine(), pid, process_start(pid) or "")


def plain(text: str) -> str:
    """Text from outside as every database can hold it: no NUL, no half of a character."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "")


def read_records(connection: Connection, keys: Sequence[str] | None) -> dict[str, VideoRecord]:
    """Records by key; of all videos if `keys` is None."""
    if keys is None:
        rows = connection.execute(select(*_RECORD_COLUMNS)).mappings().all()
        return {row["video_key"]: _record(row) for row in rows}
    found: dict[str, VideoRecord] = {}
    for start in range(0, len(keys), READ_CHUNK):
        chunk = keys[start : start + READ_CHUNK]
        statement = select(*_RECORD_COLUMNS).where(videos.c.video_key.in_(chunk))
        found |= {row["video_key"]: _record(row) for row in connection.execute(statement).mappings()}
    return found


def claim(
    connection: Connection, key: str, run: Run, *, now: float, resend_attempt: int | None, states: Collection[State]
) -> Claim:
    """See `Ledger.claim`."""
    statement = select(*_RECORD_COLUMNS).where(videos.c.video_key == key).with_for_update()
    row = dict(connection.execute(statement).mappings().one())
    owner = row["owner"]
    if owner not in (None, run.run_id) and _is_alive(connection, owner, now):
        return Claim(_record(row), held=True)
    changes: dict[str, object] = {"owner": run.run_id}
    state = row["state"]
    if state == State.SUBMITTING and owner != run.run_id:
        reason = "the run that sent it ended before the answer came"
        state = State.IN_DOUBT
        changes |= {"state": state, "error": reason, "jobs": row["jobs"] + 1}
        _end_attempt(connection, key, row["attempts"], Outcome.IN_DOUBT, error=reason)
    if state == State.REFUSED or (state in states and row["attempts"] == resend_attempt):
        changes |= {"state": State.PLANNED, "error": None, "failure_class": None}
    connection.execute(update(videos).where(videos.c.video_key == key).values(**changes))
    return Claim(_record(row | changes), held=False)


def intend(connection: Connection, key: str, run_id: str, estimate: int | None, budget: int | None, now: float) -> int:
    """See `Ledger.intend`."""
    columns = (videos.c.state, videos.c.owner, videos.c.attempts)
    row = connection.execute(select(*columns).where(videos.c.video_key == key).with_for_update()).one()
    if row.owner != run_id or row.state != State.PLANNED:
        raise ClaimLost(key, row.state)
    _reserve(connection, estimate, budget)
    attempt = row.attempts + 1
    connection.execute(
        insert(attempts).values(video_key=key, attempt=attempt, reserved_micro_usd=estimate or 0, intent_at=now)
    )
    connection.execute(
        update(videos)
        .where(videos.c.video_key == key)
        .values(
            state=State.SUBMITTING,
            attempts=attempt,
            estimate_micro_usd=estimate,
            error=None,
            failure_class=None,
        )
    )
    return attempt


def _reserve(connection: Connection, estimate: int | None, budget: int | None) -> None:
    """Count the estimate as committed, in one guarded update. Raises BudgetReached."""
    wanted = money.c.committed_micro_usd + (estimate or 0)
    statement = update(money).where(money.c.id == 1).values(committed_micro_usd=wanted)
    if budget is not None:
        if estimate is not None:
            statement = statement.where(wanted <= budget)
        if estimate is None or connection.execute(statement).rowcount == 0:
            committed = connection.execute(select(money.c.committed_micro_usd)).scalar_one()
            raise BudgetReached(budget / 1e6, committed / 1e6, to_usd(estimate))
    elif estimate:
        connection.execute(statement)


def accepted(connection: Connection, key: str, attempt: int, job_id: str, now: float) -> None:
    """See `Ledger.accepted`. The attempt is written whoever has the claim: an id is never thrown away."""
    _end_attempt(connection, key, attempt, Outcome.ACCEPTED, job_id=plain(job_id), answered_at=now)
    newly = case((videos.c.state == State.SUBMITTING, 1), else_=0)  # one in doubt was counted then
    connection.execute(
        update(videos)
        .where(
            videos.c.video_key == key,
            videos.c.attempts == attempt,
            videos.c.state.in_((State.SUBMITTING, State.IN_DOUBT, State.PLANNED)),
        )
        .values(state=State.SUBMITTED, job_id=plain(job_id), submitted_at=now, error=None, jobs=videos.c.jobs + newly)
    )


def not_accepted(
    connection: Connection,
    key: str,
    attempt: int,
    error: str,
    state: State,
    failure_class: FailureClass | None,
    now: float,
) -> None:
    """See `Ledger.not_accepted`."""
    _settle(connection, key, attempt, cost=0)
    _end_attempt(connection, key, attempt, Outcome.NOT_ACCEPTED, error=plain(error), answered_at=now)
    counted = case((videos.c.state == State.IN_DOUBT, 1), else_=0)
    connection.execute(
        update(videos)
        .where(
            videos.c.video_key == key,
            videos.c.attempts == attempt,
            videos.c.state.in_((State.SUBMITTING, State.IN_DOUBT)),
        )
        .values(state=state, error=plain(error), failure_class=failure_class, jobs=videos.c.jobs - counted)
    )


def in_doubt(connection: Connection, key: str, attempt: int, reason: str, now: float) -> None:
    """See `Ledger.in_doubt`."""
    reason = plain(reason)
    _end_attempt(connection, key, attempt, Outcome.IN_DOUBT, error=reason, answered_at=now)
    connection.execute(
        update(videos)
        .where(videos.c.video_key == key, videos.c.attempts == attempt, videos.c.state == State.SUBMITTING)
        .values(state=State.IN_DOUBT, error=reason, jobs=videos.c.jobs + 1)
    )


def refused(connection: Connection, key: str, error: str) -> None:
    """See `Ledger.refused`."""
    connection.execute(
        update(videos)
        .where(videos.c.video_key == key, videos.c.state == State.PLANNED)
        .values(state=State.REFUSED, error=plain(error))
    )


def completed(
    connection: Connection,
    key: str,
    job: VideoJob,
    cost: int | None,
    generation_seconds: float | None,
    polls: int,
    now: float,
) -> None:
    """See `Ledger.completed`."""
    row = _lock_submitted(connection, key, job.id)
    if row is None:
        return
    if cost is not None:
        _settle(connection, key, row.attempts, cost=cost)
    connection.execute(
        update(videos)
        .where(videos.c.video_key == key)
        .values(
            state=State.COMPLETED,
            video_url=job.video_url and plain(job.video_url),
            cost_micro_usd=_added(row.cost_micro_usd, cost),
            completed_at=now,
            generation_seconds=generation_seconds,
            polls=row.polls + polls,
            error=None,
        )
    )


def failed(
    connection: Connection,
    key: str,
    job_id: str,
    failure_class: FailureClass,
    error: str,
    cost: int | None,
    *,
    again: bool,
) -> None:
    """See `Ledger.failed`."""
    error = plain(error)
    row = _lock_submitted(connection, key, job_id)
    if row is None:
        return
    if cost is not None:
        _settle(connection, key, row.attempts, cost=cost)
    where = (attempts.c.video_key == key, attempts.c.attempt == row.attempts)
    connection.execute(update(attempts).where(*where).values(error=error))
    state = State.PLANNED if again else State.FAILED
    connection.execute(
        update(videos)
        .where(videos.c.video_key == key)
        .values(
            state=state,
            failure_class=failure_class,
            error=error,
            cost_micro_usd=_added(row.cost_micro_usd, cost),
        )
    )


def durations(connection: Connection, model: str, limit: int) -> list[float]:
    """The newest `limit` generation times of a model, oldest first, in seconds."""
    newest = (
        select(videos.c.generation_seconds)
        .where(videos.c.model == model, videos.c.generation_seconds.is_not(None))
        .order_by(videos.c.completed_at.desc())
        .limit(limit)
    )
    return [float(seconds) for seconds in connection.scalars(newest)][::-1]


def totals(connection: Connection) -> tuple[Mapping[str, int], float, float, float, float]:
    """Counts by state; committed, paid, in doubt, and failed without a named cost, each in dollars."""
    counted = connection.execute(select(videos.c.state, func.count()).group_by(videos.c.state)).all()
    committed = connection.execute(select(money.c.committed_micro_usd)).scalar_one_or_none() or 0
    paid = connection.execute(select(func.sum(attempts.c.cost_micro_usd))).scalar() or 0
    doubtful = connection.execute(
        select(func.sum(attempts.c.reserved_micro_usd)).where(attempts.c.outcome == Outcome.IN_DOUBT)
    ).scalar()
    unsettled = connection.execute(
        select(func.sum(attempts.c.reserved_micro_usd)).where(
            attempts.c.outcome == Outcome.ACCEPTED,
            attempts.c.cost_micro_usd.is_(None),
            attempts.c.error.is_not(None),
        )
    ).scalar()
    by_state = {str(state): int(count) for state, count in counted}
    return by_state, committed / 1e6, int(paid) / 1e6, int(doubtful or 0) / 1e6, int(unsettled or 0) / 1e6


def _lock_submitted(connection: Connection, key: str, job_id: str) -> Any:
    """Lock a video whose job is this one and not yet ended; None if it is not: an end is written once, for its job."""
    statement = select(videos.c.attempts, videos.c.polls, videos.c.cost_micro_usd).where(
        videos.c.video_key == key, videos.c.state == State.SUBMITTED, videos.c.job_id == plain(job_id)
    )
    return connection.execute(statement.with_for_update()).one_or_none()


def _added(before: int | None, cost: int | None) -> int | None:
    """What a video has cost so far: a charged job that failed counts too."""
    return before if cost is None else (before or 0) + cost


def _settle(connection: Connection, key: str, attempt: int, *, cost: int) -> None:
    """Replace what an attempt has reserved by what it cost, once."""
    where = (attempts.c.video_key == key, attempts.c.attempt == attempt)
    row = connection.execute(
        select(attempts.c.reserved_micro_usd, attempts.c.cost_micro_usd).where(*where).with_for_update()
    ).one()
    if row.cost_micro_usd is not None:
        return
    connection.execute(update(attempts).where(*where).values(cost_micro_usd=cost))
    change = cost - row.reserved_micro_usd
    if change:
        committed = money.c.committed_micro_usd + change
        connection.execute(update(money).where(money.c.id == 1).values(committed_micro_usd=committed))


def _end_attempt(connection: Connection, key: str, attempt: int, outcome: Outcome, **values: object) -> None:
    connection.execute(
        update(attempts)
        .where(attempts.c.video_key == key, attempts.c.attempt == attempt)
        .values(outcome=outcome, **values)
    )


def database_now(connection: Connection, now: float) -> float:
    """The time by one clock for all who share the database: PostgreSQL's own; for SQLite this machine's, `now`."""
    if connection.dialect.name != "postgresql":
        return now
    return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())


def living(connection: Connection, run_ids: Collection[str], now: float) -> frozenset[str]:
    """See `Ledger.living`."""
    return frozenset(run_id for run_id in run_ids if _is_alive(connection, run_id, now))


def _is_alive(connection: Connection, run_id: str, now: float) -> bool:
    """Whether a run still works: in this process it is known, on this machine its process tells, else its heartbeat."""
    if run_id in OWN_RUNS:
        return True
    row = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
    if row is None or row.ended_at is not None:
        return False
    if row.machine == this_machine():
        return row.pid != os.getpid() and process_start(row.pid) == row.process_start
    return bool(row.heartbeat_at >= database_now(connection, now) - CLAIM_SECONDS)


def _record(row: RowMapping | Mapping[str, Any]) -> VideoRecord:
    fields_of_row: dict[str, Any] = {**row, "state": State(row["state"])}
    return VideoRecord(**fields_of_row)
