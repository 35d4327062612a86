"""When to look at a job: the optimal inspection schedule over learned durations. No clock, no I/O, no Prefect.

Barlow, Hunter and Proschan ("Optimum checking procedures", 1963): where a look is worth w seconds of lateness, the best
looks are those of the least cost, w per look plus the lateness. Here dynamic programming finds them over the ages at
which a job can be looked at, once for each state of knowledge and each w; the next look is then one search. (Keller's
rule of 1974, to look every sqrt(2 w / h) where the hazard rate is h, is the limit of many looks: it looks too often
where a job is hardly ever done.) Beyond everything seen, a wide prior makes the hazard fall like 1/t, so that the
interval neither collapses nor explodes.
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
    Bell,
    Durations,
    Lesson,
    SideBySide,
    still_going,
)

MIN_SECONDS, MAX_SECONDS = 0.25, 240.0
"""Bounds of the wait between two looks."""
JITTER = 0.1
"""A look is earlier or later by up to this part of the shorter of the waits before and after it, so that jobs sent
together are not looked at together."""
WORTH_STEP = math.log(1.1)
"""The schedules of a plan are made for worths this far apart in logarithm."""
LAST_SECONDS = 7 * 86400.0
COARSE, FINE = 0.2, 8.0
"""Distance of the ages of a curve in log seconds where nothing happens; ages for each look where many jobs end."""
LEAST_SHARE = 1e-4
"""A lognormal with a smaller part of the mixture is not worth its time."""


class Dice(Protocol):
    """What is used of `random.Random`."""

    def random(self) -> float: ...


@dataclass(frozen=True, slots=True)
class PollPlan:
    """When to look at jobs of one model, by what was known of its durations when the plan was made.

    `seconds` and `going` are one curve: the part of the jobs that takes longer than so many seconds.
    """

    seconds: Sequence[float]
    going: Sequence[float]
    min_seconds: float = MIN_SECONDS
    max_seconds: float = MAX_SECONDS
    _schedules: dict[int, list[int]] = field(default_factory=dict[int, list[int]], repr=False, compare=False)

    def next_look(
        self,
        elapsed_seconds: float,
        *,
        poll_worth_seconds: float,
        looked_seconds: float | None = None,
        rng: Dice = random,
    ) -> float:
        """Seconds to wait from now, for a job accepted `elapsed_seconds` ago and last looked at when it was
        `looked_seconds` old (None: now). 0.0 if the look is overdue: a job taken up by a later run, `looked_seconds=0`.

        `poll_worth_seconds` is w: the seconds of lateness that one look is worth. Takes some microseconds.
        """
        start = elapsed_seconds if looked_seconds is None else looked_seconds
        wait, following = self._waits(start, self._schedule(poll_worth_seconds))
        wait = max(min(wait, self.max_seconds), self.min_seconds)
        wait += JITTER * (2.0 * rng.random() - 1.0) * min(wait, max(following, self.min_seconds))
        if looked_seconds is None:
            return max(wait, self.min_seconds)
        return max(start + max(wait, self.min_seconds) - elapsed_seconds, 0.0)

    def quantile(self, q: float, *, elapsed_seconds: float = 0.0) -> float:
        """The duration in seconds that a part `q` of the jobs stays below, of those still going at an age."""
        place, part = self._place(min(max(elapsed_seconds, 0.0), self.seconds[-1]))
        going = self.going[place] + part * (self.going[place + 1] - self.going[place])
        wanted = (1.0 - q) * going
        end = bisect_right(self.going, -wanted, key=float.__neg__)
        if end >= len(self.going):
            return max(self.seconds[-1], elapsed_seconds)
        fall = self.going[end - 1] - self.going[end]
        part = (self.going[end - 1] - wanted) / fall if fall > 0.0 else 1.0
        return max(self.seconds[end - 1] + part * (self.seconds[end] - self.seconds[end - 1]), elapsed_seconds)

    def _place(self, age_seconds: float) -> tuple[int, float]:
        """The piece of the curve that an age lies in, and which part of the piece is before it."""
        place = min(bisect_right(self.seconds, age_seconds), len(self.seconds) - 1) - 1
        start, end = self.seconds[place], self.seconds[place + 1]
        return place, (age_seconds - start) / (end - start)

    def _waits(self, age_seconds: float, schedule: Sequence[int]) -> tuple[float, float]:
        """Seconds from an age to the best next look, and from there to the one after it."""
        if age_seconds >= self.seconds[-1]:
            return self.max_seconds, self.max_seconds
        place, part = self._place(max(age_seconds, 0.0))
        first, second = schedule[place], schedule[place + 1]
        look = self.seconds[first] + part * (self.seconds[second] - self.seconds[first])
        return look - age_seconds, self.seconds[schedule[first]] - self.seconds[first]

    def _schedule(self, poll_worth_seconds: float) -> list[int]:
        step = round(math.log(poll_worth_seconds) / WORTH_STEP)
        if (schedule := self._schedules.get(step)) is None:
            schedule = self._schedules[step] = best_looks(self.seconds, self.going, math.exp(step * WORTH_STEP))
        return schedule


class DurationBook:
    """The durations of each model's jobs, and the plans that follow from them. One for all jobs of a process."""

    def __init__(
        self, *, prior: Sequence[Bell] = PRIOR, min_seconds: float = MIN_SECONDS, max_seconds: float = MAX_SECONDS
    ) -> None:
        self._prior = tuple(prior)
        self._bounds = (min_seconds, max_seconds)
        self._models: dict[str, Durations] = {}
        self._side_by_side: dict[str, SideBySide] = {}
        self._plans: dict[str, tuple[int, PollPlan]] = {}  # with the number of fits before it
        self._unknown = _make_plan(self._prior, *self._bounds)

    def observe(self, model: str, seconds: float, *, earliest_seconds: float | None = None) -> None:
        """A job of `model` was completed `seconds` after it was accepted.

        By the service's stamps (whole seconds); or, with `earliest_seconds`, by looks: not yet done at that age, done
        at `seconds`. A duration that cannot be (not finite, not above 0) is passed over: stamps are not always right.
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
    def waiting(self, model: str, began_at: float) -> Generator[Lesson]:
        """Around the wait for a job that began at a time: what it tells is learned when its turn has come."""
        jobs = self._side_by_side.setdefault(model, SideBySide())
        lesson = jobs.begin(began_at)
        try:
            yield lesson
        finally:
            jobs.end(lesson)

    def load(self, model: str, samples: Iterable[float]) -> None:
        """Durations in seconds from an earlier run, the oldest first."""
        for seconds in deque(samples, maxlen=4 * MEMORY):
            self.observe(model, seconds)

    def count(self, model: str) -> int:
        """How many durations of `model` are known."""
        durations = self._models.get(model)
        return durations.count if durations else 0

    def plan(self, model: str) -> PollPlan:
        """The plan by what is known now. Cheap to ask for before every look: made anew only when it changes."""
        durations = self._models.get(model)
        if durations is None:
            return self._unknown
        fits, plan = self._plans.get(model, (0, self._unknown))
        if fits != durations.fits:
            plan = _make_plan(durations.mixture(), *self._bounds)
            self._plans[model] = (durations.fits, plan)
        return plan

    def median_seconds(self, model: str) -> float:
        """How long half of the model's jobs take at most."""
        return self.quantile(model, 0.5)

    def quantile(self, model: str, q: float, *, elapsed_seconds: float = 0.0) -> float:
        """See `PollPlan.quantile`: for "time left", the median of a job still going at `elapsed_seconds`, less that."""
        return self.plan(model).quantile(q, elapsed_seconds=elapsed_seconds)


