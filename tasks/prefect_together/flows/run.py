"""One run over a plan as Prefect sees it: from the plan to the final state of the flow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import httpx
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from prefect_together.clips.remote_store import open_store
from prefect_together.clips.store import OutputStore, redacted
from prefect_together.clock import SYSTEM_CLOCK, in_background
from prefect_together.errors import NotApproved, TogetherVideoError
from prefect_together.execution.settings import Partition, RunLocations, RunLogger, RunSettings
from prefect_together.execution.signals import Stopped, until_stopped
from prefect_together.execution.workspace import OpenRun, bills_nothing, open_batch, started_at
from prefect_together.flows.approval import ask_if_above
from prefect_together.flows.prefect_ui import create_progress, publish_results, update_progress
from prefect_together.flows.preview import dry_run as dry_run_line
from prefect_together.ledger.engine import LedgerUnavailable
from prefect_together.ledger.ledger import open_ledger
from prefect_together.ledger.plans import budget_in, from_text, to_text
from prefect_together.ledger.records import Known, VideoRecord
from prefect_together.prefect_internals import process_is_own, report_ending, shorten_task_lines, shown_progress
from prefect_together.problems import SettingsInvalid
from prefect_together.results.already_paid import (
    downloaded_takes,
    paid_under_other_ids,
    rebuy_problem,
    refuse_unknown_work,
    take_up_unsaved,
)
from prefect_together.results.notebook import notebook_progress
from prefect_together.results.outcome import Rows, RowsFailed, RunOutcome
from prefect_together.results.outputs import PAGE_FILE, RESULTS_FILE, PageSummary, row_results, write_outputs
from prefect_together.results.plan_report import PlanReport, plan_report
from prefect_together.results.progress import Progress
from prefect_together.results.results import totals
from prefect_together.results.text import MESSAGE_CHARACTERS, counted
from prefect_together.steps.events import emit_run_events, quiet_about_the_server
from prefect_together.steps.global_limit import check_limit
from prefect_together.table.plan import Plan

if TYPE_CHECKING:
    from prefect_together.films.films import Film
    from prefect_together.shards.shards import Shards

T = TypeVar("T")

SANDBOX_NOTE = "sandbox: nothing is billed"
ONLY_STILLS_NOTE = "the stills are made: the same run without stop_after makes the videos"
FIRST_PROGRESS_SECONDS, PROGRESS_SECONDS = 1.0, 10.0
PUBLISH_SECONDS, STOPPED_PUBLISH_SECONDS = 60.0, 15.0


async def run_plan(
    planning: Awaitable[Plan],
    *,
    locations: RunLocations,
    settings: RunSettings,
    dry_run: bool = False,
) -> State[Any]:
    """Run the plan that `planning` gives and return the state that the flow ends in.

    Completed, with the RunOutcome as its result, if every row is downloaded; Completed named StillGenerating if rows
    remain for a later run, StillsMade if it was to make only the stills, CompletedWithFailures if no more rows failed
    than are allowed to; Cancelled by Ctrl-C, SIGTERM or the UI, or because its cost was not approved; else Failed, with
    the error as its result (RowsFailed, which holds the outcome, if only rows failed).
    """
    if process_is_own():
        shorten_task_lines()
    logger = get_run_logger()
    ui = RunInTheUi(Progress(started_at=started_at()), settings.budget_usd, logger, served_at=locations.served_at)
    try:
        state = await _run_to_state(planning, locations=locations, settings=settings, dry_run=dry_run, ui=ui)
        await report_ending(state.data)  # before the server is asked for anything: it may be away
    finally:
        with suppress(Stopped):
            await _stoppable(ui.publish(seconds=PUBLISH_SECONDS if ui.run_is_whole else STOPPED_PUBLISH_SECONDS))
    return state


async def _stoppable(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; where the process is this run's own, SIGINT and SIGTERM end it by Stopped."""
    return await (until_stopped(work) if process_is_own() else work)


async def _run_to_state(
    planning: Awaitable[Plan], *, locations: RunLocations, settings: RunSettings, dry_run: bool, ui: RunInTheUi
) -> State[Any]:
    """Run the plan; the state that the flow ends in."""
    logger, progress = ui.logger, ui.progress
    try:
        plan = await planning
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
            outcome = await _stoppable(_run_videos(plan, locations=locations, settings=settings, ui=ui))
    except Stopped as stop:
        return Cancelled(message=f"{stop}; the same run again continues where this one stopped", data=stop)
    except NotApproved as error:
        return Cancelled(message=str(error), data=error)
    except TogetherVideoError as error:
        if len(str(error)) > MESSAGE_CHARACTERS:
            logger.error("%s", error)
        return Failed(message=str(error)[:MESSAGE_CHARACTERS], data=error)
    ui.run_is_whole = True
    emit_run_events(outcome)
    return final_state(outcome, allowed_failures=settings.allowed_failures)


