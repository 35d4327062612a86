"""When to poll a job: the optimal inspection schedule over learned durations.

Barlow, Hunter and Proschan ("Optimum checking procedures", 1963): where a poll costs as much as c seconds of lateness,
the best schedule has the least sum of c per poll and the lateness. Dynamic programming finds it over the ages at which
a job can be polled, once for each state of knowledge and each c; the next poll is then one search. (Keller's rule of
1974, to poll every sqrt(2 c / h) where the hazard rate is h, is the limit of many polls: it polls too often where a job
is hardly ever done.) Beyond everything seen, a wide prior makes the hazard rate fall like 1/t, so that the interval
neither collapses nor explodes.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from prefect_together.api.durations import (
    LEAST_SECONDS,
    MEMORY,
    PRIOR,
    Durations,
    Lognormal,
    SubmissionOrder,
    Turn,
    survival,
)

MIN_SECONDS, MAX_SECONDS = 0.25, 240.0
"""Bounds of the interval between two polls."""
JITTER = 0.1
"""Each poll interval varies by up to 10 % (of the next one, if that is shorter), so that jobs submitted together are
not polled together."""
COST_STEP = math.log(1.1)
"""The schedules of a plan are made for poll costs this far apart in logarithm."""
LAST_SECONDS = 7 * 86400.0
COARSE, FINE = 0.2, 8.0
"""Distance of the ages of a curve in log seconds where nothing happens; ages for each poll where many jobs end."""
LEAST_WEIGHT = 1e-4
"""A lognormal with a smaller weight in the mixture is not worth its time."""


class RandomSource(Protocol):
    """What is used of `random.Random`."""

    def random(self) -> float: ...


@dataclass(frozen=True, slots=True)
class PollPlan:
    """When to poll jobs of one model, by what was known of its durations when the plan was made.

    `seconds` and `surviving` are one curve: the part of the jobs that takes longer than so many seconds.
    """

    seconds: Sequence[float]
    surviving: Sequence[float]
    min_seconds: float = MIN_SECONDS
    max_seconds: float = MAX_SECONDS
    _schedules: dict[int, list[int]] = field(default_factory=dict[int, list[int]], repr=False, compare=False)

    def next_poll(
        self,
        elapsed_seconds: float,
        *,
        poll_cost_seconds: float,
        polled_seconds: float | None = None,
        rng: RandomSource = random,
    ) -> float:
        """Seconds to wait from now, for a job accepted `elapsed_seconds` ago and last polled when it was
        `polled_seconds` old (None: now). 0.0 if the poll is overdue: a job resumed by a later run, `polled_seconds=0`.

        `poll_cost_seconds` is c: the seconds of lateness that one poll costs. Takes some microseconds.
        """
        start = elapsed_seconds if polled_seconds is None else polled_seconds
        wait, following = self._waits(start, self._schedule(poll_cost_seconds))
        wait = max(min(wait, self.max_seconds), self.min_seconds)
        wait += JITTER * (2.0 * rng.random() - 1.0) * min(wait, max(following, self.min_seconds))
        if polled_seconds is None:
            return max(wait, self.min_seconds)
        return max(start + max(wait, self.min_seconds) - elapsed_seconds, 0.0)

    def quantile(self, q: float) -> float:
        """The duration in seconds that a part `q` of the jobs stays below."""
        end = bisect_right(self.surviving, q - 1.0, key=float.__neg__)
        if end >= len(self.surviving):
            return self.seconds[-1]
        fall = self.surviving[end - 1] - self.surviving[end]
        part = (self.surviving[end - 1] - (1.0 - q)) / fall if fall > 0.0 else 1.0
        return self.seconds[end - 1] + part * (self.seconds[end] - self.seconds[end - 1])

    def _waits(self, age_seconds: float, schedule: Sequence[int]) -> tuple[float, float]:
        """Seconds from an age to the best next poll, and from there to the one after it."""
        if age_seconds >= self.seconds[-1]:
            return self.max_seconds, self.max_seconds
        piece = min(bisect_right(self.seconds, max(age_seconds, 0.0)), len(self.seconds) - 1) - 1
        start, end = self.seconds[piece], self.seconds[piece + 1]
        part = (max(age_seconds, 0.0) - start) / (end - start)
        first, second = schedule[piece], schedule[piece + 1]
        poll_at = self.seconds[first] + part * (self.seconds[second] - self.seconds[first])
        return poll_at - age_seconds, self.seconds[schedule[first]] - self.seconds[first]

    def _schedule(self, poll_cost_seconds: float) -> list[int]:
        step = round(math.log(poll_cost_seconds) / COST_STEP)
        if (schedule := self._schedules.get(step)) is None:
            schedule = self._schedules[step] = best_polls(self.seconds, self.surviving, math.exp(step * COST_STEP))
        return schedule


class DurationStatistics:
    """The durations of each model's jobs, and the poll plans that follow from them. One for all jobs of a process."""

    def __init__(
        self, *, prior: Sequence[Lognormal] = PRIOR, min_seconds: float = MIN_SECONDS, max_seconds: float = MAX_SECONDS
    ) -> None:
        self._prior = tuple(prior)
        self._bounds = (min_seconds, max_seconds)
        self._models: dict[str, Durations] = {}
        self._orders: dict[str, SubmissionOrder] = {}
        self._plans: dict[str, tuple[int, PollPlan]] = {}  # with the number of fits before it
        self._unknown = _make_plan(self._prior, *self._bounds)

    def observe(self, model: str, seconds: float, *, earliest_seconds: float | None = None) -> None:
        """A job of `model` was completed `seconds` after it was accepted.

        By the service's stamps (whole seconds); or, with `earliest_seconds`, by polls: not yet done at that age, done
        at `seconds`. An impossible duration (not finite, not above 0) is ignored: stamps are not always right.
        """
        if not (math.isfinite(seconds) and seconds > 0.0):
            return
        durations = self._models.get(model)
        if durations is None:
            durations = self._models[model] = Durations(self._prior)
        early = seconds - 0.5 if earliest_seconds is None else earliest_seconds
        late = seconds + 0.5 if earliest_seconds is None else seconds
        durations.learn(max(min(early, late), 0.0), late)

    @contextmanager
    def waiting(self, model: str, submitted_at: float) -> Generator[Turn]:
        """Around the wait for a job: its duration is recorded in its turn, see `SubmissionOrder`."""
        order = self._orders.setdefault(model, SubmissionOrder())
        turn = order.begin(submitted_at)
        try:
            yield turn
        finally:
            order.end(turn)

    def load(self, model: str, samples: Iterable[float]) -> None:
        """Durations in seconds from an earlier run, the oldest first."""
        for seconds in deque(samples, maxlen=4 * MEMORY):
            self.observe(model, seconds)

    def count(self, model: str) -> int:
        """How many durations of `model` are known."""
        durations = self._models.get(model)
        return durations.count if durations else 0

    def plan(self, model: str) -> PollPlan:
        """The plan by what is known now. Cheap to ask for before every poll: made anew only when it changes."""
        durations = self._models.get(model)
        if durations is None:
            return self._unknown
        fits, plan = self._plans.get(model, (0, self._unknown))
        if fits != durations.fits:
            plan = _make_plan(durations.mixture(), *self._bounds)
            self._plans[model] = (durations.fits, plan)
        return plan

    def quantile(self, model: str, q: float) -> float:
        """See `PollPlan.quantile`."""
        return self.plan(model).quantile(q)


