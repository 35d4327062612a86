"""Over any number of runs the budget holds, a refused account stops all submits, what is in doubt is not paid again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batch_harness import BatchHarness, Service, gave_up
from ledger_rows import a_video
from prefect_together.ledger.ledger import Ledger
from prefect_together.ledger.states import State
from prefect_together.request.form import Limits
from prefect_together.results.outcome import RowsFailed
from table_of_prompts import PRICE_USD, Harness, prompts, table_text

CAT, HARBOUR, BOAT = "A cat asleep on a drum", "A harbour at dawn", "A paper boat in the rain"


def test_an_upstream_failure_is_not_sent_again_past_the_budget(harness: Harness) -> None:
    harness.api.fault("job-fails", count=1)

    ended = harness.run(prompts(CAT), budget_usd=1.5 * PRICE_USD)

    assert harness.api.accepted(CAT) == 1
    assert ended.statuses == ["failed"]
    assert ended.rows[0]["error"].startswith("internal_error: The upstream provider failed")
    assert f"(upstream, job {ended.rows[0]['job_id']})" in ended.rows[0]["error"]
    assert "not sent again: budget $0.42" in ended.rows[0]["error"]
    assert isinstance(ended.result, RowsFailed)
    assert ended.result.outcome.totals.failed_usd == PRICE_USD
    assert "$0.28 held for failed jobs without a reported cost" in ended.state.message


def test_the_budget_is_never_passed_over_any_number_of_runs(harness: Harness) -> None:
    table = prompts(*(f"{CAT}, take {take}" for take in range(5)))

    runs = [harness.run(table, budget_usd=2.5 * PRICE_USD) for _ in range(3)]

    assert [run.statuses for run in runs] == [["downloaded"] * 2 + ["refused"] * 3] * 3
    assert harness.api.accepted() == 2
    assert runs[2].state.is_failed()
    assert all("budget $0.70" in row["error"] for row in runs[2].rows if row["status"] == "refused")


@pytest.mark.slow
def test_a_higher_budget_takes_the_refused_rows_up(harness: Harness) -> None:
    table = prompts(CAT, HARBOUR, BOAT)
    harness.run(table, budget_usd=PRICE_USD)

    ended = harness.run(table, budget_usd=2 * PRICE_USD)

    assert ended.statuses == ["downloaded", "downloaded", "refused"]
    assert harness.api.accepted() == 2


def test_the_reservation_of_a_row_in_doubt_is_kept(harness: Harness) -> None:
    harness.api.fault("drop-after", endpoint="create", prompt=CAT)
    harness.run(prompts(CAT))

    ended = harness.run(prompts(CAT, HARBOUR, BOAT), budget_usd=2 * PRICE_USD)

    assert ended.statuses == ["in_doubt", "downloaded", "refused"]
    assert harness.api.accepted() == 2


def test_a_row_of_unknown_price_is_refused_under_a_budget_and_named(harness: Harness) -> None:
    table = table_text([{"id": "r1", "prompt": CAT, "model": "acme/dream-1"}, {"id": "r2", "prompt": HARBOUR}])

    ended = harness.run(table, budget_usd=10.0)

    assert ended.statuses == ["refused", "downloaded"]
    assert "price_usd" in ended.rows[0]["error"]
    assert "row 2 (r1) refused" in ended.state.message


def test_a_row_of_unknown_price_is_sent_under_a_budget_when_its_price_is_given(harness: Harness) -> None:
    harness.learn_durations(model="acme/dream-1")
    table = table_text([{"id": "r1", "prompt": CAT, "model": "acme/dream-1", "price_usd": 0.5}])

    ended = harness.run(table, budget_usd=10.0)

    assert ended.statuses == ["downloaded"]


@pytest.mark.parametrize(
    "status", [pytest.param("401", marks=pytest.mark.slow), "402", pytest.param("403", marks=pytest.mark.slow)]
)
def test_a_blocked_account_stops_all_submits_and_what_is_paid_is_downloaded(harness: Harness, status: str) -> None:
    table = prompts(*(f"{CAT}, take {take}" for take in range(12)))
    harness.api.fault(status, endpoint="create", after=2, count=None)

    ended = harness.run(table, limits=Limits(max_in_flight=2))
    sent = harness.api.calls("create")

    assert sorted(ended.statuses) == ["downloaded"] * 2 + ["refused"] * 10
    assert sent <= 2 + 2
    assert all(f"HTTP {status}" in row["error"] for row in ended.rows if row["status"] == "refused")


def test_when_the_account_works_again_the_refused_rows_are_taken_up(harness: Harness) -> None:
    harness.api.fault("402", endpoint="create", after=1, count=None)
    harness.run(prompts(CAT, HARBOUR, BOAT), limits=Limits(max_in_flight=1))
    harness.api.clear_faults()

    ended = harness.run(prompts(CAT, HARBOUR, BOAT))

    assert ended.statuses == ["downloaded"] * 3
    assert harness.api.accepted() == 3


def test_a_create_call_without_an_answer_is_in_doubt_with_its_dollars_and_not_sent_again(harness: Harness) -> None:
    harness.api.fault("drop-after", endpoint="create", prompt=CAT)

    first, second = harness.run(prompts(CAT, HARBOUR)), harness.run(prompts(CAT, HARBOUR))

    assert first.statuses == second.statuses == ["in_doubt", "downloaded"]
    assert "possibly billed, $0.28" in second.rows[0]["error"]
    assert isinstance(second.result, RowsFailed)
    assert second.result.outcome.totals.in_doubt_usd == PRICE_USD
    assert harness.api.accepted(CAT) == 1


def test_resubmit_in_doubt_sends_it_again_and_only_it(harness: Harness) -> None:
    harness.api.fault("500-after", endpoint="create", prompt=CAT)
    harness.run(prompts(CAT, HARBOUR))

    ended = harness.run(prompts(CAT, HARBOUR), limits=Limits(resubmit_in_doubt=True))

    assert ended.statuses == ["downloaded", "downloaded"]
    assert ended.rows[0]["attempts"] == "2"
    assert (harness.api.accepted(CAT), harness.api.accepted(HARBOUR)) == (2, 1)


def test_a_row_whose_create_call_has_no_answer_is_in_doubt_though_what_it_continues_failed(
    batch_harness: BatchHarness,
) -> None:
    first = a_video("first")
    second = replace(a_video("second", prompt="goes on"), sources=(first.key,))

    async def a_killed_run(ledger: Ledger) -> None:
        await ledger.plan([first, second])
        await ledger.claim(second.key)
        await ledger.intend(second.key, estimate_usd=0.28, budget_usd=None)

    batch_harness.ledger(a_killed_run)
    service = Service(gave_up())

    ended = batch_harness.run([first, second], service)

    assert ended.of(first).state == State.FAILED
    assert ended.of(second).state == State.IN_DOUBT
    assert "goes on" not in service.created
