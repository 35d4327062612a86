"""The circuit breaker of a run: closed while sending makes sense; nothing is sent while it is open.

It owns every reason to stop and what counts towards it. What is paid for is collected anyway.
"""

from __future__ import annotations

from collections.abc import Collection

from prefect_together.errors import (
    AccountBlocked,
    CanaryFailed,
    ServiceStuck,
    ServiceUnreachable,
    TogetherVideoError,
    UnforeseenErrors,
    WrongAddress,
)
from prefect_together.ledger.engine import LedgerUnavailable

UNFORESEEN_ERRORS = 3
"""Paid rows in a row that may end by an unforeseen error: by then it is a fault of the program, and all would."""
UNREACHED_ROWS = 3
"""Rows given up without a connection before a service that was never reached counts as unreachable. One that was
reached in this run is tried for each row: it may be back any minute."""
LEAST_TIMED_OUT = 3
"""Jobs of this run in a row that time out before the service counts as stuck, however few may be in flight."""


class CircuitBreaker:
    """What sends reports to it and asks it before each create call.

    `unsaved` are errors with the ids of paid jobs that could not be written to the ledger.
    """

    def __init__(self, *, max_in_flight: int = 1) -> None:
        self._enough_timed_out = max(max_in_flight, LEAST_TIMED_OUT)
        self._reason: TogetherVideoError | None = None
        self._failed_canaries: dict[str, CanaryFailed] = {}
        self._timed_out = self._unforeseen = self._unreached = 0
        self._was_reached = False
        self.unsaved: list[LedgerUnavailable] = []

    @property
    def reason(self) -> TogetherVideoError | None:
        """Why it is open; None while it is closed."""
        return self._reason

    @property
    def stopped_models(self) -> Collection[str]:
        """Models whose canary was not downloaded."""
        return self._failed_canaries.keys()

    def refusal(self, model: str) -> TogetherVideoError | None:
        """Why no video of this model is sent; None if one may be."""
        return self._reason or self._failed_canaries.get(model)

    def check(self) -> None:
        """Raises the reason if it is open."""
        if self._reason is not None:
            raise self._reason

    def open(self, reason: TogetherVideoError) -> None:
        """Stop sending; the first reason stays."""
        self._reason = self._reason or reason

    def refused(self, error: TogetherVideoError) -> None:
        """The service did not take a job: a blocked account and a wrong address open the breaker."""
        if isinstance(error, AccountBlocked | WrongAddress):
            self.open(error)

    def reached(self) -> None:
        """The service answered a create call: sending continues, even if it had counted as unreachable."""
        self._was_reached = True
        if isinstance(self._reason, ServiceUnreachable):
            self._reason = None

    def not_reached(self, reason: str, *, may_be_reached: bool) -> None:
        """A row was given up without a connection. `may_be_reached`: something else says that the service is there."""
        self._unreached += 1
        if self._unreached >= UNREACHED_ROWS and not (self._was_reached or may_be_reached):
            self.open(ServiceUnreachable(reason))

    def job_ended(self) -> None:
        """A job was done or failed within its time."""
        self._timed_out = 0

    def job_timed_out(self) -> None:
        """A job of this run was not done by its deadline. Those of earlier runs say nothing of the service now."""
        self._timed_out += 1
        if self._timed_out >= self._enough_timed_out:
            self.open(ServiceStuck(self._timed_out))

    def row_downloaded(self) -> None:
        """A row of this run came through."""
        self._unforeseen = 0

    def paid_row_broke_off(self) -> None:
        """A row that this run has paid for, or perhaps so, ended by an error that was not foreseen."""
        self._unforeseen += 1
        if self._unforeseen >= UNFORESEEN_ERRORS:
            self.open(UnforeseenErrors(self._unforeseen))

    def canary_failed(self, error: CanaryFailed) -> None:
        """Send no more of this model."""
        self._failed_canaries[error.model] = error
