"""Our programs against a Prefect server, and the deployments that are on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prefect.client.orchestration import get_client

from prefect_server import PrefectServer
from repository import ROOT

BIN = Path(sys.executable).parent


def run_program(server: PrefectServer, *words: str) -> str:
    """What one of our programs prints, run from the project's root against the server. Raises if it fails."""
    environment = {**os.environ, "PREFECT_API_URL": server.api_url}
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def delete_deployments() -> None:
    async with get_client() as client:
        for deployment in await client.read_deployments():
            await client.delete_deployment(deployment.id)
