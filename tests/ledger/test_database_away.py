"""A ledger whose database goes away in mid-run: waited for, and what it could not take is kept beside the output."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy.exc import OperationalError

from database_proxy import Proxy
from fake_clock import FakeClock
from ledger_rows import a_video, planned, sent, state_of
from postgres_server import throw_away_database
from prefect_together.api.jobs import VideoJob
from prefect_together.clips.remote_store import open_store
from prefect_together.errors import SubmissionInDoubt
from prefect_together.ledger.engine import PATIENCE_SECONDS, LedgerEngine, LedgerUnavailable, Operation
from prefect_together.ledger.ledger import Ledger, open_ledger
from prefect_together.ledger.records import JobUnsaved
from prefect_together.ledger.states import State
from prefect_together.problems import SettingsInvalid
from prefect_together.results.already_paid import UNSAVED_FILE, keep_unsaved, take_up_unsaved

T = TypeVar("T")


@pytest.mark.postgres
async def test_every_transition_waits_for_a_database_that_comes_back(request: pytest.FixtureRequest) -> None:
    url = throw_away_database(request)
    port = int(url.rpartition(":")[2].partition("/")[0])
    proxy = Proxy(port)
    async with await proxy.serve(), open_ledger(url.replace(f":{port}/", f":{proxy.port}/")) as ledger:
        key, attempt = await sent(ledger)
        other, third = a_video("other"), a_video("third")
        await planned(ledger, other, third)
        job = VideoJob("job-1", "completed", video_url="https://x/1", cost_usd=0.28)

        async def back_in_a_while() -> None:
            await asyncio.sleep(1.0)
            proxy.restore()

        async def through_its_life() -> None:
            await ledger.accepted(key, attempt, job)
            await ledger.completed(key, job, generation_seconds=1.0, polls=1)
            await ledger.downloaded(key, file="videos/1.mp4", size_bytes=1, sha256="", clip={})

        proxy.cut()
        back = asyncio.create_task(back_in_a_while())
        _, number, _ = await asyncio.gather(
            through_its_life(), ledger.intend(other.key, estimate_usd=0.28, budget_usd=None), ledger.release(third.key)
        )
        await back
        proxy.cut()
        proxy.restore()
        await ledger.in_doubt(other.key, number, "HTTP 500")

        records = await ledger.records()
        assert number == 1
        assert (records[key].state, records[key].job_id) == (State.DOWNLOADED, "job-1")
        assert records[other.key].state == State.IN_DOUBT
        assert (await ledger.totals()).committed_usd == pytest.approx(0.56)


class ReadOnlyForAWhile:
    """A database that has become read-only: after so many refusals it can be written again."""

    def __init__(self, engine: LedgerEngine) -> None:
        self._engine, self.refusals = engine, 0

    async def run(self, work: Operation[T]) -> T:
        if self.refusals:
            self.refusals -= 1
            reason = sqlite3.OperationalError("attempt to write a readonly database")
            reason.sqlite_errorcode = sqlite3.SQLITE_READONLY
            raise OperationalError("INSERT", {}, reason)
        return await self._engine.run(work)

    async def checkpoint(self) -> None: ...
    async def close(self) -> None: ...


@pytest.mark.parametrize(("refusals", "is_waited_for"), [(len(PATIENCE_SECONDS), True), (99, False)])
async def test_a_sqlite_file_that_is_read_only_is_waited_for_so_long_and_no_longer(
    tmp_path: Path, refusals: int, is_waited_for: bool
) -> None:
    clock = FakeClock()
    async with open_ledger(str(tmp_path / "ledger.db")) as opened:
        runner = ReadOnlyForAWhile(opened.engine)
        ledger = Ledger(LedgerEngine(runner, "x", clock), opened.run, clock)
        key, attempt = await sent(ledger)
        runner.refusals, before = refusals, clock.time()

        answers = await asyncio.gather(
            *(ledger.in_doubt(key, attempt, "HTTP 500") for _ in range(5)), return_exceptions=True
        )

        assert clock.time() - before == pytest.approx(sum(PATIENCE_SECONDS))
        assert [isinstance(answer, LedgerUnavailable) for answer in answers] == [not is_waited_for] * 5
        assert await state_of(opened, key) == (State.IN_DOUBT if is_waited_for else State.SUBMITTING)


async def test_an_id_that_cannot_be_written_is_kept_in_a_file_that_the_next_run_takes_up(tmp_path: Path) -> None:
    path, store = tmp_path / "ledger.db", open_store(str(tmp_path))
    async with open_ledger(str(path), clock=FakeClock()) as ledger:
        key, attempt = await sent(ledger)
        await ledger.transaction(lambda connection: connection.exec_driver_sql("PRAGMA query_only = ON"))

        with pytest.raises(JobUnsaved, match="job-1") as raised:
            await ledger.accepted(key, attempt, VideoJob("job-1"))
        keep_unsaved(store, raised.value.job)

    async with open_ledger(str(path)) as ledger:
        taken_up = await take_up_unsaved(ledger, store)

        record = (await ledger.records())[key]
        assert [job.job_id for job in taken_up] == ["job-1"]
        assert (record.state, record.job_id, record.jobs) == (State.SUBMITTED, "job-1", 1)
        assert not (tmp_path / UNSAVED_FILE).exists()


async def test_a_ledger_that_has_not_sent_an_unsaved_job_is_refused_and_the_file_stays(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    (tmp_path / UNSAVED_FILE).write_text('{"video_key": "k", "attempt": 1, "job_id": "job-1", "accepted_at": 1.0}\n')
    async with open_ledger(str(tmp_path / "ledger.db")) as ledger:
        with pytest.raises(SettingsInvalid, match="names 1 paid job that the ledger"):
            await take_up_unsaved(ledger, store)

    assert (tmp_path / UNSAVED_FILE).exists()


async def test_a_job_id_of_another_attempt_leaves_the_second_video_in_doubt(ledger_url: str) -> None:
    async with open_ledger(ledger_url) as one, open_ledger(ledger_url) as other:
        first, attempt = await sent(one, "first")
        second, second_attempt = await sent(other, "second")
        await one.accepted(first, attempt, VideoJob("job-1"))
        await one.accepted(first, attempt, VideoJob("job-1"))  # its own id again is no other's

        with pytest.raises(SubmissionInDoubt, match="answered with job job-1, which is another video's"):
            await other.accepted(second, second_attempt, VideoJob("job-1"))

        records = await one.records()
        assert records[first].state == State.SUBMITTED
        assert (records[second].state, records[second].job_id) == (State.IN_DOUBT, None)
        assert (await one.totals()).committed_usd == pytest.approx(0.56)


async def test_a_new_ledger_has_its_tables_in_its_own_file_at_once(tmp_path: Path) -> None:
    path, copy = tmp_path / "ledger.db", tmp_path / "copy.db"
    async with open_ledger(str(path)):
        copy.write_bytes(path.read_bytes())  # what a kill leaves whose -wal is lost

    with closing(sqlite3.connect(copy)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"videos", "attempts", "runs", "money"} <= tables
