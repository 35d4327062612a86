"""A run that is stopped while it submits: the call and its entry are not torn apart, and nothing more is sent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from fake_clock import FakeClock
from prefect_together.api.jobs import VideoJob
from prefect_together.errors import BadParameter, SubmissionInDoubt
from submit_harness import JOB, UNREACHABLE, Harness, refused, settle


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
        (refused(after=5.0), "not_accepted 1 RateLimited"),
        (BadParameter(400, None, "fps"), "not_accepted 1 BadParameter"),
        (SubmissionInDoubt("HTTP 500"), "in_doubt 1 HTTP 500"),
        (RuntimeError("a bug"), "in_doubt 1 a bug"),
    ],
)
async def test_an_answer_just_after_the_stop_is_written(result: VideoJob | Exception, entry: str) -> None:
    answer = LateAnswer(result)
    harness = Harness(answer)
    running = asyncio.create_task(harness.submit())
    await settle()

    running.cancel()
    await settle()
    answer.comes.set()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert harness.log == ["intend 1", "create", entry]
    assert harness.pacer.ends == ["released"]


async def test_an_answer_that_does_not_come_after_the_stop_leaves_the_video_in_doubt() -> None:
    harness = Harness(LateAnswer())
    running = asyncio.create_task(harness.submit())
    await settle()

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert harness.log == ["intend 1", "create", "in_doubt 1 the run was stopped before the answer came"]
    assert harness.pacer.ends == ["released"]


async def test_a_second_stop_does_not_wait_for_the_answer() -> None:
    harness = Harness(LateAnswer())
    running = asyncio.create_task(harness.submit())
    await settle()

    running.cancel()
    await settle()
    running.cancel()
    await settle()

    assert running.done()
    assert harness.log[-1] == "in_doubt 1 the run was stopped before the answer came"


async def test_a_loop_that_cancels_everything_leaves_the_video_in_doubt() -> None:
    harness = Harness(LateAnswer())
    others = asyncio.all_tasks()
    running = asyncio.create_task(harness.submit())
    await settle()

    for task in asyncio.all_tasks() - others:  # as asyncio.run does at its end
        task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert harness.log[-1] == "in_doubt 1 the run was stopped before the answer came"
    assert harness.pacer.ends == ["released"]


async def test_a_stop_while_the_intent_is_written_takes_it_back_and_sends_nothing() -> None:
    harness = Harness(JOB)
    harness.journal.intending = asyncio.Event()
    running = asyncio.create_task(harness.submit())
    await settle()

    running.cancel()
    await settle()
    harness.journal.intending.set()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert harness.log == ["intend 1", "not_accepted 1 StoppedBeforeSending"]
    assert harness.pacer.ends == ["released"]


async def test_a_stop_in_a_pause_writes_nothing_more() -> None:
    harness = Harness(UNREACHABLE)
    harness.clock = FakeClock(auto=False)
    running = asyncio.create_task(harness.submit())
    await settle()

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert harness.log == ["intend 1", "create", "not_accepted 1 NeverSent"]
    assert harness.pacer.ends == ["released"]


async def test_a_stop_before_the_turn_writes_nothing() -> None:
    answer = LateAnswer()
    harness = Harness(answer)
    submits = [asyncio.create_task(harness.submit()) for _ in range(30)]
    await settle(100)
    sent = harness.api.calls

    waiting = submits[-1]
    waiting.cancel()
    answer.comes.set()
    ends = await asyncio.gather(*submits, return_exceptions=True)

    assert sent < 30
    assert sum(isinstance(end, asyncio.CancelledError) for end in ends) == 1
    assert harness.log.count("create") == 29
    assert harness.pacer.admitted == len(harness.pacer.ends) == 29
