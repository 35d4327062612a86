"""The table of states: complete, and without a state that cannot be reached or left."""

from __future__ import annotations

import pytest

from prefect_together.ledger.states import STATES, STATUSES, State, states_before, states_where


def test_every_state_has_its_facts_and_every_status_is_the_name_of_a_state() -> None:
    assert set(STATES) == set(State)
    assert {State(status) for status in STATUSES} <= set(State)
    assert all(STATES[State(status)].status == status for status in STATUSES)


@pytest.mark.parametrize("state", list(State))
def test_every_state_can_be_reached_and_left(state: State) -> None:
    assert state == State.PLANNED or states_before(state)
    assert STATES[state].becomes
    assert state not in STATES[state].becomes


def test_nothing_that_is_or_may_be_paid_is_sent_unasked() -> None:
    paid = states_where(lambda facts: facts.is_paid_without_clip)

    assert set(paid) == {State.SUBMITTING, State.SUBMITTED, State.COMPLETED, State.IN_DOUBT}
    assert {STATES[state].sent_if for state in paid} == {"never", "resubmit_in_doubt"}


def test_what_has_a_job_is_collected_and_what_is_unanswered_may_be_a_job() -> None:
    assert set(states_where(lambda facts: facts.has_job)) == {State.SUBMITTED, State.COMPLETED}
    assert set(states_where(lambda facts: facts.is_unanswered)) == {State.SUBMITTING, State.IN_DOUBT}


def test_a_run_is_through_with_exactly_these() -> None:
    finished = states_where(lambda facts: facts.is_finished)

    assert set(finished) == {State.DOWNLOADED, State.FAILED, State.IN_DOUBT, State.REFUSED}
