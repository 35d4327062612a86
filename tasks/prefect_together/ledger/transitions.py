"""The ledger's transitions: each method of `Transitions` moves one video from state to state, in one small transaction.

The engine runs many of them in one commit. Each therefore raises before it has written anything, or not at all. The
statements that every row needs are made once, at import, and compiled once: making one costs more than running it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Column, Connection, Table, bindparam, case, insert, select, update

from prefect_together.api.jobs import VideoJob
from prefect_together.clock import Clock
from prefect_together.errors import BudgetReached, FailureClass, JobFailed, SubmissionInDoubt, TogetherVideoError
from prefect_together.ledger.engine import LedgerEngine, LedgerUnavailable, in_transaction, is_cancelled_during
from prefect_together.ledger.records import (
    RECORD_COLUMNS,
    Claim,
    ClaimLost,
    JobUnsaved,
    UnsavedJob,
    plain,
    record_of,
)
from prefect_together.ledger.runs import Run, is_alive
from prefect_together.ledger.schema import Outcome, attempts, money, to_micro, to_usd, videos
from prefect_together.ledger.states import State, states_before, states_where

SAVE_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses between tries to write down the id of an accepted job: it is paid, and is known nowhere else."""
REPEATED_FAILURES = (FailureClass.UPSTREAM, FailureClass.CANCELLED)
"""Failures after which one more job is sent within the budget."""
RUN_ENDED = "the run that sent it ended before the answer came"


def _new(table: Table, columns: Iterable[str]) -> dict[Column[Any], BindParameter[Any]]:
    """What a statement made once sets: the parameter of a column is `new_` and its name."""
    return {table.c[column]: bindparam(f"new_{column}") for column in columns}


_KEY: BindParameter[str] = bindparam("key")
_ATTEMPT: BindParameter[int] = bindparam("number")
_VIDEO = videos.c.video_key == _KEY
_CALL = (attempts.c.video_key == _KEY) & (attempts.c.attempt == _ATTEMPT)

