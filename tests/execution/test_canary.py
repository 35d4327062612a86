"""One video of each model goes first: order of starts alone, and the flow against the sandbox."""

from __future__ import annotations

import asyncio

from prefect_together.execution.start_order import StartOrder
from prefect_together.request.form import Limits
from prefect_together.table.plan import PlannedVideo, make_plan
from prefect_together.table.prompt_table import read_table
from table_of_prompts import MODEL, PRICE_USD, Harness, paid_calls, prompts, table_text

OTHER = "acme/dream-1"
CAT, HARBOUR, BOAT, FOX = "A cat on a drum", "A harbour at dawn", "A paper boat in the rain", "A fox in the snow"


def videos(*models: str) -> list[PlannedVideo]:
    rows = [{"id": f"r{n}", "prompt": f"Take {n} of a cat", "model": model} for n, model in enumerate(models, start=1)]
    return list(make_plan(read_table(table_text(rows), catalogue_checks=False)).videos.values())


def two_models(harness: Harness) -> str:
    """Rows r1, r2, r3 of MODEL and r4, r5 of another model, mixed."""
    harness.learn_durations(model=OTHER)
    rows = [("r1", CAT, MODEL), ("r4", BOAT, OTHER), ("r2", HARBOUR, MODEL), ("r3", FOX, MODEL), ("r5", CAT, OTHER)]
    return table_text({"id": row, "prompt": prompt, "model": model} for row, prompt, model in rows)


async def test_the_first_video_of_each_model_starts_and_the_others_wait_for_it() -> None:
    first, of_other, second, third = videos("a", "b", "a", "a")
    order = StartOrder([], [first, of_other, second, third])

    started = [await order.next(), await order.next()]
    next_one = asyncio.create_task(order.next())
    await asyncio.sleep(0)
    waits = not next_one.done()
    order.release_model("a")

    assert started == [first, of_other]
    assert waits
    assert [await next_one, await order.next()] == [second, third]


async def test_a_canary_that_was_not_tried_is_replaced_by_the_next_video_of_its_model() -> None:
    first, second, third = videos("a", "a", "a")
    order = StartOrder([], [first, second, third])
    await order.next()

    order.try_another("a")

    assert await order.next() == second
    assert order.is_canary(second)
    assert not order.is_canary(third)


async def test_when_no_canary_could_be_tried_the_order_ends() -> None:
    (only,) = videos("a")
    order = StartOrder([], [only])
    await order.next()

    order.try_another("a")

    assert await order.next() is None


async def test_videos_that_are_not_guarded_and_models_that_had_their_canary_start_at_once() -> None:
    paid, first, second = videos("a", "b", "b")
    order = StartOrder([paid], [first, second], known={"b"})

    assert [await order.next() for _ in range(4)] == [paid, first, second, None]


def test_when_the_canary_is_downloaded_the_others_of_its_model_follow_it(harness: Harness) -> None:
    ended = harness.run(prompts(CAT, HARBOUR, BOAT), limits=Limits(canary=True))

    asked = [request.endpoint for request in harness.api.requests if request.endpoint in ("create", "retrieve")]
    assert ended.statuses == ["downloaded"] * 3
    assert asked[:2] == ["create", "retrieve"]
    assert next(request.body["prompt"] for request in harness.api.requests if request.endpoint == "create") == CAT


def test_when_a_canary_fails_the_rest_of_its_model_is_refused_and_other_models_go_on(harness: Harness) -> None:
    table = two_models(harness)
    harness.api.fault("job-moderated", prompt=CAT, count=1)

    ended = harness.run(table, limits=Limits(canary=True))

    by_id = {row["id"]: row for row in ended.rows}
    assert {row_id: row["status"] for row_id, row in by_id.items()} == {
        "r1": "failed",
        "r2": "refused",
        "r3": "refused",
        "r4": "downloaded",
        "r5": "downloaded",
    }
    assert by_id["r2"]["error"].startswith(f"not sent: canary row r1 of {MODEL}: content_policy_violation: ")
    assert "moderation" in by_id["r3"]["error"]
    assert harness.api.accepted() == 3


def test_a_canary_still_generating_at_the_deadline_stops_its_model_and_a_later_run_goes_on(harness: Harness) -> None:
    table = prompts(CAT, HARBOUR)
    harness.api.script("in_progress", "completed", at_seconds=(0, 2), prompt=CAT)

    late, again = (
        harness.run(table, limits=Limits(canary=True, max_wait_minutes=0.01)),
        harness.run(table, limits=Limits(canary=True)),
    )

    assert late.statuses == ["submitted", "refused"]
    assert "still in_progress" in late.rows[1]["error"]
    assert again.statuses == ["downloaded", "downloaded"]
    assert harness.api.accepted() == 2


def test_a_canary_refused_for_the_budget_was_not_tried_and_the_next_row_takes_its_place(harness: Harness) -> None:
    rows = [{"id": "r1", "prompt": CAT, "price_usd": 9}, {"id": "r2", "prompt": HARBOUR}, {"id": "r3", "prompt": BOAT}]

    ended = harness.run(table_text(rows), limits=Limits(canary=True), budget_usd=2 * PRICE_USD)

    assert ended.statuses == ["refused", "downloaded", "downloaded"]
    assert ended.rows[0]["error"].startswith("budget ")


def test_with_everything_paid_there_is_no_canary_and_nothing_is_asked(harness: Harness) -> None:
    harness.run(prompts(CAT, HARBOUR))
    requests = paid_calls(harness)

    ended = harness.run(prompts(CAT, HARBOUR), limits=Limits(canary=True))

    assert ended.statuses == ["downloaded", "downloaded"]
    assert paid_calls(harness) == requests
