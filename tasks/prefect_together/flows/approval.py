"""The pause before what is dear is sent: a dialog in Prefect's UI that a person answers."""

from __future__ import annotations

import asyncio
from typing import Literal
from uuid import uuid4

from prefect.context import FlowRunContext
from prefect.flow_runs import apause_flow_run
from prefect.input import RunInput
from prefect.utilities.urls import url_for
from pydantic import Field, ValidationError

from prefect_together.errors import NotApproved
from prefect_together.execution.settings import RunLogger, RunSettings
from prefect_together.results.plan_report import PlanReport
from prefect_together.results.text import counted, dollars, duration, markdown_cell, markdown_table

POLL_SECONDS = 2
GRACE_SECONDS = 600
"""The server is told to wait so much longer than the run does, or it would end the run as failed first."""


class Approval(RunInput):
    """What the dialog asks for. There is no default: a dialog that is only clicked away approves nothing."""

    answer: Literal["approve", "reject"] = Field(description="approve: send these videos. reject: end, nothing sent.")


async def ask_if_above(report: PlanReport, settings: RunSettings, logger: RunLogger) -> bool:
    """Pause until a person approves, if what would be sent may cost more than `approve_above_usd`; whether it paused.

    Only what would be newly sent counts. A video of unknown price is always asked about. Raises NotApproved; nothing is
    sent then.
    """
    limit_usd = settings.approve_above_usd
    if limit_usd is None or not (report.high_usd > limit_usd + 1e-9 or report.unknown_prices):
        return False
    context = FlowRunContext.get()
    url = (url_for(context.flow_run) if context and context.flow_run else None) or "Prefect's UI"
    logger.info("%s is above %s: waiting for approval at %s", report.new_price, dollars(limit_usd), url)
    budget = "none" if report.budget_usd is None else f"{dollars(report.budget_usd)} over all runs into this ledger"
    models = [(markdown_cell(one.model), f"{one.to_send:,}", one.price) for one in report.models if one.to_send]
    lines = [
        f"**{report.new_price}** for {_count(report)} of {counted(report.rows_to_send, 'row')}."
        " Nothing has been sent yet.",
        "",
        *markdown_table(("model", "videos", "dollars"), models),
        "",
        f"Asked above {dollars(limit_usd)}. Budget: {budget}.",
    ]
    await _ask("\n".join(lines), seconds=settings.approval_minutes * 60)
    logger.info("approved: %s", _count(report))
    return True


def _count(report: PlanReport) -> str:
    """Like `4 new videos and 2 stills`."""
    stills = f" and {counted(report.stills_to_send, 'still')}" if report.stills_to_send else ""
    return f"{counted(report.to_send - report.stills_to_send, 'new video')}{stills}"


async def _ask(markdown: str, *, seconds: float) -> None:
    """Return when a person has approved. Raises NotApproved."""
    question = Approval.with_initial_data(description=markdown)
    try:
        async with asyncio.timeout(seconds):
            # A key of its own: a retry of the run asks anew, about what is to be sent then.
            given = await apause_flow_run(
                wait_for_input=question,
                timeout=round(seconds) + GRACE_SECONDS,
                poll_interval=POLL_SECONDS,
                key=uuid4().hex,
            )
    except TimeoutError as error:
        raise NotApproved(f"no answer within {duration(seconds)}") from error
    except ValidationError as error:  # resumed past the dialog
        raise NotApproved("resumed without an answer") from error
    if given.answer != "approve":
        raise NotApproved
