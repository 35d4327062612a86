"""The one poll loop: looks at a job at well-chosen times until it ends or the deadline passes. No Prefect."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from prefect_together.api.client import PollMissed, VideoApi
from prefect_together.api.jobs import VideoJob, classify_failure
from prefect_together.api.poll_schedule import MAX_SECONDS, Dice, DurationBook, PollPlan
from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.errors import AccountBlocked, JobFailed, JobNotFound, JobTimedOut

REQUESTS_PER_SECOND = 100.0
POLL_WORTH_SECONDS = 0.1
"""Lateness that one poll is worth while there is room: about 17 polls and 1.6 s at 90 s with a spread of 0.35. So a run
of 1,000 rows, 200 in flight, is 1.5 % slower than one that looks at each job twice a second."""
MAX_POLL_WORTH_SECONDS = 3600.0
TARGET_LOAD = 0.9
"""Part of the budget that the price aims at; the rest is for jobs that come due together."""
BURST_SECONDS = 0.25
"""What the gate lets through at once after a pause, as seconds of the budget."""
USUAL_LOOKS_PER_SECOND = 0.06
"""Looks a second of a waiting job at a worth of 1 s, before it has planned one."""
RECOVERY_SECONDS = 60.0
"""Time in which the rate comes back from 0 to the budget after a refusal."""
LEAST_RATE = 0.02
"""Part of the budget that refusals leave in any case."""
NOISE_POLLS, NOISE_PART = 20, 0.25
"""A refusal that names no wait is noise while less than this part of so many polls and refusals were such refusals."""
SAME_ROUND_SECONDS = 1.0
"""Refusals within this time of each other are answers to polls that were on their way together."""


class PollBudget:
    """Shared by all jobs of a process that talk to one service with one key."""

    def __init__(
        self,
        *,
        requests_per_second: float = REQUESTS_PER_SECOND,
        poll_worth_seconds: float = POLL_WORTH_SECONDS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.requests_per_second = requests_per_second
        self.least_worth_seconds = poll_worth_seconds
        self._clock = clock
        self._places = 0
        self._demand = 0.0  # looks a second of all places at a worth of 1 s
        self._gate = asyncio.Lock()
        self._next_at = -math.inf
        self._cut_at, self._cut_rate = -math.inf, requests_per_second
        self._paused_until = -math.inf
        self._were_wordless = deque([False] * NOISE_POLLS, maxlen=NOISE_POLLS)
        """The last polls (False) and refusals without a wait (True), one entry for each."""

    @contextmanager
    def waiting(self) -> Generator[Place]:
        """Around the whole wait for one job: it counts among those that share the budget."""
        place = Place(self)
        self._places += 1
        self._demand += place.demand
        try:
            yield place
        finally:
            self._places -= 1
            self._demand = self._demand - place.demand if self._places else 0.0

    @property
    def jobs_waiting(self) -> int:
        return self._places

    @property
    def poll_worth_seconds(self) -> float:
        """Seconds of lateness that one look is worth now: w of `PollPlan.next_look`."""
        worth = (self._demand / (TARGET_LOAD * self._rate())) ** 2
        return min(max(worth, self.least_worth_seconds), MAX_POLL_WORTH_SECONDS)

    @property
    def fair_seconds(self) -> float:
        """The pause at which all waiting jobs together, looking in turn, use up the budget."""
        return self._places / (TARGET_LOAD * self._rate())

    async def acquire(self) -> None:
        """Wait until one poll may be sent. First come, first served; a cancelled waiter leaves its turn to the next."""
        async with self._gate:
            while (pause := max(self._next_at, self._paused_until) - self._clock.monotonic()) > 0.0:
                await self._clock.sleep(pause)
            earliest = self._clock.monotonic() - BURST_SECONDS
            self._next_at = max(self._next_at, earliest) + 1.0 / self._rate()
            self._were_wordless.append(False)

    def refused(self, retry_after_seconds: float | None = None) -> None:
        """A poll was answered 429 or 503. All polls wait as long as it says, then go on at half the rate for a while.

        The rate recovers in a minute. The polls that were on their way together are refused together: within a second
        they count once. A lone refusal that names no wait says nothing of a limit and changes nothing.
        """
        if retry_after_seconds is None:
            self._were_wordless.append(True)
            if self._were_wordless.count(True) < NOISE_PART * NOISE_POLLS:
                return
        now = self._clock.monotonic()
        if now >= self._cut_at + SAME_ROUND_SECONDS:
            self._cut_rate = max(self._rate() / 2.0, LEAST_RATE * self.requests_per_second)
            self._cut_at = now
        self._paused_until = max(self._paused_until, now + (retry_after_seconds or 0.0))

    def _rate(self) -> float:
        """Polls a second that the gate lets through now."""
        since = max(self._clock.monotonic() - max(self._cut_at, self._paused_until), 0.0)
        if since >= RECOVERY_SECONDS:
            return self.requests_per_second
        return min(self._cut_rate + self.requests_per_second * since / RECOVERY_SECONDS, self.requests_per_second)

    def replan(self, before: float, demand: float) -> None:
        """A place's demand has changed; called by the place."""
        self._demand = max(self._demand + demand - before, 0.0)


class Place:
    """One waiting job's part of the budget."""

    def __init__(self, budget: PollBudget) -> None:
        self.demand = USUAL_LOOKS_PER_SECOND
        self._budget = budget

    def next_look(
        self, plan: PollPlan, elapsed_seconds: float, *, looked_seconds: float | None = None, rng: Dice = random
    ) -> float:
        """`PollPlan.next_look` at what a look is worth now; the budget learns from it how often this job looks."""
        budget = self._budget
        worth = budget.poll_worth_seconds
        pause = plan.next_look(elapsed_seconds, poll_worth_seconds=worth, looked_seconds=looked_seconds, rng=rng)
        if worth > budget.least_worth_seconds and pause > budget.fair_seconds:
            unhurried = plan.next_look(
                elapsed_seconds,
                poll_worth_seconds=budget.least_worth_seconds,
                looked_seconds=looked_seconds,
                rng=rng,
            )
            pause = max(unhurried, budget.fair_seconds)
        if pause > 0.0:  # an overdue look says nothing of how often this job looks
            before, self.demand = self.demand, math.sqrt(worth) / max(pause, plan.min_seconds)
            budget.replan(before, self.demand)
        return pause


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
