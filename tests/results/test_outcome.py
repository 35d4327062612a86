"""The one line in which a run says how it ended."""

from __future__ import annotations

from prefect_together.ledger.states import Status
from prefect_together.results.outcome import NAMED_ROWS, RunOutcome
from prefect_together.results.results import RowResult, TakeResult, totals


def row(number: int, status: Status, error: str | None = None) -> RowResult:
    take = TakeResult(row_id=f"film-{number}", status=status, model="model/one", parameters={}, error=error)
    return RowResult(number=number, cells={}, takes=(take,))


def message(*rows: RowResult) -> str:
    return RunOutcome(rows, totals(rows), "/films", "/films/index.html").message


def test_a_row_that_could_not_be_sent_is_named_with_its_reason_after_those_that_failed() -> None:
    said = message(row(2, "planned", "not sent: no route"), row(3, "downloaded"), row(4, "failed", "moderated"))

    assert said.endswith("row 4 (film-4) failed: moderated; row 2 (film-2) planned: not sent: no route")


def test_rows_that_only_have_to_wait_are_counted_and_not_named() -> None:
    said = message(row(2, "planned"), row(3, "submitted", "not done in time"))

    assert said == "1 submitted, 1 planned of 2 rows, $0.00"


def test_more_rows_than_are_named_are_counted() -> None:
    said = message(*(row(number, "planned", "not sent: no route") for number in range(NAMED_ROWS + 9)))

    assert said.endswith("no route and 9 more")


def test_the_reason_given_is_that_of_the_take_that_has_the_rows_status() -> None:
    takes = (
        TakeResult(row_id="a", status="submitted", model="m", parameters={}, error="not done in time"),
        TakeResult(row_id="a", status="planned", model="m", parameters={}, error="not sent: no route"),
    )

    assert message(RowResult(number=2, cells={}, takes=takes)).endswith("row 2 (a) planned: not sent: no route")
    assert "not done in time" not in message(
        RowResult(number=2, cells={}, takes=(takes[0], row(2, "planned").takes[0]))
    )
