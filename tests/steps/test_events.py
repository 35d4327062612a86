"""What Prefect's automations hear of each video, as its own client would send it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
from prefect.events import Event

from captured_events import captured_events, events_named
from prefect_together.errors import (
    AccountBlocked,
    BudgetReached,
    CanaryFailed,
    FailureClass,
    ServiceStuck,
    TogetherVideoError,
)
from prefect_together.ledger.states import Status
from prefect_together.request.form import Limits
from prefect_together.results.outcome import RunOutcome
from prefect_together.results.results import RowResult, TakeResult, totals
from prefect_together.steps.events import ACCOUNT_BLOCKED, BUDGET_REACHED, IN_DOUBT, emit_video_event, run_events
from prefect_together.table.plan import make_plan
from prefect_together.table.prompt_table import read_table
from table_of_prompts import KEY, MODEL, PRICE_USD, Harness, prompts, table_text

CAT, HARBOUR, BOAT = "A cat asleep on a drum", "A harbour at dawn", "A paper boat in the rain"


@pytest.fixture
def listening() -> Generator[None]:
    """Prefect's client keeps what it sends."""
    with captured_events():
        yield


def events_of_videos() -> list[Event]:
    """The events about videos that have gone out since the test began, oldest first."""
    return events_named("together-video.video.")


def steps(events: list[Event]) -> list[tuple[str, str]]:
    """(row id, step) of each event, in order of the rows."""
    said = [(str(event.payload["row_id"]), event.event.rpartition(".")[2]) for event in events]
    return sorted(said, key=lambda one: one[0])


@pytest.mark.usefixtures("listening")
def test_each_step_of_a_video_is_an_event_about_the_video_related_to_the_flow_run(harness: Harness) -> None:
    harness.api.fault("job-moderated", prompt="harbour")
    harness.api.fault("drop-after", endpoint="create", prompt="boat")

    ended = harness.run(prompts(CAT, HARBOUR, BOAT))

    events = events_of_videos()
    assert steps(events) == [
        ("r1", "submitted"),
        ("r1", "downloaded"),
        ("r2", "submitted"),
        ("r2", "failed"),
        ("r3", "in_doubt"),
    ]
    last = next(event for event in events if event.event == "together-video.video.downloaded")
    assert last.resource.id.startswith("together-video.video.")
    assert last.payload == {
        "row_id": "r1",
        "take": 1,
        "job_id": ended.rows[0]["job_id"],
        "model": MODEL,
        "cost_usd": PRICE_USD,
        "estimate_usd": PRICE_USD,
    }
    assert f"prefect.flow-run.{ended.run_id}" in {related.id for related in last.related}
    assert all(word not in event.model_dump_json() for event in events for word in (KEY, CAT, HARBOUR, BOAT))


@pytest.mark.usefixtures("listening")
def test_a_row_refused_for_the_budget_and_one_refused_by_the_service_are_events(harness: Harness) -> None:
    harness.run(prompts("x", CAT), limits=Limits(catalogue_checks=False), budget_usd=PRICE_USD / 2)

    assert steps(events_of_videos()) == [("r1", "refused"), ("r2", "refused")]


def test_outside_a_flow_run_nothing_is_emitted() -> None:
    (video,) = make_plan(read_table(f"id,prompt,model\nr1,{CAT},{MODEL}\n")).videos.values()

    emit_video_event("downloaded", replace(video, row_id="x" * 100_000))


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (BudgetReached(1.0, 0.9, 0.28), BUDGET_REACHED),
        (BudgetReached(1.0, 0.9, None), BUDGET_REACHED),
        (AccountBlocked(402, None, "no credits"), ACCOUNT_BLOCKED),
        (CanaryFailed(MODEL, "r1", "job job-1 failed (moderation)"), None),
        (ServiceStuck(20), None),
        (TogetherVideoError("budget and account"), None),
    ],
)
def test_each_reason_not_to_send_a_row_has_its_own_event_or_none(error: TogetherVideoError, event: str | None) -> None:
    take = TakeResult(
        row_id="r2", status="refused", model=MODEL, parameters={}, error=str(error), failure_class=error.failure_class
    )
    rows = (RowResult(number=3, cells={}, takes=(take,)),)

    events = dict(run_events(RunOutcome(rows, totals(rows), "out", "out/index.html")))

    assert list(events) == ([event] if event else [])


