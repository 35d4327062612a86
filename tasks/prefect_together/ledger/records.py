"""What a ledger knows of its videos: records, sums, durations. Reads over an open connection."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, RowMapping, case, func, or_, select

from prefect_together.errors import FailureClass, TogetherVideoError
from prefect_together.ledger.engine import LedgerUnavailable
from prefect_together.ledger.schema import Outcome, attempts, money, to_usd, videos
from prefect_together.ledger.states import STATES, State, Status
from prefect_together.table.plan import Kind

READ_CHUNK = 500
LEARNED_DURATIONS = 300


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One video, or still, as the ledger knows it; the columns are those of `schema.videos`."""

    video_key: str
    kind: Kind
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
        """What one job was estimated at when it was sent; None if the price is unknown."""
        return to_usd(self.estimate_micro_usd)

    @property
    def cost_usd(self) -> float | None:
        """What the service charged for all jobs of this video; None while it has said nothing."""
        return to_usd(self.cost_micro_usd)

    @property
    def status(self) -> Status:
        """The word of results.csv for it.

        Sent by a run that is over and has no answer, it is in doubt; paid and not to be downloaded, it has failed.
        """
        facts = STATES[self.state]
        is_stalled = bool(self.error) if facts.has_job else self.owner is None
        return facts.stalled if facts.stalled and is_stalled else facts.status


@dataclass(frozen=True, slots=True)
class LedgerTotals:
    """Sums over the whole ledger. A budget is compared with `committed_usd`: paid, or reserved and not settled."""

    committed_usd: float
    paid_usd: float
    in_doubt_usd: float
    unsettled_failed_usd: float


@dataclass(frozen=True, slots=True)
class Unsettled:
    """What stays reserved for a video's create calls that have no clip to show: unanswered ones, and failed jobs
    without a reported cost."""

    in_doubt_usd: float = 0.0
    failed_usd: float = 0.0


class ClaimLost(TogetherVideoError):
    """Another run has taken the video over, because this one showed no sign of life for too long."""

    def __init__(self, key: str, state: str) -> None:
        super().__init__(key, state)
        self.key, self.state = key, state

    def __str__(self) -> str:
        return f"video {self.key} ({self.state}) was taken over by another run"


@dataclass(frozen=True, slots=True)
class Claim:
    """A video's record after the claim; `is_ours` is False if another living run works on it."""

    record: VideoRecord
    is_ours: bool


@dataclass(frozen=True, slots=True)
class UnsavedJob:
    """A job that was accepted, of which the ledger has only the intent. `accepted_at`: unix seconds.

    `link` is that of a still's picture, which nobody could ask for again.
    """

    video_key: str
    attempt: int
    job_id: str
    accepted_at: float
    link: str | None = None


class JobUnsaved(LedgerUnavailable):
    """The id of an accepted job could not be written to the ledger."""

    def __init__(self, error: LedgerUnavailable, job: UnsavedJob) -> None:
        reason = f"{error.reason}; keep this id: job {job.job_id} was accepted, is paid, and could not be written"
        super().__init__(error.url, reason)
        self.args = (error, job)
        self.job = job


RECORD_COLUMNS = [videos.c[field.name] for field in fields(VideoRecord)]


def plain(text: str) -> str:
    """Text from outside as every database can hold it: no NUL, no half of a character."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "")


def read_records(connection: Connection, keys: Sequence[str] | None) -> dict[str, VideoRecord]:
    """Records by key; of all videos if `keys` is None."""
    if keys is None:
        rows = connection.execute(select(*RECORD_COLUMNS)).mappings().all()
        return {row["video_key"]: record_of(row) for row in rows}
    found: dict[str, VideoRecord] = {}
    for start in range(0, len(keys), READ_CHUNK):
        chunk = keys[start : start + READ_CHUNK]
        statement = select(*RECORD_COLUMNS).where(videos.c.video_key.in_(chunk))
        found |= {row["video_key"]: record_of(row) for row in connection.execute(statement).mappings()}
    return found


def record_of(row: RowMapping | Mapping[str, Any]) -> VideoRecord:
    """The record of a row of `RECORD_COLUMNS`."""
    reason = row["failure_class"]
    values = {"state": State(row["state"]), "failure_class": reason and FailureClass(reason)}
    fields_of_row: dict[str, Any] = {**row, **values}
    return VideoRecord(**fields_of_row)


def durations(connection: Connection, model: str, limit: int = LEARNED_DURATIONS) -> list[float]:
    """The generation times in seconds of a model's `limit` newest jobs, in the order in which these were sent.

    Not in that of their ends: there the slow ones of a run come last.
    """
    newest = (
        select(videos.c.generation_seconds)
        .where(videos.c.model == model, videos.c.generation_seconds.is_not(None))
        .order_by(videos.c.submitted_at.desc())
        .limit(limit)
    )
    return [float(seconds) for seconds in connection.scalars(newest)][::-1]


def totals(connection: Connection) -> LedgerTotals:
    """Dollars over the whole ledger."""
    committed = connection.execute(select(money.c.committed_micro_usd)).scalar_one_or_none() or 0
    paid = connection.execute(select(func.sum(attempts.c.cost_micro_usd))).scalar() or 0
    open_calls = unsettled(connection).values()
    return LedgerTotals(
        committed_usd=committed / 1e6,
        paid_usd=int(paid) / 1e6,
        in_doubt_usd=math.fsum(one.in_doubt_usd for one in open_calls),
        unsettled_failed_usd=math.fsum(one.failed_usd for one in open_calls),
    )


def unsettled(connection: Connection) -> dict[str, Unsettled]:
    """What is unsettled of each video of the ledger that has such calls, by key."""
    is_in_doubt = attempts.c.outcome == Outcome.IN_DOUBT
    has_failed = (
        (attempts.c.outcome == Outcome.ACCEPTED) & attempts.c.cost_micro_usd.is_(None) & attempts.c.error.is_not(None)
    )
    reserved = attempts.c.reserved_micro_usd
    statement = (
        select(
            attempts.c.video_key,
            func.sum(case((is_in_doubt, reserved), else_=0)).label("in_doubt"),
            func.sum(case((has_failed, reserved), else_=0)).label("failed"),
        )
        .where(or_(is_in_doubt, has_failed))
        .group_by(attempts.c.video_key)
    )
    return {
        row.video_key: Unsettled(int(row.in_doubt) / 1e6, int(row.failed) / 1e6)
        for row in connection.execute(statement)
    }


def sent_unasked(state: State, kind: Kind = "video") -> bool:
    """Whether any run sends a video that the ledger has in this state."""
    return STATES[state].sent_if == "always"


@dataclass(frozen=True, slots=True)
class Known:
    """What a ledger has of a video of the plan. `usd` is what was charged for it, or is reserved for its last job, 0 if
    nothing was sent; None: its price is unknown."""

    state: State
    status: Status
    file: str
    usd: float | None = 0.0

    @classmethod
    def of(cls, record: VideoRecord) -> Known:
        is_sent = record.jobs > 0 or STATES[record.state].is_paid_without_clip
        reserved_usd = record.estimate_usd if is_sent else 0.0
        usd = reserved_usd if record.cost_usd is None else record.cost_usd
        return cls(record.state, record.status, record.file, usd)

    @property
    def is_awaited(self) -> bool:
        """Whether the next run waits for its job, sent already or not."""
        return sent_unasked(self.state) or STATES[self.state].is_waiting
