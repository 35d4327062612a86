"""Which videos of a run the budget is promised to: in the order in which they ask. No I/O; the ledger holds the cap.

Between the look at what is committed and the reservation in the ledger lies the wait for a place at the provider. What
is promised meanwhile counts as spent here, so that a video is refused only when nothing can be left for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prefect_together.errors import BudgetReached, TogetherVideoError
from prefect_together.slots import Slots

ROUNDING_USD = 1e-9


@dataclass(frozen=True, slots=True)
class _Look:
    """What was committed, and what that was at most together with the promises of then; the sum of all promises made
    before; whether nothing was promised or in flight."""

    committed_usd: float
    taken_usd: float
    promised_before_usd: float
    is_idle: bool


class BudgetQueue:
    """Promises a cap to one video after the other; `committed_usd` asks the ledger, `slots` are the jobs in flight."""

    def __init__(self, cap_usd: float, *, committed_usd: Callable[[], Awaitable[float]], slots: Slots) -> None:
        self._cap_usd, self._committed_usd, self._slots = cap_usd, committed_usd, slots
        self._promised: dict[str, float] = {}
        self._ever_promised_usd = 0.0
        self._turn = asyncio.Lock()  # first come, first served

    async def promise(
        self, key: str, estimate_usd: float | None, *, stopped: Callable[[], TogetherVideoError | None]
    ) -> TogetherVideoError | None:
        """Promise the estimate to a video, or say why it is refused: BudgetReached, or what `stopped` says.

        Waits while jobs in flight may still cost less than is reserved for them. Nobody overtakes meanwhile.
        """
        look = await self._look()  # beside the others', before its turn: good enough for a yes
        if estimate_usd is None or estimate_usd > self._cap_usd:
            return stopped() or BudgetReached(self._cap_usd, look.committed_usd, estimate_usd)
        async with self._turn:
            is_new = False
            while (reason := stopped()) is None:
                if self._left_usd(look) >= estimate_usd - ROUNDING_USD:
                    self._promised[key] = estimate_usd
                    self._ever_promised_usd += estimate_usd
                    return None
                if is_new and look.is_idle:
                    return BudgetReached(self._cap_usd, look.committed_usd, estimate_usd)
                if is_new and self._slots.used:
                    await self._slots.until_released()
                look, is_new = await self._look(), True
            return reason

    def settle(self, key: str) -> None:
        """The video is reserved in the ledger, or is not sent after all."""
        self._promised.pop(key, None)

    async def _look(self) -> _Look:
        # Asked before: a promise may be kept, a job settled, while the ledger answers.
        promised_usd, ever_usd, jobs = sum(self._promised.values()), self._ever_promised_usd, self._slots.used
        committed_usd = await self._committed_usd()
        return _Look(committed_usd, committed_usd + promised_usd, ever_usd, is_idle=not jobs and not promised_usd)

    def _left_usd(self, look: _Look) -> float:
        """At least so much is left now: what was promised after the look may be in it by now, or not."""
        return self._cap_usd - look.taken_usd - (self._ever_promised_usd - look.promised_before_usd)
