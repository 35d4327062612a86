"""A service to which no connection can be made: one sentence after a minute, and not an hour of tries."""

from __future__ import annotations

from batch_place import Place, Service
from ledger_rows import a_video
from prefect_together.errors import ImageChanged, NeverSent, ServiceUnreachable
from prefect_together.plan import PlannedVideo

ROWS = 40
TRIES = 6


def table(rows: int = ROWS) -> list[PlannedVideo]:
    return [a_video(f"r{number}", prompt=f"cat {number}") for number in range(rows)]


def out_of_reach(error: Exception, *, after: int = 0) -> Service:
    """Takes so many rows, then none."""
    service = Service()

    async def refuse() -> None:
        if len(service.created) > after:
            raise error

    service.on_create = refuse
    return service


def test_a_service_that_was_never_reached_is_given_up_after_a_few_rows(timeless_place: Place) -> None:
    service = out_of_reach(NeverSent("nobody listens"))

    ended = timeless_place.run(table(), service, max_in_flight=4)

    assert isinstance(ended.error, ServiceUnreachable)
    assert "nobody listens" in str(ended.error)
    assert ended.states == {"planned": ROWS}
    assert len(service.created) <= 4 * TRIES
    assert ended.totals.committed_usd == 0.0


def test_a_service_that_was_reached_is_tried_for_every_row(timeless_place: Place) -> None:
    """It may be back any minute: who is asleep wants as many of the rows as can be had."""
    service = out_of_reach(NeverSent("nobody listens"), after=2)

    ended = timeless_place.run(table(12), service, max_in_flight=2)

    assert ended.error is None
    assert ended.states == {"downloaded": 2, "planned": 10}
    assert len(service.created) == 2 + 10 * TRIES


def test_pictures_that_are_gone_say_nothing_of_the_service(timeless_place: Place) -> None:
    service = out_of_reach(ImageChanged("cat.png is gone"))

    ended = timeless_place.run(table(12), service, max_in_flight=2)

    assert ended.error is None
    assert ended.states == {"failed": 12}