def best_polls(seconds: Sequence[float], surviving: Sequence[float], cost_seconds: float) -> list[int]:
    """For each age of the curve the index of the best next poll, found from the last age back.

    A part S(a) of the jobs is still running after a poll at age a. With the next poll at age b each of them costs
    c + b - a: a poll, and the time to it. The sum over all polls, less the mean duration, is the cost of the schedule.
    As a function of S(a), the cost to come is for each b a line of slope b. The lines come in order of slope and are
    asked for in order of S(a), so that the lowest is found in linear time for all ages together.
    """
    last = len(seconds) - 1
    schedule = [last] * (last + 1)
    lines: deque[tuple[float, float, int]] = deque([(seconds[last], 0.0, last)])  # slope, height at 0, index
    for index in range(last - 1, -1, -1):
        age, part = seconds[index], surviving[index]
        while len(lines) > 1 and lines[1][0] * part + lines[1][1] <= lines[0][0] * part + lines[0][1]:
            lines.popleft()
        slope, height, schedule[index] = lines[0]
        # The cost after a poll here, and with it the line of polling here.
        line = (age, part * (cost_seconds - age) + slope * part + height, index)
        while len(lines) > 1 and _is_never_least(lines[-2], lines[-1], line):
            lines.pop()
        lines.append(line)
    return schedule


def _is_never_least(
    before: tuple[float, float, int], line: tuple[float, float, int], after: tuple[float, float, int]
) -> bool:
    """Of three lines of falling slope: whether one of the others is below the middle one everywhere."""
    return (after[1] - line[1]) * (before[0] - line[0]) <= (line[1] - before[1]) * (line[0] - after[0])


def _make_plan(mixture: Sequence[Lognormal], min_seconds: float, max_seconds: float) -> PollPlan:
    """The survival curve of a mixture, with ages close together where many jobs end."""
    kept = [part for part in mixture if part.weight > LEAST_WEIGHT]
    whole = sum(part.weight for part in kept)
    parts = [Lognormal(part.weight / whole, part.center, part.spread) for part in kept]
    before, surviving = math.log(LEAST_SECONDS), [1.0, survival(parts, math.log(LEAST_SECONDS))]
    ages = [before]
    while before < math.log(LAST_SECONDS):
        after = before + COARSE
        pieces = _pieces(surviving[-1], survival(parts, after), math.exp(after) - math.exp(before))
        for piece in range(1, pieces + 1):
            ages.append(before + COARSE * piece / pieces)
            surviving.append(min(survival(parts, ages[-1]), surviving[-1]))
        before = after
    seconds = [0.0, *(math.exp(age) for age in ages)]
    return PollPlan(seconds=seconds, surviving=surviving, min_seconds=min_seconds, max_seconds=max_seconds)


def _pieces(before: float, after: float, seconds: float) -> int:
    """Into how many pieces to cut a span of ages: some for each poll by Keller's rule, fewer where few jobs run on."""
    if not before > after > 0.0:
        return 1
    polls = math.sqrt(math.log(before / after) * seconds)  # for a poll that costs half a second
    return math.ceil(FINE * polls * before ** (1.0 / 3.0))
