"""A plan saved in the ledger, so that shards on other machines can send its videos too.

The run that read the table writes it, the others read it: no path of the table, and no table, goes to another machine.
A video is still sent by the run that claims it, once, however many shards have its request.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, delete, select

from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.ledger import runs as ledger_runs
from prefect_together.ledger.ledger import Ledger
from prefect_together.ledger.schema import insert_into, runs, shared_plans, shared_runs, shared_videos
from prefect_together.problems import Problem, SettingsInvalid
from prefect_together.request.images import is_file
from prefect_together.request.media import LocalImage
from prefect_together.request.request import VideoRequest
from prefect_together.stills.request import StillRequest
from prefect_together.table.plan import Plan, PlannedVideo

INSERT_ROWS = 500
KEPT_SECONDS = 8 * 86_400.0
"""A plan older than the longest run (which was killed) is deleted by the next one."""


@dataclass(frozen=True, slots=True)
class SharedPlan:
    """A plan as the other runs get it: videos by key, in its order, and how often each had been sent when it was made.

    `plan` has the videos and no rows: results are written by the run that has the table. `machine` made it.
    """

    plan: Plan
    attempts: Mapping[str, int]
    machine: str


async def save_plan(ledger: Ledger, plan_id: str, videos: Iterable[PlannedVideo], attempts: Mapping[str, int]) -> None:
    """Write the videos of a plan for the other runs; `attempts` is how often each had been sent when this run began."""
    now = SYSTEM_CLOCK.time()
    rows = [
        {
            "plan_id": plan_id,
            "position": position,
            "video_key": video.key,
            "attempts": attempts[video.key],
            "content": _to_text(video),
        }
        for position, video in enumerate(videos)
    ]

    def begin(connection: Connection) -> None:
        old = list(
            connection.scalars(select(shared_plans.c.plan_id).where(shared_plans.c.written_at < now - KEPT_SECONDS))
        )
        _delete(connection, old)
        plan = {"plan_id": plan_id, "machine": ledger.run.machine, "written_at": now}
        connection.execute(insert_into(connection, shared_plans).on_conflict_do_nothing(), plan)

    await ledger.transaction(begin)
    for start in range(0, len(rows), INSERT_ROWS):
        chunk = rows[start : start + INSERT_ROWS]

        def insert(connection: Connection, chunk: list[dict[str, Any]] = chunk) -> None:
            connection.execute(insert_into(connection, shared_videos).on_conflict_do_nothing(), chunk)

        await ledger.transaction(insert)


async def join(ledger: Ledger, plan_id: str, shard: int) -> SharedPlan | None:
    """Read a plan and enter this run among those that work on it; None if there is no such plan (any more)."""

    def read(connection: Connection) -> SharedPlan | None:
        machine = connection.scalar(select(shared_plans.c.machine).where(shared_plans.c.plan_id == plan_id))
        if machine is None:
            return None
        joined = {"plan_id": plan_id, "run_id": ledger.run.run_id, "shard": shard}
        connection.execute(insert_into(connection, shared_runs).on_conflict_do_nothing(), joined)
        wanted = select(shared_videos).where(shared_videos.c.plan_id == plan_id).order_by(shared_videos.c.position)
        rows = connection.execute(wanted).all()
        videos = {row.video_key: _from_text(row.video_key, row.content) for row in rows}
        return SharedPlan(Plan("", (), (), videos, ()), {row.video_key: row.attempts for row in rows}, machine)

    return await ledger.transaction(read)


async def dead_shards(ledger: Ledger, plan_id: str) -> frozenset[int]:
    """The shards whose runs have died without ending: no process, or no heartbeat from its machine."""
    now = SYSTEM_CLOCK.time()

    def read(connection: Connection) -> frozenset[int]:
        joined = (
            select(shared_runs.c.shard, runs.c.run_id, runs.c.ended_at)
            .join(runs, runs.c.run_id == shared_runs.c.run_id)
            .where(shared_runs.c.plan_id == plan_id)
            .order_by(runs.c.started_at)
        )
        latest = {row.shard: row for row in connection.execute(joined)}  # a run that was retried has joined twice
        silent = {shard: row.run_id for shard, row in latest.items() if row.ended_at is None}
        alive = ledger_runs.alive_among(connection, silent.values(), now)
        return frozenset(shard for shard, run_id in silent.items() if run_id not in alive)

    return await ledger.transaction(read)


async def delete_plan(ledger: Ledger, plan_id: str) -> None:
    """Delete a plan; later `join` calls return None."""
    await ledger.transaction(lambda connection: _delete(connection, [plan_id]))


def missing_images(plan: Plan) -> dict[str, str]:
    """The local images of a plan that are not on this machine: row id by path."""
    found: dict[str, str] = {}
    for video in plan.videos.values():
        for _field, image in video.request.images() if isinstance(video.request, VideoRequest) else ():
            if isinstance(image, LocalImage):
                found.setdefault(image.path, video.row_id)
    return {path: row_id for path, row_id in found.items() if not is_file(Path(path))}


def _delete(connection: Connection, plan_ids: Collection[str]) -> None:
    tables: tuple[Table, ...] = (shared_runs, shared_videos, shared_plans)
    for table in tables:
        connection.execute(delete(table).where(table.c.plan_id.in_(plan_ids)))


def _to_text(video: PlannedVideo) -> str:
    content = {
        "row_id": video.row_id,
        "take": video.take,
        "fingerprint": video.fingerprint,
        "request": video.request.model_dump_json(),
        "low_usd": video.low_usd,
        "estimate_usd": video.estimate_usd,
        "sources": video.sources,
        "kind": video.kind,
    }
    return json.dumps(content, separators=(",", ":"))


def _from_text(key: str, text: str) -> PlannedVideo:
    content: dict[str, Any] = json.loads(text)
    kind = StillRequest if content["kind"] == "still" else VideoRequest
    request = kind.model_validate_json(content["request"])
    if request.fingerprint() != content["fingerprint"]:
        message = "the run that made the plan reads requests differently: install the same version on every machine"
        raise SettingsInvalid([Problem(message, row_id=content["row_id"])])
    return PlannedVideo(
        key=key,
        row_id=content["row_id"],
        take=content["take"],
        fingerprint=content["fingerprint"],
        request=request,
        low_usd=content["low_usd"],
        estimate_usd=content["estimate_usd"],
        sources=tuple(content["sources"]),
        kind=content["kind"],
    )
