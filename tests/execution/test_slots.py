"""Slots: never above the limit but for jobs that are there already, and no slot lost to a stop."""

from __future__ import annotations

import asyncio
import random

import pytest

from prefect_together.execution.admission import Slots


async def settle(turns: int = 10) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


class Holder:
    """A task that takes a slot and holds it until it is let go."""

    def __init__(self, slots: Slots, *, already_there: bool = False) -> None:
        self._slots, self._already_there = slots, already_there
        self.has_slot, self._go = False, asyncio.Event()
        self.task = asyncio.create_task(self._hold())

    async def _hold(self) -> None:
        async with self._slots.slot(already_there=self._already_there):
            self.has_slot = True
            await self._go.wait()

    async def release_model(self) -> None:
        self._go.set()
        await self.task


async def test_no_more_than_the_limit_hold_a_slot() -> None:
    slots = Slots(2)

    holders = [Holder(slots) for _ in range(5)]
    await settle()

    assert [holder.has_slot for holder in holders] == [True, True, False, False, False]
    for holder in holders:
        await holder.release_model()
    assert slots.used == 0


async def test_the_first_to_wait_is_the_first_to_enter() -> None:
    slots = Slots(1)
    first, second, third = (Holder(slots) for _ in range(3))
    await settle()

    await first.release_model()
    await settle()

    assert (second.has_slot, third.has_slot) == (True, False)
    await second.release_model()
    await third.release_model()


async def test_a_job_that_is_there_already_enters_above_the_limit_and_counts() -> None:
    slots = Slots(1)
    there = [Holder(slots, already_there=True) for _ in range(3)]
    waiting = Holder(slots)
    await settle()
    used = slots.used

    await there[0].release_model()
    await there[1].release_model()
    await settle()
    with_one_there = waiting.has_slot
    await there[2].release_model()
    await settle()

    assert (used, with_one_there, waiting.has_slot) == (3, False, True)
    await waiting.release_model()
    assert slots.used == 0


async def test_a_stopped_waiter_takes_no_slot_with_it() -> None:
    slots = Slots(1)
    holder, stopped, waiting = (Holder(slots) for _ in range(3))
    await settle()

    stopped.task.cancel()
    await holder.release_model()
    await settle()

    assert stopped.task.cancelled()
    assert waiting.has_slot
    await waiting.release_model()


async def test_a_waiter_stopped_in_the_moment_of_its_turn_hands_it_on() -> None:
    slots = Slots(1)
    async with slots.slot():
        stopped, waiting = Holder(slots), Holder(slots)
        await settle()
    stopped.task.cancel()  # woken, but it has not run yet

    await settle()

    assert not stopped.has_slot
    assert waiting.has_slot
    await waiting.release_model()


async def test_a_slot_is_given_back_after_an_error() -> None:
    slots = Slots(1)

    with pytest.raises(ValueError, match="odd"):
        async with slots.slot():
            raise ValueError("odd")

    assert slots.used == 0


@pytest.mark.parametrize("seed", range(10))
async def test_no_slot_is_lost_in_a_storm_of_stops(seed: int) -> None:
    slots, rng, most = Slots(3), random.Random(seed), 0

    async def work(steps: int) -> None:
        nonlocal most
        async with slots.slot():
            most = max(most, slots.used)
            await settle(steps)

    tasks = [asyncio.create_task(work(rng.randrange(4))) for _ in range(60)]
    while not all(task.done() for task in tasks):
        rng.choice(tasks).cancel()
        await settle(rng.randrange(3))
    await asyncio.gather(*tasks, return_exceptions=True)

    assert (slots.used, most) == (0, 3)
    async with asyncio.timeout(50), slots.slot(), slots.slot(), slots.slot():
        assert slots.used == 3
