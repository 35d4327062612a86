"""When to look at a job: the optimal inspection schedule over learned durations. No clock, no I/O, no Prefect.

Keller ("Optimum checking schedules for systems subject to random failure", 1974): where a job that is still going ends
with hazard rate h(t), and a look is worth w seconds of lateness, looks are best made with density sqrt(h / 2w). So
look k comes where the integral of sqrt(h / 2) has reached k sqrt(w). That integral does not depend on w: it is made
once for a model's durations, and the next look is one search in it. In the integral form the first look is right too
(h is nearly 0 at the start): the cost, w per look plus the lateness, is within 3 % of the exact optimum of Barlow,
Hunter and Proschan (1963) for lognormal durations (computed for spreads of 0.05-0.6 and w of 0.1-10 s).

What is known of a model's durations is a mixture of lognormals: a wide prior, the last 12 durations as one lognormal
(it follows drift), the last 96 as one, and the last 96 as kernels (two humps, shifts, long tails). Each weighs as much
as it has lately foretold, and the prior always keeps a part: beyond everything seen the hazard falls like 1/t, so that
the interval neither collapses nor explodes.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

MIN_SECONDS, MAX_SECONDS = 0.25, 120.0
"""Bounds of the wait between two looks."""
JITTER = 0.1
"""A wait is shorter or longer by up to this part of a look, so that jobs sent together are not looked at together."""

RECENT, MEMORY, KERNELS = 12, 96, 16
"""Durations in the quick lognormal; in the slow one and the kernels; about how many kernels stand for them."""
FIT_EVERY = 8
"""Durations between two fits once 2 x RECENT are known; one that the prior foretold better is learned at once."""
FORGET = 0.96
"""Of an expert's past score, what is left after one more duration."""
PRIOR_SHARE = 0.003
"""What the prior keeps of the mixture when much is known; 0.3 / (n + 2) when n durations are."""
USUAL_SPREAD, NOISE_SECONDS = 0.3, 0.3
"""Spread in log seconds that counts as one duration seen; error of one duration (the service stamps whole seconds)."""
LEAST_SECONDS = 0.05
LAST_SECONDS = 7 * 86400.0


class Bell(NamedTuple):
    """A lognormal with its share of a mixture; `center` and `spread` are mean and deviation of the log seconds."""

    share: float
    center: float
    spread: float


PRIOR = (
    Bell(0.55, math.log(105.0), 0.5),  # 60-180 s is usual
    Bell(0.35, math.log(8.0), 1.3),  # a sandbox, a draft model, a quick failure: makes the first looks early
    Bell(0.10, math.log(150.0), 1.3),  # stuck jobs: sparse looks, but looks
)
"""Durations of a model of which none is known (reference: 0.5-6 minutes a job seen, median 105 s)."""


class Dice(Protocol):
    """What is used of `random.Random`."""

    def random(self) -> float: ...


@dataclass(frozen=True, slots=True)
class PollPlan:
    """When to look at jobs of one model, by what was known of its durations when the plan was made.

    `seconds`, `looks` and `done` are one curve: at so many seconds after acceptance, the integral of sqrt(h / 2) and
    the part of the jobs that is done.
    """

    seconds: Sequence[float]
    looks: Sequence[float]
    done: Sequence[float]
    min_seconds: float = MIN_SECONDS
    max_seconds: float = MAX_SECONDS

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
        jitter = 1.0 + JITTER * (2.0 * rng.random() - 1.0)
        start = elapsed_seconds if looked_seconds is None else looked_seconds
        wanted = self._looks_at(start) + math.sqrt(poll_worth_seconds) * jitter
        wait = min(self._seconds_at(wanted) - start, self.max_seconds * jitter)
        if looked_seconds is None:
            return max(wait, self.min_seconds)
        return max(start + max(wait, self.min_seconds) - elapsed_seconds, 0.0)

    def quantile(self, q: float, *, elapsed_seconds: float = 0.0) -> float:
        """The duration in seconds that a part `q` of the jobs stays below, of those still going at an age."""
        going = min(max(elapsed_seconds, 0.0), self.seconds[-1])
        done = _line(self.seconds, self.done, going)
        return max(_line(self.done, self.seconds, done + q * (1.0 - done)), elapsed_seconds)

    def _looks_at(self, seconds: float) -> float:
        return _line(self.seconds, self.looks, max(seconds, 0.0))

    def _seconds_at(self, looks: float) -> float:
        return _line(self.looks, self.seconds, looks)


class DurationBook:
    """The durations of each model's jobs, and the plans that follow from them. One for all jobs of a process."""

    def __init__(
        self, *, prior: Sequence[Bell] = PRIOR, min_seconds: float = MIN_SECONDS, max_seconds: float = MAX_SECONDS
    ) -> None:
        self._prior = tuple(prior)
        self._bounds = (min_seconds, max_seconds)
        self._models: dict[str, _Durations] = {}
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
            durations = self._models[model] = _Durations(self._prior)
        early = seconds - 0.5 if earliest_seconds is None else earliest_seconds
        late = seconds + 0.5 if earliest_seconds is None else seconds
        durations.learn(max(min(early, late), 0.0), late)

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
        if durations.plan is None:
            durations.plan = _make_plan(durations.mixture(), *self._bounds)
        return durations.plan

    def median_seconds(self, model: str) -> float:
        return self.quantile(model, 0.5)

    def quantile(self, model: str, q: float, *, elapsed_seconds: float = 0.0) -> float:
        """See `PollPlan.quantile`: for "time left", the median of a job still going at `elapsed_seconds`, less that."""
        return self.plan(model).quantile(q, elapsed_seconds=elapsed_seconds)


