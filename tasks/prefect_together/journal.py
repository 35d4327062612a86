"""Writes the create calls of one video into the ledger, under the budget and the account breaker. No Prefect."""

from __future__ import annotations

from dataclasses import dataclass, field

from prefect_together.budget import BudgetQueue
from prefect_together.errors import (
    AccountBlocked,
    BadParameter,
    ImageChanged,
    NeverSent,
    SubmissionRefused,
    TogetherVideoError,
    WrongAddress,
)
from prefect_together.jobs import VideoJob
from prefect_together.ledger import Ledger
from prefect_together.ledger_engine import LedgerUnavailable
from prefect_together.ledger_schema import State
from prefect_together.tally import Tally


@dataclass(slots=True, eq=False)
class Breaker:
    """Open while sending makes sense. A refused account, a wrong address or a stuck service closes it for the run.

    `unsaved` are errors that hold the ids of paid jobs which could not be written.
    """

    reason: TogetherVideoError | None = None
    unsaved: list[LedgerUnavailable] = field(default_factory=list[LedgerUnavailable])


@dataclass(slots=True, eq=False)
class LedgerJournal:
    """See `submit.Journal`."""

    ledger: Ledger
    key: str
    estimate_usd: float | None
    budget: BudgetQueue | None
    breaker: Breaker
    tally: Tally

    async def intend(self) -> int:
        if self.breaker.reason is not None:
            raise self.breaker.reason
        cap_usd = None if self.budget is None else self.budget.cap_usd
        attempt = await self.ledger.intend(self.key, estimate_usd=self.estimate_usd, budget_usd=cap_usd)
        if self.budget is not None:
            self.budget.settle(self.key)
        self.tally.set(self.key, State.SUBMITTING)
        return attempt

    async def accepted(self, attempt: int, job: VideoJob) -> None:
        try:
            await self.ledger.accepted(self.key, attempt, job)
        except LedgerUnavailable as error:
            self.breaker.unsaved.append(error)  # at once: a cancellation may overtake the error on its way up
            raise
        self.tally.set(self.key, State.SUBMITTED)

    async def not_accepted(self, attempt: int, error: SubmissionRefused | NeverSent) -> None:
        state, failure_class = State.PLANNED, None
        if isinstance(error, BadParameter | ImageChanged):
            state, failure_class = State.FAILED, "bad_parameter"
        elif isinstance(error, AccountBlocked):
            self.breaker.reason = self.breaker.reason or error
            state = State.REFUSED
        elif isinstance(error, WrongAddress):
            self.breaker.reason = self.breaker.reason or error
        if self.budget is not None and state == State.PLANNED:
            self.budget.renew(self.key, self.estimate_usd)
        await self.ledger.not_accepted(self.key, attempt, str(error), state=state, failure_class=failure_class)
        self.tally.set(self.key, state)

    async def in_doubt(self, attempt: int, reason: str) -> None:
        await self.ledger.in_doubt(self.key, attempt, reason)
        self.tally.set(self.key, State.IN_DOUBT)
