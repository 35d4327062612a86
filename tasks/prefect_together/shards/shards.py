"""The other shards of a table: started on Prefect's work pool, polled, and ended with the run that has the table.

Prefect's workers distribute them. The run that reads the table is a shard itself, so that it ends without any of the
others. What they do is in `shard_run`; the ledger's claims decide which shard has which video.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import httpx
from prefect.client.base import ServerType
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, WorkerStatus
from prefect.context import FlowRunContext
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import Cancelled, Cancelling, Crashed

from prefect_together.clock import SYSTEM_CLOCK, in_background
from prefect_together.errors import NotConfigured
from prefect_together.execution.batch import Batch
from prefect_together.execution.settings import NO_SERVER, Partition, RunLocations, RunLogger, RunSettings
from prefect_together.execution.workspace import OpenRun
from prefect_together.ledger.engine import parse_ledger_url
from prefect_together.ledger.states import STATES
from prefect_together.problems import Problem, SettingsInvalid
from prefect_together.shards.shared_plan import dead_shards, delete_plan, save_plan
from prefect_together.steps.events import quiet_about_the_server

DEPLOYMENT = "generate-videos-shard/shard"
DEPLOY = "prefect --no-prompt deploy --prefect-file deployments/prefect.yaml --all"
WATCH_SECONDS = 5.0
STARTED_SECONDS = 60.0
"""After so long a shard that has not started is a warning."""
END_SECONDS, STOP_SECONDS = 30.0, 10.0
"""How long the others have to end when all videos are finished, and how long cancelling them may take."""
REASON_CHARACTERS = 300
NOT_NEEDED = "the run that has the table does not need it any more"
NOT_STARTED = frozenset({StateType.SCHEDULED, StateType.PENDING})


@dataclass(slots=True)
class Shard:
    """Another shard of the plan, as it was last polled."""

    partition: Partition
    run_id: UUID
    name: str
    state: StateType = StateType.SCHEDULED
    is_over: bool = False

    def __str__(self) -> str:
        return f"shard {self.partition.index + 1} of {self.partition.of} ({self.name})"


async def find_shards(locations: RunLocations, settings: RunSettings, logger: RunLogger) -> Shards:
    """What starts the other shards, after a check that they can be started. Sends nothing.

    Raises SettingsInvalid, saying what to do; NotConfigured if there is no Prefect server.
    """
    if problems := list(_problems(locations, settings)):
        raise SettingsInvalid(problems)
    try:
        async with get_client() as client:
            if client.server_type == ServerType.EPHEMERAL:
                raise NotConfigured(NO_SERVER)
            work_pool = await _work_pool(client)
            workers = await client.read_workers_for_work_pool(work_pool) if work_pool else []
    except httpx.HTTPError as error:
        raise NotConfigured(f"Prefect's server does not answer, and shards need it: {error}") from error
    if work_pool and not any(worker.status == WorkerStatus.ONLINE for worker in workers):
        logger.warning(
            "no worker of the work pool %s is online: this run works alone until one is (prefect worker start"
            " --pool %s)",
            work_pool,
            work_pool,
        )
    return Shards(work_pool)


def _problems(locations: RunLocations, settings: RunSettings) -> Iterable[Problem]:
    if settings.max_in_flight < settings.shards:
        message = f"{settings.max_in_flight} jobs at once cannot be divided among {settings.shards} shards: raise it"
        yield Problem(message, column="max_in_flight")
    if locations.sandbox:
        message = (
            "each shard would start a sandbox of its own: start one with `prefect-together sandbox`, and give every"
            " worker its address as TOGETHER_BASE_URL"
        )
        yield Problem(message, column="sandbox")
    if locations.ledger_url is not None:
        parse_ledger_url(locations.ledger_url)  # raises for a password, before the shards get it as a parameter


async def _work_pool(client: PrefectClient) -> str | None:
    """The work pool of the shards' deployment, None if it is served without one. Raises SettingsInvalid."""
    try:
        deployment = await client.read_deployment_by_name(DEPLOYMENT)
    except ObjectNotFound as error:
        message = f"there is no deployment {DEPLOYMENT} on this Prefect server: {DEPLOY}"
        raise SettingsInvalid.of(message, column="shards") from error
    return deployment.work_pool_name


