"""The states of a video: what each means, may become, and is called. All other modules ask this table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Status = Literal["downloaded", "failed", "submitted", "in_doubt", "refused", "planned"]
"""A state in the words of results.csv, which has none for `submitting` and `completed`."""

SentIf = Literal["always", "resubmit_in_doubt", "retry_failed", "never"]
"""When a run sends a video: always, if the setting of that name is on, or never."""


class State(StrEnum):
    """How far a video is. On its way: planned, submitting, submitted, completed, downloaded."""

    DOWNLOADED = "downloaded"
    FAILED = "failed"
    COMPLETED = "completed"
    SUBMITTED = "submitted"
    SUBMITTING = "submitting"
    IN_DOUBT = "in_doubt"
    REFUSED = "refused"
    PLANNED = "planned"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFacts:
    """What is true of every video in a state.

    `word` is for people, `status` for results.csv; `stalled` is the status of a video that nothing moves any more (see
    `VideoRecord.status`). `becomes` are the states that may follow. `is_finished`: a run has nothing more to do.
    `is_paid_without_clip`: paid for, or perhaps so, and not on disk. `is_waiting`: at the provider, or perhaps so.
    """

    word: str
    status: Status
    becomes: tuple[State, ...]
    sent_if: SentIf = "never"
    stalled: Status | None = None
    is_finished: bool = False
    is_paid_without_clip: bool = False
    is_waiting: bool = False

    @property
    def has_job(self) -> bool:
        """Its job is known and its clip is still to be fetched: every run collects it."""
        return self.is_paid_without_clip and self.sent_if == "never"

    @property
    def has_clip(self) -> bool:
        """Its clip is there, or its job is known and every run collects it."""
        return self.has_job or self.status == "downloaded"

    @property
    def is_unanswered(self) -> bool:
        """Its last create call has no usable answer: a job may exist that nobody can look up."""
        return self.is_paid_without_clip and not self.has_job

    @property
    def is_under_way(self) -> bool:
        """Sent, or perhaps so, and not yet on disk: a run works on it, or the next one takes it up first."""
        return self.is_paid_without_clip and not self.is_finished

    @property
    def is_failure(self) -> bool:
        """A run ends so without a clip."""
        return self.is_finished and self.status != "downloaded"


STATES: Mapping[State, StateFacts] = {
    State.DOWNLOADED: StateFacts(
        word="downloaded",
        status="downloaded",
        becomes=(State.COMPLETED,),  # the file has been deleted or changed since
        is_finished=True,
    ),
    State.FAILED: StateFacts(
        word="failed",
        status="failed",
        becomes=(State.PLANNED,),
        sent_if="retry_failed",
        is_finished=True,
    ),
    State.COMPLETED: StateFacts(
        word="completed",
        status="submitted",
        stalled="failed",
        becomes=(State.DOWNLOADED, State.FAILED),  # failed: a still whose only link is dead
        is_paid_without_clip=True,
    ),
    State.SUBMITTED: StateFacts(
        word="submitted",
        status="submitted",
        becomes=(State.COMPLETED, State.FAILED, State.PLANNED),  # planned: one more job after an upstream failure
        is_paid_without_clip=True,
        is_waiting=True,
    ),
    State.SUBMITTING: StateFacts(
        word="submitting",
        status="submitted",
        stalled="in_doubt",
        becomes=(State.SUBMITTED, State.IN_DOUBT, State.PLANNED, State.FAILED, State.REFUSED),
        sent_if="resubmit_in_doubt",  # once its run is gone
        is_paid_without_clip=True,
        is_waiting=True,
    ),
    State.IN_DOUBT: StateFacts(
        word="in doubt",
        status="in_doubt",
        becomes=(State.SUBMITTED, State.PLANNED, State.FAILED, State.REFUSED),  # an answer may still come
        sent_if="resubmit_in_doubt",
        is_finished=True,
        is_paid_without_clip=True,
    ),
    State.REFUSED: StateFacts(
        word="refused",
        status="refused",
        becomes=(State.PLANNED, State.FAILED, State.IN_DOUBT),  # the last two: it was to be sent again, and was not
        sent_if="always",
        is_finished=True,
    ),
    State.PLANNED: StateFacts(
        word="planned",
        status="planned",
        becomes=(State.SUBMITTING, State.SUBMITTED, State.REFUSED, State.FAILED, State.IN_DOUBT),
        sent_if="always",
    ),
}
"""Every state with its facts, in the order of display: the most finished first."""

STATUSES: tuple[Status, ...] = tuple(dict.fromkeys(facts.status for facts in STATES.values()))
"""The words of results.csv in the order of display. Each is itself the name of a state."""


def states_where(is_wanted: Callable[[StateFacts], bool]) -> tuple[State, ...]:
    """The states whose facts are so."""
    return tuple(state for state, facts in STATES.items() if is_wanted(facts))


def states_before(state: State) -> tuple[State, ...]:
    """The states that may become this one."""
    return states_where(lambda facts: state in facts.becomes)
