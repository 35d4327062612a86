"""What a review found the ledger to get wrong, each with a proof that it holds. PostgreSQL: marker `postgres`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy.exc import OperationalError

from fake_clock import FakeClock
from postgres_server import throw_away_database
from prefect_together.client import VideoApi
from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.errors import BudgetReached, JobFailed, SettingsInvalid, SubmissionInDoubt
from prefect_together.jobs import VideoJob
from prefect_together.journal import Breaker, LedgerJournal
from prefect_together.ledger import HEARTBEAT_SECONDS, SAVE_PAUSES_SECONDS, Ledger, open_ledger
from prefect_together.ledger_engine import COMMIT_TRIES, LedgerEngine, LedgerUnavailable, Operation, open_engine
from prefect_together.ledger_runs import CLAIM_SECONDS, this_process
from prefect_together.ledger_schema import State
from prefect_together.pacing import SubmitPacer
from prefect_together.process import process_start, this_machine
from prefect_together.submit import submit
from prefect_together.tally import Tally
from scripted_api import Answer, ScriptedApi
from test_ledger import a_video, planned, state_of

T = TypeVar("T")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db") if request.param == "sqlite" else throw_away_database(request)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db")


@pytest.fixture
async def ledger(url: str) -> AsyncGenerator[Ledger]:
    async with open_ledger(url) as opened:
        yield opened


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

    async def close(self) -> None: ...


@asynccontextmanager
async def unreliable_ledger(url: str, clock: Clock) -> AsyncGenerator[tuple[Ledger, Unreliable]]:
    """The door of an open run to a database that can be made to fail."""
    async with open_ledger(url) as opened, open_engine(url) as engine:
        runner = Unreliable(engine)
        yield Ledger(LedgerEngine(runner, "x"), opened.run, clock), runner


class TestTexts:
    """1, 2: whatever the service or the table says can be written down."""

    @pytest.mark.parametrize("text", ["HTTP 500 \ud83d oops", "HTTP 500 \x00 oops"])
    async def test_a_text_that_no_database_holds_is_written_without_it_and_fails_nobody(
        self, ledger: Ledger, text: str
    ) -> None:
        (odd, odd_attempt), (even, even_attempt) = await sent(ledger, "odd"), await sent(ledger, "even")

        async with asyncio.timeout(20):
            await asyncio.gather(
                ledger.in_doubt(odd, odd_attempt, text), ledger.accepted(even, even_attempt, VideoJob("job-even"))
            )

        records = await ledger.records()
        assert (records[odd].state, records[even].job_id) == (State.IN_DOUBT, "job-even")
        assert records[odd].error in ("HTTP 500 ? oops", "HTTP 500  oops")

    async def test_a_nul_in_any_text_of_a_video_is_left_out(self, ledger: Ledger) -> None:
        video = replace(a_video(), row_id="c\x00at")
        await planned(ledger, video)
        attempt = await ledger.intend(video.key, estimate_usd=None, budget_usd=None)
        await ledger.accepted(video.key, attempt, VideoJob("job\x00-1"))
        await ledger.note(video.key, "lo\x00ng", state=State.SUBMITTED)
        done = VideoJob("job\x00-1", "completed", video_url="https://x/\x001")

        await ledger.completed(video.key, done, generation_seconds=1.0, polls=1)
        await ledger.remember_table("d", "a\x00b", is_sandbox=False)

        record = (await ledger.records())[video.key]
        assert (record.row_id, record.job_id) == ("cat", "job-1")
        assert (record.state, record.video_url) == (State.COMPLETED, "https://x/1")
        assert await ledger.remembered_table("d") == "ab"

    async def test_a_nul_in_the_reason_of_a_failure_is_left_out(self, ledger: Ledger) -> None:
        key = await bought(ledger, "job-1")

        await ledger.failed(key, JobFailed("job-1", None, "ga\x00ve \ud83dup", "upstream"), again=False)

        record = (await ledger.records())[key]
        assert record.state == State.FAILED
        assert "gave ?up" in (record.error or "")


class TestOneLedgerForManyTables:
    """3, 4, 5, 6, 15."""

    async def test_only_what_was_paid_for_this_output_directory_is_collected_into_it(self, ledger: Ledger) -> None:
        here = await bought(ledger, "job-here", "here", output_dir="one")
        await bought(ledger, "job-there", "there", output_dir="two")

        absent = await ledger.paid_but_absent([], output_dir="one")

        assert [record.video_key for record in absent] == [here]

    async def test_what_another_run_is_working_on_is_not_collected_beside_it(self, ledger: Ledger, url: str) -> None:
        key = await bought(ledger, "job-1")
        async with open_ledger(url) as other:
            await other.claim(key)

            assert await ledger.paid_but_absent([], output_dir=".") == []

    async def test_two_plans_at_once_never_give_one_file_name_to_two_videos(self, url: str) -> None:
        async with open_ledger(url) as one, open_ledger(url) as other:
            for number in range(20):
                first, second = (a_video(f"r{number}", prompt=prompt) for prompt in ("one", "two"))

                await asyncio.gather(one.plan([first]), other.plan([second]))

            records = await one.records()

        assert len({record.file.casefold() for record in records.values()}) == len(records) == 40

    async def test_runs_that_remember_their_table_at_once_all_succeed(self, url: str) -> None:
        async with open_ledger(url) as one, open_ledger(url) as other:
            for number in range(20):
                name = f"out-{number}"
                await asyncio.gather(
                    *(ledger.remember_table(name, "x", is_sandbox=False) for ledger in (one, other, one))
                )

            assert await other.remembered_table("out-19") == "x"

    @pytest.mark.parametrize("sandbox_first", [True, False])
    async def test_the_sandbox_and_the_service_never_share_an_output_directory(
        self, ledger: Ledger, sandbox_first: bool
    ) -> None:
        await ledger.remember_table("out", "first", is_sandbox=sandbox_first)

        with pytest.raises(SettingsInvalid, match="choose another output directory"):
            await ledger.remember_table("out", "second", is_sandbox=not sandbox_first)

        await ledger.remember_table("elsewhere", "second", is_sandbox=not sandbox_first)
        await ledger.remember_table("out", "third", is_sandbox=sandbox_first)
        assert await ledger.remembered_table("out") == "third"


class TestStaleAnswers:
    """8, 13, 22: an answer counts for the job and the attempt that it is about."""

    async def test_the_failure_of_an_older_job_changes_nothing(self, ledger: Ledger) -> None:
        key = await bought(ledger, "job-1")
        await ledger.failed(key, JobFailed("job-1", None, "gave up", "upstream"), again=True)
        await bought(ledger, "job-2")
        before, money = (await ledger.records())[key], (await ledger.totals()).committed_usd

        for again in (True, False):
            await ledger.failed(key, JobFailed("job-1", None, "gave up", "upstream", 0.0), again=again)

        assert (await ledger.records())[key] == before
        assert (before.state, before.job_id) == (State.SUBMITTED, "job-2")
        assert (await ledger.totals()).committed_usd == money == pytest.approx(0.56)

    async def test_the_completion_of_an_older_job_changes_nothing(self, ledger: Ledger) -> None:
        key = await bought(ledger, "job-1")
        await ledger.failed(key, JobFailed("job-1", None, "gave up", "upstream"), again=True)
        await bought(ledger, "job-2")
        before = (await ledger.records())[key]

        old = VideoJob("job-1", "completed", video_url="https://x/1", cost_usd=9.0)
        await ledger.completed(key, old, generation_seconds=1.0, polls=1)

        assert (await ledger.records())[key] == before
        assert (await ledger.totals()).paid_usd == 0

    async def test_a_failure_after_the_end_changes_nothing(self, ledger: Ledger) -> None:
        key = await bought(ledger, "job-1")
        done = VideoJob("job-1", "completed", video_url="https://x/1", cost_usd=0.28)
        await ledger.completed(key, done, generation_seconds=1.0, polls=1)

        await ledger.failed(key, JobFailed("job-1", None, "gave up", "upstream", 1.0), again=True)

        assert await state_of(ledger, key) == State.COMPLETED
        assert (await ledger.totals()).paid_usd == pytest.approx(0.28)

    async def test_what_has_been_sent_again_since_the_run_began_is_not_sent_once_more(
        self, ledger: Ledger, url: str
    ) -> None:
        key, attempt = await sent(ledger)
        await ledger.in_doubt(key, attempt, "HTTP 500")
        await ledger.release(key)
        seen = (await ledger.records())[key].attempts
        async with open_ledger(url) as other:
            await other.claim(key, resend_attempt=seen, states=[State.IN_DOUBT])
            again = await other.intend(key, estimate_usd=0.28, budget_usd=None)
            await other.in_doubt(key, again, "HTTP 500")

        claim = await ledger.claim(key, resend_attempt=seen, states=[State.IN_DOUBT])

        assert (claim.held, claim.record.state, claim.record.jobs) == (False, State.IN_DOUBT, 2)

    async def test_an_id_that_comes_after_the_decision_to_send_again_is_kept_and_nothing_is_sent(
        self, ledger: Ledger
    ) -> None:
        key, attempt = await sent(ledger)
        await ledger.in_doubt(key, attempt, "HTTP 500")
        await ledger.claim(key, resend_attempt=attempt, states=[State.IN_DOUBT])

        await ledger.accepted(key, attempt, VideoJob("job-late"))

        record = (await ledger.records())[key]
        assert (record.state, record.job_id, record.jobs) == (State.SUBMITTED, "job-late", 1)
        assert (await ledger.totals()).committed_usd == pytest.approx(0.28)

    async def test_a_charged_job_that_failed_stays_in_the_cost_of_its_row(self, ledger: Ledger) -> None:
        key = await bought(ledger, "job-1")
        await ledger.failed(key, JobFailed("job-1", None, "gave up", "upstream", 0.2), again=True)
        await bought(ledger, "job-2")

        done = VideoJob("job-2", "completed", video_url="https://x/1", cost_usd=0.25)
        await ledger.completed(key, done, generation_seconds=1.0, polls=1)

        assert (await ledger.records())[key].cost_usd == pytest.approx(0.45)
        assert (await ledger.totals()).paid_usd == pytest.approx(0.45)


ELSEWHERE = "another-boot/pid:[1]"


@pytest.fixture
def other_process() -> Generator[subprocess.Popen[bytes]]:
    """A living process of this machine that is not this one."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        yield process
        process.kill()