def best_looks(seconds: Sequence[float], going: Sequence[float], worth_seconds: float) -> list[int]:
    """For each age of the curve the place of the best next look, found from the last age back.

    A part S(a) of the jobs is still going after a look at age a. With the next look at age b each of them costs
    w + b - a: a look, and the time to it. The sum over all looks, less the mean duration, is the cost of the schedule.
    As a function of S(a), the cost to come is for each b a line of slope b. The lines come in order of slope and are
    asked for in order of S(a), so that the lowest is found in linear time for all ages together.
    """
    last = len(seconds) - 1
    schedule = [last] * (last + 1)
    lines: deque[tuple[float, float, int]] = deque([(seconds[last], 0.0, last)])  # slope, height at 0, place
    for place in range(last - 1, -1, -1):
        age, part = seconds[place], going[place]
        while len(lines) > 1 and lines[1][0] * part + lines[1][1] <= lines[0][0] * part + lines[0][1]:
            lines.popleft()
        slope, height, schedule[place] = lines[0]
        # The cost after a look here, and with it the line of looking here.
        line = (age, part * (worth_seconds - age) + slope * part + height, place)
        while len(lines) > 1 and _is_never_least(lines[-2], lines[-1], line):
            lines.pop()
        lines.append(line)
    return schedule


def _is_never_least(
    before: tuple[float, float, int], line: tuple[float, float, int], after: tuple[float, float, int]
) -> bool:
    """Of three lines of falling slope: whether one of the others is below the middle one everywhere."""
    return (after[1] - line[1]) * (before[0] - line[0]) <= (line[1] - before[1]) * (line[0] - after[0])


def _make_plan(bells: Sequence[Bell], min_seconds: float, max_seconds: float) -> PollPlan:
    """Draw the curve of a mixture, with ages close together where many jobs end."""
    heard = [bell for bell in bells if bell.share > LEAST_SHARE]
    whole = sum(bell.share for bell in heard)
    bells = [Bell(bell.share / whole, bell.center, bell.spread) for bell in heard]
    before, going = math.log(LEAST_SECONDS), [1.0, still_going(bells, math.log(LEAST_SECONDS))]
    ages = [before]
    while before < math.log(LAST_SECONDS):
        after = before + COARSE
        pieces = _pieces(going[-1], still_going(bells, after), math.exp(after) - math.exp(before))
        for piece in range(1, pieces + 1):
            ages.append(before + COARSE * piece / pieces)
            going.append(min(still_going(bells, ages[-1]), going[-1]))
        before = after
    seconds = [0.0, *(math.exp(age) for age in ages)]
    return PollPlan(seconds=seconds, going=going, min_seconds=min_seconds, max_seconds=max_seconds)


def _pieces(before: float, after: float, seconds: float) -> int:
    """Into how many pieces to cut a span of ages: some for each look that Keller's rule takes there, fewer where few
    jobs still go."""
    if not before > after > 0.0:
        return 1
    looks = math.sqrt(math.log(before / after) * seconds)  # for a look that is worth half a second
    return math.ceil(FINE * looks * before ** (1.0 / 3.0))
