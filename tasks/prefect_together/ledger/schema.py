"""The ledger's tables.

Money is counted in whole micro-dollars, so that sums are exact. Times are unix seconds.

videos    one row a video or still: what is wanted, how far it is, what it cost, where it lies
attempts  one row a create call: the intent (written before it is sent), the answer, the money reserved or paid for it
runs      who works on the ledger, with a heartbeat: the claims of a run that is gone lapse
tables    the last prompt table of each output directory, so that results can be made from the ledger alone
shared_*  a plan that several runs work on at once, its videos with their whole requests, the runs; see `shared_plan`
money     one row: what is spent or reserved over all attempts, so that a cap is checked in one guarded update
budget_marks  the percentages of each budget that were reached, so that each is reported once over all runs
"""

from __future__ import annotations

import math
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects import postgresql, sqlite

MICRO = 1_000_000


class Outcome(StrEnum):
    """What became of one create call. An attempt without an outcome is in flight, or its run died."""

    ACCEPTED = "accepted"
    NOT_ACCEPTED = "not_accepted"
    IN_DOUBT = "in_doubt"


metadata = MetaData()

videos = Table(
    "videos",
    metadata,
    Column("video_key", String(64), primary_key=True),
    Column("kind", String(8), nullable=False),  # "video", or "still"
    Column("row_id", Text, nullable=False),
    Column("take", Integer, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("model", Text, nullable=False),
    Column("prompt", Text),
    Column("parameters", Text, nullable=False),
    Column("output_dir", Text, nullable=False),
    Column("file", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),  # create calls, the refused ones included
    Column("jobs", Integer, nullable=False),  # create calls that made a job or may have made one
    Column("estimate_micro_usd", BigInteger),
    Column("cost_micro_usd", BigInteger),
    Column("job_id", Text),
    Column("video_url", Text),
    Column("failure_class", String(16)),
    Column("error", Text),
    Column("planned_at", Float(), nullable=False),
    Column("submitted_at", Float()),
    Column("completed_at", Float()),
    Column("downloaded_at", Float()),
    Column("generation_seconds", Float()),
    Column("polls", Integer, nullable=False),
    Column("size_bytes", BigInteger),
    Column("sha256", String(64)),
    Column("clip", Text),
    Column("owner", String(36)),
    Index("videos_by_model_and_completion", "model", "completed_at"),
    Index("videos_by_row_id", "row_id"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("video_key", String(64), ForeignKey("videos.video_key"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("outcome", String(16)),
    Column("job_id", Text),
    Column("reserved_micro_usd", BigInteger, nullable=False),
    Column("cost_micro_usd", BigInteger),
    Column("failure_class", String(16)),
    Column("error", Text),
    Column("inputs", Text),  # JSON: SHA-256 of each frame of another clip that was sent
    Column("intent_at", Float(), nullable=False),
    Column("answered_at", Float()),
    Index("attempts_by_job_id", "job_id"),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", String(36), primary_key=True),
    Column("host", Text, nullable=False),  # for people; `machine` is what is compared
    Column("machine", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_start", Text, nullable=False),
    Column("started_at", Float(), nullable=False),
    Column("heartbeat_at", Float(), nullable=False),
    Column("ended_at", Float()),
)

tables = Table(
    "tables",
    metadata,
    Column("output_dir", Text, primary_key=True),
    Column("content", Text, nullable=False),
    Column("is_sandbox", Boolean, nullable=False),
    Column("written_at", Float(), nullable=False),
)

shared_plans = Table(
    "shared_plans",
    metadata,
    Column("plan_id", String(36), primary_key=True),
    Column("machine", Text, nullable=False),  # of the run that made it
    Column("written_at", Float(), nullable=False),
)

shared_videos = Table(
    "shared_videos",
    metadata,
    Column("plan_id", String(36), ForeignKey("shared_plans.plan_id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("video_key", String(64), nullable=False),
    Column("attempts", Integer, nullable=False),  # when the plan was made: what was sent since is not sent again
    Column("content", Text, nullable=False),
)

shared_runs = Table(
    "shared_runs",
    metadata,
    Column("plan_id", String(36), ForeignKey("shared_plans.plan_id"), primary_key=True),
    Column("run_id", String(36), primary_key=True),
    Column("shard", Integer, nullable=False),
)

money = Table(
    "money",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("committed_micro_usd", BigInteger, nullable=False),
)

budget_marks = Table(
    "budget_marks",
    metadata,
    Column("budget_micro_usd", BigInteger, primary_key=True, autoincrement=False),
    Column("percent", Integer, primary_key=True, autoincrement=False),
    Column("reached_at", Float(), nullable=False),
)


def insert_into(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An insert of the database's own dialect, which knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def to_micro(usd: float | None) -> int | None:
    """Dollars as whole micro-dollars, rounded up: a cap must not be passed by rounding."""
    if usd is None:
        return None
    return math.ceil(round(usd * MICRO, 3))  # rounded first: 4.03 * 2 is not more than 8.06


def to_usd(micro_usd: int | None) -> float | None:
    """Micro-dollars as dollars."""
    return None if micro_usd is None else micro_usd / MICRO
