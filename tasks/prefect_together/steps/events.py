"""The Prefect events of a run, for automations: each video's steps; rows in doubt, the budget, the account."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import httpx
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.exceptions import EventTooLarge, PrefectException

from prefect_together.errors import FailureClass
from prefect_together.results.outcome import RunOutcome
from prefect_together.results.results import RowResult
from prefect_together.results.text import counted, dollars
from prefect_together.table.plan import PlannedVideo

IN_DOUBT = "together-video.run.in_doubt"
BUDGET_REACHED = "together-video.run.budget_reached"
ACCOUNT_BLOCKED = "together-video.run.account_blocked"
BUDGET_PERCENTS = (50, 80, 95)
NAMED_ROWS = 20
RESOURCE_NAME_CHARACTERS = 200

VideoStep = Literal["submitted", "downloaded", "failed", "in_doubt", "refused"]


def emit_video_event(
    step: VideoStep, video: PlannedVideo, *, job_id: str | None = None, cost_usd: float | None = None
) -> None:
    """Emit `together-video.video.STEP` about `together-video.video.KEY`; nothing outside a flow run.

    Prefect adds the flow run, its flow and its deployment as related resources. The payload has row_id, take, job_id,
    model, cost_usd (what was charged, None if not known) and estimate_usd; no prompt, link or key. It is handed to
    Prefect's own thread and never waits for a server: 0.06 ms of processor time (measured on Prefect 3.8.8).
    """
    if FlowRunContext.get() is None:
        return
    payload = {
        "row_id": video.row_id,
        "take": video.take,
        "job_id": job_id,
        "model": video.request.model,
        "cost_usd": cost_usd,
        "estimate_usd": video.estimate_usd,
    }
    resource = {
        "prefect.resource.id": f"together-video.video.{video.key}",
        "prefect.resource.name": video.label[:RESOURCE_NAME_CHARACTERS],
    }
    with suppress(EventTooLarge):  # all else that goes wrong, Prefect logs and swallows itself
        emit_event(f"together-video.video.{step}", resource=resource, payload=payload)


def emit_run_events(outcome: RunOutcome) -> None:
    """Emit the events of a finished run, about the flow run that it belongs to; nothing outside a flow run."""
    for name, payload in run_events(outcome):
        _emit_run_event(name, payload)


def budget_event(percent: int) -> str:
    """The event of a budget of which so much is paid or reserved: `together-video.run.budget_80_percent`."""
    return f"together-video.run.budget_{percent}_percent"


def emit_budget_event(percent: int, *, committed_usd: float, budget_usd: float, output_dir: str) -> None:
    """Emit that so much of the budget is paid or reserved, about the flow run; nothing outside a flow run."""
    committed = f"{dollars(committed_usd)} of {dollars(budget_usd)}"
    _emit_run_event(
        budget_event(percent),
        {
            "message": f"{percent} % of the budget reached: {committed} is paid or reserved",
            "percent": percent,
            "dollars": round(committed_usd, 6),
            "budget_usd": budget_usd,
            "output_dir": output_dir,
        },
    )


def _emit_run_event(name: str, payload: dict[str, Any]) -> None:
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is not None:
        resource = {"prefect.resource.id": f"together-video.run.{run.id}", "prefect.resource.name": run.name}
        emit_event(name, resource=resource, payload=payload)


def run_events(outcome: RunOutcome) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of an outcome with their payloads: `message` says it all; `rows`, `row_ids` (the first 20),
    `dollars` and `output_dir` say it to programs. Prompts, links and keys are in none of them."""
    in_doubt = [row for row in outcome.rows if "in_doubt" in (row.status, row.failed_still and row.failed_still.status)]
    if in_doubt:
        usd = outcome.totals.in_doubt_usd
        message = f"{counted(len(in_doubt), 'row')} in doubt: {dollars(usd)} may have been billed without a clip"
        yield IN_DOUBT, _payload(f"{message}; resubmit_in_doubt sends them again", in_doubt, usd, outcome)
    by_budget = _refused_for(outcome, FailureClass.BUDGET, FailureClass.PRICE_UNKNOWN)
    if by_budget:
        usd = _estimate(by_budget)
        message = f"budget reached: {counted(len(by_budget), 'row')} not sent, {dollars(usd)} more needed"
        yield BUDGET_REACHED, _payload(message, by_budget, usd, outcome)
    by_account = _refused_for(outcome, FailureClass.ACCOUNT)
    if by_account:
        error = next((take.error for row in by_account for take in row.attempted if take.error), "no reason known")
        message = f"the account is blocked: {counted(len(by_account), 'row')} not sent; {error[:300].rstrip('.')}"
        yield ACCOUNT_BLOCKED, _payload(message, by_account, _estimate(by_account), outcome)


def _payload(message: str, rows: list[RowResult], usd: float, outcome: RunOutcome) -> dict[str, Any]:
    named = [row.decisive.row_id for row in rows[:NAMED_ROWS]]
    return {
        "message": message,
        "rows": len(rows),
        "row_ids": named,
        "dollars": round(usd, 6),
        "output_dir": outcome.output_dir,
    }


def _refused_for(outcome: RunOutcome, *reasons: FailureClass) -> list[RowResult]:
    """Rows that were not sent, for one of these reasons."""
    refused = (row for row in outcome.rows if row.status == "refused" or row.failed_still)
    return [
        row
        for row in refused
        if any(take.status == "refused" and take.failure_class in reasons for take in row.attempted)
    ]


def _estimate(rows: list[RowResult]) -> float:
    takes = [take for row in rows for take in row.attempted if take.status == "refused"]
    return sum(take.estimate_usd or 0.0 for take in takes)


@contextmanager
def quiet_about_the_server(
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger],
    what: str = "the run's artifacts could not be written",
) -> Generator[None]:
    """A Prefect server that cannot be reached must not end a run that goes well: its errors become a warning."""
    try:
        yield
    except (httpx.HTTPError, OSError, PrefectException) as error:
        logger.warning("%s: %s", what, error)