class Shards:
    """The other runs over one plan. `await shards.run(batch, run, notes)` runs the batch with them beside it."""

    def __init__(self, work_pool: str | None) -> None:
        self._work_pool = work_pool
        self._plan_id = str(uuid4())
        self._others: list[Shard] = []
        self._has_warned = False

    async def run(self, batch: Batch, run: OpenRun, notes: list[str]) -> None:
        """Run the batch; `notes` gets a line for each shard that did not come to its end."""
        try:
            async with in_background(self._start_and_watch(batch, run, notes)):
                await batch.run()
                await self._wait_for_others(batch, run, notes)
        finally:
            await self._stop(run)

    async def _start_and_watch(self, batch: Batch, run: OpenRun, notes: list[str]) -> None:
        await batch.is_open.wait()
        starting = asyncio.ensure_future(self._start(batch, run))
        try:
            await asyncio.shield(starting)
            while True:
                await SYSTEM_CLOCK.sleep(WATCH_SECONDS)
                await self._poll(batch, run, notes)
                await self._update_progress(run)
        finally:
            await asyncio.wait([starting])  # none may be started that is not known here

    async def _start(self, batch: Batch, run: OpenRun) -> None:
        """Save the plan and start the shards; the part of the limits of those that cannot be started is this run's."""
        of = run.settings.shards
        wanted = [video for video in batch.wanted if video.request.model not in batch.stopped_models]
        partitions = [Partition(index, of) for index in range(1, of)]
        started = 0
        if len(wanted) > 1:
            try:
                await _cancel_earlier(run.logger)
                await save_plan(run.ledger, self._plan_id, wanted, batch.attempts)
                await run.store.write_bytes(marker(self._plan_id), self._plan_id.encode())
                for partition in partitions[: len(wanted) - 1]:
                    self._others.append(await self._start_one(partition, run))
                    started += 1
            except (httpx.HTTPError, OSError, PrefectException) as error:
                run.logger.warning("%d of %d shards could not be started: %s", of - 1 - started, of - 1, error)
        for partition in partitions[started:]:
            batch.raise_limit(partition.part_of(run.settings.max_in_flight))

    async def _start_one(self, partition: Partition, run: OpenRun) -> Shard:
        settings, locations = run.settings, run.locations
        parameters = {
            "plan": self._plan_id,
            "shard": partition.index + 1,
            "output_dir": str(run.store.local_dir) if run.store.is_local else locations.output_dir,
            "budget_usd": settings.budget_usd,
            "limits": {
                "shards": partition.of,
                "max_in_flight": settings.max_in_flight,
                "max_wait_minutes": settings.max_wait_minutes,
                "max_clip_megabytes": settings.max_clip_megabytes,
                "max_inline_kilobytes": settings.max_inline_kilobytes,
                "resubmit_in_doubt": settings.resubmit_in_doubt,
                "retry_failed": settings.retry_failed,
                "concurrency_limit": settings.concurrency_limit,
            },
            "locations": {
                "ledger": _absolute(locations.ledger_url),
                "credentials_block": locations.credentials_block,
            },
        }
        context = FlowRunContext.get()
        parent = f"{context.flow_run.name} " if context and context.flow_run else ""
        started = await arun_deployment(
            DEPLOYMENT,
            parameters=parameters,
            flow_run_name=f"{parent}{partition.index + 1} of {partition.of}",
            timeout=0,
        )
        shard = Shard(partition, started.id, started.name)
        run.logger.info("%s: started on %s", shard, self._work_pool or DEPLOYMENT)
        return shard

    async def _poll(self, batch: Batch, run: OpenRun, notes: list[str]) -> None:
        """Poll the others; the part of the limits of one that has ended is this run's from now on."""
        going = [shard for shard in self._others if not shard.is_over]
        if not going:
            return
        with quiet_about_the_server(run.logger, "the shards could not be polled"):
            dead = await dead_shards(run.ledger, self._plan_id)
            async with get_client() as client:
                wanted = FlowRunFilter(id=FlowRunFilterId(any_=[shard.run_id for shard in going]))
                runs = {run.id: run for run in await client.read_flow_runs(flow_run_filter=wanted)}
                for shard in going:
                    state = await _state_of(client, runs.get(shard.run_id), is_dead=shard.partition.index in dead)
                    shard.state = state.type
                    if state.is_final():
                        shard.is_over = True
                        batch.raise_limit(shard.partition.part_of(run.settings.max_in_flight))
                        _report_end(shard, state, run.logger, notes)
            self._warn_of_unstarted(run)

    def _warn_of_unstarted(self, run: OpenRun) -> None:
        late = [shard for shard in self._others if shard.state in NOT_STARTED and not shard.is_over]
        if not late or self._has_warned or SYSTEM_CLOCK.time() - run.progress.started_at < STARTED_SECONDS:
            return
        self._has_warned = True
        run.logger.warning(
            "%d of %d shards have not started: is there a worker with room for them? (prefect worker start --pool %s);"
            " this run continues without them",
            len(late),
            len(self._others),
            self._work_pool,
        )

    async def _update_progress(self, run: OpenRun) -> None:
        """Keep the progress up to date with what the others do."""
        progress = run.progress
        open_keys = [key for key, state in progress.states.items() if not STATES[state].is_finished]
        for record in (await run.ledger.records(open_keys)).values():
            if record.owner != run.ledger.run.run_id:
                progress.update(record)

    async def _wait_for_others(self, batch: Batch, run: OpenRun, notes: list[str]) -> None:
        """All videos are finished: cancel what has not started; the others notice soon and end."""
        await self._cancel_all([shard for shard in self._others if shard.state in NOT_STARTED], run.logger)
        deadline = SYSTEM_CLOCK.monotonic() + END_SECONDS
        while SYSTEM_CLOCK.monotonic() < deadline:
            await self._poll(batch, run, notes)
            if all(shard.is_over for shard in self._others):
                return
            await SYSTEM_CLOCK.sleep(1.0)
        notes += [f"{shard} did not end in time" for shard in self._others if not shard.is_over]

    async def _stop(self, run: OpenRun) -> None:
        """Cancel what still runs (Prefect does so too, for a cancelled run), and delete the plan."""
        await self._cancel_all([shard for shard in self._others if not shard.is_over], run.logger)
        if self._others:
            await delete_plan(run.ledger, self._plan_id)
            await run.store.remove(marker(self._plan_id))

    async def _cancel_all(self, shards: list[Shard], logger: RunLogger) -> None:
        """Cancel these runs."""
        if not shards:
            return
        with quiet_about_the_server(logger, "the shards could not be cancelled"):
            async with asyncio.timeout(STOP_SECONDS), get_client() as client:
                for shard in shards:
                    run = await client.read_flow_run(shard.run_id)
                    await _cancel(client, run, NOT_NEEDED)


