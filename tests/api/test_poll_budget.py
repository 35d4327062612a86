"""One budget over all jobs' polls: the price, the gate, refusals; and the clock that the tests of waiting run on."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter

import pytest

from fake_clock import FakeClock
from prefect_together.api.poll import POLL_COST_SECONDS, PollBudget
from prefect_together.api.poll_schedule import DurationStatistics

MODEL = "lab/model"


async def run_jobs(
    budget: PollBudget, clock: FakeClock, *, jobs: int, in_flight: int, median_seconds: float
) -> tuple[list[float], list[float]]:
    """Wait for so many jobs; return the times of all polls and each job's lateness, in seconds."""
    rng, book = random.Random(1), DurationStatistics()
    book.load(MODEL, [rng.lognormvariate(math.log(median_seconds), 0.35) for _ in range(96)])
    polled_at: list[float] = []
    late_seconds: list[float] = []
    slots = asyncio.Semaphore(in_flight)

    async def wait_for_one() -> None:
        async with slots:
            duration, accepted_at = rng.lognormvariate(math.log(median_seconds), 0.35), clock.monotonic()
            with budget.waiting() as place:
                while (elapsed := clock.monotonic() - accepted_at) < duration:
                    await clock.sleep(place.next_poll(book.plan(MODEL), elapsed, rng=rng))
                    await budget.acquire()
                    polled_at.append(clock.monotonic())
            late_seconds.append(elapsed - duration)

    await asyncio.gather(*(wait_for_one() for _ in range(jobs)))
    return polled_at, late_seconds


async def test_few_jobs_are_not_held_up_by_the_budget() -> None:
    clock = FakeClock()
    budget = PollBudget(requests_per_second=100.0, clock=clock)

    polled_at, late_seconds = await run_jobs(budget, clock, jobs=50, in_flight=50, median_seconds=90)

    assert sum(late_seconds) / 50 < 4
    assert len(polled_at) / 50 > 8


async def test_a_thousand_jobs_stay_within_the_budget_and_share_it() -> None:
    clock = FakeClock()
    budget = PollBudget(requests_per_second=20.0, clock=clock)

    polled_at, late_seconds = await run_jobs(budget, clock, jobs=2000, in_flight=1000, median_seconds=90)

    in_any_second = Counter(math.floor(when) for when in polled_at)
    assert max(in_any_second.values()) <= 20 * 1.25 + 1
    assert len(polled_at) < 3.5 * 2000  # 12 each when there is room
    # 1,000 jobs in turn take 50 s of the budget: none waits for much longer than that.
    assert sum(late_seconds) / 2000 < 30
    assert max(late_seconds) < 80


async def test_short_jobs_above_the_budget_end_as_soon_as_one_poll_each_allows() -> None:
    clock = FakeClock()
    budget = PollBudget(requests_per_second=20.0, clock=clock)

    polled_at, _ = await run_jobs(budget, clock, jobs=500, in_flight=500, median_seconds=2.5)

    assert clock.monotonic() < 1.2 * 500 / 20 + 5
    assert len(polled_at) < 1.3 * 500


async def test_a_look_is_worth_more_when_many_wait_and_less_when_they_have_gone() -> None:
    clock = FakeClock()
    budget = PollBudget(requests_per_second=10.0, clock=clock)
    plan = DurationStatistics().plan(MODEL)

    alone = budget.poll_cost_seconds
    places = [budget.waiting() for _ in range(500)]
    for place in places:
        place.__enter__().next_poll(plan, 60.0)
    crowded = budget.poll_cost_seconds
    for place in places:
        place.__exit__(None, None, None)

    assert alone == POLL_COST_SECONDS
    assert crowded > 20 * alone
    assert (budget.poll_cost_seconds, budget.round_seconds) == (alone, 0.0)


async def test_ten_thousand_waiters_go_through_the_gate_in_order_at_its_rate() -> None:
    clock = FakeClock()
    budget = PollBudget(requests_per_second=100.0, clock=clock)
    order: list[int] = []

    async def poll(number: int) -> None:
        await budget.acquire()
        order.append(number)

    await asyncio.gather(*(poll(number) for number in range(10_000)))

    assert order == list(range(10_000))
    assert clock.monotonic() == pytest.approx(100.0, abs=1.0)


async def test_a_cancelled_poll_leaves_its_turn_to_the_next() -> None:
    clock = FakeClock(auto=False)
    budget = PollBudget(requests_per_second=1.0, clock=clock)
    await budget.acquire()
    first, second = asyncio.create_task(budget.acquire()), asyncio.create_task(budget.acquire())
    await clock.advance(0.5)

    first.cancel()
    await clock.advance(0.5)

    assert first.cancelled()
    assert second.done()


async def test_a_refused_poll_pauses_all_and_halves_the_rate_for_a_while() -> None:
    clock = FakeClock()
    budget = PollBudget(requests_per_second=100.0, clock=clock)

    for _ in range(50):  # polls that were on their way together
        budget.refused(5.0)
    await budget.acquire()
    resumed_at = clock.monotonic()
    for _ in range(100):
        await budget.acquire()
    halved_seconds = clock.monotonic() - resumed_at
    await clock.sleep(60.0)
    recovered_at = clock.monotonic()
    for _ in range(100):
        await budget.acquire()

    assert resumed_at == pytest.approx(5.0)
    assert 1.2 < halved_seconds < 2.1
    assert clock.monotonic() - recovered_at < 1.1


async def test_an_overdue_look_is_made_at_once_and_does_not_count_as_the_job_s_pace() -> None:
    clock = FakeClock()
    budget = PollBudget(requests_per_second=100.0, clock=clock)
    plan = DurationStatistics().plan(MODEL)

    with budget.waiting() as place:
        pause = place.next_poll(plan, 3600.0, polled_seconds=0.0)

        assert pause == 0.0
        assert budget.poll_cost_seconds == POLL_COST_SECONDS


async def test_the_fake_clock_wakes_thousands_in_the_order_of_their_times() -> None:
    clock, rng = FakeClock(), random.Random(1)
    woken: list[float] = []

    async def sleep_twice(seconds: float) -> None:
        for _ in range(2):
            start = clock.monotonic()
            await clock.sleep(seconds)
            assert clock.monotonic() == pytest.approx(start + seconds)
            woken.append(clock.monotonic())

    await asyncio.gather(*(sleep_twice(rng.uniform(0, 86400)) for _ in range(5000)))

    assert woken == sorted(woken)
    assert len(woken) == 10_000


async def test_the_fake_clock_stands_still_until_it_is_moved() -> None:
    clock = FakeClock(auto=False)
    sleeper = asyncio.create_task(clock.sleep(10.0))

    await clock.advance(9.9)
    asleep = (clock.sleepers, sleeper.done())
    await clock.advance(0.1)

    assert asleep == (1, False)
    assert sleeper.done()
    assert clock.monotonic() == pytest.approx(10.0)


async def test_the_fake_clock_does_not_move_for_a_cancelled_sleeper() -> None:
    clock = FakeClock()
    cancelled = asyncio.create_task(clock.sleep(5.0))
    await asyncio.sleep(0)
    cancelled.cancel()

    await clock.sleep(7.0)

    assert clock.monotonic() == 7.0
