"""A worker of ours runs the deployments, and lets its runs end in good order when it is stopped."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun

from batch_run import wait_until
from prefect_server import PrefectServer
from prefect_together.sandbox import Sandbox
from repository import ROOT
from table_of_prompts import KEY, MODEL, prompts, read_results


@contextmanager
def worker(
    server: PrefectServer, log: Path, settings: Mapping[str, str] | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """A process worker of the work pool, for as long as the context lasts; then it and its runs end in good order."""
    environment = {**os.environ, "PREFECT_API_URL": server.api_url, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    words = [sys.executable, str(ROOT / "deployments" / "worker.py"), "--pool", "together-video"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            words, env={**environment, **(settings or {})}, cwd=log.parent, stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


async def run_deployment(name: str, parameters: dict[str, Any]) -> FlowRun:
    """Start a run of a deployment, and return it once it has ended."""
    async with get_client() as client:
        deployment = await client.read_deployment_by_name(name)
        run = await client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    return await ended(run.id)


async def ended(run_id: UUID) -> FlowRun:
    """The run, once it has ended."""
    async with get_client() as client:
        async with asyncio.timeout(150):
            while True:
                run = await client.read_flow_run(run_id)
                if run.state is not None and run.state.is_final():
                    return run
                await asyncio.sleep(0.5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_runs_a_deployment_to_its_videos(deployed: PrefectServer, tmp_path: Path) -> None:
    table = prompts("A cat asleep on a drum", "A harbour at dawn")
    parameters = {
        "prompts": table,
        "model": MODEL,
        "output_dir": str(tmp_path / "out"),
        "sandbox": True,
        "locations": {"sandbox_speed": 50},
    }

    with worker(deployed, tmp_path / "worker.log"):
        run = deployed.run(lambda: run_deployment("generate-videos/generate-videos", parameters))

    assert run.state is not None
    assert run.state.is_completed(), (run.state.message, (tmp_path / "worker.log").read_text()[-3000:])
    assert {path.name for path in (tmp_path / "out" / "videos").glob("*.mp4")} == {"r1.mp4", "r2.mp4"}
    assert "together-video" in run.tags


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_that_is_stopped_lets_its_runs_put_the_ledger_right(deployed: PrefectServer, tmp_path: Path) -> None:
    parameters = {"prompts": prompts("A long film"), "model": MODEL, "output_dir": str(tmp_path / "out")}

    async def start() -> UUID:
        async with get_client() as client:
            deployment = await client.read_deployment_by_name("generate-videos/generate-videos")
            return (await client.create_flow_run_from_deployment(deployment.id, parameters=parameters)).id

    with Sandbox() as api:
        api.fault("odd-status", endpoint="retrieve", count=None)  # waited for, as long as it stands
        service = {"TOGETHER_API_KEY": KEY, "TOGETHER_BASE_URL": api.base_url}
        with worker(deployed, tmp_path / "worker.log", service) as process:
            run_id = deployed.run(start)
            polled = wait_until(lambda: api.calls("retrieve") > 0, seconds=100, every_seconds=0.2)
            process.terminate()
            code = process.wait(60)
        run = deployed.run(lambda: ended(run_id))

    assert polled
    assert code == 0
    assert run.state is not None
    assert run.state.is_cancelled(), run.state
    assert run.state.message == "stopped by SIGTERM; the same run again continues where this one stopped"
    assert [row["status"] for row in read_results(tmp_path / "out")] == ["submitted"]
