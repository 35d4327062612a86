"""Submitting a video: the intent first, again only what is safe, and a journal that is right however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import pairwise

import httpx
import pytest
from together import AsyncTogether

from fake_clock import FakeClock
from prefect_together.client import VideoApi
from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.errors import (
    AccountBlocked,
    BadParameter,
    BudgetReached,
    NeverSent,
    RateLimited,
    SubmissionInDoubt,
    SubmissionRefused,
    TogetherVideoError,
)
from prefect_together.images import encode_image
from prefect_together.jobs import VideoJob
from prefect_together.pacing import SubmitPacer
from prefect_together.requests import VideoRequest
from prefect_together.sandbox import Sandbox
from prefect_together.sandbox.faults import STORM
from prefect_together.submit import NEVER_SENT_TRIES, submit
from scripted_api import Answer, ScriptedApi

REQUEST = VideoRequest(model="minimax/video-01-director", prompt="a cat")
JOB = VideoJob("job-1", "queued")
UNREACHABLE = NeverSent("ConnectError")


class NoJitter:
    def random(self) -> float:
        return 0.0


class CountedPacer(SubmitPacer):
    """Remembers which end each admitted call was given."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, rng=NoJitter())
        self.admitted, self.ends = 0, list[str]()

    async def admit(self) -> None:
        await super().admit()
        self.admitted += 1

    def accepted(self) -> None:
        super().accepted()
        self.ends.append("accepted")

    def refused(self, retry_after_seconds: float | None = None) -> None:
        super().refused(retry_after_seconds)
        self.ends.append("refused")

    def released(self) -> None:
        super().released()
        self.ends.append("released")


@dataclass
class LoggedJournal:
    """Writes into the same log as the API, so that the order of both can be seen; `breaks` names a step that raises."""

    log: list[str]
    breaks: str | None = None
    error: Exception = field(default_factory=lambda: RuntimeError("the ledger is gone"))
    intending: asyncio.Event | None = None
    attempts: int = 0

    async def intend(self) -> int:
        self._write("intend", f"intend {self.attempts + 1}")
        self.attempts += 1
        if self.intending is not None:
            await self.intending.wait()
        return self.attempts

    async def accepted(self, attempt: int, job: VideoJob) -> None:
        self._write("accepted", f"accepted {attempt} {job.id}")

    async def not_accepted(self, attempt: int, error: SubmissionRefused | NeverSent, *, again: bool) -> None:
        self._write("not_accepted", f"not_accepted {attempt} {type(error).__name__}{' again' if again else ''}")

    async def in_doubt(self, attempt: int, reason: str) -> None:
        self._write("in_doubt", f"in_doubt {attempt} {reason}")

    def _write(self, step: str, line: str) -> None:
        if step == self.breaks:
            raise self.error
        self.log.append(line)


class Desk:
    """One submit with all that it needs."""

    def __init__(self, *answers: Answer, breaks: str | None = None, error: Exception | None = None) -> None:
        self.clock = FakeClock()
        self.log: list[str] = []
        self.api = ScriptedApi(*answers, clock=self.clock, log=self.log)
        self.pacer = CountedPacer(self.clock)
        self.journal = LoggedJournal(self.log, breaks)
        if error is not None:
            self.journal.error = error

    async def submit(self, *, for_seconds: float = 3600.0) -> VideoJob:
        return await submit(
            self.api,
            REQUEST,
            pacer=self.pacer,
            journal=self.journal,
            give_up_at=self.clock.time() + for_seconds,
            clock=self.clock,
        )


async def settle(turns: int = 20) -> None:
    """Let every task come as far as it can without time passing."""
    for _ in range(turns):
        await asyncio.sleep(0)


def refused(status: int = 429, *, after: float | None = None) -> RateLimited:
    return RateLimited(status, None, "slow down", after)


async def test_the_intent_is_written_before_the_call_and_the_answer_after_it() -> None:
    desk = Desk(JOB)

    job = await desk.submit()

    assert job == JOB
    assert desk.log == ["intend 1", "create", "accepted 1 job-1"]
    assert desk.pacer.ends == ["accepted"]