_READ = select(*RECORD_COLUMNS).where(_VIDEO).with_for_update()
_OWN = update(videos).where(_VIDEO).values(_new(videos, ["owner"]))
_RELEASE = update(videos).where(_VIDEO, videos.c.owner == bindparam("mine")).values(owner=None)
_READ_OWNER = select(videos.c.state, videos.c.owner, videos.c.attempts).where(_VIDEO).with_for_update()
_READ_INTENT = select(attempts.c.intent_at).where(_CALL)
_INTEND = insert(attempts).values(_new(attempts, ["video_key", "attempt", "reserved_micro_usd", "inputs", "intent_at"]))
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
_READ_JOB = select(attempts.c.video_key, attempts.c.attempt).where(attempts.c.job_id == bindparam("job"))
_ACCEPT_CALL = update(attempts).where(_CALL).values(_new(attempts, ["outcome", "job_id", "answered_at"]))
_ACCEPT = (
    update(videos)
    .where(_VIDEO, videos.c.attempts == _ATTEMPT, videos.c.state.in_(states_before(State.SUBMITTED)))
    .values(_new(videos, ["job_id", "video_url", "submitted_at"]))
    .values(
        state=State.SUBMITTED,
        error=None,
        jobs=videos.c.jobs + case((videos.c.state == State.SUBMITTING, 1), else_=0),  # one in doubt was counted then
    )
)
_READ_SUBMITTED = (
    select(videos.c.attempts, videos.c.polls, videos.c.cost_micro_usd)
    .where(_VIDEO, videos.c.state.in_(bindparam("states", expanding=True)), videos.c.job_id == bindparam("job"))
    .with_for_update()
)
_READ_LAST_JOB = (
    select(attempts.c.failure_class, attempts.c.error)
    .where(attempts.c.video_key == _KEY, attempts.c.outcome == Outcome.ACCEPTED)
    .order_by(attempts.c.attempt.desc())
    .limit(1)
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


class Transitions:
    """What one run does to a ledger's videos, durable on return; `Ledger` adds what it reads and keeps beside them.

    Any of them may raise LedgerUnavailable.
    """

    def __init__(self, engine: LedgerEngine, run: Run, clock: Clock) -> None:
        self.engine, self.run, self.clock = engine, run, clock

    @in_transaction(order=0)
    def claim(
        self,
        connection: Connection,
        key: str,
        *,
        resend_attempt: int | None = None,
        states: Collection[State] = (),
    ) -> Claim:
        """Take a video for this run, unless a living run has it.

        A `submitting` video whose run is gone becomes `in_doubt`; a `refused` one is `planned` again. So is one in one
        of `states` (in_doubt, failed: sent again because the user said so), its money kept reserved, but only if its
        attempts still are `resend_attempt`, as when the user said so: another run may have sent it again since.
        """
        row = dict(connection.execute(_READ, {"key": key}).mappings().one())
        owner, run_id = row["owner"], self.run.run_id
        if owner not in (None, run_id) and is_alive(connection, owner, self.clock.time()):
            return Claim(record_of(row), is_ours=False)
        changes: dict[str, object] = {}
        state = row["state"]
        if state == State.SUBMITTING and owner != run_id:
            state = State.IN_DOUBT
            changes = {"state": state, "error": RUN_ENDED, "jobs": row["jobs"] + 1}
            _end_attempt(connection, key, row["attempts"], Outcome.IN_DOUBT, error=RUN_ENDED)
        if state == State.REFUSED or (state in states and row["attempts"] == resend_attempt):
            changes |= {"state": State.PLANNED, "error": None, "failure_class": None}
        if changes:
            connection.execute(update(videos).where(videos.c.video_key == key).values(**changes))
        connection.execute(_OWN, {"key": key, "new_owner": run_id})
        return Claim(record_of(row | changes | {"owner": run_id}), is_ours=True)

    @in_transaction()
    def release(self, connection: Connection, key: str) -> None:
        """Give a video back, wherever it stands: another run need not wait for the end of this one."""
        connection.execute(_RELEASE, {"key": key, "mine": self.run.run_id})

    async def intend(
        self, key: str, *, estimate_usd: float | None, budget_usd: float | None, inputs: str | None = None
    ) -> int:
        """Write the intent to send, with the digests of other clips' frames in it (`inputs`, JSON), and reserve its
        money; return the number of the attempt.

        Raises BudgetReached if the cap could be passed (or the price is unknown under a cap), ClaimLost if another
        run has the video. In both cases nothing is written and nothing may be sent.
        """
        return await self._intend(key, estimate_usd, budget_usd, inputs, self.clock.time())

    @in_transaction()
    def _intend(
        self,
        connection: Connection,
        key: str,
        estimate_usd: float | None,
        budget_usd: float | None,
        inputs: str | None,
        now: float,
    ) -> int:
        row = connection.execute(_READ_OWNER, {"key": key}).one()
        if row.owner == self.run.run_id and row.state == State.SUBMITTING:
            call = {"key": key, "number": row.attempts}
            if connection.scalar(_READ_INTENT, call) == now:  # done already: the database went before it said so
                return int(row.attempts)
        if row.owner != self.run.run_id or row.state != State.PLANNED:
            raise ClaimLost(key, row.state)
        estimate = to_micro(estimate_usd)
        _reserve(connection, estimate, to_micro(budget_usd))
        attempt = int(row.attempts) + 1
        intent = {"new_attempt": attempt, "new_reserved_micro_usd": estimate or 0, "new_intent_at": now}
        connection.execute(_INTEND, {"new_video_key": key, "new_inputs": inputs, **intent})
        connection.execute(_SUBMITTING, {"key": key, "new_attempts": attempt, "new_estimate_micro_usd": estimate})
        return attempt

    async def accepted(self, key: str, attempt: int, job: VideoJob) -> None:
        """Write the job's id, and its link if it has one: from now on the job can be found again.

        Tries for half a minute at least. Raises JobUnsaved, with the id; SubmissionInDoubt if the id is that of another
        create call: whose job it is cannot be known, and this video is in doubt.
        """
        now = self.clock.time()

        def save() -> asyncio.Future[str | None]:
            return asyncio.ensure_future(self._accept(key, attempt, job, now))

        for pause in (*SAVE_PAUSES_SECONDS, None):
            saving, stopped = save(), False
            while not saving.done() or saving.cancelled():
                saving = save() if saving.cancelled() else saving
                stopped |= await is_cancelled_during(asyncio.wait([saving]))
            error = saving.exception()
            if isinstance(error, LedgerUnavailable):
                if pause is not None and not stopped and not await is_cancelled_during(self.clock.sleep(pause)):
                    continue
                raise JobUnsaved(error, UnsavedJob(key, attempt, job.id, now, job.video_url)) from error
            reason = saving.result()
            if stopped:
                raise asyncio.CancelledError
            if reason is None:
                return
            raise SubmissionInDoubt(reason)

    @in_transaction()
    def _accept(self, connection: Connection, key: str, attempt: int, made: VideoJob, now: float) -> str | None:
        """The attempt is written whichever run has the claim: an id is never lost. Returns why it is in doubt."""
        for other in connection.execute(_READ_JOB, {"job": plain(made.id)}):
            if (other.video_key, other.attempt) != (key, attempt):
                reason = f"the service answered with job {made.id}, which is another video's ({other.video_key})"
                _in_doubt(connection, key, attempt, plain(reason), now)
                return reason
        job = {"key": key, "number": attempt, "new_job_id": plain(made.id)}
        connection.execute(_ACCEPT_CALL, {**job, "new_outcome": Outcome.ACCEPTED, "new_answered_at": now})
        link = made.video_url and plain(made.video_url)
        connection.execute(_ACCEPT, {**job, "new_video_url": link, "new_submitted_at": now})
        return None

    @in_transaction()
    def not_accepted(
        self,
        connection: Connection,
        key: str,
        attempt: int,
        error: TogetherVideoError,
        *,
        state: State,
    ) -> None:
        """The attempt did not make a job: give its reservation back. `state` is planned, failed or refused."""
        text = plain(str(error))
        _settle(connection, key, attempt, cost=0)
        _end_attempt(connection, key, attempt, Outcome.NOT_ACCEPTED, error=text, answered_at=self.clock.time())
        counted = case((videos.c.state == State.IN_DOUBT, 1), else_=0)
        connection.execute(
            update(videos)
            .where(
                videos.c.video_key == key,
                videos.c.attempts == attempt,
                videos.c.state.in_(states_where(lambda facts: facts.is_unanswered)),
            )
            .values(state=state, error=text, failure_class=error.failure_class, jobs=videos.c.jobs - counted)
        )

    @in_transaction()
    def in_doubt(self, connection: Connection, key: str, attempt: int, reason: str) -> None:
        """The attempt may have made a job that cannot be found: keep its money reserved."""
        _in_doubt(connection, key, attempt, plain(reason), self.clock.time())

    @in_transaction()
    def restore(
        self,
        connection: Connection,
        key: str,
        *,
        state: State,
        error: str,
        failure_class: FailureClass | None,
    ) -> bool:
        """Put a video that was to be sent again, and was not, back into its state before. False if it is not in it."""
        unsent = states_where(lambda facts: facts.sent_if == "always")
        changed = connection.execute(
            update(videos)
            .where(videos.c.video_key == key, videos.c.owner == self.run.run_id, videos.c.state.in_(unsent))
            .values(state=state, error=error, failure_class=failure_class)
        )
        return (
            changed.rowcount > 0 or connection.scalar(select(videos.c.state).where(videos.c.video_key == key)) == state
        )

    @in_transaction()
    def refused(self, connection: Connection, key: str, error: TogetherVideoError) -> State:
        """The planned video was not sent because of the budget or the account; a later run takes it up.

        If its last job failed upstream and the budget does not allow another, it is failed, with that failure as its
        reason, whatever else kept it from being sent since. Returns the state that it is in.
        """
        state = State(connection.execute(_READ_OWNER, {"key": key}).one().state)
        if state != State.PLANNED:
            return state
        state, text, reason = State.REFUSED, plain(str(error)), error.failure_class
        if isinstance(error, BudgetReached):
            job = connection.execute(_READ_LAST_JOB, {"key": key}).one_or_none()
            if job is not None and job.failure_class in REPEATED_FAILURES:
                state, text, reason = State.FAILED, f"{job.error}; not sent again: {text}", job.failure_class
        _update(connection, key, State.PLANNED, {"state": state, "error": text, "failure_class": reason})
        return state

    @in_transaction()
    def completed(
        self, connection: Connection, key: str, job: VideoJob, *, generation_seconds: float | None, polls: int
    ) -> None:
        """The job is done: keep its link, settle its money on the reported cost (without one, on the estimate)."""
        row = _lock_submitted(connection, key, job.id)
        if row is None:
            return
        cost = to_micro(job.cost_usd)
        if cost is not None:
            _settle(connection, key, row.attempts, cost=cost)
        connection.execute(
            _COMPLETE,
            {
                "key": key,
                "new_video_url": job.video_url and plain(job.video_url),
                "new_cost_micro_usd": _added(row.cost_micro_usd, cost),
                "new_completed_at": self.clock.time(),
                "new_generation_seconds": generation_seconds,
                "new_polls": row.polls + polls,
            },
        )

    @in_transaction()
    def failed(self, connection: Connection, key: str, error: JobFailed, *, again: bool) -> None:
        """The job has failed. Its money stays reserved unless the service reported a cost. `again` plans it anew.

        Without a link to be had, one that was downloaded before and is missing has failed too.
        """
        lost = (State.COMPLETED,) if error.failure_class == FailureClass.NO_LINK else ()
        row = _lock_submitted(connection, key, error.job_id, or_in=lost)
        if row is None:
            return
        cost, text = to_micro(error.cost_usd), plain(str(error))
        if cost is not None:
            _settle(connection, key, row.attempts, cost=cost)
        where = (attempts.c.video_key == key, attempts.c.attempt == row.attempts)
        connection.execute(update(attempts).where(*where).values(error=text, failure_class=error.failure_class))
        connection.execute(
            update(videos)
            .where(videos.c.video_key == key)
            .values(
                state=State.PLANNED if again else State.FAILED,
                failure_class=error.failure_class,
                error=text,
                cost_micro_usd=_added(row.cost_micro_usd, cost),
            )
        )

    @in_transaction()
    def downloaded(
        self, connection: Connection, key: str, *, file: str, size_bytes: int, sha256: str, clip: Mapping[str, object]
    ) -> None:
        """The checked clip is there as `file`, which need not be the name that was planned; the claim is released."""
        facts: dict[str, object] = {
            "new_size_bytes": size_bytes,
            "new_sha256": sha256,
            "new_clip": json.dumps(dict(clip)),
        }
        facts |= {"new_downloaded_at": self.clock.time(), "new_file": file}
        connection.execute(_DOWNLOADED, {"key": key, "mine": self.run.run_id, **facts})

    @in_transaction()
    def file_missing(self, connection: Connection, key: str, *, output_dir: str) -> None:
        """A downloaded clip is not under its name here: it is `completed` and fetched again, unpaid."""
        error = {"error": "the file was deleted or changed", "failure_class": FailureClass.DOWNLOAD}
        _update(connection, key, State.DOWNLOADED, {"state": State.COMPLETED, "output_dir": output_dir, **error})

    @in_transaction()
    def set_error(self, connection: Connection, key: str, error: TogetherVideoError, *, state: State) -> None:
        """Write what stands in the way of a video in this state, without changing the state."""
        values = {"error": plain(str(error)), "failure_class": error.failure_class}
        _update(connection, key, state, values)

    @in_transaction()
    def set_failure_class(self, connection: Connection, key: str, failure_class: FailureClass | None) -> None:
        """Write why a planned video was not sent in this run."""
        _update(connection, key, State.PLANNED, {"failure_class": failure_class})


def _in_doubt(connection: Connection, key: str, attempt: int, reason: str, now: float) -> None:
    _end_attempt(connection, key, attempt, Outcome.IN_DOUBT, error=reason, answered_at=now)
    connection.execute(
        update(videos)
        .where(videos.c.video_key == key, videos.c.attempts == attempt, videos.c.state == State.SUBMITTING)
        .values(state=State.IN_DOUBT, error=reason, jobs=videos.c.jobs + 1)
    )


def _update(connection: Connection, key: str, state: State, values: Mapping[str, object]) -> None:
    """Write values to a video if it is in this state."""
    connection.execute(update(videos).where(videos.c.video_key == key, videos.c.state == state).values(**values))


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


def _lock_submitted(connection: Connection, key: str, job_id: str, *, or_in: Sequence[State] = ()) -> Any:
    """Lock a video whose job is this one and not yet ended; None if it is not: an end is written once, for its job."""
    wanted = {"key": key, "job": plain(job_id), "states": [State.SUBMITTED, *or_in]}
    return connection.execute(_READ_SUBMITTED, wanted).one_or_none()


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
