"""The ledger's transitions as functions over an open transaction. They decide; when to commit is the engine's matter.

Each raises before it has written anything, or not at all: many of them share one transaction. The statements that
every row needs are made once, at import, and compiled once: to make one anew costs more than to run it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, Column, Connection, Table, bindparam, case, insert, select, update

from prefect_together.api.jobs import VideoJob
from prefect_together.errors import BudgetReached, FailureClass, TogetherVideoError
from prefect_together.ledger.records import RECORD_COLUMNS, VideoRecord, plain, record_of
from prefect_together.ledger.runs import Run, is_alive
from prefect_together.ledger.schema import Outcome, State, attempts, money, to_usd, videos


class ClaimLost(TogetherVideoError):
    """Another run has taken the video over, because this one showed no sign of life for too long."""

    def __init__(self, key: str, state: str) -> None:
        super().__init__(key, state)
        self.key, self.state = key, state

    def __str__(self) -> str:
        return f"video {self.key} ({self.state}) was taken over by another run"


@dataclass(frozen=True, slots=True)
class Claim:
    """A video's record after the claim; `held` if another living run works on it."""

    record: VideoRecord
    held: bool


def _new(table: Table, columns: Iterable[str]) -> dict[Column[Any], BindParameter[Any]]:
    """What a statement made once sets: the parameter of a column is `new_` and its name."""
    return {table.c[column]: bindparam(f"new_{column}") for column in columns}


_KEY: BindParameter[str] = bindparam("key")
_ATTEMPT: BindParameter[int] = bindparam("number")
_VIDEO = videos.c.video_key == _KEY
_CALL = (attempts.c.video_key == _KEY) & (attempts.c.attempt == _ATTEMPT)

_READ = select(*RECORD_COLUMNS).where(_VIDEO).with_for_update()
_OWN = update(videos).where(_VIDEO).values(_new(videos, ["owner"]))
_GIVE_BACK = update(videos).where(_VIDEO, videos.c.owner == bindparam("mine")).values(owner=None)
_READ_OWNER = select(videos.c.state, videos.c.owner, videos.c.attempts).where(_VIDEO).with_for_update()
_INTEND = insert(attempts).values(_new(attempts, ["video_key", "attempt", "reserved_micro_usd", "intent_at"]))
_SUBMITTING = (
    update(videos)
    .where(_VIDEO)
    .values(_new(videos, ["attempts", "estimate_micro_usd"]))
    .values(state=State.SUBMITTING, error=None, failure_class=None)
)
_COMMIT_MONEY = (
    update(money)
    .where(money.c.id == 1)
    .values(committed_micro_usd=money.c.committed_micro_usd + bindparam("change_micro_usd"))
)
_COMMIT_BELOW = _COMMIT_MONEY.where(
    money.c.committed_micro_usd + bindparam("change_micro_usd") <= bindparam("budget_micro_usd")
)
_ACCEPT_CALL = update(attempts).where(_CALL).values(_new(attempts, ["outcome", "job_id", "answered_at"]))
_ACCEPT = (
    update(videos)
    .where(
        _VIDEO,
        videos.c.attempts == _ATTEMPT,
        videos.c.state.in_((State.SUBMITTING, State.IN_DOUBT, State.PLANNED)),
    )
    .values(_new(videos, ["job_id", "submitted_at"]))
    .values(
        state=State.SUBMITTED,
        error=None,
        jobs=videos.c.jobs + case((videos.c.state == State.SUBMITTING, 1), else_=0),  # one in doubt was counted then
    )
)
_READ_SUBMITTED = (
    select(videos.c.attempts, videos.c.polls, videos.c.cost_micro_usd)
    .where(_VIDEO, videos.c.state == State.SUBMITTED, videos.c.job_id == bindparam("job"))
    .with_for_update()
)
_READ_MONEY = select(attempts.c.reserved_micro_usd, attempts.c.cost_micro_usd).where(_CALL).with_for_update()
_SETTLE = update(attempts).where(_CALL).values(_new(attempts, ["cost_micro_usd"]))
_COMPLETE = (
    update(videos)
    .where(_VIDEO)
    .values(_new(videos, ["video_url", "cost_micro_usd", "completed_at", "generation_seconds", "polls"]))
    .values(state=State.COMPLETED, error=None)
)
_DOWNLOADED = (
    update(videos)
    .where(_VIDEO, videos.c.state == State.COMPLETED)
    .values(_new(videos, ["downloaded_at", "file", "size_bytes", "sha256", "clip"]))
    .values(
        state=State.DOWNLOADED,
        error=None,
        failure_class=None,
        owner=case((videos.c.owner == bindparam("mine"), None), else_=videos.c.owner),
    )
)


def claim(
    connection: Connection, key: str, run: Run, *, now: float, resend_attempt: int | None, states: Collection[State]
) -> Claim:
    """See `Ledger.claim`."""
    row = dict(connection.execute(_READ, {"key": key}).mappings().one())
    owner = row["owner"]
    if owner not in (None, run.run_id) and is_alive(connection, owner, now):
        return Claim(record_of(row), held=True)
    changes: dict[str, object] = {}
    state = row["state"]
    if state == State.SUBMITTING and owner != run.run_id:
        reason = "the run that sent it ended before the answer came"
        state = State.IN_DOUBT
        changes = {"state": state, "error": reason, "jobs": row["jobs"] + 1}
        _end_attempt(connection, key, row["attempts"], Outcome.IN_DOUBT, error=reason)
    if state == State.REFUSED or (state in states and row["attempts"] == resend_attempt):
        changes |= {"state": State.PLANNED, "error": None, "failure_class": None}
    if changes:
        connection.execute(update(videos).where(videos.c.video_key == key).values(**changes))
    connection.execute(_OWN, {"key": key, "new_owner": run.run_id})
    return Claim(record_of(row | changes | {"owner": run.run_id}), held=False)