async def _run_videos(plan: Plan, *, locations: RunLocations, settings: RunSettings, ui: RunInTheUi) -> RunOutcome:
    """Run a plan and write videos, results.csv and index.html. `ui.progress` follows the run."""
    logger, progress = ui.logger, ui.progress
    for warning in plan.warnings:
        logger.warning("%s", warning)
    if settings.concurrency_limit is not None:
        await check_limit(settings.concurrency_limit)
    shards = await _shards(locations, settings, logger)
    store = open_store(locations.output_dir)
    await store.prepare()
    async with open_ledger(locations.ledger_in(store)) as ledger:
        run = OpenRun(plan, locations, settings, store, ledger, progress, logger)
        if taken_up := await take_up_unsaved(ledger, store):
            logger.info(
                "%s of an earlier run, which could not write them, taken up", counted(len(taken_up), "paid job")
            )
        records = await ledger.records(list(plan.videos))
        if not settings.collect_only:
            await _refuse_to_pay_again(run, records)
        report_of_plan = await _report_of_plan(run, records)
        for line in (report_of_plan.line, *report_of_plan.notes):
            logger.info("%s", line)
        if await ask_if_above(report_of_plan, settings, logger):
            progress.started_at = SYSTEM_CLOCK.time()  # the time of the approval is not counted
        is_sandbox = await bills_nothing(locations)
        budget_usd = settings.budget_usd
        if settings.collect_only and (earlier := await ledger.last_table(locations.output_name)):
            budget_usd = budget_in(earlier)  # it sends nothing, and writes the page of the run that did
        text = to_text(plan, budget_usd=budget_usd)
        await ledger.save_table(locations.output_name, text, is_sandbox=is_sandbox)
        notes: list[str] = []
        films: tuple[Film, ...] = ()

        async def report() -> RunOutcome:
            summary = PageSummary(
                table=plan.source,
                written_at=datetime.now().astimezone().isoformat(timespec="seconds"),
                run_seconds=SYSTEM_CLOCK.time() - progress.started_at,
                budget_usd=budget_usd,
                is_sandbox=is_sandbox,
                warnings=(*(str(warning) for warning in plan.warnings), *notes),
                films=films,
                only_stills=settings.stop_after == "stills",
            )
            outcome = await asyncio.shield(_write(run, summary, tuple(notes)))
            if outcome.stills_made and outcome.open:
                outcome = replace(outcome, notes=(*outcome.notes, ONLY_STILLS_NOTE))
            ui.results = (outcome, summary, store)
            return outcome

        try:
            async with open_batch(run, partition=Partition(0, settings.shards)) as batch, ui.progress_updated():
                if shards is None:
                    await batch.run()
                else:
                    await shards.run(batch, run, notes)
            films = await _joined_films(run)
        except BaseException as error:  # a stop too: what came of the run is written in any case
            if isinstance(error, TogetherVideoError):
                notes.append(str(error))
            with suppress(LedgerUnavailable):  # the first error has more to say
                await report()
            if isinstance(error, LedgerUnavailable) and progress.total:
                said = f"{error.reason}; {store.uri(RESULTS_FILE)} has each row and job id as this run last knew them"
                raise LedgerUnavailable(error.url, said) from error
            raise
        return await report()


async def _joined_films(run: OpenRun) -> tuple[Film, ...]:
    """Join the films that the plan names. What cannot be joined is a warning: the clips are there in any case."""
    if not any(row.film for row in run.plan.rows):
        return ()
    from prefect_together.films.films import make_films  # with libav, which no run waits for at its start

    try:
        films = await make_films(run.plan, await run.ledger.records(list(run.plan.videos)), run.store)
    except Exception as error:  # noqa: BLE001 - libav reads files of anybody's making; no film is worth a failed run
        run.logger.warning("the films could not be joined: %s", error)
        return ()
    for film in films:
        if film.problem is not None:
            run.logger.warning("film %s %s", film.name, film.problem)
    return films


async def _report_of_plan(run: OpenRun, known: Mapping[str, VideoRecord]) -> PlanReport:
    """What this run sends, what of it is made again, and what cannot be sent: as `plan` says it."""
    continues_anew = any(video.sources and key not in known for key, video in run.plan.videos.items())
    all_records = await run.ledger.records() if continues_anew else {}
    return plan_report(
        run.plan,
        known={key: Known.of(record) for key, record in known.items()},
        there=downloaded_takes(all_records, output_dir=run.locations.output_name),
        budget_usd=run.settings.budget_usd,
        committed_usd=await run.ledger.committed_usd(),
        sends=run.settings.sends,
    )


async def _refuse_to_pay_again(run: OpenRun, known: Mapping[str, VideoRecord]) -> None:
    """Raises SettingsInvalid if what is paid for would be paid for again, unless the user said so.

    `known` are the ledger's records of the plan's videos.
    """
    plan, settings = run.plan, run.settings
    if settings.stop_after == "stills" and not plan.stills:
        raise SettingsInvalid.of("no row has a still_prompt: there are no stills to make", column="stop_after")
    if not settings.new_ledger:
        await refuse_unknown_work(run.ledger, run.store)
    if settings.rebuy or len(known) == len(plan.videos):
        return
    if found := paid_under_other_ids(plan, await run.ledger.records(), output_dir=run.locations.output_name):
        raise SettingsInvalid([rebuy_problem(found)])


