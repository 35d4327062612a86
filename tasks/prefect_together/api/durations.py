"""What is known of how long a model's jobs take: a mixture of lognormals that follows what it sees. No clock, no I/O.

Five experts foretell the next duration: a wide prior, the last 12 durations as one lognormal (it follows drift), the
last 96 as one, as two (two humps, a shift) and as kernels (other shapes). Each weighs as much as it has foretold, and
a little of all weight is given back with each duration, so that none is lost when the times change ("fixed share":
Herbster and Warmuth, "Tracking the best expert", 1998). The prior always keeps a part: what was never seen stays
possible.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

RECENT, MEMORY, KERNELS = 12, 96, 16
"""Durations in the quick lognormal; in the slow ones and the kernels; about how many kernels stand for them."""
FIT_EVERY = 8
"""Durations between two fits once 2 x RECENT are known; one that the prior foretold better is learned at once."""
BELIEFS = tuple(part / 11.0 for part in (1, 1, 1, 7, 1))
"""Weights of the experts before anything is seen: two lognormals can say all that one can."""
GIVEN_BACK = 0.01
"""Part of all weight that goes back to the beliefs with each duration."""
PRIOR_SHARE = 0.003
"""What the prior keeps of the mixture when much is known; 0.3 / (n + 2) when n durations are."""
USUAL_SPREAD, NOISE_SECONDS = 0.3, 0.4
"""Spread in log seconds of few durations; error of one (the difference of two stamps in whole seconds)."""
LEAST_SECONDS = 0.05


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


class Durations:
    """One model's last durations, and how well each expert has foretold them. `fits` counts changes of the mixture."""

    def __init__(self, prior: tuple[Bell, ...] = PRIOR) -> None:
        self.count = self.fits = 0
        self._logs: deque[float] = deque(maxlen=MEMORY)
        # The prior first. An expert without durations speaks as the prior does.
        self._experts: list[tuple[Bell, ...]] = [prior] * len(BELIEFS)
        self._weights = list(BELIEFS)

    def learn(self, early_seconds: float, late_seconds: float) -> None:
        """Weigh the experts by a duration between the two ages, then teach it to them, later some at once."""
        early, late = math.log(max(early_seconds, LEAST_SECONDS / 2)), math.log(max(late_seconds, LEAST_SECONDS))
        chances = [still_going(bells, early) - still_going(bells, late) for bells in self._experts]
        share = self._prior_share()
        foretold = [max((1.0 - share) * chance + share * chances[0], 1e-12) for chance in chances]
        weights = [weight * chance for weight, chance in zip(self._weights, foretold, strict=True)]
        kept = (1.0 - GIVEN_BACK) / sum(weights)
        self._weights = [kept * weight + GIVEN_BACK * part for weight, part in zip(weights, BELIEFS, strict=True)]
        self._logs.append(math.log(max((early_seconds + late_seconds) / 2.0, LEAST_SECONDS)))
        self.count += 1
        is_surprise = max(chances[1:]) < chances[0]
        if is_surprise or self.count <= 2 * RECENT or self.count % FIT_EVERY == 0:
            self._fit()

    def mixture(self) -> list[Bell]:
        """All experts' bells, each with the share its expert has earned."""
        share = self._prior_share()
        shares = [(1.0 - share) * weight for weight in self._weights]
        shares[0] += share
        return [
            Bell(part * bell.share, bell.center, bell.spread)
            for part, bells in zip(shares, self._experts, strict=True)
            for bell in bells
        ]

    def _fit(self) -> None:
        logs = list(self._logs)
        ordered = sorted(logs)
        fitted = (_one_bell(logs[-RECENT:]), _one_bell(logs), _two_bells(ordered), _kernels(ordered))
        self._experts[1:] = [bells or self._experts[0] for bells in fitted]
        self.fits += 1

    def _prior_share(self) -> float:
        return max(PRIOR_SHARE, 0.3 / (self.count + 2))


def _one_bell(logs: Sequence[float]) -> tuple[Bell, ...]:
    """The lognormal that foretells the next duration; the usual spread counts as one duration."""
    return (_bell(1.0, logs, usual=1.0),)


