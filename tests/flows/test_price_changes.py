"""A price that has changed since an earlier run: what was sent keeps its dollars, what is left has those of today."""

from __future__ import annotations

import asyncio

from prefect_together.flows.preview import report_on
from prefect_together.request.form import Limits
from prefect_together.results.outcome import RowsFailed
from prefect_together.results.plan_report import PlanReport
from prefect_together.table.plan import make_plan
from prefect_together.table.prompt_table import read_table
from table_of_prompts import MODEL, PRICE_USD, Ended, Harness, table_text

IDS = ("made", "moderated", "doubtful", "dear")


def table(price_usd: float) -> str:
    return table_text({"id": name, "prompt": f"A {name}", "model": MODEL, "price_usd": price_usd} for name in IDS)


def planned(harness: Harness, price_usd: float) -> PlanReport:
    return asyncio.run(report_on(make_plan(read_table(table(price_usd))), str(harness.output_dir)))


def held(ended: Ended) -> tuple[float, float]:
    assert isinstance(ended.result, RowsFailed)
    totals = ended.result.outcome.totals
    return totals.in_doubt_usd, totals.failed_usd


def test_what_was_sent_keeps_its_dollars_and_what_is_left_has_those_of_today(harness: Harness) -> None:
    harness.api.fault("job-moderated", prompt="A moderated")
    harness.api.fault("drop-after", endpoint="create", prompt="A doubtful")

    first = harness.run(table(0.30), budget_usd=1.0, limits=Limits(max_in_flight=1))
    dearer = harness.run(table(0.50), budget_usd=1.0, limits=Limits(max_in_flight=1))

    assert first.statuses == dearer.statuses == ["downloaded", "failed", "in_doubt", "refused"]
    assert held(first) == held(dearer) == (0.30, 0.30)
    assert first.rows[3]["error"] == "budget $1.00: $0.88 is spent or reserved, this row needs $0.30"
    assert dearer.rows[3]["error"] == "budget $1.00: $0.88 is spent or reserved, this row needs $0.50"
    now, before = planned(harness, 0.50), planned(harness, 0.30)
    assert (now.high_usd, before.high_usd) == (0.50, 0.30)
    assert now.price == "$0.50 new in this run, $1.38 in all", "0.28 charged, twice 0.30 reserved"
    assert before.price == "$0.30 new in this run, $1.18 in all"

    last = harness.run(table(0.50), budget_usd=1.38, limits=Limits(max_in_flight=1))

    assert last.statuses == ["downloaded", "failed", "in_doubt", "downloaded"]
    assert last.rows[3]["cost_usd"] == str(PRICE_USD)
    assert held(last) == (0.30, 0.30)


def test_a_row_in_doubt_is_said_to_be_billed_at_the_tables_own_price(harness: Harness) -> None:
    harness.api.fault("drop-after", endpoint="create", prompt="A doubtful")

    ended = harness.run(table(0.30))
    errors = [one.state.message for one in harness.prefect.task_runs(ended.run_id, count=10) if one.state.is_failed()]

    assert any("possibly billed, $0.30" in error for error in errors)
    assert not any("$0.28" in error for error in errors)
