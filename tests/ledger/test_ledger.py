"""The ledger: intents, money, claims, resume. The same tests run on PostgreSQL (marker `postgres`)."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack

import pytest

from ledger_rows import a_video, bought, planned, sent, state_of
from prefect_together.api.jobs import VideoJob
from prefect_together.errors import (
    AccountBlocked,
    BudgetReached,
    FailureClass,
    JobFailed,
    NeverSent,
    RateLimited,
    SourceMissing,
)
from prefect_together.ledger import runs as ledger_runs
from prefect_together.ledger.ledger import Ledger, open_ledger
from prefect_together.ledger.states import State
from prefect_together.ledger.transitions import ClaimLost
from prefect_together.problems import SettingsInvalid
from repository import SUPPORT


async def test_a_video_goes_from_planned_to_downloaded(ledger: Ledger) -> None:
    video = a_video()
    await planned(ledger, video)

    attempt = await ledger.intend(video.key, estimate_usd=0.28, budget_usd=None)
    assert await state_of(ledger, video.key) == State.SUBMITTING
    await ledger.accepted(video.key, attempt, VideoJob("job-1"))
    assert await state_of(ledger, video.key) == State.SUBMITTED
    done = VideoJob("job-1", "completed", video_url="https://x/1", cost_usd=0.25)
    await ledger.completed(video.key, done, generation_seconds=90.0, polls=8)
    await ledger.downloaded(video.key, file="videos/other.webm", size_bytes=10, sha256="ab", clip={"width": 8})

    record = (await ledger.records())[video.key]
    assert (record.state, record.job_id, record.cost_usd) == (State.DOWNLOADED, "job-1", 0.25)
    assert (record.attempts, record.jobs, record.file) == (1, 1, "videos/other.webm")
    assert await ledger.durations(["minimax/video-01-director"]) == {"minimax/video-01-director": [90.0]}


async def test_durations_come_in_the_order_in_which_the_jobs_were_sent(ledger: Ledger) -> None:
    slow, quick = a_video("slow", prompt="a slow cat"), a_video("quick", prompt="a quick cat")
    await planned(ledger, slow, quick)
    for video in (slow, quick):
        attempt = await ledger.intend(video.key, estimate_usd=0.28, budget_usd=None)
        await ledger.accepted(video.key, attempt, VideoJob(f"job-{video.row_id}"))

    for video, seconds in ((quick, 40.0), (slow, 90.0)):
        done = VideoJob(f"job-{video.row_id}", "completed", video_url="https://x/1")
        await ledger.completed(video.key, done, generation_seconds=seconds, polls=8)

    assert await ledger.durations([slow.request.model]) == {slow.request.model: [90.0, 40.0]}


async def test_planning_again_changes_nothing(ledger: Ledger) -> None:
    video = a_video()
    await planned(ledger, video)
    await ledger.intend(video.key, estimate_usd=0.28, budget_usd=None)

    records = await ledger.plan([video])

    assert records[video.key].state == State.SUBMITTING


async def test_a_changed_row_is_new_work_beside_the_old_file(ledger: Ledger) -> None:
    before, after = a_video(prompt="a cat"), a_video(prompt="a cat, again")

    first = await ledger.plan([before])
    second = await ledger.plan([after])

    assert first[before.key].file == "videos/cat.mp4"
    assert second[after.key].file == f"videos/cat-{after.fingerprint[:8]}.mp4"


async def test_ids_that_differ_in_case_get_files_of_their_own(ledger: Ledger) -> None:
    lower, upper = a_video("cat"), a_video("CAT")

    records = await ledger.plan([lower, upper])

    assert len({record.file.casefold() for record in records.values()}) == 2


async def test_the_budget_is_reserved_with_the_intent_and_never_passed(ledger: Ledger) -> None:
    videos = [a_video(str(number)) for number in range(10)]
    await planned(ledger, *videos)

    tries = await asyncio.gather(
        *(ledger.intend(video.key, estimate_usd=0.28, budget_usd=1.0) for video in videos),
        return_exceptions=True,
    )

    assert sum(attempt == 1 for attempt in tries) == 3
    assert sum(isinstance(error, BudgetReached) for error in tries) == 7
    assert (await ledger.totals()).committed_usd == pytest.approx(0.84)


async def test_a_refused_intent_leaves_no_trace(ledger: Ledger) -> None:
    video = a_video()
    await planned(ledger, video)

    with pytest.raises(BudgetReached, match=r"budget \$0.10"):
        await ledger.intend(video.key, estimate_usd=0.28, budget_usd=0.10)

    record = (await ledger.records())[video.key]
    assert (record.state, record.attempts) == (State.PLANNED, 0)
    assert (await ledger.totals()).committed_usd == 0


@pytest.mark.parametrize("since", ["nothing", "its source is missing", "not sent", "the account is blocked"])
async def test_a_budget_without_room_for_a_second_job_is_a_failure_for_the_reason_of_the_first(
    ledger: Ledger, since: str
) -> None:
    key = await bought(ledger, "job-1")
    await ledger.claim(key)
    await ledger.failed(key, JobFailed("job-1", None, "gpu lost", FailureClass.CANCELLED), again=True)
    if since == "its source is missing":
        await ledger.set_error(key, SourceMissing("a", "failed"), state=State.PLANNED)
    elif since == "not sent":
        attempt = await ledger.intend(key, estimate_usd=0.28, budget_usd=None)
        await ledger.not_accepted(key, attempt, NeverSent("no route"), state=State.PLANNED)
    elif since == "the account is blocked":
        assert await ledger.refused(key, AccountBlocked(402, None, "no credits")) == State.REFUSED
        await ledger.claim(key)

    assert await ledger.refused(key, BudgetReached(0.5, 0.28, 0.28)) == State.FAILED

    record = (await ledger.records())[key]
    assert (record.state, record.failure_class) == (State.FAILED, FailureClass.CANCELLED)
    assert record.error is not None
    assert record.error.startswith("gpu lost (cancelled, job job-1); not sent again: budget $0.50")


@pytest.mark.parametrize("since", ["never sent", "its job was rejected", "a later job was rejected"])
async def test_a_budget_refuses_what_did_not_fail_upstream(ledger: Ledger, since: str) -> None:
    key = await bought(ledger, "job-1") if since != "never sent" else (await sent(ledger))[0]
    await ledger.claim(key)
    if since == "never sent":
        await ledger.not_accepted(key, 1, NeverSent("no route"), state=State.PLANNED)
    elif since == "its job was rejected":
        await ledger.failed(key, JobFailed("job-1", None, "not allowed", FailureClass.MODERATION), again=True)
    else:
        await ledger.failed(key, JobFailed("job-1", None, "gpu lost", FailureClass.UPSTREAM), again=True)
        attempt = await ledger.intend(key, estimate_usd=0.28, budget_usd=None)
        await ledger.accepted(key, attempt, VideoJob("job-2"))
        await ledger.failed(key, JobFailed("job-2", None, "not allowed", FailureClass.MODERATION), again=True)

    assert await ledger.refused(key, BudgetReached(0.5, 0.28, 0.28)) == State.REFUSED


async def test_an_unknown_price_under_a_budget_is_refused(ledger: Ledger) -> None:
    video = a_video(usd=None)
    await planned(ledger, video)

    with pytest.raises(BudgetReached, match="price_usd"):
        await ledger.intend(video.key, estimate_usd=None, budget_usd=100.0)


async def test_what_was_not_accepted_gives_its_money_back(ledger: Ledger) -> None:
    video = a_video()
    await planned(ledger, video)
    attempt = await ledger.intend(video.key, estimate_usd=0.28, budget_usd=1.0)

    await ledger.not_accepted(video.key, attempt, RateLimited(429, None, "later"), state=State.PLANNED)

    assert (await ledger.totals()).committed_usd == 0
    assert await state_of(ledger, video.key) == State.PLANNED


async def test_what_is_in_doubt_keeps_its_money(ledger: Ledger) -> None:
    video = a_video()
    await planned(ledger, video)
    attempt = await ledger.intend(video.key, estimate_usd=0.28, budget_usd=1.0)

    await ledger.in_doubt(video.key, attempt, "no answer")

    totals = await ledger.totals()
    assert (totals.committed_usd, totals.in_doubt_usd) == (pytest.approx(0.28), pytest.approx(0.28))


async def test_a_cost_settles_the_reservation_once(ledger: Ledger) -> None:
    video = a_video()
    await planned(ledger, video)
    attempt = await ledger.intend(video.key, estimate_usd=0.28, budget_usd=None)
    await ledger.accepted(video.key, attempt, VideoJob("job-1"))
    done = VideoJob("job-1", "completed", video_url="https://x/1", cost_usd=0.5)

    await ledger.completed(video.key, done, generation_seconds=1.0, polls=1)
    await ledger.completed(video.key, done, generation_seconds=1.0, polls=1)

    totals = await ledger.totals()
    assert (totals.committed_usd, totals.paid_usd) == (pytest.approx(0.5), pytest.approx(0.5))


async def test_a_failed_job_keeps_its_reservation_unless_a_cost_is_named(ledger: Ledger) -> None:
    silent, named = a_video("silent"), a_video("named")
    await planned(ledger, silent, named)
    for video in (silent, named):
        attempt = await ledger.intend(video.key, estimate_usd=0.28, budget_usd=None)
        await ledger.accepted(video.key, attempt, VideoJob(f"job-{video.row_id}"))

    await ledger.failed(silent.key, JobFailed("job-silent", None, "gave up", FailureClass.UPSTREAM), again=False)
    await ledger.failed(named.key, JobFailed("job-named", None, "gave up", FailureClass.UPSTREAM, 0.0), again=False)

    totals = await ledger.totals()
    assert totals.committed_usd == pytest.approx(0.28)
    assert totals.unsettled_failed_usd == pytest.approx(0.28)


async def test_a_video_claimed_by_a_living_run_is_held(ledger: Ledger, ledger_url: str) -> None:
    video = a_video()
    await planned(ledger, video)

    async with open_ledger(ledger_url) as other:
        claim = await other.claim(video.key)

        assert not claim.is_ours
        with pytest.raises(ClaimLost):
            await other.intend(video.key, estimate_usd=0.28, budget_usd=None)


async def test_a_claim_is_given_back_at_the_end_of_its_run(ledger_url: str) -> None:
    video = a_video()
    async with open_ledger(ledger_url) as first:
        await planned(first, video)

    async with open_ledger(ledger_url) as second:
        assert (await second.claim(video.key)).is_ours


async def test_an_intent_whose_process_died_is_in_doubt(ledger_url: str) -> None:
    script = """