def release(connection: Connection, key: str, run_id: str) -> None:
    """See `Ledger.release`."""
    connection.execute(_GIVE_BACK, {"key": key, "mine": run_id})


def not_resent(
    connection: Connection, key: str, run_id: str, state: State, error: str, failure_class: FailureClass | None
) -> bool:
    """See `Ledger.not_resent`."""
    changed = connection.execute(
        update(videos)
        .where(
            videos.c.video_key == key,
            videos.c.owner == run_id,
            videos.c.state.in_((State.PLANNED, State.REFUSED)),
        )
        .values(state=state, error=error, failure_class=failure_class)
    )
    return changed.rowcount > 0


def intend(connection: Connection, key: str, run_id: str, estimate: int | None, budget: int | None, now: float) -> int:
    """See `Ledger.intend`."""
    row = connection.execute(_READ_OWNER, {"key": key}).one()
    if row.owner != run_id or row.state != State.PLANNED:
        raise ClaimLost(key, row.state)
    _reserve(connection, estimate, budget)
    attempt = int(row.attempts) + 1
    intent = {"new_attempt": attempt, "new_reserved_micro_usd": estimate or 0, "new_intent_at": now}
    connection.execute(_INTEND, {"new_video_key": key, **intent})
    connection.execute(_SUBMITTING, {"key": key, "new_attempts": attempt, "new_estimate_micro_usd": estimate})
    return attempt


def _reserve(connection: Connection, estimate: int | None, budget: int | None) -> None:
    """Count the estimate as committed, in one guarded update. Raises BudgetReached."""
    if budget is None:
        if estimate:
            connection.execute(_COMMIT_MONEY, {"change_micro_usd": estimate})
        return
    wanted = {"change_micro_usd": estimate, "budget_micro_usd": budget}
    if estimate is None or connection.execute(_COMMIT_BELOW, wanted).rowcount == 0:
        committed = connection.execute(select(money.c.committed_micro_usd)).scalar_one()
        raise BudgetReached(budget / 1e6, committed / 1e6, to_usd(estimate))


def accepted(connection: Connection, key: str, attempt: int, job_id: str, now: float) -> None:
    """See `Ledger.accepted`. The attempt is written whoever has the claim: an id is never thrown away."""
    job = {"key": key, "number": attempt, "new_job_id": plain(job_id)}
    connection.execute(_ACCEPT_CALL, {**job, "new_outcome": Outcome.ACCEPTED, "new_answered_at": now})
    connection.execute(_ACCEPT, {**job, "new_submitted_at": now})


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
        _COMPLETE,
        {
            "key": key,
            "new_video_url": job.video_url and plain(job.video_url),
            "new_cost_micro_usd": _added(row.cost_micro_usd, cost),
            "new_completed_at": now,
            "new_generation_seconds": generation_seconds,
            "new_polls": row.polls + polls,
        },
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
    connection.execute(
        update(videos)
        .where(videos.c.video_key == key)
        .values(
            state=State.PLANNED if again else State.FAILED,
            failure_class=failure_class,
            error=error,
            cost_micro_usd=_added(row.cost_micro_usd, cost),
        )
    )


def downloaded(
    connection: Connection,
    key: str,
    run_id: str,
    *,
    file: str,
    size_bytes: int,
    sha256: str,
    clip: Mapping[str, object],
    now: float,
) -> None:
    """See `Ledger.downloaded`."""
    facts = {"new_size_bytes": size_bytes, "new_sha256": sha256, "new_clip": json.dumps(dict(clip))}
    connection.execute(_DOWNLOADED, {"key": key, "mine": run_id, "new_downloaded_at": now, "new_file": file, **facts})


def rewrite(connection: Connection, keys: Iterable[str], state: State, values: Mapping[str, object]) -> None:
    """Write values to those of these videos that are in this state."""
    for key in sorted(keys):
        connection.execute(update(videos).where(videos.c.video_key == key, videos.c.state == state).values(**values))


def _lock_submitted(connection: Connection, key: str, job_id: str) -> Any:
    """Lock a video whose job is this one and not yet ended; None if it is not: an end is written once, for its job."""
    return connection.execute(_READ_SUBMITTED, {"key": key, "job": plain(job_id)}).one_or_none()


def _added(before: int | None, cost: int | None) -> int | None:
    """What a video has cost so far: a charged job that failed counts too."""
    return before if cost is None else (before or 0) + cost


def _settle(connection: Connection, key: str, attempt: int, *, cost: int) -> None:
    """Replace what an attempt has reserved by what it cost, once."""
    call = {"key": key, "number": attempt}
    row = connection.execute(_READ_MONEY, call).one()
    if row.cost_micro_usd is not None:
        return
    connection.execute(_SETTLE, {**call, "new_cost_micro_usd": cost})
    change = cost - row.reserved_micro_usd
    if change:
        connection.execute(_COMMIT_MONEY, {"change_micro_usd": change})


def _end_attempt(connection: Connection, key: str, attempt: int, outcome: Outcome, **values: object) -> None:
    connection.execute(
        update(attempts)
        .where(attempts.c.video_key == key, attempts.c.attempt == attempt)
        .values(outcome=outcome, **values)
    )
