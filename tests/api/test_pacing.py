"""The submit pace against services with and without a limit."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from fake_clock import FakeClock
from prefect_together.api.submit import SubmitPacer
from prefect_together.sandbox.service import DynamicLimit

ROUND_TRIP_SECONDS = 0.05

Refuses = Callable[[float], float | None]
"""What a service says to a create call at a time: seconds to wait, or None: taken."""


@dataclass
class Submits:
    """What came of some submits through one pacer."""

    seconds: float = 0.0
    refused: int = 0
    accepted: list[int] = field(default_factory=list[int])
    sent_at: list[float] = field(default_factory=list[float])


async def submit_all(
    count: int,
    refuses: Refuses,
    *,
    tells: bool = True,
    pacer: SubmitPacer | None = None,
    clock: FakeClock | None = None,
) -> Submits:
    clock = clock or FakeClock()
    pacer = pacer or SubmitPacer(clock, rng=random.Random(1))
    submits, rng = Submits(), random.Random(2)

    async def submit(number: int) -> None:
        while True:
            await pacer.admit()
            submits.sent_at.append(clock.monotonic())
            await clock.sleep(ROUND_TRIP_SECONDS * rng.uniform(0.25, 0.75))
            pause = refuses(clock.monotonic())
            await clock.sleep(ROUND_TRIP_SECONDS * rng.uniform(0.25, 0.75))
            if pause is None:
                break
            submits.refused += 1
            pacer.refused(pause if tells else None)
        pacer.accepted()
        submits.accepted.append(number)

    await asyncio.gather(*(submit(number) for number in range(count)))
    submits.seconds = clock.monotonic()
    return submits


def limit(per_second: float, window_seconds: float = 3600.0) -> Refuses:
    """The sandbox's limit: so many a second, rising to twice the rate of the past window."""
    return DynamicLimit(per_second, window_seconds).take


def best_seconds(count: int, refuses: Refuses) -> float:
    """When a client that knows the limit, and has no round trip, has them all accepted."""
    now = 0.0
    for _ in range(count):
        while (pause := refuses(now)) is not None:
            now += max(pause, 1e-6)
    return now


async def test_a_service_without_a_limit_is_not_felt() -> None:
    submits = await submit_all(1000, lambda _now: None)

    # 100 at once is the pool's bound: 0.5 s, and some rounds to get there.
    assert submits.seconds < 1.5


@pytest.mark.parametrize(
    ("per_second", "count"), [(1.0, 600), (1.0, 5000), (5.0, 2000), (20.0, 4000)], ids=lambda value: str(value)
)
async def test_an_unannounced_limit_costs_at_most_15_percent_and_few_refusals(per_second: float, count: int) -> None:
    submits = await submit_all(count, limit(per_second))

    assert submits.seconds <= 1.15 * best_seconds(count, limit(per_second))
    assert submits.refused <= 0.06 * count + 20
    assert len(submits.accepted) == count


@pytest.mark.parametrize(("per_second", "count", "most"), [(1.0, 40, 1.25), (4.0, 40, 1.8), (20.0, 200, 2.0)])
async def test_a_first_refusal_with_its_wait_in_whole_seconds_hides_no_higher_limit(
    per_second: float, count: int, most: float
) -> None:
    """One call is taken and then all have to wait for a second: that looks like one a second, and is tried again."""
    exact = limit(per_second)

    def in_whole_seconds(now: float) -> float | None:
        pause = exact(now)
        return None if pause is None else float(math.ceil(pause))

    submits = await submit_all(count, in_whole_seconds)

    assert submits.seconds <= most * best_seconds(count, limit(per_second))