import asyncio, os, sys
from ledger_rows import a_video, planned
from prefect_together.ledger.ledger import open_ledger

async def main():
    async with open_ledger(sys.argv[1]) as ledger:
        await planned(ledger, a_video())
        await ledger.intend(a_video().key, estimate_usd=0.28, budget_usd=None)
        os.kill(os.getpid(), 9)

asyncio.run(main())
"""
    here = {"PYTHONPATH": str(SUPPORT)}
    died = await asyncio.create_subprocess_exec(sys.executable, "-c", script, ledger_url, env=os.environ | here)
    assert await died.wait() == -9

    async with open_ledger(ledger_url) as ledger:
        claim = await ledger.claim(a_video().key)

        assert claim.record.state == State.IN_DOUBT
        assert (await ledger.totals()).in_doubt_usd == pytest.approx(0.28)
        again = await ledger.claim(a_video().key, resend_attempt=1, states=[State.IN_DOUBT])
        assert again.record.state == State.PLANNED
        assert (await ledger.totals()).committed_usd == pytest.approx(0.28)


async def test_an_id_that_arrives_late_is_never_thrown_away(ledger: Ledger) -> None:
    video = a_video()
    await planned(ledger, video)
    attempt = await ledger.intend(video.key, estimate_usd=0.28, budget_usd=None)
    await ledger.in_doubt(video.key, attempt, "stopped")

    await ledger.accepted(video.key, attempt, VideoJob("job-late"))

    record = (await ledger.records())[video.key]
    assert (record.state, record.job_id, record.jobs) == (State.SUBMITTED, "job-late", 1)


async def test_a_thousand_rows_at_once_are_written(ledger: Ledger) -> None:
    videos = [a_video(f"row-{number}") for number in range(1000)]
    await ledger.plan(videos)

    claims = await asyncio.gather(*(ledger.claim(video.key) for video in videos))

    assert all(claim.is_ours for claim in claims)


async def test_another_kind_of_database_is_named_as_a_wrong_setting() -> None:
    with pytest.raises(SettingsInvalid, match=r"^ledger: mysql"):
        async with open_ledger("mysql://localhost/x"):
            pass


async def test_paid_videos_of_a_run_that_was_killed_are_found_though_their_rows_are_gone(ledger_url: str) -> None:
    video = a_video()
    async with open_ledger(ledger_url) as first:
        await planned(first, video)
        attempt = await first.intend(video.key, estimate_usd=0.28, budget_usd=None)
        await first.accepted(video.key, attempt, VideoJob("job-1"))

        async with open_ledger(ledger_url) as beside:
            assert await beside.paid_but_absent([], output_dir=".") == []
        ledger_runs.OWN_RUNS.discard(first.run.run_id)  # as if its process were gone

        async with open_ledger(ledger_url) as later:
            found = await later.paid_but_absent([], output_dir=".")

    assert [record.job_id for record in found] == ["job-1"]


async def test_a_failed_video_that_was_not_sent_again_is_failed_as_before_with_its_class(ledger: Ledger) -> None:
    video = a_video()
    await planned(ledger, video)
    attempt = await ledger.intend(video.key, estimate_usd=0.28, budget_usd=None)
    await ledger.accepted(video.key, attempt, VideoJob("job-1"))
    await ledger.failed(video.key, JobFailed("job-1", None, "not allowed", FailureClass.MODERATION), again=False)
    before = (await ledger.records())[video.key]
    await ledger.claim(video.key, resend_attempt=before.attempts, states=[State.FAILED])

    is_kept = await ledger.restore(
        video.key, state=before.state, error=str(before.error), failure_class=before.failure_class
    )

    assert is_kept
    after = (await ledger.records())[video.key]
    assert (after.state, after.failure_class, after.error) == (State.FAILED, "moderation", before.error)


async def test_each_part_of_a_budget_is_reached_once_over_all_runs_and_anew_for_another_budget(
    ledger: Ledger, ledger_url: str
) -> None:
    async def reached(budget_usd: float) -> list[list[int]]:
        async with AsyncExitStack() as stack:
            others = [await stack.enter_async_context(open_ledger(ledger_url)) for _ in range(4)]
            answers = await asyncio.gather(*(one.reach_budget_marks(budget_usd, (50, 80, 95)) for one in others))
        return sorted(new for _, new in answers if new)

    seen: list[list[list[int]]] = []
    for number, usd in enumerate((0.49, 0.01, 0.45, 0.05)):
        video = a_video(f"r{number}")
        await planned(ledger, video)
        await ledger.intend(video.key, estimate_usd=usd, budget_usd=1.0)
        seen.append(await reached(1.0))

    assert seen == [[], [[50]], [[80, 95]], []]
    assert await reached(1.25) == [[50, 80]]
    assert await reached(0.0) == []
