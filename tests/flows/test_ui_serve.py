"""Prefect's UI in Chromium over `prefect-together serve`, without a work pool or a worker: the Cancel button."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect
from prefect.client.orchestration import get_client

from chromium import opened_chromium
from prefect_server import PrefectServer
from prefect_together.sandbox import Sandbox
from prefect_ui import FOX, LONG, PATIENCE_SECONDS, ServedFlow, in_menu, picture, start_a_long_run
from table_of_prompts import KEY, read_results

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


async def take_away_deployments() -> None:
    async with get_client() as client:
        for deployment in await client.read_deployments():
            await client.delete_deployment(deployment.id)


@pytest.fixture
def served(prefect_server: PrefectServer, tmp_path: Path) -> Generator[ServedFlow]:
    prefect_server.run(take_away_deployments)
    with (
        Sandbox(retry_after_seconds=0.05, is_marked=False) as api,
        (tmp_path / "worker.log").open("wb") as log,
        opened_chromium() as browser,
    ):
        environment = {"PREFECT_RUNNER_POLL_FREQUENCY": "1", "TOGETHER_API_KEY": KEY, "TOGETHER_BASE_URL": api.base_url}
        serving = subprocess.Popen(
            [sys.executable, "-m", "prefect_together", "serve"],
            cwd=tmp_path,
            env={**os.environ, "PREFECT_API_URL": prefect_server.api_url, **environment},
            stdout=log,
            stderr=log,
        )
        expect.set_options(timeout=PATIENCE_SECONDS * 1000 / 2)
        try:
            found = ServedFlow(prefect_server, api, browser, "", tmp_path)
            found.wait_for_the_worker("serving 6 deployments")
            answer = httpx.get(f"{prefect_server.api_url}/deployments/name/generate-videos/generate-videos", timeout=60)
            yield ServedFlow(prefect_server, api, browser, answer.json()["id"], tmp_path)
        finally:
            serving.terminate()
            serving.wait()
    prefect_server.run(take_away_deployments)


def test_cancel_ends_a_served_run_with_every_row_right(served: ServedFlow) -> None:
    run_id, output_dir, page = start_a_long_run(served)

    in_menu(page, "Cancel")
    page.get_by_role("button", name="Cancel Flow Run").click()
    served.wait_for(run_id, "Cancelled")

    picture(page, "9-served-cancelled")
    page.context.close()
    assert {row["id"]: row["status"] for row in read_results(output_dir)} == {"fox": "downloaded", "long": "submitted"}
    assert (served.api.accepted(FOX), served.api.accepted(LONG)) == (1, 1)
