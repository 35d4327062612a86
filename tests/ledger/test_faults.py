"""Odd texts, shared ledgers, answers that come too late: what a ledger must bear. PostgreSQL: marker `postgres`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ledger_rows import a_video, bought, planned, sent, state_of
from prefect_together.api.jobs import VideoJob
from prefect_together.errors import BudgetReached, DownloadFailed, FailureClass, JobFailed
from prefect_together.ledger.ledger import Ledger, open_ledger
from prefect_together.ledger.states import State
from prefect_together.problems import SettingsInvalid


class TestTexts:
    """Whatever the service or the table says can be written down."""

    @pytest.mark.parametrize("text", ["HTTP 500 \ud83d oops", "HTTP 500 \x00 oops"])
    async def test_a_text_that_no_database_holds_is_written_without_it_and_fails_nobody(
        self, ledger: Ledger, text: str
    ) -> None:
        (odd, odd_attempt), (even, even_attempt) = await sent(ledger, "odd"), await sent(ledger, "even")

        async with asyncio.timeout(100):
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
        await ledger.set_error(video.key, DownloadFailed("lo\x00ng"), state=State.SUBMITTED)
        done = VideoJob("job\x00-1", "completed", video_url="https://x/\x001")

        await ledger.completed(video.key, done, generation_seconds=1.0, polls=1)
        await ledger.save_table("d", "a\x00b", is_sandbox=False)

        record = (await ledger.records())[video.key]
        assert (record.row_id, record.job_id) == ("cat", "job-1")
        assert (record.state, record.video_url) == (State.COMPLETED, "https://x/1")
        assert await ledger.last_table("d") == "ab"

    async def test_a_nul_in_the_reason_of_a_failure_is_left_out(self, ledger: Ledger) -> None:
        key = await bought(ledger, "job-1")

        await ledger.failed(key, JobFailed("job-1", None, "ga\x00ve \ud83dup", FailureClass.UPSTREAM), again=False)

        record = (await ledger.records())[key]
        assert record.state == State.FAILED
        assert "gave ?up" in (record.error or "")


class TestOneLedgerForManyTables:
    """Directories that share a ledger keep to their own videos."""

    async def test_only_what_was_paid_for_this_output_directory_is_collected_into_it(self, ledger: Ledger) -> None:
        here = await bought(ledger, "job-here", "here", output_dir="one")
        await bought(ledger, "job-there", "there", output_dir="two")

        absent = await ledger.paid_but_absent([], output_dir="one")

        assert [record.video_key for record in absent] == [here]

    async def test_what_another_run_is_working_on_is_not_collected_beside_it(
        self, ledger: Ledger, ledger_url: str
    ) -> None:
        key = await bought(ledger, "job-1")
        async with open_ledger(ledger_url) as other:
            await other.claim(key)

            assert await ledger.paid_but_absent([], output_dir=".") == []

    async def test_two_plans_at_once_never_give_one_file_name_to_two_videos(self, ledger_url: str) -> None:
        async with open_ledger(ledger_url) as one, open_ledger(ledger_url) as other:
            for number in range(20):
                first, second = (a_video(f"r{number}", prompt=prompt) for prompt in ("one", "two"))

                await asyncio.gather(one.plan([first]), other.plan([second]))

            records = await one.records()

        assert len({record.file.casefold() for record in records.values()}) == len(records) == 40

    async def test_runs_that_remember_their_table_at_once_all_succeed(self, ledger_url: str) -> None:
        async with open_ledger(ledger_url) as one, open_ledger(ledger_url) as other:
            for number in range(20):
                name = f"out-{number}"
                await asyncio.gather(*(ledger.save_table(name, "x", is_sandbox=False) for ledger in (one, other, one)))

            assert await other.last_table("out-19") == "x"

    @pytest.mark.parametrize("sandbox_first", [True, False])
    async def test_the_sandbox_and_the_service_never_share_an_output_directory_or_a_ledger(
        self, ledger: Ledger, sandbox_first: bool
    ) -> None:
        await ledger.save_table("out", "nothing sent yet", is_sandbox=not sandbox_first)
        await ledger.save_table("out", "first", is_sandbox=sandbox_first)
        await planned(ledger, video := a_video())
        await ledger.intend(video.key, estimate_usd=0.28, budget_usd=None)

        with pytest.raises(SettingsInvalid, match="choose another output directory"):
            await ledger.save_table("out", "second", is_sandbox=not sandbox_first)

        with pytest.raises(SettingsInvalid, match="choose another ledger"):
            await ledger.save_table("elsewhere", "second", is_sandbox=not sandbox_first)
        await ledger.save_table("elsewhere", "second", is_sandbox=sandbox_first)
        await ledger.save_table("out", "third", is_sandbox=sandbox_first)
        assert await ledger.last_table("out") == "third"


class TestStaleAnswers:
    """An answer counts for the job and the attempt that it is about."""

    async def test_the_failure_of_an_older_job_changes_nothing(self, ledger: Ledger) -> None:
        key = await bought(ledger, "job-1")
        await ledger.failed(key, JobFailed("job-1", None, "gave up", FailureClass.UPSTREAM), again=True)
        await bought(ledger, "job-2")
        before, money = (await ledger.records())[key], (await ledger.totals()).committed_usd

        for again in (True, False):
            await ledger.failed(key, JobFailed("job-1", None, "gave up", FailureClass.UPSTREAM, 0.0), again=again)

        assert (await ledger.records())[key] == before
        assert (before.state, before.job_id) == (State.SUBMITTED, "job-2")
        assert (await ledger.totals()).committed_usd == money == pytest.approx(0.56)

    async def test_the_completion_of_an_older_job_changes_nothing(self, ledger: Ledger) -> None:
        key = await bought(ledger, "job-1")
        await ledger.failed(key, JobFailed("job-1", None, "gave up", FailureClass.UPSTREAM), again=True)
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

        await ledger.failed(key, JobFailed("job-1", None, "gave up", FailureClass.UPSTREAM, 1.0), again=True)

        assert await state_of(ledger, key) == State.COMPLETED
        assert (await ledger.totals()).paid_usd == pytest.approx(0.28)

    async def test_what_has_been_sent_again_since_the_run_began_is_not_sent_once_more(
        self, ledger: Ledger, ledger_url: str
    ) -> None:
        key, attempt = await sent(ledger)
        await ledger.in_doubt(key, attempt, "HTTP 500")
        await ledger.release(key)
        seen = (await ledger.records())[key].attempts
        async with open_ledger(ledger_url) as other:
            await other.claim(key, resend_attempt=seen, states=[State.IN_DOUBT])
            again = await other.intend(key, estimate_usd=0.28, budget_usd=None)
            await other.in_doubt(key, again, "HTTP 500")

        claim = await ledger.claim(key, resend_attempt=seen, states=[State.IN_DOUBT])

        assert (claim.is_ours, claim.record.state, claim.record.jobs) == (True, State.IN_DOUBT, 2)

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
        await ledger.failed(key, JobFailed("job-1", None, "gave up", FailureClass.UPSTREAM, 0.2), again=True)
        await bought(ledger, "job-2")

        done = VideoJob("job-2", "completed", video_url="https://x/1", cost_usd=0.25)
        await ledger.completed(key, done, generation_seconds=1.0, polls=1)

        assert (await ledger.records())[key].cost_usd == pytest.approx(0.45)
        assert (await ledger.totals()).paid_usd == pytest.approx(0.45)


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
