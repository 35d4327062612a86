"""Learns how long a model's jobs take: a mixture of lognormals, weighted by how well it has predicted.

A weighted ensemble of five estimators predicts the next duration: a wide prior, the last 12 durations as one lognormal
(it follows drift), the last 96 as one, as two (bimodal, or shifted) and as kernels (other shapes). Each estimator is
weighted by the likelihood of what it has predicted, and a little of all weight is redistributed with each duration, so
that none is lost when the service changes ("fixed share": Herbster and Warmuth, "Tracking the best expert", 1998). The
prior always keeps some weight: what was never seen stays possible.
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
"""Durations between two fits once 2 x RECENT are known; one that the prior predicted better is fitted at once."""
INITIAL_WEIGHTS = tuple(part / 11.0 for part in (1, 1, 1, 7, 1))
"""Of the estimators before anything is seen: two lognormals can say all that one can."""
REDISTRIBUTED = 0.01
"""Part of all weight that returns to the initial weights with each duration."""
LEAST_PRIOR_WEIGHT = 0.003
"""What the prior keeps of the mixture when much is known; 0.3 / (n + 2) when n durations are."""
USUAL_SPREAD, NOISE_SECONDS = 0.3, 0.4
"""Spread in log seconds of few durations; error of one (the difference of two stamps in whole seconds)."""
LEAST_SECONDS = 0.05


class Lognormal(NamedTuple):
    """One component of a mixture; `center` and `spread` are mean and standard deviation of the log seconds."""

    weight: float
    center: float
    spread: float


PRIOR = (
    Lognormal(0.55, math.log(105.0), 0.5),  # 60-180 s is usual
    Lognormal(0.35, math.log(8.0), 1.3),  # a sandbox, a draft model, a quick failure: makes the first polls early
    Lognormal(0.10, math.log(150.0), 1.3),  # stuck jobs: sparse polls, but polls
)
"""Durations of a model of which none is known (reference: 0.5-6 minutes a job seen, median 105 s)."""


class Durations:
    """One model's last durations, and how well each estimator has predicted them.

    `fits` counts changes of the mixture.
    """

    def __init__(self, prior: tuple[Lognormal, ...] = PRIOR) -> None:
        self.count = self.fits = 0
        self._logs: deque[float] = deque(maxlen=MEMORY)
        # The prior first. An estimator without durations predicts what the prior does.
        self._estimators: list[tuple[Lognormal, ...]] = [prior] * len(INITIAL_WEIGHTS)
        self._weights = list(INITIAL_WEIGHTS)

    def learn(self, early_seconds: float, late_seconds: float) -> None:
        """Update the weights by a duration between the two ages, then the estimators, later in batches."""
        early, late = math.log(max(early_seconds, LEAST_SECONDS / 2)), math.log(max(late_seconds, LEAST_SECONDS))
        likelihoods = [survival(parts, early) - survival(parts, late) for parts in self._estimators]
        prior_weight = self._prior_weight()
        predicted = [max((1.0 - prior_weight) * one + prior_weight * likelihoods[0], 1e-12) for one in likelihoods]
        weights = [weight * one for weight, one in zip(self._weights, predicted, strict=True)]
        scale = (1.0 - REDISTRIBUTED) / sum(weights)
        self._weights = [
            scale * weight + REDISTRIBUTED * initial for weight, initial in zip(weights, INITIAL_WEIGHTS, strict=True)
        ]
        self._logs.append(math.log(max((early_seconds + late_seconds) / 2.0, LEAST_SECONDS)))
        self.count += 1
        is_surprise = max(likelihoods[1:]) < likelihoods[0]
        if is_surprise or self.count <= 2 * RECENT or self.count % FIT_EVERY == 0:
            self._fit()

    def mixture(self) -> list[Lognormal]:
        """The components of all estimators, each times its estimator's weight."""
        prior_weight = self._prior_weight()
        weights = [(1.0 - prior_weight) * weight for weight in self._weights]
        weights[0] += prior_weight
        return [
            Lognormal(weight * part.weight, part.center, part.spread)
            for weight, parts in zip(weights, self._estimators, strict=True)
            for part in parts
        ]

    def _fit(self) -> None:
        logs = list(self._logs)
        ordered = sorted(logs)
        fitted = (_one_lognormal(logs[-RECENT:]), _one_lognormal(logs), _two_lognormals(ordered), _kernels(ordered))
        self._estimators[1:] = [parts or self._estimators[0] for parts in fitted]
        self.fits += 1

    def _prior_weight(self) -> float:
        return max(LEAST_PRIOR_WEIGHT, 0.3 / (self.count + 2))


