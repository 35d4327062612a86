"""The run in figures."""

from __future__ import annotations

import pytest

from prefect_together.ledger.states import State
from prefect_together.results.progress import Progress


def progress_of(*states: State, each_usd: float = 1.0) -> Progress:
    progress = Progress(started_at=1000.0)
    for number, state in enumerate(states):
        progress.add_video(str(number), state, each_usd, None)
    return progress


def test_videos_are_counted_by_their_last_state() -> None:
    progress = progress_of(State.PLANNED, State.PLANNED, State.FAILED)

    progress.set("0", State.SUBMITTED)

    assert progress.by_status == {"submitted": 1, "planned": 1, "failed": 1}
    assert (progress.total, progress.finished) == (3, 1)


def test_videos_are_counted_in_the_words_of_results_csv() -> None:
    progress = progress_of(State.SUBMITTING, State.SUBMITTED, State.COMPLETED, State.COMPLETED, State.DOWNLOADED)

    progress.undownloaded |= {"3", "4"}

    assert progress.by_status == {"submitted": 3, "failed": 1, "downloaded": 1}


def test_a_video_that_is_not_in_the_table_is_not_counted() -> None:
    progress = progress_of(State.PLANNED)

    progress.set("gone", State.DOWNLOADED)
    progress.add_cost("gone", 1.0)
    progress.replace_cost("gone", 1.0)

    assert (progress.total, progress.spent_usd) == (1, 0.0)


def test_each_job_of_a_video_adds_to_its_cost_and_the_ledger_has_the_last_word() -> None:
    progress = progress_of(State.SUBMITTED)

    progress.add_cost("0", 0.3)
    progress.add_cost("0", 0.3)
    progress.add_cost("0", None)
    added = progress.spent_usd
    progress.replace_cost("0", 0.5)

    assert (added, progress.spent_usd) == (pytest.approx(0.6), 0.5)


@pytest.mark.parametrize("state", list(State))
def test_what_needs_no_more_work_is_finished(state: State) -> None:
    is_finished = state in {State.DOWNLOADED, State.FAILED, State.IN_DOUBT, State.REFUSED}

    assert progress_of(state).finished == is_finished


def test_dollars_are_charges_and_estimates_for_what_is_still_to_be_charged() -> None:
    progress = progress_of(State.DOWNLOADED, State.SUBMITTED, State.PLANNED, State.FAILED, State.REFUSED, each_usd=0.5)

    progress.add_cost("0", 0.3)

    assert progress.spent_usd == pytest.approx(0.3)
    assert progress.projected_usd == pytest.approx(0.3 + 0.5 + 0.5)


def test_a_video_of_unknown_price_is_said_beside_the_projection_until_it_is_charged() -> None:
    progress = progress_of(State.PLANNED, State.PLANNED)
    progress.estimates_usd.clear()
    assert progress.money == "$0.00 so far, 2 of unknown price projected"

    progress.add_cost("0", 0.3)

    assert progress.projected_usd == 0.3
    assert progress.money == "$0.30 so far, $0.30 and 1 of unknown price projected"


def test_what_is_new_is_charged_for_jobs_of_this_run_not_for_those_that_it_took_up() -> None:
    progress = progress_of(State.DOWNLOADED, State.SUBMITTED, State.COMPLETED, State.IN_DOUBT, State.PLANNED)
    for key, usd in {"0": 0.1, "2": 0.2}.items():
        progress.replace_cost(key, usd)
    progress.start()

    progress.add_cost("1", 0.4)
    progress.add_cost("3", 0.8)
    progress.add_cost("4", 1.6)

    assert progress.spent_usd == pytest.approx(3.1)
    assert progress.new_usd == pytest.approx(2.4)


def test_time_left_goes_by_the_speed_of_this_run() -> None:
    progress = progress_of(*[State.DOWNLOADED] * 5, *[State.PLANNED] * 4)
    progress.start()

    progress.set("5", State.DOWNLOADED)
    progress.set("6", State.FAILED)

    assert progress.seconds_left(1010.0) == pytest.approx(10.0)


def test_time_left_is_unknown_until_something_is_finished() -> None:
    progress = progress_of(State.DOWNLOADED, State.PLANNED)
    progress.start()

    assert progress.seconds_left(1010.0) is None


@pytest.mark.parametrize("states", [(), (State.DOWNLOADED,), (State.REFUSED, State.IN_DOUBT)])
def test_nothing_is_left_when_all_is_finished(states: tuple[State, ...]) -> None:
    progress = progress_of(*states)
    progress.start()

    assert progress.seconds_left(1010.0) == 0.0
