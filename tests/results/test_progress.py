"""The run in figures."""

from __future__ import annotations

import pytest

from prefect_together.ledger.states import State
from prefect_together.results.progress import Tally


def tally_of(*states: State, each_usd: float = 1.0) -> Tally:
    tally = Tally(started_at=1000.0)
    for number, state in enumerate(states):
        tally.add_video(str(number), state, each_usd, None)
    return tally


def test_videos_are_counted_by_their_last_state() -> None:
    tally = tally_of(State.PLANNED, State.PLANNED, State.FAILED)

    tally.set("0", State.SUBMITTED)

    assert tally.by_status == {"submitted": 1, "planned": 1, "failed": 1}
    assert (tally.total, tally.finished) == (3, 1)


def test_videos_are_counted_in_the_words_of_results_csv() -> None:
    tally = tally_of(State.SUBMITTING, State.SUBMITTED, State.COMPLETED, State.COMPLETED, State.DOWNLOADED)

    tally.undownloaded |= {"3", "4"}

    assert tally.by_status == {"submitted": 3, "failed": 1, "downloaded": 1}


def test_a_video_that_is_not_in_the_table_is_not_counted() -> None:
    tally = tally_of(State.PLANNED)

    tally.set("gone", State.DOWNLOADED)
    tally.add_cost("gone", 1.0)
    tally.replace_cost("gone", 1.0)

    assert (tally.total, tally.spent_usd) == (1, 0.0)


def test_each_job_of_a_video_adds_to_its_cost_and_the_ledger_has_the_last_word() -> None:
    tally = tally_of(State.SUBMITTED)

    tally.add_cost("0", 0.3)
    tally.add_cost("0", 0.3)
    tally.add_cost("0", None)
    added = tally.spent_usd
    tally.replace_cost("0", 0.5)

    assert (added, tally.spent_usd) == (pytest.approx(0.6), 0.5)


@pytest.mark.parametrize("state", list(State))
def test_what_needs_no_more_work_is_finished(state: State) -> None:
    is_finished = state in {State.DOWNLOADED, State.FAILED, State.IN_DOUBT, State.REFUSED}

    assert tally_of(state).finished == is_finished


def test_dollars_are_charges_and_estimates_for_what_is_still_to_be_charged() -> None:
    tally = tally_of(State.DOWNLOADED, State.SUBMITTED, State.PLANNED, State.FAILED, State.REFUSED, each_usd=0.5)

    tally.add_cost("0", 0.3)

    assert tally.spent_usd == pytest.approx(0.3)
    assert tally.projected_usd == pytest.approx(0.3 + 0.5 + 0.5)


def test_a_video_of_unknown_price_is_said_beside_the_projection_until_it_is_charged() -> None:
    tally = tally_of(State.PLANNED, State.PLANNED)
    tally.estimates_usd.clear()
    assert tally.money == "$0.00 so far, 2 of unknown price projected"

    tally.add_cost("0", 0.3)

    assert tally.projected_usd == 0.3
    assert tally.money == "$0.30 so far, $0.30 and 1 of unknown price projected"


def test_time_left_goes_by_the_speed_of_this_run() -> None:
    tally = tally_of(*[State.DOWNLOADED] * 5, *[State.PLANNED] * 4)
    tally.start()

    tally.set("5", State.DOWNLOADED)
    tally.set("6", State.FAILED)

    assert tally.seconds_left(1010.0) == pytest.approx(10.0)


def test_time_left_is_unknown_until_something_is_finished() -> None:
    tally = tally_of(State.DOWNLOADED, State.PLANNED)
    tally.start()

    assert tally.seconds_left(1010.0) is None


@pytest.mark.parametrize("states", [(), (State.DOWNLOADED,), (State.REFUSED, State.IN_DOUBT)])
def test_nothing_is_left_when_all_is_finished(states: tuple[State, ...]) -> None:
    tally = tally_of(*states)
    tally.start()

    assert tally.seconds_left(1010.0) == 0.0