class TestWhoLives:
    """9: a claim holds as long as its run lives, and no longer."""

    async def is_held(
        self, file: str, *, machine: str, pid: int, start: str, silent_seconds: float = 0.0, ended: bool = False
    ) -> bool:
        """Whether the claim of such a run keeps this run away."""
        async with open_ledger(file) as ledger:
            await ledger.plan([video := a_video()])
            now = SYSTEM_CLOCK.time()
            beat = now - silent_seconds
            values = ("other", "host", machine, pid, start, now - 1e6, beat, now if ended else None)
            sql(file, "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *values)
            sql(file, "UPDATE videos SET owner = 'other'")
            return (await ledger.claim(video.key)).held

    async def test_a_run_of_another_machine_lives_while_its_heart_beats(self, file: str) -> None:
        assert await self.is_held(file, machine=ELSEWHERE, pid=os.getpid(), start="1")

    async def test_a_run_of_another_machine_is_gone_when_it_has_been_silent(self, file: str) -> None:
        silent = CLAIM_SECONDS + 5

        assert not await self.is_held(file, machine=ELSEWHERE, pid=os.getpid(), start="1", silent_seconds=silent)

    async def test_a_run_of_this_process_that_is_over_without_having_said_so_is_gone(self, file: str) -> None:
        start = process_start(os.getpid()) or ""

        assert not await self.is_held(file, machine=this_machine(), pid=os.getpid(), start=start)

    async def test_a_run_of_a_living_process_of_this_machine_lives_even_if_silent(
        self, file: str, other_process: subprocess.Popen[bytes]
    ) -> None:
        start = process_start(other_process.pid) or ""

        assert await self.is_held(
            file, machine=this_machine(), pid=other_process.pid, start=start, silent_seconds=CLAIM_SECONDS * 10
        )

    async def test_a_run_whose_process_is_dead_is_gone_at_once(
        self, file: str, other_process: subprocess.Popen[bytes]
    ) -> None:
        start = process_start(other_process.pid) or ""
        other_process.kill()
        other_process.wait()

        assert not await self.is_held(file, machine=this_machine(), pid=other_process.pid, start=start)

    async def test_a_run_whose_number_belongs_to_another_process_now_is_gone(
        self, file: str, other_process: subprocess.Popen[bytes]
    ) -> None:
        assert not await self.is_held(file, machine=this_machine(), pid=other_process.pid, start="1")

    async def test_a_run_that_has_ended_is_gone(self, file: str) -> None:
        assert not await self.is_held(file, machine=ELSEWHERE, pid=1, start="1", ended=True)

    async def test_an_open_run_of_this_process_lives(self, url: str) -> None:
        async with open_ledger(url) as one, open_ledger(url) as other:
            await planned(one, a_video())

            assert (await other.claim(a_video().key)).held
            assert not (await one.claim(a_video().key)).held

    def test_this_process_has_a_start(self) -> None:
        assert this_process("r").process_start


class TestHeartbeat:
    """10: a beat that fails is one beat."""

    async def test_beats_that_fail_end_neither_the_run_nor_the_beating(self, file: str) -> None:
        clock = FakeClock(auto=False)
        async with open_ledger(file, clock=clock) as ledger:
            await planned(ledger, a_video())
            sql(file, "ALTER TABLE runs RENAME TO elsewhere")
            for _ in range(3):
                await clock.advance(HEARTBEAT_SECONDS)
                await ledger.remember_table("out", "waits until the beat is over", is_sandbox=False)
            sql(file, "ALTER TABLE elsewhere RENAME TO runs")

            await clock.advance(HEARTBEAT_SECONDS)
            await ledger.remember_table("out", "waits until the beat is over", is_sandbox=False)

            assert sql(file, "SELECT heartbeat_at FROM runs") == [(clock.time(),)]
        assert sql(file, "SELECT count(*) FROM runs WHERE ended_at IS NULL") == [(0,)]
        assert sql(file, "SELECT count(*) FROM videos WHERE owner IS NOT NULL") == [(0,)]


class TestPaidIds:
    """11, 12: the id of a paid job is written, or said; what may have been sent is in doubt."""

    async def test_an_accepted_id_is_tried_again_while_the_ledger_is_busy(self, file: str) -> None:
        async with unreliable_ledger(file, clock := FakeClock()) as (ledger, database):
            key, attempt = await sent(ledger)
            database.failures = COMMIT_TRIES * 3 + 1

            await ledger.accepted(key, attempt, VideoJob("job-paid"))

            assert (await ledger.records())[key].job_id == "job-paid"
            assert clock.slept_seconds == list(SAVE_PAUSES_SECONDS[:3])

    async def test_an_accepted_id_that_cannot_be_written_is_in_the_text_of_the_error(self, file: str) -> None:
        async with unreliable_ledger(file, clock := FakeClock()) as (ledger, database):
            key, attempt = await sent(ledger)
            database.failures = 10_000

            with pytest.raises(LedgerUnavailable, match=r"job job-paid was accepted, is paid"):
                await ledger.accepted(key, attempt, VideoJob("job-paid"))

            database.failures = 0
            assert sum(clock.slept_seconds) == sum(SAVE_PAUSES_SECONDS)
        async with open_ledger(file) as later:
            assert (await later.claim(key)).record.state == State.IN_DOUBT

    async def test_an_accepted_id_that_cannot_be_written_is_kept_though_its_row_is_cancelled(self, file: str) -> None:
        breaker, raised = Breaker(), asyncio.Event()
        async with unreliable_ledger(file, FakeClock()) as (ledger, database):
            key, attempt = await sent(ledger)
            journal = LedgerJournal(ledger, key, 0.28, None, breaker, Tally(0.0))
            database.failures = 10_000

            async def row() -> None:
                try:
                    await journal.accepted(attempt, VideoJob("job-paid"))
                finally:
                    raised.set()
                    await asyncio.sleep(60)  # the engine has more to do: here another row's failure cancels this one

            cancelled = asyncio.create_task(row())
            await raised.wait()
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            database.failures = 0

        assert "job job-paid was accepted, is paid" in str(breaker.unsaved[0])

    async def submit(self, ledger: Ledger, key: str, answer: Answer) -> VideoJob:
        clock = FakeClock()
        api: VideoApi = ScriptedApi(answer, clock=clock)
        journal = LedgerJournal(ledger, key, 0.28, None, Breaker(), Tally(0.0))
        end = clock.time() + 60
        return await submit(
            api, a_video().request, pacer=SubmitPacer(clock), journal=journal, give_up_at=end, clock=clock
        )

    @pytest.mark.parametrize("error", [OverflowError("int too large"), KeyError("id"), RuntimeError("odd")])
    async def test_an_error_nobody_foresaw_after_the_intent_is_in_doubt(self, ledger: Ledger, error: Exception) -> None:
        await planned(ledger, video := a_video())

        with pytest.raises(SubmissionInDoubt, match=type(error).__name__):
            await self.submit(ledger, video.key, error)

        record = (await ledger.records())[video.key]
        assert (record.state, record.jobs) == (State.IN_DOUBT, 1)
        assert (await ledger.totals()).in_doubt_usd == pytest.approx(0.28)

    async def test_a_ledger_that_fails_before_the_intent_sends_nothing(self, file: str) -> None:
        async with unreliable_ledger(file, FakeClock()) as (ledger, database):
            await planned(ledger, video := a_video())
            database.failures = COMMIT_TRIES

            with pytest.raises(LedgerUnavailable):
                await self.submit(ledger, video.key, AssertionError("was sent"))

            assert await state_of(ledger, video.key) == State.PLANNED


class TestMoney:
    """Sums are exact: a cap that fits is not passed by rounding, nor missed by it."""

    @pytest.mark.parametrize(("price_usd", "rows", "budget_usd"), [(0.28, 10, 2.80), (4.03, 2, 8.06), (0.07, 3, 0.21)])
    async def test_a_budget_that_fits_exactly_takes_every_row_and_no_other(
        self, ledger: Ledger, price_usd: float, rows: int, budget_usd: float
    ) -> None:
        wanted = [a_video(str(number)) for number in range(rows + 1)]
        await planned(ledger, *wanted)

        for video in wanted[:-1]:
            await ledger.intend(video.key, estimate_usd=price_usd, budget_usd=budget_usd)
        with pytest.raises(BudgetReached):
            await ledger.intend(wanted[-1].key, estimate_usd=price_usd, budget_usd=budget_usd)

        assert await ledger.committed_usd() == pytest.approx(budget_usd)


@pytest.mark.parametrize("turns", range(1, 6))
async def test_cancelling_everything_keeps_an_id_that_was_handed_over(url: str, turns: int) -> None:
    """24: as when asyncio.run cancels every task at its end."""
    async with open_ledger(url) as ledger:
        key, attempt = await sent(ledger)
        writing = asyncio.create_task(ledger.accepted(key, attempt, VideoJob("job-paid")))
        for _ in range(turns):
            await asyncio.sleep(0)

        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.gather(writing, return_exceptions=True)

    async with open_ledger(url) as later:
        assert (await later.records())[key].job_id == "job-paid"