async def test_a_limit_by_the_minute_is_used_up() -> None:
    used: dict[int, int] = {}

    def sixty_a_minute(now: float) -> float | None:
        minute = int(now // 60)
        if used.get(minute, 0) >= 60:
            return (minute + 1) * 60 - now
        used[minute] = used.get(minute, 0) + 1
        return None

    submits = await submit_all(600, sixty_a_minute)

    assert submits.seconds < 1.15 * 9 * 60
    assert submits.refused < 60


async def test_a_limit_that_falls_to_a_fifth_is_followed() -> None:
    quick, slow = limit(5.0), limit(1.0)

    submits = await submit_all(800, lambda now: (quick if now < 100 else slow)(now))

    assert submits.seconds < 1.15 * (100 + 300)
    assert submits.refused < 80


async def test_a_limit_that_rises_is_found() -> None:
    slow, quick = limit(1.0), limit(5.0)

    submits = await submit_all(1500, lambda now: (slow if now < 200 else quick)(now))

    assert submits.seconds < 1.3 * (200 + 260)


async def test_a_limit_without_a_hint_is_kept_too() -> None:
    submits = await submit_all(600, limit(1.0), tells=False)

    assert submits.seconds < 1.25 * 600
    assert submits.refused < 60


async def test_a_service_that_refuses_a_fifth_at_random_is_not_given_up() -> None:
    rng = random.Random(3)

    submits = await submit_all(100, lambda _now: 1.0 if rng.random() < 0.2 else None)

    assert submits.seconds < 240


async def test_a_fifth_refused_without_a_word_on_waiting_is_no_limit() -> None:
    rng = random.Random(3)

    submits = await submit_all(100, lambda _now: 1.0 if rng.random() < 0.2 else None, tells=False)

    assert submits.seconds < 10


async def test_a_lone_503_leaves_the_pace_as_it_is() -> None:
    clock = FakeClock()
    pacer = SubmitPacer(clock, rng=random.Random(1))
    await submit_all(200, limit(5.0), pacer=pacer, clock=clock)
    for _ in range(4):
        await pacer.admit()
        pacer.accepted()
    await pacer.admit()
    before = pacer.per_second

    pacer.refused(None)
    after_one = pacer.per_second
    await pacer.admit()
    pacer.refused(None)

    assert after_one == before
    assert pacer.per_second < 0.6 * before


async def test_a_service_that_is_down_for_a_while_is_tried_rarely_and_then_used_again() -> None:
    submits = await submit_all(100, lambda now: 30.0 if now < 1800 else None)

    assert sum(sent_at < 1800 for sent_at in submits.sent_at) < 300
    assert submits.seconds < 1800 + 30 + 300


async def test_all_wait_as_long_as_a_refusal_asks_and_do_not_come_back_at_once() -> None:
    refused_at: list[float] = []

    def refuses_once(now: float) -> float | None:
        if not refused_at or now < refused_at[0] + 0.5:
            refused_at.append(now)
            return 20.0
        return None

    submits = await submit_all(50, refuses_once)

    later = [sent_at for sent_at in submits.sent_at if sent_at > refused_at[-1]]
    assert min(later) >= refused_at[0] + 20.0
    assert sum(sent_at < min(later) + 1.0 for sent_at in later) <= 5


async def test_calls_refused_together_halve_the_pace_once() -> None:
    clock = FakeClock()
    pacer = SubmitPacer(clock, rng=random.Random(1))
    await submit_all(200, limit(20.0), pacer=pacer, clock=clock)

    paces: list[float] = []
    for _ in range(4):
        await pacer.admit()
    for _ in range(4):
        pacer.refused(1.0)
        paces.append(pacer.per_second)

    assert len(set(paces)) == 1


async def test_the_first_call_of_all_may_be_refused() -> None:
    refusals = iter([1.0] * 8)

    submits = await submit_all(20, lambda _now: next(refusals, None))

    assert submits.seconds < 60


async def test_turns_are_first_come_first_served() -> None:
    submits = await submit_all(300, lambda _now: None)

    late = [submits.accepted.index(number) - number for number in range(300)]
    assert max(abs(places) for places in late) <= 100  # no more than are under way together


async def test_a_cancelled_submit_leaves_its_turn_to_the_next() -> None:
    clock = FakeClock(auto=False)
    pacer = SubmitPacer(clock)
    await pacer.admit()
    pacer.refused(1.0)
    first, second = asyncio.create_task(pacer.admit()), asyncio.create_task(pacer.admit())
    await clock.advance(0.5)

    first.cancel()
    await clock.advance(0.7)  # the second and up to a tenth of it

    assert first.cancelled()
    assert second.done()


async def test_calls_without_a_verdict_make_room_for_others() -> None:
    clock = FakeClock()
    pacer = SubmitPacer(clock)

    for _ in range(500):
        await pacer.admit()
        pacer.released()

    assert clock.monotonic() == 0.0
