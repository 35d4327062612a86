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
from virtual_wait import BLOCKED, DONE, DRAFT, MISSED, NOT_FOUND, VirtualWait, at

# How a wait ends


async def test_a_completed_job_comes_back_with_what_waiting_for_it_took() -> None:
    waiting = VirtualWait(at("queued"), at("in_progress"), DONE)

    job = await waiting.wait()

    assert (job.video_url, job.cost_usd, job.polls) == ("https://x/1", 0.28, 3)
    assert job.observed_seconds == pytest.approx(waiting.asked_after[-1])
    assert waiting.budget.round_seconds == 0.0


@pytest.mark.parametrize("status", ["queued", "in_progress", None, "reticulating", "processing"])
async def test_a_status_that_is_not_final_is_waited_for(status: str | None) -> None:
    waiting = VirtualWait(at(status), at(status), at(status), DONE)

    job = await waiting.wait()

    assert job.polls == 4


async def test_completed_without_a_link_is_waited_for() -> None:
    waiting = VirtualWait(at("completed"), replace(DONE, video_url=None), DONE)

    job = await waiting.wait()

    assert (job.polls, job.video_url) == (3, "https://x/1")
    assert waiting.changes.seen == [(None, "completed")]


async def test_a_job_that_stays_without_a_link_comes_back_without_one_after_some_minutes() -> None:
    waiting = VirtualWait(at("queued"), replace(DONE, video_url=None))

    job = await waiting.wait(for_seconds=36_000.0)

    first_completed, last = waiting.asked_after[1], waiting.asked_after[-1]
    assert (job.is_completed, job.video_url, job.cost_usd) == (True, None, 0.28)
    assert last - first_completed >= NO_LINK_SECONDS
    assert last < 2 * NO_LINK_SECONDS + 120


async def test_a_job_without_a_link_at_the_deadline_comes_back_with_its_cost() -> None:
    waiting = VirtualWait(replace(DONE, video_url=None))

    job = await waiting.wait(for_seconds=-3600.0, submitted_ago=86400.0)

    assert (job.video_url, job.cost_usd) == (None, 0.28)


@pytest.mark.parametrize("status", ["succeeded", "COMPLETED", "Success", "done"])
async def test_a_link_is_taken_under_any_word_for_completed(status: str) -> None:
    waiting = VirtualWait(at("queued"), replace(DONE, status=status))

    job = await waiting.wait()

    assert job.video_url == DONE.video_url


@pytest.mark.parametrize(
    ("status", "failure_class"),
    [("canceled", "cancelled"), ("expired", "upstream"), ("error", "upstream"), ("REJECTED", "bad_parameter")],
)
async def test_any_word_for_failed_ends_the_wait_and_is_named(status: str, failure_class: str) -> None:
    waiting = VirtualWait(at("queued"), at(status))

    with pytest.raises(JobFailed, match=status) as caught:
        await waiting.wait()

    assert caught.value.failure_class == failure_class


async def test_an_unknown_word_is_shown_as_unknown_when_the_deadline_passes() -> None:
    waiting = VirtualWait(at("reticulating"))

    with pytest.raises(JobTimedOut, match="still unknown status 'reticulating'"):
        await waiting.wait(for_seconds=10.0)


async def test_a_wait_that_ends_with_missed_polls_says_what_they_met() -> None:
    waiting = VirtualWait(PollMissed("retrieve answered with another job, job-2"))

    with pytest.raises(JobTimedOut, match="another job, job-2"):
        await waiting.wait(for_seconds=10.0)


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
    waiting = VirtualWait(at("queued"), job)

    with pytest.raises(JobFailed) as caught:
        await waiting.wait()

    assert (caught.value.failure_class, caught.value.cost_usd) == (failure_class, job.cost_usd)
    assert (job.error_message or "gave no reason") in str(caught.value)
    assert waiting.api.calls == 2


async def test_each_change_is_told_once() -> None:
    waiting = VirtualWait(
        at(None), at("queued"), at("queued"), MISSED, at("queued"), at("in_progress"), at("in_progress"), DONE
    )

    await waiting.wait()

    assert waiting.changes.seen == [(None, "queued"), ("queued", "in_progress"), ("in_progress", "completed")]


# Not found


async def test_a_job_that_is_not_visible_yet_is_looked_for() -> None:
    waiting = VirtualWait(NOT_FOUND, NOT_FOUND, at("queued"), DONE)

    job = await waiting.wait()

    assert job.polls == 4


async def test_a_job_that_stays_unknown_for_more_than_a_minute_is_not_found() -> None:
    waiting = VirtualWait(NOT_FOUND)

    with pytest.raises(JobNotFound):
        await waiting.wait()

    looked = waiting.asked_after
    assert looked[-1] - looked[0] >= NOT_VISIBLE_SECONDS
    assert looked[-2] - looked[0] < NOT_VISIBLE_SECONDS


