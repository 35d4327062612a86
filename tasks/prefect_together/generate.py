"""A run over a planned table from end to end: open what it needs, run the batch, write what it leaves.

The flows call this; it has no parameters of its own beyond theirs, and no decisions about single rows (see `batch`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from prefect_together.approval import ask_if_above
from prefect_together.artifacts import create_progress, publish_results, quiet_about_the_server, update_progress
from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.errors import Problem, SettingsInvalid, TogetherVideoError
from prefect_together.ledger import Ledger, open_ledger
from prefect_together.outcome import Rows, RunOutcome
from prefect_together.outputs import PAGE_FILE, row_results, write_outputs
from prefect_together.page import PageSummary
from prefect_together.places import Places, RunLogger, Work, open_batch
from prefect_together.plan import Plan
from prefect_together.remembered import from_text, to_text
from prefect_together.results import totals
from prefect_together.run_settings import RunSettings
from prefect_together.shares import Share
from prefect_together.storage import OutputStore, open_store, redacted
from prefect_together.summary import Shown
from prefect_together.tally import Tally
from prefect_together.wording import dollars

if TYPE_CHECKING:
    from prefect_together.shards import Shards

FIRST_PROGRESS_SECONDS, PROGRESS_SECONDS = 1.0, 10.0
PUBLISH_SECONDS, STOPPED_PUBLISH_SECONDS = 60.0, 15.0


async def generate_table(
    plan: Plan, *, places: Places, settings: RunSettings, logger: RunLogger, tally: Tally
) -> RunOutcome:
    """Run a plan and write videos, results.csv and index.html. The tally is kept up to date for whoever shows it."""
    for warning in plan.warnings:
        logger.warning("%s", warning)
    logger.info("%s", plan_line(plan, settings.budget_usd))
    shards = await _shards(places, settings, logger)
    store = open_store(places.output_dir)
    await store.prepare()
    async with _results_in_the_ui(store, logger) as left, open_ledger(places.ledger_in(store)) as ledger:
        if settings.approve_above_usd is not None and await ask_if_above(
            plan, await ledger.records(list(plan.videos)), settings=settings, logger=logger
        ):
            tally.started_at = SYSTEM_CLOCK.time()  # what the person took is nobody's waiting time
        await ledger.remember_table(places.output_name, to_text(plan), is_sandbox=places.sandbox)
        work = Work(plan, places, settings, store, ledger, tally, logger)
        notes: list[str] = []
        try:
            shown = _progress_artifact(tally, logger, settings.budget_usd)
            async with open_batch(work, share=Share(0, settings.shards)) as batch, shown:
                if shards is None:
                    await batch.run()
                else:
                    await shards.run(batch, work, notes)
        except TogetherVideoError as error:
            notes.append(str(error))
            raise
        finally:
            summary = PageSummary(
                table=plan.source,
                written_at=datetime.now().astimezone().isoformat(timespec="seconds"),
                run_seconds=SYSTEM_CLOCK.time() - tally.started_at,
                budget_usd=settings.budget_usd,
                is_sandbox=places.sandbox,
                warnings=(*(str(warning) for warning in plan.warnings), *notes),
            )
            outcome = await asyncio.shield(_write(store, ledger, plan, summary, tuple(notes)))
            left.append((outcome, summary))
    return outcome


async def _shards(places: Places, settings: RunSettings, logger: RunLogger) -> Shards | None:
    if settings.shards == 1:
        return None
    from prefect_together.shards import find_shards  # with Prefect's deployments, which a run of its own does not need

    return await find_shards(places, settings, logger)


async def remembered_plan(places: Places) -> Plan:
    """The plan of the last run into an output directory, from its ledger. Raises SettingsInvalid if there is none."""
    store = open_store(places.output_dir)
    await store.prepare()
    async with open_ledger(places.ledger_in(store)) as ledger:
        text = await ledger.remembered_table(places.output_name)
        if text is None:
            raise SettingsInvalid(
                [Problem(f"no run has been made into {redacted(places.output_dir)}", column="output_dir")]
            )
        return from_text(text, await ledger.records())


def plan_line(plan: Plan, budget_usd: float | None) -> str:
    """What will be asked for and what it costs, in one line."""
    low, high = plan.low_usd, plan.high_usd
    price = dollars(high) if low == high else f"{dollars(low)} to {dollars(high)}"
    unknown = f" and {plan.unknown_prices} of unknown price" if plan.unknown_prices else ""
    cap = "" if budget_usd is None else f", budget {dollars(budget_usd)}"
    return f"{len(plan.rows):,} rows, {len(plan.videos):,} videos: estimated {price}{unknown}{cap}"


async def _write(
    store: OutputStore, ledger: Ledger, plan: Plan, summary: PageSummary, notes: tuple[str, ...]
) -> RunOutcome:
    records = await ledger.records(list(plan.videos))
    rows = row_results(plan, records, store)
    await write_outputs(store, plan, rows, summary)
    page = store.uri(PAGE_FILE)
    return RunOutcome(Rows(rows), totals(rows), page.removesuffix(PAGE_FILE).rstrip("/"), page, notes=notes)


@asynccontextmanager
async def _results_in_the_ui(
    store: OutputStore, logger: RunLogger
) -> AsyncGenerator[list[tuple[RunOutcome, PageSummary]]]:
    """Publish what the run leaves, in whatever way it ends; in a hurry if it was stopped: somebody waits for that."""
    left: list[tuple[RunOutcome, PageSummary]] = []
    seconds = STOPPED_PUBLISH_SECONDS
    try:
        yield left
        seconds = PUBLISH_SECONDS
    finally:
        with quiet_about_the_server(logger):
            async with asyncio.timeout(seconds):
                for outcome, page in left:
                    shown = Shown(budget_usd=page.budget_usd, run_seconds=page.run_seconds, is_sandbox=page.is_sandbox)
                    await publish_results(outcome, shown, store)


@asynccontextmanager
async def _progress_artifact(tally: Tally, logger: RunLogger, budget_usd: float | None) -> AsyncGenerator[None]:
    async def create() -> UUID | None:
        with quiet_about_the_server(logger):
            return await create_progress(tally, budget_usd=budget_usd)

    creating = asyncio.create_task(create())  # beside the first rows, which do not wait for it

    async def update(*, is_over: bool = False) -> None:
        seconds_left = None if is_over else tally.seconds_left(SYSTEM_CLOCK.time())
        if (artifact_id := await asyncio.shield(creating)) is not None:
            with quiet_about_the_server(logger):
                await update_progress(artifact_id, tally, seconds_left, budget_usd=budget_usd)

    async def keep_up() -> None:
        pause = FIRST_PROGRESS_SECONDS
        while True:
            await SYSTEM_CLOCK.sleep(pause)
            pause = min(2 * pause, PROGRESS_SECONDS)
            await update()

    updates = asyncio.create_task(keep_up())
    try:
        yield
    finally:
        updates.cancel()
        await asyncio.gather(updates, return_exceptions=True)
        await update(is_over=True)
