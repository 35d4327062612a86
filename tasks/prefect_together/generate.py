"""A run over a prompt table from end to end: read, plan, open what it needs, run the batch, write what it leaves.

The flows call this; it has no parameters of its own beyond theirs, and no decisions about single rows (see `batch`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from together import AsyncTogether

from prefect_together.approval import ask_if_above
from prefect_together.artifacts import create_progress, publish_results, quiet_about_the_server, update_progress
from prefect_together.batch import Batch, RunSettings
from prefect_together.client import open_client
from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.errors import Problem, SettingsInvalid
from prefect_together.ledger import HERE, LEDGER_FILE, Ledger, open_ledger
from prefect_together.outcome import Rows, RunOutcome
from prefect_together.outputs import PAGE_FILE, row_results, write_outputs
from prefect_together.page import PageSummary
from prefect_together.plan import Plan, make_plan
from prefect_together.remembered import from_text, to_text
from prefect_together.results import totals
from prefect_together.schedule import DurationBook
from prefect_together.session import open_session
from prefect_together.storage import OutputStore, open_store, redacted
from prefect_together.table import read_table
from prefect_together.tally import Tally
from prefect_together.tasks import client_of
from prefect_together.wording import dollars

PROGRESS_SECONDS = 10.0
SANDBOX_DIRECTORY = ".sandbox"

RunLogger = logging.Logger | logging.LoggerAdapter[logging.Logger]


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run reads its key, writes its videos and keeps its ledger. None: the default of each."""

    output_dir: str
    ledger_url: str | None = None
    credentials_block: str | None = None
    sandbox: bool = False
    sandbox_speed: float = 1.0


def plan_table(
    prompts: str,
    *,
    defaults: Mapping[str, object],
    catalogue_checks: bool,
    image_directory: str | None = None,
) -> Plan:
    """Read and check the table and plan its videos. Sends nothing. Raises TableInvalid with every mistake."""
    return make_plan(
        read_table(prompts, defaults=defaults, catalogue_checks=catalogue_checks, image_directory=image_directory)
    )


async def generate_table(
    plan: Plan, *, places: Places, settings: RunSettings, logger: RunLogger, tally: Tally
) -> RunOutcome:
    """Run a plan and write videos, results.csv and index.html. The tally is kept up to date for whoever shows it."""
    for warning in plan.warnings:
        logger.warning("%s", warning)
    logger.info("%s", plan_line(plan, settings.budget_usd))
    store = open_store(places.output_dir)
    await store.prepare()
    async with open_ledger(_ledger_url(places, store)) as ledger:
        here = _output_name(places)
        if settings.approve_above_usd is not None and await ask_if_above(
            plan, await ledger.records(list(plan.videos)), settings=settings, logger=logger
        ):
            tally.started_at = SYSTEM_CLOCK.time()  # what the person took is nobody's waiting time
        await ledger.remember_table(here, to_text(plan), is_sandbox=places.sandbox)
        book = DurationBook()
        models = {video.request.model for video in plan.videos.values()}
        for model, durations in (await ledger.durations(models)).items():
            book.load(model, durations)
        try:
            async with _client(places, store) as client, open_session(client, book=book) as session:
                batch = Batch(
                    plan,
                    ledger=ledger,
                    session=session,
                    store=store,
                    settings=settings,
                    tally=tally,
                    logger=logger,
                    output_dir=here,
                )
                async with _progress_artifact(tally, logger):
                    await batch.run()
        finally:
            summary = PageSummary(
                table=plan.source,
                written_at=datetime.now().astimezone().isoformat(timespec="seconds"),
                run_seconds=SYSTEM_CLOCK.time() - tally.started_at,
                budget_usd=settings.budget_usd,
                is_sandbox=places.sandbox,
                warnings=tuple(str(warning) for warning in plan.warnings),
            )
            outcome = await asyncio.shield(_write(store, ledger, plan, summary))
    with quiet_about_the_server(logger):
        await publish_results(outcome.rows, outcome.totals, message=outcome.message, output_dir=outcome.output_dir)
    return outcome


async def remembered_plan(places: Places) -> Plan:
    """The plan of the last run into an output directory, from its ledger. Raises SettingsInvalid if there is none."""
    store = open_store(places.output_dir)
    await store.prepare()
    async with open_ledger(_ledger_url(places, store)) as ledger:
        text = await ledger.remembered_table(_output_name(places))
        if text is None:
            raise SettingsInvalid(
                [Problem(f"no run has been made into {redacted(places.output_dir)}", column="output_dir")]
            )
        return from_text(text, await ledger.records())


def _output_name(places: Places) -> str:
    """How the ledger calls the output directory: a ledger that lies in it may be moved together with it."""
    return HERE if places.ledger_url is None else redacted(open_store(places.output_dir).uri(PAGE_FILE))


def _ledger_url(places: Places, store: OutputStore) -> str:
    return places.ledger_url or str(Path(store.scratch) / LEDGER_FILE)


def plan_line(plan: Plan, budget_usd: float | None) -> str:
    """What will be asked for and what it costs, in one line."""
    low, high = plan.low_usd, plan.high_usd
    price = dollars(high) if low == high else f"{dollars(low)} to {dollars(high)}"
    unknown = f" and {plan.unknown_prices} of unknown price" if plan.unknown_prices else ""
    cap = "" if budget_usd is None else f", budget {dollars(budget_usd)}"
    return f"{len(plan.rows):,} rows, {len(plan.videos):,} videos: estimated {price}{unknown}{cap}"


async def _write(store: OutputStore, ledger: Ledger, plan: Plan, summary: PageSummary) -> RunOutcome:
    records = await ledger.records(list(plan.videos))
    rows = row_results(plan, records, store)
    await write_outputs(store, plan, rows, summary)
    page = store.uri(PAGE_FILE)
    return RunOutcome(Rows(rows), totals(rows), page.removesuffix(PAGE_FILE).rstrip("/"), page)


@asynccontextmanager
async def _client(places: Places, store: OutputStore) -> AsyncGenerator[AbstractAsyncContextManager[AsyncTogether]]:
    """The client to open: of the sandbox only when asked for, else with the block's or the environment's key."""
    if not places.sandbox:
        yield await client_of(places.credentials_block)
        return
    from prefect_together.sandbox.process import SandboxProcess

    state = Path(store.scratch) / SANDBOX_DIRECTORY
    async with SandboxProcess(state_dir=state, speed=places.sandbox_speed) as sandbox:
        yield open_client(api_key="sandbox", base_url=sandbox.base_url)


@asynccontextmanager
async def _progress_artifact(tally: Tally, logger: RunLogger) -> AsyncGenerator[None]:
    async def create() -> UUID | None:
        with quiet_about_the_server(logger):
            return await create_progress(tally)

    creating = asyncio.create_task(create())  # beside the first rows, which do not wait for it

    async def update() -> None:
        if (artifact_id := await creating) is not None:
            with quiet_about_the_server(logger):
                await update_progress(artifact_id, tally, SYSTEM_CLOCK.time())

    async def keep_up() -> None:
        while True:
            await SYSTEM_CLOCK.sleep(PROGRESS_SECONDS)
            await update()

    updates = asyncio.create_task(keep_up())
    try:
        yield
    finally:
        updates.cancel()
        await asyncio.gather(updates, return_exceptions=True)
        await update()
