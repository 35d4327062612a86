"""Polls a job until it completes, fails, or the deadline passes, within one request budget over all jobs."""

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
from prefect_together.api.jobs import VideoJob, classify_failure, shown_status
from prefect_together.api.poll_schedule import MAX_SECONDS, DurationStatistics, PollPlan, RandomSource
from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.errors import AccountBlocked, JobFailed, JobNotFound, JobTimedOut

REQUESTS_PER_SECOND = 100.0
"""Polls of one process over all its jobs, fewer after a refusal; the service publishes no limit (November 2026)."""
POLL_COST_SECONDS = 0.1
"""What one poll costs, in seconds of lateness, while there is room: about 17 polls and 1.6 s late at 90 s with a spread
of 0.35. So a run of 1,000 rows, 200 in flight, is 1.5 % slower than one that polls each job twice a second."""
MAX_POLL_COST_SECONDS = 3600.0
TARGET_LOAD = 0.9
"""Part of the budget that the poll cost aims at; the rest is for jobs that come due together."""
BURST_SECONDS = 0.25
"""What may be sent at once after a pause, as seconds of the budget."""
USUAL_POLLS_PER_SECOND = 0.06
"""Polls a second of a waiting job at a poll cost of 1 s, before its first poll is planned."""
RECOVERY_SECONDS = 60.0
"""Time in which the rate comes back from 0 to the budget after a refusal."""
LEAST_RATE = 0.02
"""Part of the budget that refusals never take away."""
NOISE_POLLS, NOISE_PART = 20, 0.25
"""A refusal that names no wait is noise while less than this part of so many polls and refusals were such refusals."""
SAME_ROUND_SECONDS = 1.0
"""Refusals within this time of each other are answers to polls that were in flight together."""


