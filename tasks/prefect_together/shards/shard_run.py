"""One shard of a table: a run that takes a plan out of the ledger and works on it beside the run that has the table."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from prefect_together.clips.remote_store import open_store
from prefect_together.clips.store import OutputStore, redacted
from prefect_together.errors import TogetherVideoError
from prefect_together.execution.settings import Partition, RunLocations, RunLogger, RunSettings
from prefect_together.execution.signals import Stopped, until_stopped
from prefect_together.execution.workspace import OpenRun, open_batch, started_at
from prefect_together.ledger.engine import parse_ledger_url
from prefect_together.ledger.ledger import open_ledger
from prefect_together.ledger.runs import this_machine
from prefect_together.prefect_internals import process_is_own, shorten_task_lines
from prefect_together.problems import SettingsInvalid
from prefect_together.results.progress import Progress
from prefect_together.results.text import MESSAGE_CHARACTERS, counted
from prefect_together.shards.shards import marker
from prefect_together.shards.shared_plan import SharedPlan, join, missing_images

IMAGES_NAMED = 5


async def run_shard(
    plan_id: str, *, partition: Partition, locations: RunLocations, settings: RunSettings
) -> State[Any]:
    """Work on a plan until all its videos are through, and return the state that the flow ends in.

    Completed, with what this run itself has downloaded in its message; what became of each row says the run that has
    the table. Cancelled by SIGTERM or the UI; Failed if it could not work: its videos are then others' to take up.
    """
    is_own_process = process_is_own()
    if is_own_process:
        shorten_task_lines()
    logger = get_run_logger()
    progress = Progress(started_at=started_at())
    try:
        work = _work(plan_id, partition, locations, settings, progress, logger)
        await (until_stopped(work) if is_own_process else work)
    except Stopped as stop:
        return Cancelled(message=f"{stop}; the other shards take up its videos", data=stop)
    except TogetherVideoError as error:
        return Failed(message=f"on {socket.gethostname()}: {error}"[:MESSAGE_CHARACTERS], data=error)
    return Completed(message=f"{counted(progress.downloaded_here, 'video')} downloaded by this shard")


async def _work(
    plan_id: str,
    partition: Partition,
    locations: RunLocations,
    settings: RunSettings,
    progress: Progress,
    logger: RunLogger,
) -> None:
    store = open_store(locations.output_dir)
    await _find_output(store, plan_id, locations)
    await store.prepare()
    ledger_url = locations.ledger_in(store)
    await asyncio.to_thread(_find_ledger, ledger_url)
    async with open_ledger(ledger_url) as ledger:
        shared = _checked(await join(ledger, plan_id, partition.index), ledger_url, ledger.url)
        run = OpenRun(shared.plan, locations, settings, store, ledger, progress, logger)
        async with open_batch(run, partition=partition, attempts=shared.attempts) as batch:
            logger.info(
                "shard %d of %d: %d videos in the plan", partition.index + 1, partition.of, len(shared.plan.videos)
            )
            await batch.run()


async def _find_output(store: OutputStore, plan_id: str, locations: RunLocations) -> None:
    """Raises SettingsInvalid where the output directory is another one of the same name."""
    if await store.read_bytes(marker(plan_id)) is None:
        where = redacted(locations.output_dir)
        message = (
            f"{where} is not the directory that the run which started this shard has under that name: mount the same"
            " shared directory at the same path on every machine, or use s3://"
        )
        if not store.is_local:
            message = f"the run which started this shard is over, or does not write to {where}"
        raise SettingsInvalid.of(message, column="output_dir")


def _find_ledger(ledger_url: str) -> None:
    """Raises SettingsInvalid where a ledger that is a file is not there: it must not be made anew."""
    url = parse_ledger_url(ledger_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise SettingsInvalid.of(f"{url.database} is not on this machine: {_SHARE_IT}", column="ledger")


_SHARE_IT = (
    "a ledger that several machines share is in PostgreSQL (ledger: postgresql://user@host/name, its password in"
    " PGPASSWORD or ~/.pgpass)"
)


def _checked(shared: SharedPlan | None, ledger_url: str, shown: str) -> SharedPlan:
    """The plan, if this machine can work on it. Raises SettingsInvalid."""
    if shared is None:
        message = f"the plan is not in the ledger {shown}: the run that made it is over; start generate-videos again"
        raise SettingsInvalid.of(message, column="plan")
    is_file = parse_ledger_url(ledger_url).get_backend_name() == "sqlite"
    if is_file and shared.machine != this_machine():
        raise SettingsInvalid.of(f"{shown} is a file of another machine: {_SHARE_IT}", column="ledger")
    if missing := missing_images(shared.plan):
        named = ", ".join(f"{path} (row {row_id})" for path, row_id in list(missing.items())[:IMAGES_NAMED])
        message = (
            f"{counted(len(missing), 'image')} of the table not found on this machine: {named}; put them where every"
            " machine has them under the same path, or give URLs"
        )
        raise SettingsInvalid.of(message)
    return shared
