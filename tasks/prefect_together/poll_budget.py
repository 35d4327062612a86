"""One request budget over the polls of all jobs: what a look is worth now, and a gate behind it. No I/O, no Prefect.

Two guards. First the price: jobs that look by `PollPlan.next_look` look in proportion to 1 / sqrt(worth), where `worth`
is the lateness in seconds that one look is worth. Each waiting job's place remembers how often it would look at a worth
of 1 s; the worth is set so that all of them together stay below the budget. When many wait, it rises for all.
Then the gate: `acquire` lets polls through at the budget's rate, first come first served, whatever was planned.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

from prefect_together.clock import SYSTEM_CLOCK, Clock
from prefect_together.schedule import Dice, PollPlan

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
