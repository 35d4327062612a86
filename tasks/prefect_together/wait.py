"""The one poll loop: looks at a job at well-chosen times until it ends or the deadline passes. No Prefect."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from prefect_together.client import PollMissed, VideoApi
from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.errors import AccountBlocked, JobFailed, JobNotFound, JobTimedOut
from prefect_together.jobs import VideoJob, classify_failure
from prefect_together.poll_budget import PollBudget
from prefect_together.schedule import MAX_SECONDS, Dice, DurationBook

NOT_VISIBLE_SECONDS = 60.0
"""How long a job may answer 404: right after create it can be not visible yet."""
WATCHED_SECONDS = 2 * MAX_SECONDS
"""Between two looks further apart than this nobody watched: when the job ended is not known, and nothing is learned."""
BLOCKED_POLLS = 3
"""Polls in a row answered 401, 402 or 403 before the wait is given up; the job stays submitted."""


async def wait(
    api: VideoApi,
    job_id: str,
    *,
    model: str,
    submitted_at: float,
    deadline: float,
    book: DurationBook,
    poll_budget: PollBudget,
    on_change: Callable[[str | None, str | None], None] = lambda _before, _now: None,
    clock: Clock = SYSTEM_CLOCK,
    rng: Dice = random,
) -> VideoJob:
    """Wait until the job is completed *and* has a link; return it with `polls` and `observed_seconds` filled in.

    `submitted_at` and `deadline` are unix seconds; the deadline is absolute, so that a restart does not extend it. At
    least one look is taken, even after the deadline. Any status that is not final, known or not, is waited for; a
    failed poll is a missed poll. `on_change(before, now)` is called when the status changes.

    Raises JobFailed (failed, cancelled), JobTimedOut (goes on, can be collected later), JobNotFound (404 for more than
    a minute), AccountBlocked (the key is refused, three polls in a row).
    """
    polls, status, blocked = 0, None, 0
    missing_since, looked_seconds = None, 0.0
    began, age_then = clock.monotonic(), max(clock.time() - submitted_at, 0.0)

    def age_seconds() -> float:
        """Of the job; the wall clock, which may be set, is asked once."""
        return age_then + clock.monotonic() - began

    with poll_budget.waiting() as place, book.waiting(model, submitted_at) as lesson:
        pause = place.next_look(book.plan(model), age_then, looked_seconds=0.0, rng=rng)
        while True:
            await clock.sleep(max(min(pause, deadline - clock.time()), 0.0))
            await poll_budget.acquire()
            polls += 1
            asked_seconds = age_seconds()
            retry_after = 0.0
            try:
                job = await api.retrieve(job_id)
            except PollMissed as missed:
                retry_after = missed.retry_after_seconds or 0.0
                if missed.is_rate_limit:
                    poll_budget.refused(missed.retry_after_seconds)
            except JobNotFound:
                missing_since, blocked = asked_seconds if missing_since is None else missing_since, 0
                if asked_seconds - missing_since >= NOT_VISIBLE_SECONDS:
                    raise
            except AccountBlocked:
                blocked += 1
                if blocked >= BLOCKED_POLLS:
                    raise
            else:
                missing_since, blocked = None, 0
                if job.status != status:
                    on_change(status, job.status)
                    status = job.status
                if job.is_completed:
                    job = replace(job, polls=polls, observed_seconds=asked_seconds)
                    lesson.tell(partial(_learn, book, model, job, earliest_seconds=looked_seconds))
                    return job
                if job.is_failed:
                    raise job_failed(job)
                looked_seconds = asked_seconds
            if clock.time() >= deadline:
                raise JobTimedOut(job_id, status, age_seconds())
            pause = max(place.next_look(book.plan(model), age_seconds(), rng=rng), retry_after)


def _learn(book: DurationBook, model: str, job: VideoJob, *, earliest_seconds: float) -> None:
    """Tell the book how long the job took: by the service's stamps, else by the looks between which it was done."""
    stamped = job.stamped_seconds
    # Of a job of less than a second both stamps are often the same: then the looks know more.
    if stamped is not None and stamped > 0.0:
        book.observe(model, stamped)
    elif job.observed_seconds is not None and job.observed_seconds - earliest_seconds <= WATCHED_SECONDS:
        book.observe(model, job.observed_seconds, earliest_seconds=earliest_seconds)


def job_failed(job: VideoJob) -> JobFailed:
    """The error of a job that ended `failed` or `cancelled`."""
    failure_class = classify_failure(job.status, job.error_code, job.error_message)
    message = job.error_message or f"the service gave no reason (status {job.status})"
    return JobFailed(job.id, job.error_code, message, failure_class, job.cost_usd)
