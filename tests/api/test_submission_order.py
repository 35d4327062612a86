"""Durations of jobs that go on side by side: released in the order in which the jobs began, as if each were alone."""

from __future__ import annotations

import asyncio
import random

from fake_clock import FakeClock
from prefect_together.api.durations import ENDED_OF_THEM, SubmissionOrder
from prefect_together.api.jobs import VideoJob
from prefect_together.api.poll import PollBudget, wait
from prefect_together.api.poll_schedule import DurationStatistics
from scripted_api import ScriptedApi


def test_what_ended_first_is_released_after_what_began_before_it() -> None:
    jobs, released = SubmissionOrder(), list[str]()
    long, short = jobs.begin(1.0), jobs.begin(2.0)
    long.observed(lambda: released.append("long"))
    short.observed(lambda: released.append("short"))

    jobs.end(short)
    before = list(released)
    jobs.end(long)

    assert before == []
    assert released == ["long", "short"]


def test_a_job_taken_up_later_that_began_earlier_comes_first() -> None:
    jobs, released = SubmissionOrder(), list[str]()
    young, old = jobs.begin(2.0), jobs.begin(1.0)
    young.observed(lambda: released.append("young"))

    jobs.end(young)
    before = list(released)
    jobs.end(old)

    assert (before, released) == ([], ["young"])


def test_a_job_that_fails_holds_nobody_back_and_teaches_nothing() -> None:
    jobs, released = SubmissionOrder(), list[str]()
    failed, done = jobs.begin(1.0), jobs.begin(2.0)
    done.observed(lambda: released.append("done"))

    jobs.end(failed)
    jobs.end(done)

    assert released == ["done"]


def test_a_stuck_job_does_not_hold_the_others_back_for_ever_and_is_released_in_the_end() -> None:
    jobs, released = SubmissionOrder(), list[str]()
    stuck = jobs.begin(0.0)
    stuck.observed(lambda: released.append("stuck"))
    for number in range(ENDED_OF_THEM):
        turn = jobs.begin(1.0 + number)
        turn.observed(lambda: released.append("other"))
        jobs.end(turn)
    before = list(released)

    jobs.end(stuck)

    assert before == ["other"] * ENDED_OF_THEM
    assert released[-1] == "stuck"


class Service(ScriptedApi):
    """Jobs that take as long as they are said to."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(VideoJob("none"), clock=clock)
        self._clock = clock
        self._jobs: dict[str, tuple[float, float]] = {}

    def begin(self, job_id: str, seconds: float) -> None:
        self._jobs[job_id] = (self._clock.time(), seconds)

    async def retrieve(self, job_id: str) -> VideoJob:
        await super().retrieve(job_id)
        began, seconds = self._jobs[job_id]
        if self._clock.time() < began + seconds:
            return VideoJob(job_id, "in_progress")
        stamp = float(int(began))
        return VideoJob(job_id, "completed", video_url="x", created_at=stamp, completed_at=stamp + round(seconds))


async def looks_a_job(jobs: int, *, in_flight: int) -> float:
    """Of a model of which 96 durations are known."""
    rng, clock, book = random.Random(1), FakeClock(), DurationStatistics()
    book.load("m", [float(round(rng.lognormvariate(4.5, 0.35))) for _ in range(96)])
    service, places = Service(clock), asyncio.Semaphore(in_flight)
    budget = PollBudget(requests_per_second=1e6, clock=clock)

    async def job(number: int) -> None:
        async with places:
            service.begin(str(number), random.Random(number).lognormvariate(4.5, 0.35))
            now = clock.time()
            await wait(
                service,
                str(number),
                model="m",
                submitted_at=now,
                deadline=now + 36_000,
                durations=book,
                poll_budget=budget,
                clock=clock,
                rng=rng,
            )

    await asyncio.gather(*(job(number) for number in range(jobs)))
    return service.calls / jobs


async def test_jobs_sent_together_are_looked_at_no_more_than_jobs_one_after_another() -> None:
    """Told as they end, the first of 200 made the next looks come twice as often."""
    together = await looks_a_job(200, in_flight=200)

    assert together < 1.1 * await looks_a_job(200, in_flight=1)
