"""The id of a paid job is never thrown away, however late it comes, whatever fails. PostgreSQL: marker `postgres`."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from fake_clock import FakeClock
from ledger_rows import a_video, planned, sent, state_of, unreliable_ledger
from prefect_together.api.client import VideoApi
from prefect_together.api.jobs import VideoJob
from prefect_together.api.submit import SubmitPacer, submit
from prefect_together.clips.store import LocalStore
from prefect_together.errors import SubmissionInDoubt
from prefect_together.execution.admission import LedgerJournal
from prefect_together.execution.circuit_breaker import CircuitBreaker
from prefect_together.ledger.engine import COMMIT_TRIES, LedgerUnavailable
from prefect_together.ledger.ledger import Ledger, open_ledger
from prefect_together.ledger.states import State
from prefect_together.ledger.transitions import SAVE_PAUSES_SECONDS
from prefect_together.request.request import VideoRequest
from prefect_together.results.already_paid import UNSAVED_FILE
from prefect_together.results.progress import Progress
from scripted_api import Answer, ScriptedApi


class TestPaidIds:
    """The id of a paid job is written, or said; what may have been sent is in doubt."""

    async def test_an_accepted_id_is_tried_again_while_the_ledger_is_busy(self, ledger_file: str) -> None:
        async with unreliable_ledger(ledger_file, clock := FakeClock()) as (ledger, database):
            key, attempt = await sent(ledger)
            database.failures = COMMIT_TRIES * 3 + 1

            await ledger.accepted(key, attempt, VideoJob("job-paid"))

            assert (await ledger.records())[key].job_id == "job-paid"
            assert clock.slept_seconds == list(SAVE_PAUSES_SECONDS[:3])

    async def test_an_accepted_id_that_cannot_be_written_is_in_the_text_of_the_error(self, ledger_file: str) -> None:
        async with unreliable_ledger(ledger_file, clock := FakeClock()) as (ledger, database):
            key, attempt = await sent(ledger)
            database.failures = 10_000

            with pytest.raises(LedgerUnavailable, match=r"job job-paid was accepted, is paid"):
                await ledger.accepted(key, attempt, VideoJob("job-paid"))

            database.failures = 0
            assert sum(clock.slept_seconds) == sum(SAVE_PAUSES_SECONDS)
        async with open_ledger(ledger_file) as later:
            assert (await later.claim(key)).record.state == State.IN_DOUBT

    async def test_an_accepted_id_that_cannot_be_written_is_kept_though_its_row_is_cancelled(
        self, ledger_file: str
    ) -> None:
        breaker, raised = CircuitBreaker(), asyncio.Event()
        async with unreliable_ledger(ledger_file, FakeClock()) as (ledger, database):
            key, attempt = await sent(ledger)
            journal = LedgerJournal(
                ledger, LocalStore(Path(ledger_file).parent), key, 0.28, None, breaker, Progress(0.0)
            )
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
        assert '"job_id": "job-paid"' in (Path(ledger_file).parent / UNSAVED_FILE).read_text()

    async def submit(self, ledger: Ledger, key: str, answer: Answer) -> VideoJob:
        clock = FakeClock()
        api: VideoApi = ScriptedApi(answer, clock=clock)
        journal = LedgerJournal(ledger, LocalStore(Path()), key, 0.28, None, CircuitBreaker(), Progress(0.0))
        end = clock.time() + 60
        return await submit(
            partial(api.create, VideoRequest(model="m/x", prompt="A cat")),
            pacer=SubmitPacer(clock),
            journal=journal,
            give_up_at=end,
            clock=clock,
        )

    @pytest.mark.parametrize("error", [OverflowError("int too large"), KeyError("id"), RuntimeError("odd")])
    async def test_an_error_nobody_foresaw_after_the_intent_is_in_doubt(self, ledger: Ledger, error: Exception) -> None:
        await planned(ledger, video := a_video())

        with pytest.raises(SubmissionInDoubt, match=type(error).__name__):
            await self.submit(ledger, video.key, error)

        record = (await ledger.records())[video.key]
        assert (record.state, record.jobs) == (State.IN_DOUBT, 1)
        assert (await ledger.totals()).in_doubt_usd == pytest.approx(0.28)

    async def test_a_ledger_that_fails_before_the_intent_sends_nothing(self, ledger_file: str) -> None:
        async with unreliable_ledger(ledger_file, FakeClock()) as (ledger, database):
            await planned(ledger, video := a_video())
            database.failures = COMMIT_TRIES

            with pytest.raises(LedgerUnavailable):
                await self.submit(ledger, video.key, AssertionError("was sent"))

            assert await state_of(ledger, video.key) == State.PLANNED


@pytest.mark.parametrize("turns", range(1, 6))
async def test_cancelling_everything_keeps_an_id_that_was_handed_over(ledger_url: str, turns: int) -> None:
    """As when asyncio.run cancels every task at its end."""
    async with open_ledger(ledger_url) as ledger:
        key, attempt = await sent(ledger)
        writing = asyncio.create_task(ledger.accepted(key, attempt, VideoJob("job-paid")))
        for _ in range(turns):
            await asyncio.sleep(0)

        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.gather(writing, return_exceptions=True)

    async with open_ledger(ledger_url) as later:
        assert (await later.records())[key].job_id == "job-paid"