def _two_bells(ordered: Sequence[float]) -> tuple[Bell, ...]:
    """Two lognormals: the sorted durations cut in two where that describes them best; none for fewer than six."""
    count = len(ordered)
    if count < 6:
        return ()
    low, high = _spreads(ordered), _spreads(ordered[::-1])

    def surprise(cut: int) -> float:
        """Minus the log likelihood of a cut, but for a constant."""
        rest = count - cut
        return cut * math.log(low[cut - 1] / cut) + rest * math.log(high[rest - 1] / rest)

    cut = min(range(2, count - 1), key=surprise)
    parts = (ordered[:cut], ordered[cut:])
    return tuple(_bell((len(part) + 0.5) / (count + 1.0), part, usual=0.5) for part in parts)


def _spreads(logs: Sequence[float]) -> list[float]:
    """Of the first one, two, three ... logs."""
    spreads: list[float] = []
    mean = squares = 0.0
    for count, log in enumerate(logs, start=1):
        step = log - mean
        mean += step / count
        squares += step * (log - mean)
        spreads.append(math.sqrt((0.5 * USUAL_SPREAD**2 + squares) / (count + 0.5)))
    return spreads


def _bell(share: float, logs: Sequence[float], *, usual: float) -> Bell:
    """A lognormal for the durations, its own uncertainty included; the usual spread counts as `usual` durations."""
    count = len(logs)
    center = sum(logs) / count
    squares = sum([(log - center) ** 2 for log in logs])
    variance = (usual * USUAL_SPREAD**2 + squares) / (count - 1.0 + usual) * (1.0 + 1.0 / count)
    return Bell(share, center, _with_noise(math.sqrt(variance), center))


def _kernels(ordered: Sequence[float]) -> tuple[Bell, ...]:
    """Some bells over the sorted durations, each as wide as its neighbours are far; none for fewer than four."""
    count = len(ordered)
    if count < 4:
        return ()
    reach, step = max(2, round(math.sqrt(count))), max(1, count // KERNELS)
    bells: list[tuple[float, float]] = []
    for place in range(step // 2, count, step):
        low, high = max(place - reach, 0), min(place + reach, count - 1)
        spread = 0.7 * reach * (ordered[high] - ordered[low]) / (high - low)
        bells.append((ordered[place], _with_noise(spread, ordered[place])))
    return tuple(Bell(1.0 / len(bells), center, spread) for center, spread in bells)


def still_going(bells: Iterable[Bell], log_seconds: float) -> float:
    """The part of the jobs that takes longer."""
    root = math.sqrt(0.5)
    erfc = math.erfc
    return sum(
        [0.5 * share * erfc((log_seconds - center) / spread * root) for share, center, spread in bells], start=0.0
    )


def _with_noise(spread: float, center: float) -> float:
    return math.hypot(spread, NOISE_SECONDS / math.exp(center))


NEXT_JOBS, BEHIND_OF_THEM = 20, 18
"""A job holds the others back until, of so many that began next after it, so many have ended."""


@dataclass(eq=False, slots=True)
class Lesson:
    """One job that is waited for; `tell` may be called once, when it is done."""

    began_at: float
    has_ended: bool = False
    is_passed: bool = False
    teach: Callable[[], None] | None = None

    def tell(self, observe: Callable[[], None]) -> None:
        """What is to be learned from this job, when its turn comes."""
        self.teach = observe


@dataclass(slots=True)
class SideBySide:
    """One model's jobs that are waited for, those that began first in front."""

    _lessons: list[Lesson] = field(default_factory=list[Lesson])

    def begin(self, began_at: float) -> Lesson:
        """A job that began at a time, in any unit that all use."""
        lesson = Lesson(began_at)
        insort(self._lessons, lesson, key=lambda one: one.began_at)
        return lesson

    def end(self, lesson: Lesson) -> None:
        """The wait for it is over; whatever its turn has now come for is told."""
        if lesson.is_passed:
            if lesson.teach is not None:
                lesson.teach()
            return
        lesson.has_ended = True
        turn = 0
        while turn < len(self._lessons) and (self._lessons[turn].has_ended or self._is_far_behind(turn)):
            front = self._lessons[turn]
            turn += 1
            if not front.has_ended:
                front.is_passed = True
                continue
            if front.teach is not None:
                front.teach()
        del self._lessons[:turn]

    def _is_far_behind(self, place: int) -> bool:
        following = self._lessons[place + 1 : place + 1 + NEXT_JOBS]
        return sum(lesson.has_ended for lesson in following) >= BEHIND_OF_THEM
