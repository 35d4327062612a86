"""Submitting a video: the intent first, again only what is safe, and a journal that is right however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from functools import partial
from itertools import pairwise

import httpx
import pytest
from together import AsyncTogether

from prefect_together.api.client import VideoApi
from prefect_together.api.jobs import VideoJob
from prefect_together.api.submit import NEVER_SENT_TRIES, submit
from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.errors import (
    AccountBlocked,
    BadParameter,
    BudgetReached,
    NeverSent,
    RateLimited,
    SubmissionInDoubt,
    TogetherVideoError,
)
from prefect_together.request.images import encode_image
from prefect_together.request.request import VideoRequest
from prefect_together.sandbox import Sandbox
from prefect_together.sandbox.faults import STORM
from scripted_api import Answer
from submit_harness import JOB, UNREACHABLE, CountedPacer, Harness, LoggedJournal, refused


async def test_the_intent_is_written_before_the_call_and_the_answer_after_it() -> None:
    harness = Harness(JOB)

    job = await harness.submit()

    assert job == JOB
    assert harness.log == ["intend 1", "create", "accepted 1 job-1"]
    assert harness.pacer.ends == ["accepted"]


# Sent again


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refusal_for_rate_is_sent_again_after_the_time_that_it_names(status: int) -> None:
    harness = Harness(refused(status, after=12.0), JOB)

    await harness.submit()

    first, second = harness.api.asked_at
    assert 12.0 <= second - first < 13.0
    assert harness.log == [
        *("intend 1", "create", "not_accepted 1 RateLimited"),
        *("intend 2", "create", "accepted 2 job-1"),
    ]
    assert harness.pacer.ends == ["refused", "accepted"]


async def test_refusals_that_name_no_time_are_answered_by_growing_pauses() -> None:
    harness = Harness(refused(), refused(), refused(), refused(), JOB)

    await harness.submit()

    at = harness.api.asked_at
    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert pauses[0] >= 1.0
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 8.0


async def test_a_refusal_for_rate_is_sent_again_until_it_is_time_to_give_up() -> None:
    harness = Harness(refused(after=30.0))

    with pytest.raises(RateLimited):
        await harness.submit(for_seconds=100.0)

    began = harness.api.asked_at[0]
    assert [round(at - began) for at in harness.api.asked_at] == [0, 30, 60, 90]
    assert harness.pacer.admitted == len(harness.pacer.ends)
    assert harness.log[-1].startswith("not_accepted 4 RateLimited")


async def test_even_a_late_row_is_tried_once() -> None:
    harness = Harness(refused(after=1.0))

    with pytest.raises(RateLimited):
        await harness.submit(for_seconds=-10.0)

    assert harness.log == ["intend 1", "create", "not_accepted 1 RateLimited"]


async def test_what_never_left_is_sent_again_six_times_with_growing_pauses() -> None:
    harness = Harness(UNREACHABLE)

    with pytest.raises(NeverSent):
        await harness.submit()

    at = harness.api.asked_at
    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert len(at) == NEVER_SENT_TRIES == 6
    assert pauses == pytest.approx([2.0, 4.0, 8.0, 16.0, 32.0], abs=0.01)
    assert harness.pacer.ends == ["released"] * 6
    assert harness.log[-1] == "not_accepted 6 NeverSent"


async def test_what_never_left_is_not_sent_again_past_the_time_to_give_up() -> None:
    harness = Harness(UNREACHABLE)

    with pytest.raises(NeverSent):
        await harness.submit(for_seconds=5.0)

    assert harness.api.calls == 3


async def test_what_never_left_is_accepted_when_the_network_is_back() -> None:
    harness = Harness(UNREACHABLE, UNREACHABLE, JOB)

    job = await harness.submit()

    assert job == JOB
    assert harness.pacer.ends == ["released", "released", "accepted"]


# Never sent again


@pytest.mark.parametrize(
    ("error", "entry"),
    [
        (SubmissionInDoubt("no answer"), "in_doubt 1 no answer"),
        (BadParameter(400, None, "fps"), "not_accepted 1 BadParameter"),
        (AccountBlocked(402, None, "no credits"), "not_accepted 1 AccountBlocked"),
    ],
)
async def test_what_is_in_doubt_or_refused_for_good_is_sent_once(error: TogetherVideoError, entry: str) -> None:
    harness = Harness(error)

    with pytest.raises(type(error)):
        await harness.submit()

    assert harness.log == ["intend 1", "create", entry]
    assert harness.pacer.ends == ["released"]


async def test_in_doubt_after_a_refusal_is_not_sent_again() -> None:
    harness = Harness(refused(after=1.0), UNREACHABLE, SubmissionInDoubt("HTTP 500"))

    with pytest.raises(SubmissionInDoubt):
        await harness.submit()

    assert harness.api.calls == 3
    assert harness.pacer.ends == ["refused", "released", "released"]


async def test_a_refused_intent_sends_nothing() -> None:
    harness = Harness(JOB, breaks="intend", error=BudgetReached(1.0, 0.9, 0.28))

    with pytest.raises(BudgetReached):
        await harness.submit()

    assert harness.log == []
    assert harness.pacer.ends == ["released"]


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        ("intend", JOB),
        ("accepted", JOB),
        ("not_accepted", refused(after=1.0)),
        ("not_accepted", UNREACHABLE),
        ("not_accepted", BadParameter(400, None, "fps")),
        ("in_doubt", SubmissionInDoubt("no answer")),
    ],
)
async def test_a_journal_that_breaks_ends_the_submit_and_its_place_in_the_pace(step: str, answer: Answer) -> None:
    harness = Harness(answer, breaks=step)

    with pytest.raises(RuntimeError, match="the ledger is gone"):
        await harness.submit()

    assert harness.api.calls == (0 if step == "intend" else 1)
    assert harness.pacer.ends == ["released"]


async def test_an_error_that_nobody_foresaw_is_in_doubt() -> None:
    harness = Harness(RuntimeError("a bug"))

    with pytest.raises(SubmissionInDoubt, match="a bug"):
        await harness.submit()

    assert harness.log == ["intend 1", "create", "in_doubt 1 RuntimeError: a bug"]
    assert harness.pacer.ends == ["released"]


async def test_what_is_in_doubt_says_its_dollars() -> None:
    harness = Harness(SubmissionInDoubt("no answer"))
    harness.journal.estimate_usd = 0.28

    with pytest.raises(SubmissionInDoubt) as caught:
        await harness.submit()

    assert (caught.value.reason, caught.value.estimate_usd) == ("no answer", 0.28)


# Over a real socket


@pytest.fixture(scope="module")
def sandbox() -> Generator[Sandbox]:
    with Sandbox(retry_after_seconds=0.05, late_seconds=1.0) as running:
        yield running


@pytest.mark.parametrize("fault", STORM["create"])
async def test_no_fault_makes_two_jobs_of_one_video(sandbox: Sandbox, fault: str) -> None:
    request = VideoRequest(model="minimax/video-01-director", prompt=f"a cat meets {fault}.")
    sandbox.fault(fault, endpoint="create", prompt=f"meets {fault}.")
    log: list[str] = []

    async with AsyncTogether(api_key="key", base_url=sandbox.base_url) as client:
        api = VideoApi(client, encode_image=encode_image, create_timeout=httpx.Timeout(0.4))
        pacer = CountedPacer(SYSTEM_CLOCK)
        create, end_at = partial(api.create, request), SYSTEM_CLOCK.time() + 30
        submitting = submit(create, pacer=pacer, journal=LoggedJournal(log), give_up_at=end_at)
        [end] = await asyncio.gather(submitting, return_exceptions=True)

    is_refusal = fault.startswith("429") or fault == "503"
    if is_refusal or fault in ("no-status", "hidden"):
        assert isinstance(end, VideoJob)
        assert log[-1] == f"accepted {1 + is_refusal} {end.id}"
        assert sandbox.accepted(request.prompt) == 1
    else:
        assert isinstance(end, SubmissionInDoubt)
        assert log[-1].startswith("in_doubt 1 ")
        assert sandbox.accepted(request.prompt) == (fault.endswith("-after") or fault in ("late", "half-json", "no-id"))
    assert pacer.admitted == len(pacer.ends) == 1 + is_refusal