# Sent again


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refusal_for_rate_is_sent_again_after_the_time_that_it_names(status: int) -> None:
    desk = Desk(refused(status, after=12.0), JOB)

    await desk.submit()

    first, second = desk.api.asked_at
    assert 12.0 <= second - first < 13.0
    assert desk.log == [
        *("intend 1", "create", "not_accepted 1 RateLimited again"),
        *("intend 2", "create", "accepted 2 job-1"),
    ]
    assert desk.pacer.ends == ["refused", "accepted"]


async def test_refusals_that_name_no_time_are_answered_by_growing_pauses() -> None:
    desk = Desk(refused(), refused(), refused(), refused(), JOB)

    await desk.submit()

    at = desk.api.asked_at
    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert pauses[0] >= 1.0
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 8.0


async def test_a_refusal_for_rate_is_sent_again_until_it_is_time_to_give_up() -> None:
    desk = Desk(refused(after=30.0))

    with pytest.raises(RateLimited):
        await desk.submit(for_seconds=100.0)

    began = desk.api.asked_at[0]
    assert [round(at - began) for at in desk.api.asked_at] == [0, 30, 60, 90]
    assert desk.pacer.admitted == len(desk.pacer.ends)
    assert desk.log[-1].startswith("not_accepted 4 RateLimited")


async def test_even_a_late_row_is_tried_once() -> None:
    desk = Desk(refused(after=1.0))

    with pytest.raises(RateLimited):
        await desk.submit(for_seconds=-10.0)

    assert desk.log == ["intend 1", "create", "not_accepted 1 RateLimited"]


async def test_what_never_left_is_sent_again_six_times_with_growing_pauses() -> None:
    desk = Desk(UNREACHABLE)

    with pytest.raises(NeverSent):
        await desk.submit()

    at = desk.api.asked_at
    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert len(at) == NEVER_SENT_TRIES == 6
    assert pauses == pytest.approx([2.0, 4.0, 8.0, 16.0, 32.0], abs=0.01)
    assert desk.pacer.ends == ["released"] * 6
    assert desk.log[-1] == "not_accepted 6 NeverSent"


async def test_what_never_left_is_not_sent_again_past_the_time_to_give_up() -> None:
    desk = Desk(UNREACHABLE)

    with pytest.raises(NeverSent):
        await desk.submit(for_seconds=5.0)

    assert desk.api.calls == 3


async def test_what_never_left_is_accepted_when_the_network_is_back() -> None:
    desk = Desk(UNREACHABLE, UNREACHABLE, JOB)

    job = await desk.submit()

    assert job == JOB
    assert desk.pacer.ends == ["released", "released", "accepted"]


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
    desk = Desk(error)

    with pytest.raises(type(error)):
        await desk.submit()

    assert desk.log == ["intend 1", "create", entry]
    assert desk.pacer.ends == ["released"]


async def test_in_doubt_after_a_refusal_is_not_sent_again() -> None:
    desk = Desk(refused(after=1.0), UNREACHABLE, SubmissionInDoubt("HTTP 500"))

    with pytest.raises(SubmissionInDoubt):
        await desk.submit()

    assert desk.api.calls == 3
    assert desk.pacer.ends == ["refused", "released", "released"]


async def test_a_refused_intent_sends_nothing() -> None:
    desk = Desk(JOB, breaks="intend", error=BudgetReached(1.0, 0.9, 0.28))

    with pytest.raises(BudgetReached):
        await desk.submit()

    assert desk.log == []
    assert desk.pacer.ends == ["released"]


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
    desk = Desk(answer, breaks=step)

    with pytest.raises(RuntimeError, match="the ledger is gone"):
        await desk.submit()

    assert desk.api.calls == (0 if step == "intend" else 1)
    assert desk.pacer.ends == ["released"]


async def test_an_error_that_nobody_foresaw_is_in_doubt() -> None:
    desk = Desk(RuntimeError("a bug"))

    with pytest.raises(SubmissionInDoubt, match="a bug"):
        await desk.submit()

    assert desk.log == ["intend 1", "create", "in_doubt 1 RuntimeError: a bug"]
    assert desk.pacer.ends == ["released"]


