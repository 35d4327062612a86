"""What a run opens at its locations: client, rate limit, duration statistics, and the batch over them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from prefect.context import FlowRunContext
from together import AsyncTogether

from prefect_together.api.client import is_sandbox, open_client
from prefect_together.api.poll import REQUESTS_PER_SECOND
from prefect_together.api.poll_schedule import DurationStatistics
from prefect_together.api.session import open_session
from prefect_together.clips.store import OutputStore
from prefect_together.clock import SYSTEM_CLOCK
from prefect_together.errors import NotConfigured
from prefect_together.execution.batch import Batch
from prefect_together.execution.settings import ALONE, Partition, RunLocations, RunLogger, RunSettings
from prefect_together.ledger.ledger import Ledger
from prefect_together.results.progress import Progress
from prefect_together.steps.global_limit import GlobalLimit, open_limit
from prefect_together.steps.tasks import client_of
from prefect_together.table.plan import Plan

SANDBOX_DIRECTORY = ".sandbox"


@dataclass(frozen=True, slots=True, eq=False)
class OpenRun:
    """A plan with its run's settings, and what is open for it."""

    plan: Plan
    locations: RunLocations
    settings: RunSettings
    store: OutputStore
    ledger: Ledger
    progress: Progress
    logger: RunLogger


@asynccontextmanager
async def open_batch(
    run: OpenRun, *, partition: Partition = ALONE, attempts: Mapping[str, int] | None = None
) -> AsyncGenerator[Batch]:
    """The batch over a plan, with its client; `partition` divides the limits too. Everything is closed on leaving."""
    statistics = DurationStatistics()
    models = {video.request.model for video in run.plan.videos.values()}
    for model, durations in (await run.ledger.durations(models)).items():
        statistics.load(model, durations)
    settings = replace(run.settings, max_in_flight=partition.part_of(run.settings.max_in_flight))
    async with (
        _client(run.locations, run.store) as client,
        open_session(client, durations=statistics, requests_per_second=REQUESTS_PER_SECOND / partition.of) as session,
        _global_limit(run) as limit,
    ):
        yield Batch(
            run.plan,
            ledger=run.ledger,
            session=session,
            store=run.store,
            settings=settings,
            progress=run.progress,
            logger=run.logger,
            output_dir=run.locations.output_name,
            partition=partition,
            attempts=attempts,
            limit=limit,
        )


def _global_limit(run: OpenRun) -> AbstractAsyncContextManager[GlobalLimit | None]:
    name, patience_seconds = run.settings.concurrency_limit, run.settings.max_wait_minutes * 60
    if name is None:
        return nullcontext()
    return open_limit(name, patience_seconds=patience_seconds, logger=run.logger)


@asynccontextmanager
async def _client(
    locations: RunLocations, store: OutputStore
) -> AsyncGenerator[AbstractAsyncContextManager[AsyncTogether]]:
    """The client to open: of the sandbox only when asked for, else with the block's or the environment's key."""
    if not locations.sandbox:
        yield await client_of(locations.credentials_block)
        return
    from prefect_together.sandbox import SandboxProcess

    state = Path(store.local_dir) / SANDBOX_DIRECTORY
    async with SandboxProcess(state_dir=state, speed=locations.sandbox_speed) as sandbox:
        yield open_client(api_key="sandbox", base_url=sandbox.base_url)


async def bills_nothing(locations: RunLocations) -> bool:
    """Whether the run's service is the sandbox: its own, or one that is named by the base URL."""
    if locations.sandbox:
        return True
    try:
        async with await client_of(locations.credentials_block) as client:
            return await is_sandbox(client)
    except NotConfigured:
        return False  # said when the client is opened for the batch


def started_at() -> float:
    """When the flow run began, unix seconds: a retry by Prefect does not extend the deadline."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run.start_time.timestamp() if run and run.start_time else SYSTEM_CLOCK.time()