async def test_the_minute_begins_anew_when_the_job_was_seen() -> None:
    waiting = VirtualWait(*[NOT_FOUND] * 3, at("queued"), NOT_FOUND)

    with pytest.raises(JobNotFound):
        await waiting.wait()

    looked = waiting.asked_after
    assert looked[-1] - looked[4] >= NOT_VISIBLE_SECONDS


async def test_failed_polls_do_not_hide_that_the_job_is_gone() -> None:
    answers = [answer for _ in range(200) for answer in (NOT_FOUND, MISSED)]
    waiting = VirtualWait(*answers)

    with pytest.raises(JobNotFound):
        await waiting.wait()

    assert waiting.asked_after[-1] - waiting.asked_after[0] < 2 * NOT_VISIBLE_SECONDS + 120


# Missed polls


async def test_a_missed_poll_is_not_a_failed_job() -> None:
    waiting = VirtualWait(*[MISSED] * 30, DONE)

    job = await waiting.wait(for_seconds=86400.0)

    assert job.polls == 31


async def test_a_refused_poll_waits_as_long_as_it_is_told() -> None:
    waiting = VirtualWait(PollMissed("HTTP 429 on retrieve", 45.0, is_rate_limit=True), DONE)

    await waiting.wait()

    first, second = waiting.asked_after
    assert second - first >= 45.0


async def test_a_refused_poll_slows_all_jobs_down() -> None:
    waiting = VirtualWait(PollMissed("HTTP 429 on retrieve", 1.0, is_rate_limit=True), DONE)
    with waiting.budget.waiting():
        before = waiting.budget.round_seconds

        await waiting.wait()

        assert waiting.budget.round_seconds > before


async def test_a_lone_503_slows_nobody_down() -> None:
    waiting = VirtualWait(PollMissed("HTTP 503 on retrieve", None, is_rate_limit=True), DONE)
    with waiting.budget.waiting():
        before = waiting.budget.round_seconds

        await waiting.wait()

        assert waiting.budget.round_seconds == before


async def test_a_wall_clock_that_is_set_back_makes_no_look_late() -> None:
    waiting = VirtualWait(at("queued"), at("in_progress"), DONE)
    waiting.statistics.load("m", [90.0] * 40)
    waiting.clock.set_back(3600.0, at_seconds=1.0)

    await waiting.wait()

    _, second, third = waiting.asked_after
    assert third - second < 60.0


async def test_a_pause_of_one_job_holds_the_others_too() -> None:
    waiting = VirtualWait(
        PollMissed("HTTP 429 on retrieve", 100.0, is_rate_limit=True), at("queued"), at("queued"), DONE
    )

    await asyncio.gather(*(waiting.wait() for _ in range(3)))

    assert not [asked for asked in waiting.asked_after[1:] if asked < 100.0 + waiting.asked_after[0]]


async def test_a_blocked_account_ends_the_wait_after_three_polls_in_a_row() -> None:
    waiting = VirtualWait(at("queued"), BLOCKED, BLOCKED, at("queued"), BLOCKED, BLOCKED, NOT_FOUND, BLOCKED)

    with pytest.raises(AccountBlocked):
        await waiting.wait()

    assert BLOCKED_POLLS == 3
    assert waiting.api.calls == 10


# The deadline


@pytest.mark.parametrize("answer", [at("queued"), at(None), MISSED, NOT_FOUND, BLOCKED], ids=str)
async def test_after_the_deadline_one_look_is_still_taken(answer: Answer) -> None:
    waiting = VirtualWait(answer)

    with pytest.raises(JobTimedOut, match="a later run can collect it"):
        await waiting.wait(for_seconds=-3600.0, submitted_ago=7200.0)

    assert waiting.api.calls == 1
    assert waiting.asked_after == [0.0]


async def test_a_job_that_was_done_long_ago_is_collected_after_the_deadline() -> None:
    waiting = VirtualWait(DONE)

    job = await waiting.wait(for_seconds=-3600.0, submitted_ago=86400.0)

    assert job.is_completed
    assert waiting.asked_after == [0.0]


async def test_the_deadline_is_kept_to_the_second() -> None:
    waiting = VirtualWait(at("in_progress"))

    with pytest.raises(JobTimedOut) as caught:
        await waiting.wait(for_seconds=100.0)

    assert waiting.asked_after[-1] == pytest.approx(100.0)
    assert (caught.value.last_status, caught.value.waited_seconds) == ("in_progress", pytest.approx(100.0))


async def test_a_stopped_wait_frees_its_part_of_the_budget() -> None:
    waiting = VirtualWait(at("queued"))
    waiting.clock = FakeClock(auto=False)
    task = asyncio.create_task(waiting.wait())
    await waiting.clock.advance(0)
    during = waiting.budget.round_seconds

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert during > 0.0
    assert waiting.budget.round_seconds == 0.0


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