class PollBudget:
    """A rate limit that all jobs of a process share, for one service and one key."""

    def __init__(
        self,
        *,
        requests_per_second: float = REQUESTS_PER_SECOND,
        poll_cost_seconds: float = POLL_COST_SECONDS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.requests_per_second = requests_per_second
        self.least_cost_seconds = poll_cost_seconds
        self._clock = clock
        self._jobs = 0
        self._demand = 0.0  # polls a second of all waiting jobs at a poll cost of 1 s
        self._gate = asyncio.Lock()
        self._next_at = -math.inf
        self._cut_at, self._cut_rate = -math.inf, requests_per_second
        self._paused_until = -math.inf
        self._gave_no_wait = deque([False] * NOISE_POLLS, maxlen=NOISE_POLLS)
        """The last polls (False) and refusals that named no wait (True), one entry for each."""

    @contextmanager
    def waiting(self) -> Generator[PollDemand]:
        """Around the whole wait for one job: it counts among those that share the budget."""
        demand = PollDemand(self)
        self._jobs += 1
        self._demand += demand.polls_per_second
        try:
            yield demand
        finally:
            self._jobs -= 1
            self._demand = self._demand - demand.polls_per_second if self._jobs else 0.0

    @property
    def poll_cost_seconds(self) -> float:
        """Seconds of lateness that one poll costs now: the cost in `PollPlan.next_poll`."""
        cost = (self._demand / (TARGET_LOAD * self._rate())) ** 2
        return min(max(cost, self.least_cost_seconds), MAX_POLL_COST_SECONDS)

    @property
    def round_seconds(self) -> float:
        """The pause at which all waiting jobs, polled in turn, use up the budget."""
        return self._jobs / (TARGET_LOAD * self._rate())

    async def acquire(self) -> None:
        """Wait until one poll may be sent. First come, first served; a cancelled waiter leaves its turn to the next."""
        async with self._gate:
            while (pause := max(self._next_at, self._paused_until) - self._clock.monotonic()) > 0.0:
                await self._clock.sleep(pause)
            earliest = self._clock.monotonic() - BURST_SECONDS
            self._next_at = max(self._next_at, earliest) + 1.0 / self._rate()
            self._gave_no_wait.append(False)

    def refused(self, retry_after_seconds: float | None = None) -> None:
        """A poll was answered 429 or 503. All polls pause for as long as it says, then continue at half the rate.

        The rate recovers in a minute. Polls that were in flight together are refused together: within a second they
        count once. A single refusal that names no wait says nothing of a limit and changes nothing.
        """
        if retry_after_seconds is None:
            self._gave_no_wait.append(True)
            if self._gave_no_wait.count(True) < NOISE_PART * NOISE_POLLS:
                return
        now = self._clock.monotonic()
        if now >= self._cut_at + SAME_ROUND_SECONDS:
            self._cut_rate = max(self._rate() / 2.0, LEAST_RATE * self.requests_per_second)
            self._cut_at = now
        self._paused_until = max(self._paused_until, now + (retry_after_seconds or 0.0))

    def _rate(self) -> float:
        """Polls a second that are let through now."""
        since = max(self._clock.monotonic() - max(self._cut_at, self._paused_until), 0.0)
        if since >= RECOVERY_SECONDS:
            return self.requests_per_second
        return min(self._cut_rate + self.requests_per_second * since / RECOVERY_SECONDS, self.requests_per_second)

    def changed(self, before: float, now: float) -> None:
        """A job's demand has changed; called by `PollDemand`."""
        self._demand = max(self._demand + now - before, 0.0)


class PollDemand:
    """One waiting job's part of the budget: `polls_per_second` is how often it is polled at a poll cost of 1 s."""

    def __init__(self, budget: PollBudget) -> None:
        self.polls_per_second = USUAL_POLLS_PER_SECOND
        self._budget = budget

    def next_poll(
        self, plan: PollPlan, elapsed_seconds: float, *, polled_seconds: float | None = None, rng: RandomSource = random
    ) -> float:
        """`PollPlan.next_poll` at what a poll costs now; the budget learns from it how often this job is polled."""
        budget = self._budget
        cost = budget.poll_cost_seconds
        pause = plan.next_poll(elapsed_seconds, poll_cost_seconds=cost, polled_seconds=polled_seconds, rng=rng)
        if cost > budget.least_cost_seconds and pause > budget.round_seconds:
            unhurried = plan.next_poll(
                elapsed_seconds,
                poll_cost_seconds=budget.least_cost_seconds,
                polled_seconds=polled_seconds,
                rng=rng,
            )
            pause = max(unhurried, budget.round_seconds)
        if pause > 0.0:  # an overdue poll says nothing of how often this job is polled
            before, self.polls_per_second = self.polls_per_second, math.sqrt(cost) / max(pause, plan.min_seconds)
            budget.changed(before, self.polls_per_second)
        return pause


NOT_VISIBLE_SECONDS = 60.0
"""How long a job may answer 404: right after create it can be not visible yet."""
NO_LINK_SECONDS = 180.0
"""How long a completed job may have no link before the wait ends without one."""
LONGEST_GAP_SECONDS = 2 * MAX_SECONDS
"""Nobody polled for longer than this before the job was done: when it ended is not known, and nothing is learned."""
BLOCKED_POLLS = 3
"""Polls in a row answered 401, 402 or 403 before the wait is given up; the job stays submitted."""


async def wait(
    api: VideoApi,
    job_id: str,
    *,
    model: str,
    submitted_at: float,
    deadline: float,
    durations: DurationStatistics,
    poll_budget: PollBudget,
    on_change: Callable[[str | None, str | None], None] = lambda _before, _now: None,
    clock: Clock = SYSTEM_CLOCK,
    rng: RandomSource = random,
) -> VideoJob:
    """Wait until the job is completed and has a link; return it with `polls` and `observed_seconds` filled in.

    A completed job that still has no link after `NO_LINK_SECONDS`, or at the deadline, is returned without one.
    `submitted_at` and `deadline` are unix seconds; the deadline is absolute, so that a restart does not extend it. At
    least one poll is sent, even after the deadline. Any status that is not final, known or not, is waited for; a
    failed poll is a missed poll. `on_change(before, now)` is called when the status changes.

    Raises JobFailed (failed, cancelled, expired ...), JobTimedOut (still running, can be collected later), JobNotFound
    (404 for more than a minute), AccountBlocked (the key is refused, three polls in a row).
    """
    polls, status, blocked, missed_reason = 0, None, 0, None
    missing_since, completed_since, polled_seconds = None, None, 0.0
    began, age_then = clock.monotonic(), max(clock.time() - submitted_at, 0.0)

    def age_seconds() -> float:
        """Of the job; the wall clock, which may be set, is read once."""
        return age_then + clock.monotonic() - began

    with poll_budget.waiting() as demand, durations.waiting(model, submitted_at) as turn:
        pause = demand.next_poll(durations.plan(model), age_then, polled_seconds=0.0, rng=rng)
        while True:
            await clock.sleep(max(min(pause, deadline - clock.time()), 0.0))
            await poll_budget.acquire()
            polls += 1
            asked_seconds = age_seconds()
            retry_after = 0.0
            try:
                job = await api.retrieve(job_id)
            except PollMissed as missed:
                missed_reason, retry_after = missed.reason, missed.retry_after_seconds or 0.0
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
                missing_since, blocked, missed_reason = None, 0, None
                if job.status != status:
                    on_change(status, job.status)
                    status = job.status
                if job.is_completed:
                    completed_since = asked_seconds if completed_since is None else completed_since
                    is_over = clock.time() >= deadline or asked_seconds - completed_since >= NO_LINK_SECONDS
                    if job.video_url or is_over:
                        job = replace(job, polls=polls, observed_seconds=completed_since)
                        turn.observed(partial(_learn, durations, model, job, earliest_seconds=polled_seconds))
                        return job
                else:
                    if job.is_failed:
                        raise job_failed(job)
                    completed_since, polled_seconds = None, asked_seconds
            if clock.time() >= deadline:
                raise JobTimedOut(job_id, shown_status(status), age_seconds(), missed_reason)
            pause = max(demand.next_poll(durations.plan(model), age_seconds(), rng=rng), retry_after)


def _learn(durations: DurationStatistics, model: str, job: VideoJob, *, earliest_seconds: float) -> None:
    """Record how long the job took: by the service's stamps, else by the polls between which it was done."""
    stamped = job.stamped_seconds
    # Of a job of less than a second both stamps are often the same: then the polls know more.
    if stamped is not None and stamped > 0.0:
        durations.observe(model, stamped)
    elif job.observed_seconds is not None and job.observed_seconds - earliest_seconds <= LONGEST_GAP_SECONDS:
        durations.observe(model, job.observed_seconds, earliest_seconds=earliest_seconds)


def job_failed(job: VideoJob) -> JobFailed:
    """The error of a job that has failed, with the service's own word for it."""
    failure_class = classify_failure(job.status, job.error_code, job.error_message)
    message = job.error_message or "the service gave no reason"
    if job.error_message is None or job.status != "failed":
        message += f" (status {job.status})"
    return JobFailed(job.id, job.error_code, message, failure_class, job.cost_usd)
