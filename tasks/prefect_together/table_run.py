"""A run over a table as Prefect sees it: the flow's parameters in, its final state out. The work is in `generate`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from typing import Any

from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.console import plain_task_lines
from prefect_together.errors import NotApproved, TogetherVideoError
from prefect_together.events import emit_run_events
from prefect_together.generate import generate_table, plan_line
from prefect_together.local_prefect import Stopped, until_stopped
from prefect_together.outcome import RowsFailed, RunOutcome
from prefect_together.parameters import VideoParameters
from prefect_together.places import Places
from prefect_together.plan import Plan
from prefect_together.run_settings import RunSettings
from prefect_together.table_plan import TableToPlan
from prefect_together.tally import Tally

MESSAGE_CHARACTERS = 1500

TallyDisplay = Callable[[Tally], AbstractAsyncContextManager[None]]
display: ContextVar[TallyDisplay] = ContextVar("display", default=lambda _tally: nullcontext())
"""How the shell shows the run while it goes on; nothing elsewhere."""
planned: ContextVar[Plan | None] = ContextVar("planned", default=None)
"""The plan that the shell has made of this run's table already; elsewhere the run reads it."""


async def run_plan(
    make_plan: Callable[[], Awaitable[Plan]],
    *,
    places: Places,
    settings: RunSettings,
    dry_run: bool = False,
) -> State[Any]:
    """Run the plan that `make_plan` gives and return the state that the flow ends in.

    Completed, with the RunOutcome as its result, if every row is downloaded; Completed named StillGenerating if rows
    are left for a later run, CompletedWithFailures if no more rows failed than are allowed to; Cancelled by Ctrl-C,
    SIGTERM or the UI, or because its cost was not approved; else Failed, with the error as its result (RowsFailed,
    which holds the outcome, if only rows failed).
    """
    plain_task_lines()
    logger = get_run_logger()
    tally = Tally(started_at=started_at())
    try:
        plan = await make_plan()
        if dry_run:
            line = f"{plan_line(plan, settings.budget_usd)}; nothing was sent"
            logger.info("%s", line)
            return Completed(name="DryRun", message=line, data=plan)
        async with display.get()(tally):
            work = generate_table(plan, places=places, settings=settings, logger=logger, tally=tally)
            outcome = await until_stopped(work)
    except Stopped as stop:
        return Cancelled(message=f"{stop}; the same run again goes on where this one stopped", data=stop)
    except NotApproved as error:
        return Cancelled(message=str(error), data=error)
    except TogetherVideoError as error:
        if len(str(error)) > MESSAGE_CHARACTERS:
            logger.error("%s", error)
        return Failed(message=str(error)[:MESSAGE_CHARACTERS], data=error)
    emit_run_events(outcome)
    return final_state(outcome, allowed_failures=settings.allowed_failures)


async def run_table(
    prompts: str,
    *,
    model: str | None,
    parameters: VideoParameters | None,
    catalogue_checks: bool,
    image_directory: str | None,
    places: Places,
    settings: RunSettings,
    dry_run: bool,
) -> State[Any]:
    """Run a prompt table; see `run_plan`."""

    table = TableToPlan(prompts, model, parameters, catalogue_checks, image_directory)

    async def read() -> Plan:
        return planned.get() or await asyncio.to_thread(table.plan)

    return await run_plan(read, places=places, settings=settings, dry_run=dry_run)


def final_state(outcome: RunOutcome, *, allowed_failures: int = 0) -> State[Any]:
    """The flow's state for an outcome; see `run_plan`."""
    message = outcome.message[:MESSAGE_CHARACTERS]
    if len(outcome.failed) > allowed_failures:
        return Failed(message=message, data=RowsFailed(outcome))
    if outcome.open:
        message = f"{message}. Run again to collect the rest."
    if outcome.failed:
        return Completed(name="CompletedWithFailures", message=message, data=outcome)
    return Completed(name="StillGenerating" if outcome.open else "Completed", message=message, data=outcome)


def started_at() -> float:
    """When the flow run began, unix seconds: a retry by Prefect does not extend the deadline."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run.start_time.timestamp() if run and run.start_time else SYSTEM_CLOCK.time()