class _Durations:
    """One model's last durations, and how well each expert has foretold them."""

    def __init__(self, prior: tuple[Bell, ...]) -> None:
        self.count = 0
        self.plan: PollPlan | None = None
        self._logs: deque[float] = deque(maxlen=MEMORY)
        # The prior first. An expert without durations speaks as the prior does.
        self._experts: list[tuple[Bell, ...]] = [prior, prior, prior, prior]
        self._scores = [0.0, 0.0, 0.0, 0.0]

    def learn(self, early_seconds: float, late_seconds: float) -> None:
        """Score the experts on a duration between the two ages, then teach it to them, later some at once."""
        early, late = math.log(max(early_seconds, LEAST_SECONDS / 2)), math.log(max(late_seconds, LEAST_SECONDS))
        chances = [_still_going(bells, early) - _still_going(bells, late) for bells in self._experts]
        share = self._prior_share()
        for number, chance in enumerate(chances):
            foretold = (1.0 - share) * chance + share * chances[0]
            self._scores[number] = FORGET * self._scores[number] + math.log(max(foretold, 1e-12))
        self._logs.append(math.log(max((early_seconds + late_seconds) / 2.0, LEAST_SECONDS)))
        self.count += 1
        is_surprise = max(chances[1:]) < chances[0]
        if is_surprise or self.count <= 2 * RECENT or self.count % FIT_EVERY == 0:
            self._fit()

    def mixture(self) -> list[Bell]:
        """All experts' bells, each with the share its expert has earned."""
        best = max(self._scores)
        weights = [math.exp(score - best) for score in self._scores]
        share = self._prior_share()
        shares = [(1.0 - share) * weight / sum(weights) for weight in weights]
        shares[0] += share
        return [
            Bell(part * bell.share, bell.center, bell.spread)
            for part, bells in zip(shares, self._experts, strict=True)
            for bell in bells
        ]

    def _fit(self) -> None:
        logs = list(self._logs)
        self._experts[1:] = [_one_bell(logs[-RECENT:]), _one_bell(logs), _kernels(logs) or self._experts[0]]
        self.plan = None

    def _prior_share(self) -> float:
        return max(PRIOR_SHARE, 0.3 / (self.count + 2))


def _one_bell(logs: Sequence[float]) -> tuple[Bell, ...]:
    """The lognormal that foretells the next duration, its own uncertainty included."""
    count = len(logs)
    center = sum(logs) / count
    squares = sum((log - center) ** 2 for log in logs)
    variance = (USUAL_SPREAD**2 + squares) / count * (1.0 + 1.0 / count)
    return (Bell(1.0, center, _with_noise(math.sqrt(variance), center)),)


def _kernels(logs: Sequence[float]) -> tuple[Bell, ...]:
    """Some bells over the sorted durations, each as wide as its neighbours are far; none for fewer than four."""
    ordered, count = sorted(logs), len(logs)
    if count < 4:
        return ()
    reach, step = max(2, round(math.sqrt(count))), max(1, count // KERNELS)
    bells: list[tuple[float, float]] = []
    for place in range(step // 2, count, step):
        low, high = max(place - reach, 0), min(place + reach, count - 1)
        spread = 0.7 * reach * (ordered[high] - ordered[low]) / (high - low)
        bells.append((ordered[place], _with_noise(spread, ordered[place])))
    return tuple(Bell(1.0 / len(bells), center, spread) for center, spread in bells)


def _with_noise(spread: float, center: float) -> float:
    return math.hypot(spread, NOISE_SECONDS / math.exp(center))


def _still_going(bells: Iterable[Bell], log_seconds: float) -> float:
    """The part of the jobs that takes longer."""
    root = math.sqrt(0.5)
    erfc = math.erfc
    return sum(
        [0.5 * share * erfc((log_seconds - center) / spread * root) for share, center, spread in bells], start=0.0
    )


def _make_plan(bells: Sequence[Bell], min_seconds: float, max_seconds: float) -> PollPlan:
    """Sum up sqrt(h / 2) from age to age."""
    bells = [bell for bell in bells if bell.share > 1e-6]
    ages = _ages(bells)
    seconds = [0.0, *(math.exp(age) for age in ages)]
    going = [1.0, *(_still_going(bells, age) for age in ages)]
    looks = [0.0]
    for (start, end), (before, after) in zip(pairwise(seconds), pairwise(going), strict=True):
        hazard = math.log(before / after) if before > after > 0.0 else 0.0
        looks.append(looks[-1] + math.sqrt(hazard * (end - start) / 2.0))
    done = [1.0 - part for part in going]
    return PollPlan(seconds=seconds, looks=looks, done=done, min_seconds=min_seconds, max_seconds=max_seconds)


def _ages(bells: Sequence[Bell]) -> list[float]:
    """Log seconds at which to sample a mixture: close together where it has narrow bells, up to a week."""
    ages = {place / 4.0 for place in range(-12, round(4.0 * math.log(LAST_SECONDS)) + 1)}
    for bell in bells:
        is_kernel = bell.share < 0.05 and len(bells) > KERNELS
        places = range(-4, 5) if is_kernel else range(-16, 17)
        ages.update(bell.center + bell.spread * place / (2.0 if is_kernel else 4.0) for place in places)
    kept: list[float] = []
    for age in sorted(ages):
        if age > math.log(LEAST_SECONDS) and (not kept or age - kept[-1] > 0.002):
            kept.append(age)
    return kept


def _line(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """The curve through the points at `x`; its last piece goes on beyond the end. `xs` never falls."""
    place = min(bisect_right(xs, x), len(xs) - 1)
    while place > 1 and xs[place] == xs[place - 1]:
        place -= 1
    width = xs[place] - xs[place - 1]
    return ys[place] if width <= 0.0 else ys[place - 1] + (ys[place] - ys[place - 1]) * (x - xs[place - 1]) / width