async def test_what_is_in_doubt_says_its_dollars() -> None:
    desk = Desk(SubmissionInDoubt("no answer"))

    with pytest.raises(SubmissionInDoubt) as caught:
        await desk.submit()

    assert caught.value.reason == "no answer"
    assert caught.value.estimate_usd is not None


# Stopped


@dataclass
class LateAnswer:
    """An answer that comes when the test says so."""

    result: VideoJob | Exception = JOB
    comes: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self) -> VideoJob:
        await self.comes.wait()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.mark.parametrize(
    ("result", "entry"),
    [
        (JOB, "accepted 1 job-1"),
        (refused(after=5.0), "not_accepted 1 RateLimited again"),
        (BadParameter(400, None, "fps"), "not_accepted 1 BadParameter"),
        (SubmissionInDoubt("HTTP 500"), "in_doubt 1 HTTP 500"),
        (RuntimeError("a bug"), "in_doubt 1 a bug"),
    ],
)
async def test_an_answer_just_after_the_stop_is_written(result: VideoJob | Exception, entry: str) -> None:
    answer = LateAnswer(result)
    desk = Desk(answer)
    running = asyncio.create_task(desk.submit())
    await settle()

    running.cancel()
    await settle()
    answer.comes.set()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert desk.log == ["intend 1", "create", entry]
    assert desk.pacer.ends == ["released"]


async def test_an_answer_that_does_not_come_after_the_stop_leaves_the_video_in_doubt() -> None:
    desk = Desk(LateAnswer())
    running = asyncio.create_task(desk.submit())
    await settle()

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert desk.log == ["intend 1", "create", "in_doubt 1 the run was stopped before the answer came"]
    assert desk.pacer.ends == ["released"]


async def test_a_second_stop_does_not_wait_for_the_answer() -> None:
    desk = Desk(LateAnswer())
    running = asyncio.create_task(desk.submit())
    await settle()

    running.cancel()
    await settle()
    running.cancel()
    await settle()

    assert running.done()
    assert desk.log[-1] == "in_doubt 1 the run was stopped before the answer came"


async def test_a_loop_that_cancels_everything_leaves_the_video_in_doubt() -> None:
    desk = Desk(LateAnswer())
    others = asyncio.all_tasks()
    running = asyncio.create_task(desk.submit())
    await settle()

    for task in asyncio.all_tasks() - others:  # as asyncio.run does at its end
        task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert desk.log[-1] == "in_doubt 1 the run was stopped before the answer came"
    assert desk.pacer.ends == ["released"]


async def test_a_stop_while_the_intent_is_written_takes_it_back_and_sends_nothing() -> None:
    desk = Desk(JOB)
    desk.journal.intending = asyncio.Event()
    running = asyncio.create_task(desk.submit())
    await settle()

    running.cancel()
    await settle()
    desk.journal.intending.set()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert desk.log == ["intend 1", "not_accepted 1 NeverSent again"]
    assert desk.pacer.ends == ["released"]


async def test_a_stop_in_a_pause_writes_nothing_more() -> None:
    desk = Desk(UNREACHABLE)
    desk.clock = FakeClock(auto=False)
    running = asyncio.create_task(desk.submit())
    await settle()

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert desk.log == ["intend 1", "create", "not_accepted 1 NeverSent again"]
    assert desk.pacer.ends == ["released"]


async def test_a_stop_before_the_turn_writes_nothing() -> None:
    answer = LateAnswer()
    desk = Desk(answer)
    submits = [asyncio.create_task(desk.submit()) for _ in range(30)]
    await settle(100)
    sent = desk.api.calls

    waiting = submits[-1]
    waiting.cancel()
    answer.comes.set()
    ends = await asyncio.gather(*submits, return_exceptions=True)

    assert sent < 30
    assert sum(isinstance(end, asyncio.CancelledError) for end in ends) == 1
    assert desk.log.count("create") == 29
    assert desk.pacer.admitted == len(desk.pacer.ends) == 29


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
        submitting = submit(api, request, pacer=pacer, journal=LoggedJournal(log), give_up_at=SYSTEM_CLOCK.time() + 30)
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
