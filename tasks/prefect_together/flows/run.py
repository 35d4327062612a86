"""One run over a plan as Prefect sees it: from the plan to the final state of the flow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from prefect_together.clips.remote_store import open_store
from prefect_together.clips.store import OutputStore, redacted
from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.errors import NotApproved, Problem, SettingsInvalid, TogetherVideoError
from prefect_together.execution.events import emit_run_events, quiet_about_the_server
from prefect_together.execution.settings import RunLocations, RunLogger, RunSettings, Share
from prefect_together.execution.signals import Stopped, until_stopped
from prefect_together.execution.workspace import MESSAGE_CHARACTERS, OpenRun, bills_nothing, open_batch, started_at
from prefect_together.flows.prefect_ui import (
    Shown,
    ask_if_above,
    create_progress,
    publish_results,
    update_progress,
)
from prefect_together.ledger.ledger import Ledger, open_ledger
from prefect_together.ledger.plans import budget_in, from_text, to_text
from prefect_together.prefect_internals import process_is_own, shorten_task_lines, shown_progress
from prefect_together.results.already_paid import paid_under_other_ids, rebuy_problem, refuse_unknown_work
from prefect_together.results.notebook import notebook_progress
from prefect_together.results.outcome import Rows, RowsFailed, RunOutcome
from prefect_together.results.outputs import PAGE_FILE, PageSummary, row_results, write_outputs
from prefect_together.results.plan_report import Known, plan_report
from prefect_together.results.plan_report import dry_run as dry_run_line
from prefect_together.results.progress import Progress
from prefect_together.results.results import totals
from prefect_together.table.plan import Plan

if TYPE_CHECKING:
    from prefect_together.shards.shards import Shards

SANDBOX_NOTE = "sandbox: nothing is billed"
FIRST_PROGRESS_SECONDS, PROGRESS_SECONDS = 1.0, 10.0
PUBLISH_SECONDS, STOPPED_PUBLISH_SECONDS = 60.0, 15.0


async def run_plan(
    make_plan: Callable[[], Plan | Awaitable[Plan]],
    *,
    locations: RunLocations,
    settings: RunSettings,
    dry_run: bool = False,
) -> State[Any]:
    """Run the plan that `make_plan` gives (called in a thread) and return the state that the flow ends in.

    Completed, with the RunOutcome as its result, if every row is downloaded; Completed named StillGenerating if rows
    remain for a later run, CompletedWithFailures if no more rows failed than are allowed to; Cancelled by Ctrl-C,
    SIGTERM or the UI, or because its cost was not approved; else Failed, with the error as its result (RowsFailed,
    which holds the outcome, if only rows failed).
    """
    is_own_process = process_is_own()
    if is_own_process:
        shorten_task_lines()
    logger = get_run_logger()
    progress = Progress(started_at=started_at())
    try:
        plan = await _made(make_plan)
        if dry_run:
            line = await dry_run_line(
                plan,
                locations.output_dir,
                locations.ledger_url,
                budget_usd=settings.budget_usd,
                sends=settings.sends,
            )
            logger.info("%s", line)
            return Completed(name="DryRun", message=line, data=plan)
        async with shown_progress(progress, elsewhere=notebook_progress):
            work = _generate(plan, locations=locations, settings=settings, logger=logger, progress=progress)
            outcome = await (until_stopped(work) if is_own_process else work)
    except Stopped as stop:
        return Cancelled(message=f"{stop}; the same run again continues where this one stopped", data=stop)
    except NotApproved as error:
        return Cancelled(message=str(error), data=error)
    except TogetherVideoError as error:
        if len(str(error)) > MESSAGE_CHARACTERS:
            logger.error("%s", error)
        return Failed(message=str(error)[:MESSAGE_CHARACTERS], data=error)
    emit_run_events(outcome)
    return final_state(outcome, allowed_failures=settings.allowed_failures)


async def _made(make_plan: Callable[[], Plan | Awaitable[Plan]]) -> Plan:
    plan = await asyncio.to_thread(make_plan)
    return plan if isinstance(plan, Plan) else await plan


async def _generate(
    plan: Plan, *, locations: RunLocations, settings: RunSettings, logger: RunLogger, progress: Progress
) -> RunOutcome:
    """Run a plan and write videos, results.csv and index.html. `progress` follows the run."""
    for warning in plan.warnings:
        logger.warning("%s", warning)
    shards = await _shards(locations, settings, logger)
    store = open_store(locations.output_dir)
    await store.prepare()
    async with _results_in_the_ui(store, logger) as results, open_ledger(locations.ledger_in(store)) as ledger:
        if not settings.collect_only:
            await _refuse_to_pay_again(plan, ledger, store, locations, settings)
        records = await ledger.records(list(plan.videos))
        known = {key: Known.of(record) for key, record in records.items()}
        logger.info("%s", plan_report(plan, known=known, sends=settings.sends).line(settings.budget_usd))
        if settings.approve_above_usd is not None and await ask_if_above(
            plan, records, settings=settings, logger=logger
        ):
            progress.started_at = SYSTEM_CLOCK.time()  # the time of the approval is not counted
        is_sandbox = await bills_nothing(locations)
        budget_usd = settings.budget_usd
        if settings.collect_only and (earlier := await ledger.last_table(locations.output_name)):
            budget_usd = budget_in(earlier)  # it sends nothing, and writes the page of the run that did
        text = to_text(plan, budget_usd=budget_usd)
        await ledger.save_table(locations.output_name, text, is_sandbox=is_sandbox)
        run = OpenRun(plan, locations, settings, store, ledger, progress, logger)
        notes: list[str] = []
        try:
            shown = _progress_artifact(progress, logger, settings.budget_usd)
            async with open_batch(run, share=Share(0, settings.shards)) as batch, shown:
                if shards is None:
                    await batch.run()
                else:
                    await shards.run(batch, run, notes)
        except TogetherVideoError as error:
            notes.append(str(error))
            raise
        finally:
            summary = PageSummary(
                table=plan.source,
                written_at=datetime.now().astimezone().isoformat(timespec="seconds"),
                run_seconds=SYSTEM_CLOCK.time() - progress.started_at,
                budget_usd=budget_usd,
                is_sandbox=is_sandbox,
                warnings=(
                    *(str(warning) for warning in plan.warnings),
                    *notes,
                ),
            )
            outcome = await asyncio.shield(_write(store, ledger, plan, summary, tuple(notes), new_usd=progress.new_usd))
            results.append((outcome, summary))
    return outcome


async def _refuse_to_pay_again(
    plan: Plan, ledger: Ledger, store: OutputStore, locations: RunLocations, settings: RunSettings
) -> None:
    """Raises SettingsInvalid if what is paid for would be paid for again, unless the user said so."""
    if not settings.new_ledger:
        await refuse_unknown_work(ledger, store)
    known = await ledger.records(list(plan.videos))
    if settings.rebuy or len(known) == len(plan.videos):
        return
    if found := paid_under_other_ids(plan, await ledger.records(), output_dir=locations.output_name):
        raise SettingsInvalid([rebuy_problem(found)])


async def _shards(locations: RunLocations, settings: RunSettings, logger: RunLogger) -> Shards | None:
    if settings.shards == 1:
        return None
    from prefect_together.shards.shards import (
        find_shards,  # with Prefect's deployments, which a run of its own does not need
    )

    return await find_shards(locations, settings, logger)


async def last_plan(locations: RunLocations) -> Plan:
    """The plan of the last run into an output directory, from its ledger. Raises SettingsInvalid if there is none."""
    store = open_store(locations.output_dir)
    await store.prepare()
    async with open_ledger(locations.ledger_in(store)) as ledger:
        text = await ledger.last_table(locations.output_name)
        if text is None:
            raise SettingsInvalid(
                [Problem(f"no run has been made into {redacted(locations.output_dir)}", column="output_dir")]
            )
        return from_text(text, await ledger.records())


async def _write(
    store: OutputStore, ledger: Ledger, plan: Plan, summary: PageSummary, notes: tuple[str, ...], *, new_usd: float
) -> RunOutcome:
    records = await ledger.records(list(plan.videos))
    rows = row_results(plan, records, store)
    await write_outputs(store, plan, rows, summary)
    page = store.uri(PAGE_FILE)
    if summary.is_sandbox:
        notes = (SANDBOX_NOTE, *notes)
    output_dir = page.removesuffix(PAGE_FILE).rstrip("/")
    return RunOutcome(Rows(rows), totals(rows), output_dir, page, notes=notes, new_usd=new_usd)


@asynccontextmanager
async def _results_in_the_ui(
    store: OutputStore, logger: RunLogger
) -> AsyncGenerator[list[tuple[RunOutcome, PageSummary]]]:
    """Publish the results that are appended, however the run ends; with less time if it was stopped."""
    results: list[tuple[RunOutcome, PageSummary]] = []
    seconds = STOPPED_PUBLISH_SECONDS
    try:
        yield results
        seconds = PUBLISH_SECONDS
    finally:
        with quiet_about_the_server(logger):
            async with asyncio.timeout(seconds):
                for outcome, page in results:
                    shown = Shown(budget_usd=page.budget_usd, run_seconds=page.run_seconds, is_sandbox=page.is_sandbox)
                    await publish_results(outcome, shown, store)


@asynccontextmanager
async def _progress_artifact(progress: Progress, logger: RunLogger, budget_usd: float | None) -> AsyncGenerator[None]:
    async def create() -> UUID | None:
        with quiet_about_the_server(logger):
            return await create_progress(progress, budget_usd=budget_usd)

    creating = asyncio.create_task(create())  # while the first rows start

    async def update(*, is_over: bool = False) -> None:
        seconds_left = None if is_over else progress.seconds_left(SYSTEM_CLOCK.time())
        if (artifact_id := await asyncio.shield(creating)) is not None:
            with quiet_about_the_server(logger):
                await update_progress(artifact_id, progress, seconds_left, budget_usd=budget_usd)

    async def keep_updating() -> None:
        pause = FIRST_PROGRESS_SECONDS
        while True:
            await SYSTEM_CLOCK.sleep(pause)
            pause = min(2 * pause, PROGRESS_SECONDS)
            await update()

    updates = asyncio.create_task(keep_updating())
    try:
        yield
    finally:
        updates.cancel()
        await asyncio.gather(updates, return_exceptions=True)
        await update(is_over=True)


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
