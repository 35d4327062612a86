"""Who gets the budget: the first rows of the table, and nobody twice."""

from __future__ import annotations

import asyncio

from prefect_together.errors import BudgetReached, ServiceStuck, TogetherVideoError
from prefect_together.execution.admission import BudgetQueue, Slots

CAP_USD = 1.0


class Till:
    """A ledger's sum, jobs in flight, and the queue over them."""

    def __init__(self) -> None:
        self.committed_usd = 0.0
        self.slots = Slots(10)
        self.reason: TogetherVideoError | None = None
        self.queue = BudgetQueue(CAP_USD, committed_usd=self._answer, slots=self.slots)

    async def _answer(self) -> float:
        await asyncio.sleep(0)
        return self.committed_usd

    async def ask(self, key: str, estimate_usd: float | None) -> TogetherVideoError | None:
        return await self.queue.promise(key, estimate_usd, stopped=lambda: self.reason)

    async def job(self, key: str, estimate_usd: float, cost_usd: float) -> bool:
        """Ask, reserve, and settle a little later; whether the video was sent."""
        if await self.ask(key, estimate_usd) is not None:
            return False
        async with self.slots.slot():
            self.committed_usd += estimate_usd
            self.queue.release(key)
            for _ in range(20):
                await asyncio.sleep(0)
            self.committed_usd += cost_usd - estimate_usd
        return True


async def test_those_who_ask_first_are_promised_the_budget() -> None:
    till = Till()

    answers = await asyncio.gather(*(till.job(f"r{number}", 0.28, 0.28) for number in range(10)))

    assert answers == [True] * 3 + [False] * 7
    assert till.committed_usd <= CAP_USD


async def test_what_is_promised_counts_until_it_is_reserved() -> None:
    till = Till()

    first = await till.ask("r1", 0.6)
    second = asyncio.create_task(till.ask("r2", 0.6))
    await asyncio.sleep(0.01)

    assert first is None
    assert not second.done()
    till.queue.release("r1")  # it is not sent after all
    assert await second is None


async def test_what_may_be_sent_again_counts_while_it_is_not_reserved() -> None:
    till = Till()
    await till.ask("r1", 0.6)
    till.queue.release("r1")

    till.queue.renew("r1", 0.6)  # refused for its rate
    second = asyncio.create_task(till.ask("r2", 0.6))
    await asyncio.sleep(0.01)

    assert not second.done()
    second.cancel()


async def test_a_video_waits_for_what_the_jobs_in_flight_leave_and_is_not_overtaken() -> None:
    till = Till()

    answers = await asyncio.gather(
        till.job("first", 0.5, 0.1), till.job("dear", 0.6, 0.6), *(till.job(f"r{number}", 0.1, 0.1) for number in "123")
    )

    assert answers == [True] * 5


async def test_what_can_never_fit_is_refused_at_once_and_holds_nobody_up() -> None:
    till = Till()
    await till.ask("r1", 0.9)
    waiting = asyncio.create_task(till.ask("r2", 0.5))

    too_dear, unknown = await till.ask("r3", 1.5), await till.ask("r4", None)

    assert isinstance(too_dear, BudgetReached)
    assert isinstance(unknown, BudgetReached)
    assert not waiting.done()
    waiting.cancel()


async def test_a_cancelled_waiter_leaves_its_turn_to_the_next() -> None:
    till = Till()
    await till.ask("r1", 0.9)
    waiting, next_one = asyncio.create_task(till.ask("r2", 0.5)), asyncio.create_task(till.ask("r3", 0.1))
    await asyncio.sleep(0.01)

    waiting.cancel()

    assert await next_one is None


async def test_who_waits_learns_that_nothing_is_sent_any_more() -> None:
    till = Till()
    await till.ask("r1", 0.9)
    waiting = asyncio.create_task(till.ask("r2", 0.5))
    await asyncio.sleep(0.01)

    till.reason = ServiceStuck(3)
    till.queue.release("r1")

    assert await waiting is till.reason