def _one_lognormal(logs: Sequence[float]) -> tuple[Lognormal, ...]:
    """The lognormal that predicts the next duration; the usual spread counts as one duration."""
    return (_lognormal(1.0, logs, usual=1.0),)


def _two_lognormals(ordered: Sequence[float]) -> tuple[Lognormal, ...]:
    """Two lognormals: the sorted durations cut in two where that describes them best; none for fewer than six."""
    count = len(ordered)
    if count < 6:
        return ()
    low, high = _spreads(ordered), _spreads(ordered[::-1])

    def negative_likelihood(cut: int) -> float:
        """Of a cut, in logarithm, but for a constant."""
        rest = count - cut
        return cut * math.log(low[cut - 1] / cut) + rest * math.log(high[rest - 1] / rest)

    cut = min(range(2, count - 1), key=negative_likelihood)
    parts = (ordered[:cut], ordered[cut:])
    return tuple(_lognormal((len(part) + 0.5) / (count + 1.0), part, usual=0.5) for part in parts)


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


def _lognormal(weight: float, logs: Sequence[float], *, usual: float) -> Lognormal:
    """A lognormal for the durations, its own uncertainty included; the usual spread counts as `usual` durations."""
    count = len(logs)
    center = sum(logs) / count
    squares = sum([(log - center) ** 2 for log in logs])
    variance = (usual * USUAL_SPREAD**2 + squares) / (count - 1.0 + usual) * (1.0 + 1.0 / count)
    return Lognormal(weight, center, _with_noise(math.sqrt(variance), center))


def _kernels(ordered: Sequence[float]) -> tuple[Lognormal, ...]:
    """Kernels over the sorted durations, each as wide as its neighbours are far; none for fewer than four."""
    count = len(ordered)
    if count < 4:
        return ()
    reach, step = max(2, round(math.sqrt(count))), max(1, count // KERNELS)
    kernels: list[tuple[float, float]] = []
    for index in range(step // 2, count, step):
        low, high = max(index - reach, 0), min(index + reach, count - 1)
        spread = 0.7 * reach * (ordered[high] - ordered[low]) / (high - low)
        kernels.append((ordered[index], _with_noise(spread, ordered[index])))
    return tuple(Lognormal(1.0 / len(kernels), center, spread) for center, spread in kernels)


def survival(parts: Iterable[Lognormal], log_seconds: float) -> float:
    """The part of the jobs that takes longer: the survival function of a mixture."""
    root = math.sqrt(0.5)
    erfc = math.erfc
    return sum(
        [0.5 * weight * erfc((log_seconds - center) / spread * root) for weight, center, spread in parts], start=0.0
    )


def _with_noise(spread: float, center: float) -> float:
    return math.hypot(spread, NOISE_SECONDS / math.exp(center))


NEXT_JOBS, ENDED_OF_THEM = 20, 18
"""A running job holds back the durations of others until, of so many submitted next after it, so many have ended."""


@dataclass(eq=False, slots=True)
class Turn:
    """One job that is waited for; its duration is released in its turn."""

    submitted_at: float
    has_ended: bool = False
    is_passed: bool = False
    _record: Callable[[], None] | None = None

    def observed(self, record: Callable[[], None]) -> None:
        """Have `record` called, once the turn of this job has come."""
        self._record = record

    def release(self) -> None:
        if self._record is not None:
            self._record()


@dataclass(slots=True)
class SubmissionOrder:
    """Releases durations of concurrent jobs in submission order, to avoid length bias: short jobs end first."""

    _turns: list[Turn] = field(default_factory=list[Turn])

    def begin(self, submitted_at: float) -> Turn:
        """A job that is now waited for; the unit of time is the caller's."""
        turn = Turn(submitted_at)
        insort(self._turns, turn, key=lambda one: one.submitted_at)
        return turn

    def end(self, turn: Turn) -> None:
        """The wait for a job is over: release every duration whose turn has come."""
        if turn.is_passed:
            turn.release()
            return
        turn.has_ended = True
        count = 0
        while count < len(self._turns) and (self._turns[count].has_ended or self._is_far_behind(count)):
            front = self._turns[count]
            count += 1
            if front.has_ended:
                front.release()
            else:
                front.is_passed = True
        del self._turns[:count]

    def _is_far_behind(self, index: int) -> bool:
        following = self._turns[index + 1 : index + 1 + NEXT_JOBS]
        return sum(turn.has_ended for turn in following) >= ENDED_OF_THEM