def budget_events() -> list[tuple[str, float]]:
    """(the event's name, dollars) of each, oldest first."""
    prefix = "together-video.run.budget_"
    return [(one.event.removeprefix(prefix), one.payload["dollars"]) for one in events_named(prefix) if one.payload]


@pytest.mark.usefixtures("listening")
def test_parts_of_a_budget_are_events_once_each_also_where_a_later_run_continues(harness: Harness) -> None:
    rows = [f"Film {number}" for number in range(10)]
    budget: dict[str, Any] = {"budget_usd": round(10 * PRICE_USD, 2), "limits": Limits(max_in_flight=1)}

    harness.run(prompts(*rows[:6]), **budget)
    first = budget_events()
    harness.run(prompts(*rows), **budget)

    assert first == [("50_percent", round(5 * PRICE_USD, 6))]
    assert budget_events() == [
        *first,
        ("80_percent", round(8 * PRICE_USD, 6)),
        ("95_percent", round(10 * PRICE_USD, 6)),
    ]
    last = events_named("together-video.run.budget_95")[0]
    assert last.payload["message"] == "95 % of the budget reached: $2.80 of $2.80 is paid or reserved"
    assert last.payload["output_dir"] == str(harness.output_dir)


@pytest.mark.usefixtures("listening")
def test_one_step_may_pass_several_parts_of_a_budget(harness: Harness) -> None:
    harness.run(prompts(CAT), budget_usd=PRICE_USD)

    assert [name for name, _ in budget_events()] == ["50_percent", "80_percent", "95_percent"]


@pytest.mark.usefixtures("listening")
def test_a_job_that_costs_more_than_was_reserved_may_pass_a_part_of_the_budget(harness: Harness) -> None:
    harness.run(table_text([{"prompt": CAT, "price_usd": 0.1}]), budget_usd=0.3)

    assert budget_events() == [("50_percent", PRICE_USD), ("80_percent", PRICE_USD)]


def row(status: Status, error: str | None = None, failure_class: FailureClass | None = None) -> RowResult:
    take = TakeResult(
        row_id=f"row-{status}",
        status=status,
        model=MODEL,
        parameters={},
        estimate_usd=0.28,
        in_doubt_usd=0.28 if status == "in_doubt" else 0.0,
        error=error,
        failure_class=failure_class,
        attempts=1,
    )
    return RowResult(number=2, cells={}, takes=(take,))


def events_of(*rows: RowResult) -> dict[str, dict[str, Any]]:
    return dict(run_events(RunOutcome(rows, totals(rows), "out", "out/index.html")))


def test_a_run_with_money_in_doubt_says_so_in_an_event() -> None:
    events = events_of(row("downloaded"), row("in_doubt", "possibly billed"))

    assert list(events) == [IN_DOUBT]
    assert events[IN_DOUBT]["row_ids"] == ["row-in_doubt"]
    assert events[IN_DOUBT]["dollars"] == 0.28


def test_a_run_that_reached_its_budget_says_so_in_an_event() -> None:
    events = events_of(row("refused", str(BudgetReached(1.0, 0.9, 0.28)), FailureClass.BUDGET))

    assert list(events) == [BUDGET_REACHED]
    assert "$0.28 more needed" in events[BUDGET_REACHED]["message"]


def test_a_quiet_run_emits_no_event() -> None:
    assert events_of(row("downloaded"), row("failed", "moderation")) == {}
