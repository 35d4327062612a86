"""The poll loop: which statuses end a wait, what a failed poll costs, the deadline, and what is learned."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import replace

import httpx
import pytest
from together import AsyncTogether

from fake_clock import FakeClock
from prefect_together.api.client import PollMissed, VideoApi
from prefect_together.api.jobs import VideoJob
from prefect_together.api.poll import BLOCKED_POLLS, NO_LINK_SECONDS, NOT_VISIBLE_SECONDS, PollBudget, wait
from prefect_together.api.poll_schedule import DurationStatistics
from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.errors import AccountBlocked, FailureClass, JobFailed, JobNotFound, JobTimedOut
from prefect_together.request.images import encode_image
from prefect_together.request.request import VideoRequest
from prefect_together.sandbox import Sandbox
from prefect_together.sandbox.faults import STORM
from prefect_together.sandbox.jobs import MISSING
from scripted_api import Answer
from watch import BLOCKED, DONE, DRAFT, MISSED, NOT_FOUND, Watch, at

# How a wait ends


async def test_a_completed_job_comes_back_with_what_waiting_for_it_took() -> None:
    watch = Watch(at("queued"), at("in_progress"), DONE)

    job = await watch.wait()

    assert (job.video_url, job.cost_usd, job.polls) == ("https://x/1", 0.28, 3)
    assert job.observed_seconds == pytest.approx(watch.asked_after[-1])
    assert watch.budget.round_seconds == 0.0


@pytest.mark.parametrize("status", ["queued", "in_progress", None, "reticulating", "processing"])
async def test_a_status_that_is_not_final_is_waited_for(status: str | None) -> None:
    watch = Watch(at(status), at(status), at(status), DONE)

    job = await watch.wait()

    assert job.polls == 4


async def test_completed_without_a_link_is_waited_for() -> None:
    watch = Watch(at("completed"), replace(DONE, video_url=None), DONE)

    job = await watch.wait()

    assert (job.polls, job.video_url) == (3, "https://x/1")
    assert watch.changes.seen == [(None, "completed")]


async def test_a_job_that_stays_without_a_link_comes_back_without_one_after_some_minutes() -> None:
    watch = Watch(at("queued"), replace(DONE, video_url=None))

    job = await watch.wait(for_seconds=36_000.0)

    first_completed, last = watch.asked_after[1], watch.asked_after[-1]
    assert (job.is_completed, job.video_url, job.cost_usd) == (True, None, 0.28)
    assert last - first_completed >= NO_LINK_SECONDS
    assert last < 2 * NO_LINK_SECONDS + 120


async def test_a_job_without_a_link_at_the_deadline_comes_back_with_its_cost() -> None:
    watch = Watch(replace(DONE, video_url=None))

    job = await watch.wait(for_seconds=-3600.0, submitted_ago=86400.0)

    assert (job.video_url, job.cost_usd) == (None, 0.28)


@pytest.mark.parametrize("status", ["succeeded", "COMPLETED", "Success", "done"])
async def test_a_link_is_taken_under_any_word_for_completed(status: str) -> None:
    watch = Watch(at("queued"), replace(DONE, status=status))

    job = await watch.wait()

    assert job.video_url == DONE.video_url


@pytest.mark.parametrize(
    ("status", "failure_class"),
    [("canceled", "cancelled"), ("expired", "upstream"), ("error", "upstream"), ("REJECTED", "bad_parameter")],
)
async def test_any_word_for_failed_ends_the_wait_and_is_named(status: str, failure_class: str) -> None:
    watch = Watch(at("queued"), at(status))

    with pytest.raises(JobFailed, match=status) as caught:
        await watch.wait()

    assert caught.value.failure_class == failure_class


async def test_an_unknown_word_is_shown_as_unknown_when_the_deadline_passes() -> None:
    watch = Watch(at("reticulating"))

    with pytest.raises(JobTimedOut, match="still unknown status 'reticulating'"):
        await watch.wait(for_seconds=10.0)


async def test_a_wait_that_ends_with_missed_polls_says_what_they_met() -> None:
    watch = Watch(PollMissed("retrieve answered with another job, job-2"))

    with pytest.raises(JobTimedOut, match="another job, job-2"):
        await watch.wait(for_seconds=10.0)


@pytest.mark.parametrize(
    ("job", "failure_class"),
    [
        (VideoJob("job-1", "failed", error_code="unsupportedParameter", error_message="fps"), "bad_parameter"),
        (VideoJob("job-1", "failed", error_message="flagged by our safety system"), "moderation"),
        (VideoJob("job-1", "failed", error_message="internal error", cost_usd=0.1), "upstream"),
        (VideoJob("job-1", "failed"), "upstream"),
        (VideoJob("job-1", "cancelled"), "cancelled"),
    ],
)
async def test_a_failed_job_is_not_looked_at_again(job: VideoJob, failure_class: FailureClass) -> None:
    watch = Watch(at("queued"), job)

    with pytest.raises(JobFailed) as caught:
        await watch.wait()

    assert (caught.value.failure_class, caught.value.cost_usd) == (failure_class, job.cost_usd)
    assert (job.error_message or "gave no reason") in str(caught.value)
    assert watch.api.calls == 2


async def test_each_change_is_told_once() -> None:
    watch = Watch(
        at(None), at("queued"), at("queued"), MISSED, at("queued"), at("in_progress"), at("in_progress"), DONE
    )

    await watch.wait()

    assert watch.changes.seen == [(None, "queued"), ("queued", "in_progress"), ("in_progress", "completed")]


# Not found


async def test_a_job_that_is_not_visible_yet_is_looked_for() -> None:
    watch = Watch(NOT_FOUND, NOT_FOUND, at("queued"), DONE)

    job = await watch.wait()

    assert job.polls == 4


async def test_a_job_that_stays_unknown_for_more_than_a_minute_is_not_found() -> None:
    watch = Watch(NOT_FOUND)

    with pytest.raises(JobNotFound):
        await watch.wait()

    looked = watch.asked_after
    assert looked[-1] - looked[0] >= NOT_VISIBLE_SECONDS
    assert looked[-2] - looked[0] < NOT_VISIBLE_SECONDS


async def test_the_minute_begins_anew_when_the_job_was_seen() -> None:
    watch = Watch(*[NOT_FOUND] * 3, at("queued"), NOT_FOUND)

    with pytest.raises(JobNotFound):
        await watch.wait()

    looked = watch.asked_after
    assert looked[-1] - looked[4] >= NOT_VISIBLE_SECONDS


async def test_failed_polls_do_not_hide_that_the_job_is_gone() -> None:
    answers = [answer for _ in range(200) for answer in (NOT_FOUND, MISSED)]
    watch = Watch(*answers)

    with pytest.raises(JobNotFound):
        await watch.wait()

    assert watch.asked_after[-1] - watch.asked_after[0] < 2 * NOT_VISIBLE_SECONDS + 120


# Missed polls


async def test_a_missed_poll_is_not_a_failed_job() -> None:
    watch = Watch(*[MISSED] * 30, DONE)

    job = await watch.wait(for_seconds=86400.0)

    assert job.polls == 31


async def test_a_refused_poll_waits_as_long_as_it_is_told() -> None:
    watch = Watch(PollMissed("HTTP 429 on retrieve", 45.0, is_rate_limit=True), DONE)

    await watch.wait()

    first, second = watch.asked_after
    assert second - first >= 45.0


async def test_a_refused_poll_slows_all_jobs_down() -> None:
    watch = Watch(PollMissed("HTTP 429 on retrieve", 1.0, is_rate_limit=True), DONE)
    with watch.budget.waiting():
        before = watch.budget.round_seconds

        await watch.wait()

        assert watch.budget.round_seconds > before


async def test_a_lone_503_slows_nobody_down() -> None:
    watch = Watch(PollMissed("HTTP 503 on retrieve", None, is_rate_limit=True), DONE)
    with watch.budget.waiting():
        before = watch.budget.round_seconds

        await watch.wait()

        assert watch.budget.round_seconds == before


async def test_a_wall_clock_that_is_set_back_makes_no_look_late() -> None:
    watch = Watch(at("queued"), at("in_progress"), DONE)
    watch.statistics.load("m", [90.0] * 40)
    watch.clock.set_back(3600.0, at_seconds=1.0)

    await watch.wait()

    _, second, third = watch.asked_after
    assert third - second < 60.0


async def test_a_pause_of_one_job_holds_the_others_too() -> None:
    watch = Watch(PollMissed("HTTP 429 on retrieve", 100.0, is_rate_limit=True), at("queued"), at("queued"), DONE)

    await asyncio.gather(*(watch.wait() for _ in range(3)))

    assert not [asked for asked in watch.asked_after[1:] if asked < 100.0 + watch.asked_after[0]]


async def test_a_blocked_account_ends_the_wait_after_three_polls_in_a_row() -> None:
    watch = Watch(at("queued"), BLOCKED, BLOCKED, at("queued"), BLOCKED, BLOCKED, NOT_FOUND, BLOCKED)

    with pytest.raises(AccountBlocked):
        await watch.wait()

    assert BLOCKED_POLLS == 3
    assert watch.api.calls == 10


# The deadline


@pytest.mark.parametrize("answer", [at("queued"), at(None), MISSED, NOT_FOUND, BLOCKED], ids=str)
async def test_after_the_deadline_one_look_is_still_taken(answer: Answer) -> None:
    watch = Watch(answer)

    with pytest.raises(JobTimedOut, match="a later run can collect it"):
        await watch.wait(for_seconds=-3600.0, submitted_ago=7200.0)

    assert watch.api.calls == 1
    assert watch.asked_after == [0.0]


async def test_a_job_that_was_done_long_ago_is_collected_after_the_deadline() -> None:
    watch = Watch(DONE)

    job = await watch.wait(for_seconds=-3600.0, submitted_ago=86400.0)

    assert job.is_completed
    assert watch.asked_after == [0.0]


async def test_the_deadline_is_kept_to_the_second() -> None:
    watch = Watch(at("in_progress"))

    with pytest.raises(JobTimedOut) as caught:
        await watch.wait(for_seconds=100.0)

    assert watch.asked_after[-1] == pytest.approx(100.0)
    assert (caught.value.last_status, caught.value.waited_seconds) == ("in_progress", pytest.approx(100.0))


async def test_a_stopped_wait_frees_its_part_of_the_budget() -> None:
    watch = Watch(at("queued"))
    watch.clock = FakeClock(auto=False)
    waiting = asyncio.create_task(watch.wait())
    await watch.clock.advance(0)
    during = watch.budget.round_seconds

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert during > 0.0
    assert watch.budget.round_seconds == 0.0


# Over a real socket


@pytest.fixture(scope="module")
def sandbox() -> Generator[Sandbox]:
    with Sandbox(retry_after_seconds=0.05, late_seconds=0.4) as running:
        yield running


@pytest.mark.parametrize("fault", [*STORM["retrieve"], "401", "403"])
async def test_no_fault_of_a_poll_loses_a_job(sandbox: Sandbox, fault: str) -> None:
    request = VideoRequest(model="minimax/video-01-director", prompt=f"a cat meets {fault}.")
    sandbox.script("queued", None, MISSING, "completed", prompt=request.prompt)
    sandbox.fault(fault, endpoint="retrieve", prompt=request.prompt)

    async with AsyncTogether(api_key="key", base_url=sandbox.base_url) as client:
        api = VideoApi(client, encode_image=encode_image, retrieve_timeout=httpx.Timeout(0.2))
        job = await api.create(request)
        now = SYSTEM_CLOCK.time()
        done = await wait(
            api,
            job.id,
            model="m",
            submitted_at=now,
            deadline=now + 30.0,
            durations=DurationStatistics(prior=DRAFT, max_seconds=0.05, min_seconds=0.01),
            poll_budget=PollBudget(poll_cost_seconds=0.01),
        )

    assert done.is_completed
    assert done.polls >= 4
