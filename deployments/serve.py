"""Serves the deployments of prefect.yaml from this process, without a work pool or a worker.

    python deployments/serve.py [--limit N]

Needs a Prefect server (PREFECT_API_URL). Each run is a process of its own; Ctrl-C ends them in good order. What was
switched on or off in the UI stays so when this is started again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.runner import Runner
from prefect.settings import get_current_settings

ROOT = Path(__file__).resolve().parents[1]
DEFINITIONS = Path(__file__).with_name("prefect.yaml")
STOP_SECONDS = 30.0


class OnWorkPool(Exception):
    """The deployment is there already, for the workers of a work pool."""

    def __init__(self, name: str, work_pool: str) -> None:
        super().__init__(name, work_pool)
        self.name, self.work_pool = name, work_pool

    def __str__(self) -> str:
        return (
            f"{self.name} is deployed to the work pool {self.work_pool}: leave it to its workers, or take it away"
            " first (prefect deployment delete --all)"
        )


def read_definitions() -> list[dict[str, Any]]:
    """The deployments as prefect.yaml has them."""
    return yaml.safe_load(DEFINITIONS.read_text(encoding="utf-8"))["deployments"]


async def deployments() -> list[RunnerDeployment]:
    """All of them, ready to be served from the project's root; their schedules as active as the server has them."""
    found: list[RunnerDeployment] = []
    for definition in read_definitions():
        flow = load_flow_from_entrypoint(definition["entrypoint"])
        active = await _switched(f"{flow.name}/{definition['name']}")
        limit = definition.get("concurrency_limit")
        found.append(
            await flow.ato_deployment(
                name=definition["name"],
                description=definition["description"],
                tags=definition["tags"],
                parameters=definition.get("parameters"),
                schedules=[_schedule(one, active) for one in definition.get("schedules", [])],
                concurrency_limit=_limit(limit) if limit else None,
            )
        )
    return found


async def _switched(name: str) -> dict[str, bool]:
    """Whether each schedule of a deployment is switched on, by its slug; empty if it is not there yet.

    Raises OnWorkPool if workers have it: its runs would go to both, and those here would not find their code.
    """
    async with get_client() as client:
        try:
            deployment = await client.read_deployment_by_name(name)
        except ObjectNotFound:
            return {}
    if deployment.work_pool_name:
        raise OnWorkPool(name, deployment.work_pool_name)
    return {schedule.slug: bool(schedule.active) for schedule in deployment.schedules if schedule.slug}


def _schedule(definition: dict[str, Any], active: dict[str, bool]) -> DeploymentScheduleCreate:
    slug = definition["slug"]
    if "cron" in definition:
        schedule = CronSchedule(cron=definition["cron"], timezone=definition.get("timezone"))
    else:
        schedule = IntervalSchedule(interval=timedelta(seconds=definition["interval"]))
    return DeploymentScheduleCreate(schedule=schedule, active=active.get(slug, bool(definition["active"])), slug=slug)


def _limit(definition: dict[str, Any]) -> ConcurrencyLimitConfig:
    strategy = ConcurrencyLimitStrategy(definition["collision_strategy"])
    return ConcurrencyLimitConfig(limit=definition["limit"], collision_strategy=strategy)


class Serving(Runner):
    """Prefect's runner (3.8.8), which leaves its runs to themselves on SIGTERM, made to stop them in good order."""

    is_terminated = False

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        self.is_terminated = True
        signal.raise_signal(signal.SIGINT)


async def serve(served: Sequence[RunnerDeployment], limit: int) -> None:
    """Register them and run what is due until Ctrl-C or SIGTERM; the runs that go on then end in good order first."""
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=4, help="runs at once (4)")
    given = parser.parse_args()
    if not get_current_settings().api.url:
        print("no Prefect server: start one (`prefect server start`) and set PREFECT_API_URL", file=sys.stderr)
        return 2
    os.chdir(ROOT)  # entrypoints, tables and output directories start from there
    try:
        served = asyncio.run(deployments())
    except OnWorkPool as error:
        print(error, file=sys.stderr)
        return 2
    asyncio.run(serve(served, given.limit))
    return 0


if __name__ == "__main__":
    sys.exit(main())
