"""How a run goes about its plan: limits, caps, and what it sends again. No Prefect."""

from __future__ import annotations

from dataclasses import dataclass

from prefect_together.download import MAX_CLIP_BYTES
from prefect_together.ledger_schema import State


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run goes about its plan. Dollars, minutes; None means no cap. `allowed_failures` counts rows, `shards` the
    runs that work on the plan together: `max_in_flight` and `budget_usd` hold for all of them."""

    max_in_flight: int = 20
    budget_usd: float | None = None
    max_wait_minutes: float = 60.0
    max_clip_bytes: int = MAX_CLIP_BYTES
    resubmit_in_doubt: bool = False
    retry_failed: bool = False
    collect_only: bool = False
    allowed_failures: int = 0
    canary: bool = False
    approve_above_usd: float | None = None
    approval_minutes: float = 24 * 60.0
    shards: int = 1

    @property
    def states_to_resend(self) -> frozenset[State]:
        """States that the user said are to be sent again."""
        wanted = {State.IN_DOUBT: self.resubmit_in_doubt, State.FAILED: self.retry_failed}
        return frozenset(state for state, is_wanted in wanted.items() if is_wanted)

    def sends(self, state: State) -> bool:
        """Whether a video that the ledger has in this state is sent, and not only collected."""
        if state == State.SUBMITTING:  # its run is gone, or it has the video
            state = State.IN_DOUBT
        is_new = state in (State.PLANNED, State.REFUSED)
        return not self.collect_only and (is_new or state in self.states_to_resend)
