"""What Prefect's automations hear of each video, as its own client would send it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import pytest
from prefect.events import Event

from captured_events import captured_events, events_named
from prefect_together.errors import AccountBlocked, BudgetReached, CanaryFailed, ServiceStuck, TogetherVideoError
from prefect_together.results.outcome import RunOutcome
from prefect_together.results.results import RowResult, TakeResult, totals
from prefect_together.steps.events import ACCOUNT_BLOCKED, BUDGET_REACHED, emit_video_event, run_events
from prefect_together.table.plan import make_plan
from prefect_together.table.prompt_table import read_table
from table_of_prompts import KEY, MODEL, PRICE_USD, Desk, prompts

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
def test_each_step_of_a_video_is_an_event_about_the_video_related_to_the_flow_run(desk: Desk) -> None:
    desk.api.fault("job-moderated", prompt="harbour")
    desk.api.fault("drop-after", endpoint="create", prompt="boat")

    ended = desk.run(prompts(CAT, HARBOUR, BOAT))

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
def test_a_row_refused_for_the_budget_and_one_refused_by_the_service_are_events(desk: Desk) -> None:
    desk.run(prompts("x", CAT), catalogue_checks=False, budget_usd=PRICE_USD / 2)

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
