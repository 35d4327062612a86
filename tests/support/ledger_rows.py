"""Videos in a ledger, as far on their way as a test wants them, and a database that fails."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TypeVar

from sqlalchemy.exc import OperationalError

from prefect_together.api.jobs import VideoJob
from prefect_together.clock import Clock
from prefect_together.ledger.engine import LedgerEngine, Operation, open_engine
from prefect_together.ledger.ledger import Ledger, open_ledger
from prefect_together.ledger.states import State
from prefect_together.request.request import VideoRequest
from prefect_together.table.plan import PlannedVideo, video_key

T = TypeVar("T")


def a_video(row_id: str = "cat", *, prompt: str = "a cat", take: int = 1, usd: float | None = 0.28) -> PlannedVideo:
    request = VideoRequest(model="minimax/video-01-director", prompt=prompt)
    fingerprint = request.fingerprint()
    return PlannedVideo(video_key(row_id, take, fingerprint), row_id, take, fingerprint, request, usd, usd)


async def planned(ledger: Ledger, *videos: PlannedVideo) -> None:
    await ledger.plan(list(videos))
    for video in videos:
        await ledger.claim(video.key)


async def state_of(ledger: Ledger, key: str) -> State:
    return (await ledger.records([key]))[key].state


async def sent(ledger: Ledger, row_id: str = "cat") -> tuple[str, int]:
    """A planned video whose intent is written: its key and the attempt."""
    video = a_video(row_id)
    await planned(ledger, video)
    return video.key, await ledger.intend(video.key, estimate_usd=0.28, budget_usd=None)


async def bought(ledger: Ledger, job_id: str, row_id: str = "cat", *, output_dir: str = ".") -> str:
    """A video whose job is accepted and which nobody has claimed: its key."""
    video = a_video(row_id)
    await ledger.plan([video], output_dir=output_dir)
    await ledger.claim(video.key)
    attempt = await ledger.intend(video.key, estimate_usd=0.28, budget_usd=None)
    await ledger.accepted(video.key, attempt, VideoJob(job_id))
    await ledger.release(video.key)
    return video.key


def sql(path: str, statement: str, *values: object) -> list[tuple[object, ...]]:
    """A statement on the SQLite file from outside."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, values).fetchall()


class Unreliable:
    """A database that answers the next calls with "database is locked"."""

    def __init__(self, engine: LedgerEngine) -> None:
        self._engine, self.failures, self.calls = engine, 0, 0

    async def run(self, work: Operation[T]) -> T:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise OperationalError("BEGIN IMMEDIATE", {}, sqlite3.OperationalError("database is locked"))
        return await self._engine.run(work)

    async def checkpoint(self) -> None: ...
    async def close(self) -> None: ...


@asynccontextmanager
async def unreliable_ledger(url: str, clock: Clock) -> AsyncGenerator[tuple[Ledger, Unreliable]]:
    """The door of an open run to a database that can be made to fail."""
    async with open_ledger(url) as opened, open_engine(url) as engine:
        runner = Unreliable(engine)
        yield Ledger(LedgerEngine(runner, "x"), opened.run, clock), runner
