"""When to look: cost against fixed and exponential polling, what is learned, and the bounds. No clock."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, combinations, pairwise, repeat, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_together.api.poll_schedule import MAX_SECONDS, MIN_SECONDS, DurationStatistics, PollPlan, best_polls

MODEL = "lab/model"
WORTH = 0.25

Shape = Callable[[random.Random, int], float]
"""The duration in seconds of job number so-and-so."""


def lognormal(median_seconds: float, sigma: float) -> Shape:
    return lambda rng, _number: rng.lognormvariate(math.log(median_seconds), sigma)


def bimodal(rng: random.Random, number: int) -> float:
    return lognormal(45 if rng.random() < 0.5 else 180, 0.15)(rng, number)


def shifted(rng: random.Random, number: int) -> float:
    return 60 + lognormal(20, 0.6)(rng, number)


def long_tailed(rng: random.Random, number: int) -> float:
    return lognormal(400, 0.5)(rng, number) if rng.random() < 0.1 else lognormal(90, 0.2)(rng, number)


def drifting(rng: random.Random, number: int) -> float:
    return lognormal(60 * 3 ** (number / 300), 0.2)(rng, number)


def jumping(rng: random.Random, number: int) -> float:
    return lognormal((60, 180)[number // 100 % 2], 0.2)(rng, number)


def memoryless(rng: random.Random, _number: int) -> float:
    return rng.expovariate(1 / 90)


def sandbox(rng: random.Random, _number: int) -> float:
    return rng.uniform(2, 3)


@dataclass(frozen=True)
class Waits:
    """What some waits cost: polls a job, and seconds from done to seen."""

    polls: list[int]
    late_seconds: list[float]

    def after(self, jobs: int) -> Waits:
        return Waits(self.polls[jobs:], self.late_seconds[jobs:])

    @property
    def polls_a_job(self) -> float:
        return sum(self.polls) / len(self.polls)

    @property
    def mean_late_seconds(self) -> float:
        return sum(self.late_seconds) / len(self.late_seconds)

    def cost(self, worth_seconds: float) -> float:
        return self.polls_a_job * worth_seconds + self.mean_late_seconds


def wait_for(duration: float, plan: PollPlan, worth_seconds: float, rng: random.Random) -> tuple[int, float]:
    elapsed, polls = 0.0, 0
    while elapsed < duration:
        elapsed += plan.next_poll(elapsed, poll_cost_seconds=worth_seconds, rng=rng)
        polls += 1
    return polls, elapsed - duration


def learned_waits(shape: Shape, *, jobs: int, worth_seconds: float = WORTH, seed: int = 1) -> Waits:
    """One job after another, each teaching its whole seconds to the book."""
    rng, book = random.Random(seed), DurationStatistics()
    waits: list[tuple[int, float]] = []
    for number in range(jobs):
        duration = shape(rng, number)
        waits.append(wait_for(duration, book.plan(MODEL), worth_seconds, rng))
        book.observe(MODEL, round(duration) or 0.5)
    polls, late_seconds = zip(*waits, strict=True)
    return Waits(list(polls), list(late_seconds))


def exponential_waits(shape: Shape, *, jobs: int, seed: int = 1) -> Waits:
    """Looks after 1, 2, 4, 8, 16 and then every 30 seconds."""
    rng = random.Random(seed)
    looks = list(accumulate(chain((1, 2, 4, 8, 16), repeat(30, 1000))))
    durations = [shape(rng, number) for number in range(jobs)]
    seen = [next(i for i, look in enumerate(looks) if look >= duration) for duration in durations]
    return Waits([i + 1 for i in seen], [looks[i] - duration for i, duration in zip(seen, durations, strict=True)])


@pytest.mark.parametrize(
    ("sigma", "worth_seconds", "polls_of_fixed_5_seconds", "part"), [(0.2, 0.36, 18.9, 0.4), (0.35, 0.21, 19.6, 0.6)]
)
def test_as_late_as_polling_every_5_seconds_at_about_half_the_polls(
    sigma: float, worth_seconds: float, polls_of_fixed_5_seconds: float, part: float
) -> None:
    # Every 5 s is 2.5 s late on average, whatever the distribution.
    waits = learned_waits(lognormal(90, sigma), jobs=1000, worth_seconds=worth_seconds).after(20)

    assert waits.mean_late_seconds <= 2.5
    assert waits.polls_a_job <= part * polls_of_fixed_5_seconds


@pytest.mark.parametrize("worth_seconds", [0.25, 3.0])
@pytest.mark.parametrize(
    "shape",
    [
        lognormal(90, 0.1),
        lognormal(90, 0.6),
        lognormal(300, 0.3),
        bimodal,
        shifted,
        long_tailed,
        drifting,
        jumping,
        memoryless,
        sandbox,
    ],
)
def test_never_worse_than_exponential_polling_the_first_jobs_included(shape: Shape, worth_seconds: float) -> None:
    waits = learned_waits(shape, jobs=150, worth_seconds=worth_seconds)

    assert waits.cost(worth_seconds) < exponential_waits(shape, jobs=150).cost(worth_seconds)


@pytest.mark.parametrize(
    ("shape", "optimal_cost"),
    [
        (lognormal(90, 0.1), 2.90),
        (lognormal(90, 0.2), 4.01),
        (lognormal(90, 0.35), 5.17),
        (lognormal(90, 0.6), 6.53),
        (bimodal, 4.95),
        (shifted, 3.13),
        (memoryless, 6.75),
    ],
)
def test_within_10_percent_of_the_optimum_from_job_21_to_61(shape: Shape, optimal_cost: float) -> None:
    # The optimum with the distribution known, by dynamic programming: benchmarks/waiting.py prints it.
    costs = [cost_after(jobs, shape, seed) for jobs in (20, 30, 40, 60) for seed in range(12)]

    assert sum(costs) / len(costs) <= 1.10 * optimal_cost


def cost_after(jobs: int, shape: Shape, seed: int) -> float:
    """Mean cost of a wait by the plan that some jobs have left."""
    rng, book = random.Random(seed), DurationStatistics()
    for number in range(jobs):
        book.observe(MODEL, round(shape(rng, number)) or 0.5)
    waits = [wait_for(shape(rng, number), book.plan(MODEL), WORTH, rng) for number in range(200)]
    return sum(polls * WORTH + late_seconds for polls, late_seconds in waits) / len(waits)


def cost_of_looks(looks: Sequence[int], seconds: Sequence[float], going: Sequence[float]) -> float:
    """Looks and time to be seen, for looks at some places of a curve."""
    return sum(going[a] * (WORTH + seconds[b] - seconds[a]) for a, b in pairwise((0, *looks, len(seconds) - 1)))


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.floats(0.1, 30), st.floats(0, 1)), min_size=1, max_size=8))
def test_no_other_looks_are_better_than_the_best(steps: list[tuple[float, float]]) -> None:
    seconds, going, last = [0.0], [1.0], len(steps)
    for step, part in steps:
        seconds.append(seconds[-1] + step)
        going.append(going[-1] * part)

    schedule = best_polls(seconds, going, WORTH)

    best = list(takewhile(lambda place: place < last, chain_of(schedule)))
    others = chain.from_iterable(combinations(range(1, last), size) for size in range(last))
    least = min(cost_of_looks(looks, seconds, going) for looks in others)
    assert cost_of_looks(best, seconds, going) == pytest.approx(least)


def chain_of(schedule: Sequence[int]) -> Iterator[int]:
    """The look after the start, the look after that, and so on."""
    place = 0
    while True:
        place = schedule[place]
        yield place


def test_a_job_of_an_unknown_model_is_looked_at_after_a_few_seconds() -> None:
    plan = DurationStatistics().plan(MODEL)

    first = plan.next_poll(0.0, poll_cost_seconds=WORTH)
    polls, late_seconds = wait_for(3.0, plan, WORTH, random.Random(1))

    assert 2.0 < first < 6.0
    assert polls == 1
    assert late_seconds < 3.0


def test_jobs_of_3_seconds_are_seen_within_a_second_after_two_of_them() -> None:
    book = DurationStatistics()
    book.load(MODEL, [3.0, 3.0])

    _, late_seconds = wait_for(2.9, book.plan(MODEL), WORTH, random.Random(1))

    assert late_seconds < 1.0


def test_a_job_that_takes_longer_than_all_before_is_looked_at_now_and_then() -> None:
    book, rng = DurationStatistics(), random.Random(1)
    book.load(MODEL, [rng.lognormvariate(math.log(90), 0.2) for _ in range(100)])

    pauses = [
        book.plan(MODEL).next_poll(elapsed, poll_cost_seconds=WORTH, rng=rng)
        for elapsed in (300, 900, 3600, 86400, 30 * 86400)
    ]

    assert all(3.0 < pause <= 1.1 * MAX_SECONDS for pause in pauses)


def test_looks_are_rarer_when_a_look_is_worth_more() -> None:
    plan = DurationStatistics().plan(MODEL)

    pauses = [plan.next_poll(30.0, poll_cost_seconds=worth, rng=random.Random(1)) for worth in (0.1, 1, 10, 100)]

    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[-1] / 5


def test_a_job_not_looked_at_for_long_is_overdue() -> None:
    plan = DurationStatistics().plan(MODEL)

    assert plan.next_poll(600.0, polled_seconds=0.0, poll_cost_seconds=WORTH) == 0.0
    assert plan.next_poll(600.0, polled_seconds=599.0, poll_cost_seconds=WORTH) > 0.0


def test_a_job_looked_at_for_the_first_time_counts_from_its_acceptance() -> None:
    plan, dice = DurationStatistics().plan(MODEL), random.Random(1)
    whole = plan.next_poll(0.0, poll_cost_seconds=WORTH, rng=dice)

    rest = plan.next_poll(1.0, polled_seconds=0.0, poll_cost_seconds=WORTH, rng=random.Random(1))

    assert rest == pytest.approx(whole - 1.0)


def test_jobs_sent_together_are_not_looked_at_together() -> None:
    plan, rng = DurationStatistics().plan(MODEL), random.Random(1)

    looks = {round(plan.next_poll(0.0, poll_cost_seconds=WORTH, rng=rng), 3) for _ in range(100)}

    assert len(looks) > 90
    assert max(looks) - min(looks) > 0.15 * max(looks)


def test_a_model_that_has_become_slower_is_followed_within_two_dozen_jobs() -> None:
    book, rng = DurationStatistics(), random.Random(1)
    book.load(MODEL, [rng.lognormvariate(math.log(60), 0.2) for _ in range(200)])

    for _ in range(24):
        book.observe(MODEL, rng.lognormvariate(math.log(180), 0.2))

    assert book.quantile(MODEL, 0.5) == pytest.approx(180, rel=0.1)


def test_one_model_teaches_nothing_about_another() -> None:
    book = DurationStatistics()

    book.load("lab/quick", [3.0] * 20)

    assert book.plan(MODEL) == DurationStatistics().plan(MODEL)
    assert (book.count("lab/quick"), book.count(MODEL)) == (20, 0)


@pytest.mark.parametrize("seconds", [0.0, -5.0, math.nan, math.inf])
def test_a_duration_that_cannot_be_is_passed_over(seconds: float) -> None:
    book = DurationStatistics()

    book.observe(MODEL, seconds)

    assert book.count(MODEL) == 0


def test_a_duration_known_only_from_two_looks_is_learned() -> None:
    book = DurationStatistics()

    for _ in range(20):
        book.observe(MODEL, 32.0, earliest_seconds=28.0)

    assert book.quantile(MODEL, 0.5) == pytest.approx(30, rel=0.05)


def test_the_plan_stays_the_same_until_something_is_learned() -> None:
    book = DurationStatistics()
    book.observe(MODEL, 90.0)
    plan = book.plan(MODEL)

    assert book.plan(MODEL) is plan
    book.observe(MODEL, 100.0)
    assert book.plan(MODEL) is not plan


def test_the_quantiles_are_those_of_the_durations() -> None:
    book, rng = DurationStatistics(), random.Random(1)
    book.load(MODEL, [rng.lognormvariate(math.log(90), 0.3) for _ in range(100)])

    quantiles = [book.quantile(MODEL, q) for q in (0.1, 0.5, 0.9, 1.0)]

    assert quantiles[1] == pytest.approx(90, rel=0.1)
    assert quantiles == sorted(quantiles)
    assert quantiles[2] > 1.2 * quantiles[1]


@settings(max_examples=60, deadline=None)
@given(
    durations=st.lists(st.floats(1e-3, 1e6), max_size=30),
    elapsed_seconds=st.floats(0, 1e7),
    worth_seconds=st.floats(1e-3, 1e4),
)
def test_whatever_was_learned_the_next_poll_is_within_the_bounds(
    durations: list[float], elapsed_seconds: float, worth_seconds: float
) -> None:
    book = DurationStatistics()
    book.load(MODEL, durations)

    plan = book.plan(MODEL)
    pause = plan.next_poll(elapsed_seconds, poll_cost_seconds=worth_seconds)

    assert MIN_SECONDS <= pause <= 1.1 * MAX_SECONDS
    assert list(plan.surviving) == sorted(plan.surviving, reverse=True)
    assert 0.0 <= plan.quantile(0.5) < math.inf
