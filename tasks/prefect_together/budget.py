"""Which videos of a run the budget is promised to: in the order in which they ask. No I/O; the ledger holds the cap.

Between the look at what is committed and the reservation in the ledger lies the wait for a place at the provider. What
is promised meanwhile counts as spent here, so that a video is refused only when nothing can be left for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from prefect_together.errors import BudgetReached, TogetherVideoError
from prefect_together.slots import Slots

ROUNDING_USD = 1e-9


class BudgetQueue:
    """Promises a cap to one video after the other; `committed_usd` asks the ledger, `slots` are the jobs in flight."""

    def __init__(self, cap_usd: float, *, committed_usd: Callable[[], Awaitable[float]], slots: Slots) -> None:
        self.cap_usd, self._committed_usd, self._slots = cap_usd, committed_usd, slots
        self._promised: dict[str, float] = {}
        self._turn = asyncio.Lock()  # first come, first served

    async def promise(
        self, key: str, estimate_usd: float | None, *, stopped: Callable[[], TogetherVideoError | None]
    ) -> TogetherVideoError | None:
        """Promise the estimate to a video, or say why it is refused: BudgetReached, or what `stopped` says.

        Waits while jobs in flight may still cost less than is reserved for them. Nobody overtakes meanwhile.
        """
        if estimate_usd is None or estimate_usd > self.cap_usd:
            return stopped() or BudgetReached(self.cap_usd, await self._committed_usd(), estimate_usd)
        async with self._turn:
            while (reason := stopped()) is None:
                # Taken and asked before: a promise may be kept, a job settled, while the ledger answers.
                change = self._slots.next_change()
                promised_usd, jobs = sum(self._promised.values()), self._slots.used
                committed_usd = await self._committed_usd()
                if committed_usd + promised_usd + estimate_usd <= self.cap_usd + ROUNDING_USD:
                    self._promised[key] = estimate_usd
                    return None
                if not jobs and not promised_usd:
                    return BudgetReached(self.cap_usd, committed_usd, estimate_usd)
                await change.wait()
            return reason

    def renew(self, key: str, estimate_usd: float | None) -> None:
        """The reservation in the ledger is about to be given back, and the video may be sent again."""
        if estimate_usd is not None:
            self._promised[key] = estimate_usd

    def settle(self, key: str) -> None:
        """The video is reserved in the ledger, or is not sent after all."""
        if self._promised.pop(key, None) is not None:
            self._slots.announce()
