"""A service to which no connection can be made: one sentence after a minute, and not an hour of tries."""

from __future__ import annotations

import pytest

from batch_harness import Answer, BatchHarness, Service, done, working
from ledger_rows import a_video
from prefect_together.errors import BadParameter, ImageChanged, NeverSent, ServiceUnreachable, SubmissionInDoubt
from prefect_together.table.plan import PlannedVideo

ROWS = 40
TRIES = 6


def table(rows: int = ROWS) -> list[PlannedVideo]:
    return [a_video(f"r{number}", prompt=f"cat {number}") for number in range(rows)]


def out_of_reach(error: Exception, *first: Exception | None, usual: Answer | None = None) -> Service:
    """Says these to the first create calls (None: it takes the job), then always `error`."""
    service = Service(usual)

    async def refuse() -> None:
        number = len(service.created)
        answer = first[number - 1] if number <= len(first) else error
        if answer is not None:
            raise answer

    service.on_create = refuse
    return service


def test_a_service_that_was_never_reached_is_given_up_after_a_few_rows(timeless_place: BatchHarness) -> None:
    service = out_of_reach(NeverSent("nobody listens"))

    ended = timeless_place.run(table(), service, max_in_flight=4)

    assert isinstance(ended.error, ServiceUnreachable)
    assert "nobody listens" in str(ended.error)
    assert ended.states == {"planned": ROWS}
    assert len(service.created) <= 4 * TRIES
    assert ended.totals.committed_usd == 0.0


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (None, "downloaded"),
        (SubmissionInDoubt("no answer"), "in_doubt"),
        (BadParameter(400, None, "no such size"), "failed"),
    ],
)
def test_a_service_that_was_reached_is_tried_for_every_row(
    timeless_place: BatchHarness, answer: Exception | None, state: str
) -> None:
    """It may be back any minute: who is asleep wants as many of the rows as can be had."""
    service = out_of_reach(NeverSent("nobody listens"), answer)

    ended = timeless_place.run(table(12), service, max_in_flight=2)

    assert ended.error is None
    assert ended.states == {state: 1, "planned": 11}
    assert len(service.created) == 1 + 11 * TRIES


def test_while_jobs_of_an_earlier_run_are_waited_for_every_row_is_tried(timeless_place: BatchHarness) -> None:
    old = a_video("old", prompt="an old cat")
    timeless_place.buy(old, "job-old")
    times = iter(range(10_000))
    service = out_of_reach(
        NeverSent("nobody listens"), usual=lambda job_id: done()(job_id) if next(times) > 40 else working(job_id)
    )

    ended = timeless_place.run([old, *table(12)], service, max_in_flight=4)

    assert ended.error is None
    assert ended.states == {"downloaded": 1, "planned": 12}
    assert len(service.created) == 12 * TRIES


def test_a_service_that_is_reached_after_all_does_not_end_the_run_with_an_error(timeless_place: BatchHarness) -> None:
    """The last try of the fourth row gets through when three rows, and with them the run, have been given up."""
    service, last_try = Service(), 4 * TRIES

    async def take_the_last_try_late() -> None:
        number = len(service.created)
        if number < last_try:
            raise NeverSent("nobody listens")
        if number == last_try:
            await timeless_place.clock.sleep(5.0)

    service.on_create = take_the_last_try_late
    ended = timeless_place.run(table(), service, max_in_flight=4)

    assert ended.error is None
    assert ended.states["downloaded"] >= 1


def test_pictures_that_are_gone_say_nothing_of_the_service(timeless_place: BatchHarness) -> None:
    service = out_of_reach(ImageChanged("cat.png is gone"))

    ended = timeless_place.run(table(12), service, max_in_flight=2)

    assert ended.error is None
    assert ended.states == {"failed": 12}
