"""Serves the deployments from this process, without a work pool or a worker; each run is a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from types import FrameType
from typing import Any

import psutil
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.settings import get_current_settings

from prefect_together.deployments.definitions import existing_deployment, make_deployment, read_definitions
from prefect_together.problems import SettingsInvalid

STOP_SECONDS = 30.0


async def served_deployments() -> list[RunnerDeployment]:
    """All of them, ready to be served.

    Raises SettingsInvalid if workers have one: its runs would go to both.
    """
    found: list[RunnerDeployment] = []
    for definition in read_definitions():
        existing = await existing_deployment(definition)
        if existing is not None and existing.work_pool_name:
            message = (
                f"{definition['name']} is deployed to the work pool {existing.work_pool_name}: leave it to its workers,"
                " or delete it first (prefect deployment delete --all)"
            )
            raise SettingsInvalid.of(message)
        found.append(await make_deployment(definition, existing))
    return found


class Serving(Runner):
    """Prefect's runner (3.8.8), which leaves its runs to themselves on SIGTERM, made to stop them first."""

    is_terminated = False

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        self.is_terminated = True
        signal.raise_signal(signal.SIGINT)


async def serve(served: Sequence[RunnerDeployment], limit: int) -> None:
    """Register them, run what is due until Ctrl-C or SIGTERM, then stop the active runs and wait for them."""
    runner = Serving(name="together-video", limit=limit, pause_on_shutdown=False)
    for deployment in served:
        await runner.aadd_deployment(deployment)
    print(f"serving {len(served)} deployments: {get_current_settings().ui_url}/deployments", flush=True)
    work = asyncio.ensure_future(runner.start())
    loop = asyncio.get_running_loop()

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        runs = psutil.Process().children()
        if runner.is_terminated:  # a terminal's Ctrl-C has reached the runs already; a second signal would kill them
            for run in runs:
                run.terminate()
        psutil.wait_procs(runs, timeout=STOP_SECONDS)
        loop.call_soon_threadsafe(work.cancel)

    signal.signal(signal.SIGINT, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await work
