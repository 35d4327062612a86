"""What a run tells Prefect's automations beyond its state: money in doubt, the budget reached, the account blocked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prefect.context import FlowRunContext
from prefect.events import emit_event

from prefect_together.outcome import RunOutcome
from prefect_together.results import RowResult
from prefect_together.wording import dollars

IN_DOUBT = "together-video.run.in_doubt"
BUDGET_REACHED = "together-video.run.budget_reached"
ACCOUNT_BLOCKED = "together-video.run.account_blocked"
NAMED_ROWS = 20


def emit_run_events(outcome: RunOutcome) -> None:
    """Emit the events of a finished run, about the flow run that it belongs to; nothing outside a flow run."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None:
        return
    resource = {"prefect.resource.id": f"together-video.run.{run.id}", "prefect.resource.name": run.name}
    for name, payload in run_events(outcome):
        emit_event(name, resource=resource, payload=payload)


def run_events(outcome: RunOutcome) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of an outcome with their payloads: `message` says it all; `rows`, `row_ids` (the first 20),
    `dollars` and `output_dir` say it to programs. Prompts, links and keys are in none of them."""
    in_doubt = [row for row in outcome.rows if row.status == "in_doubt"]
    if in_doubt:
        usd = outcome.totals.in_doubt_usd
        message = f"{_rows(in_doubt)} in doubt: {dollars(usd)} may have been billed without a clip"
        yield IN_DOUBT, _payload(f"{message}; resubmit_in_doubt sends them again", in_doubt, usd, outcome)
    refused = [row for row in outcome.rows if row.status == "refused"]
    by_budget = [row for row in refused if _is_for_budget(row)]
    if by_budget:
        usd = _estimate(by_budget)
        message = f"budget reached: {_rows(by_budget)} not sent, {dollars(usd)} more needed"
        yield BUDGET_REACHED, _payload(message, by_budget, usd, outcome)
    by_account = [row for row in refused if not _is_for_budget(row)]
    if by_account:
        error = next((take.error for row in by_account for take in row.takes if take.error), "no reason known")
        message = f"the account is blocked: {_rows(by_account)} not sent; {error[:300]}"
        yield ACCOUNT_BLOCKED, _payload(message, by_account, _estimate(by_account), outcome)


def _payload(message: str, rows: list[RowResult], usd: float, outcome: RunOutcome) -> dict[str, Any]:
    named = [row.takes[0].row_id for row in rows[:NAMED_ROWS]]
    return {
        "message": message,
        "rows": len(rows),
        "row_ids": named,
        "dollars": round(usd, 6),
        "output_dir": outcome.output_dir,
    }


def _is_for_budget(row: RowResult) -> bool:
    """BudgetReached and AccountBlocked both end `refused`; their messages begin differently."""
    return any((take.error or "").startswith("budget ") for take in row.takes)


def _estimate(rows: list[RowResult]) -> float:
    takes = [take for row in rows for take in row.takes if take.status == "refused"]
    return sum(take.estimate_usd or 0.0 for take in takes)


def _rows(rows: list[RowResult]) -> str:
    return f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"