async def _shards(locations: RunLocations, settings: RunSettings, logger: RunLogger) -> Shards | None:
    if settings.shards == 1:
        return None
    if settings.whole_chains:
        message = "one run alone can keep a budget for whole chains: leave shards at 1, or whole_chains out"
        raise SettingsInvalid.of(message, column="whole_chains")
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
            message = f"no run has been made into {redacted(locations.output_dir)}"
            raise SettingsInvalid.of(message, column="output_dir")
        return from_text(text, await ledger.records())


async def _write(run: OpenRun, summary: PageSummary, notes: tuple[str, ...]) -> RunOutcome:
    """Write results.csv and index.html from the ledger; where it cannot be read, from what this run knows.

    Raises LedgerUnavailable if this run knows nothing yet.
    """
    plan, store, ledger, progress = run.plan, run.store, run.ledger, run.progress
    try:
        records, unsettled = await ledger.records(list(plan.videos)), await ledger.unsettled()
    except LedgerUnavailable as error:
        if not progress.total:
            raise
        records, unsettled = progress.last_known()
        if not any(error.url in note for note in notes):
            notes = (*notes, f"{error}; this is what the run knew last, and the same run again reads the ledger")
    rows = row_results(plan, records, unsettled, store)
    if not summary.films and any(row.film for row in plan.rows):  # a run that was stopped shows those of earlier ones
        from prefect_together.films.films import make_films

        summary = replace(summary, films=await make_films(plan, records, store, only_read=True))
    await write_outputs(store, plan, rows, summary)
    page = store.uri(PAGE_FILE)
    if summary.is_sandbox:
        notes = (SANDBOX_NOTE, *notes)
    output_dir = page.removesuffix(PAGE_FILE).rstrip("/")
    return RunOutcome(
        Rows(rows),
        totals(rows),
        output_dir,
        page,
        notes=notes,
        new_usd=progress.new_usd,
        films=summary.films,
        only_stills=summary.only_stills,
    )


class RunInTheUi:
    """The run's artifacts: its progress while it lasts, its results once they are written.

    A Prefect server that does not answer delays the run by nothing and its end by `publish`'s seconds.
    """

    def __init__(
        self, progress: Progress, budget_usd: float | None, logger: RunLogger, *, served_at: str | None
    ) -> None:
        self.progress, self.logger, self._budget_usd, self._served_at = progress, logger, budget_usd, served_at
        self.results: tuple[RunOutcome, PageSummary, OutputStore] | None = None
        self.run_is_whole = False
        """Whether the run came to its own end, not to one by a stop or an error."""
        self._creating: asyncio.Task[UUID] | None = None

    @asynccontextmanager
    async def progress_updated(self) -> AsyncGenerator[None]:
        """Keep the progress artifact up to date."""
        async with in_background(self._keep_updating()):  # while the first rows start
            yield

    async def _keep_updating(self) -> None:
        pause = FIRST_PROGRESS_SECONDS
        while True:
            with suppress(httpx.HTTPError, OSError, PrefectException):  # said once, at the end
                await self._update(self.progress.seconds_left(SYSTEM_CLOCK.time()))
            await SYSTEM_CLOCK.sleep(pause)
            pause = min(2 * pause, PROGRESS_SECONDS)

    async def _update(self, seconds_left: float | None) -> None:
        creating = self._creating
        if creating is None or (creating.done() and (creating.cancelled() or creating.exception())):
            creating = self._creating = asyncio.create_task(create_progress(self.progress, budget_usd=self._budget_usd))
        artifact_id = await asyncio.shield(creating)
        await update_progress(artifact_id, self.progress, seconds_left, budget_usd=self._budget_usd)

    async def publish(self, *, seconds: float) -> None:
        """The last progress, and the results; a warning if they cannot be published within so many seconds."""
        if self.results is None:
            return
        with quiet_about_the_server(self.logger):
            async with asyncio.timeout(seconds):
                await self._update(None)
                await publish_results(*self.results, served_at=self._served_at)


def final_state(outcome: RunOutcome, *, allowed_failures: int) -> State[Any]:
    """The flow's state for an outcome; see `run_plan`."""
    message = outcome.message[:MESSAGE_CHARACTERS]
    if len(outcome.failed) > allowed_failures:
        return Failed(message=message, data=RowsFailed(outcome))
    if outcome.open and outcome.stills_made and not outcome.failed:
        return Completed(name="StillsMade", message=message, data=outcome)
    if outcome.open:
        message = f"{message}. Run again to collect the rest."
    if outcome.failed:
        return Completed(name="CompletedWithFailures", message=message, data=outcome)
    return Completed(name="StillGenerating" if outcome.open else "Completed", message=message, data=outcome)