def marker(plan_id: str) -> str:
    """The file in the output directory by which a shard knows that it has the same directory."""
    return f".plan-{plan_id}"


def _absolute(ledger_url: str | None) -> str | None:
    """A ledger's path as an absolute one; a URL as it is."""
    if ledger_url is None or "://" in ledger_url:
        return ledger_url
    return str(Path(ledger_url).expanduser().absolute())


def _report_end(shard: Shard, state: State[object], logger: RunLogger, notes: list[str]) -> None:
    if state.is_completed():
        logger.info("%s: %s", shard, state.message)
        return
    if shard.state == StateType.CANCELLED and state.message == NOT_NEEDED:
        logger.info("%s: was not needed", shard)
        return
    reason = f"{state.name}: {state.message}" if state.message else state.name or ""
    logger.warning("%s ended early, the others take up its videos: %s", shard, reason)
    notes.append(f"{shard} ended early: {reason[:REASON_CHARACTERS]}")


async def _state_of(client: PrefectClient, run: FlowRun | None, *, is_dead: bool) -> State[object]:
    """The state of another shard; one whose process or machine is gone cannot say so, and is set Crashed."""
    if run is None:
        return Cancelled(message="its run was deleted")
    assert run.state is not None
    if run.state.is_final() or not is_dead:
        return run.state
    state: State[object] = Crashed(message="no heartbeat: its worker or its machine is gone")
    await client.set_flow_run_state(run.id, state, force=True)
    return state


async def _cancel_earlier(logger: RunLogger) -> None:
    """A run that Prefect has started again, because it failed or died, ends what it had started before."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.run_count <= 1:
        return
    async with get_client() as client:
        mine = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[context.flow_run.id]))
        for run in await client.read_flow_runs(flow_run_filter=mine):
            if run.state is not None and not run.state.is_final():
                logger.info("ending %s, which an earlier try of this run had started", run.name)
                await _cancel(client, run, "the run that has the table was started again")


async def _cancel(client: PrefectClient, run: FlowRun, message: str) -> None:
    if run.state is None or run.state.is_final():
        return
    state: State[object] = (Cancelled if run.state.type in NOT_STARTED else Cancelling)(message=message)
    await client.set_flow_run_state(run.id, state)
