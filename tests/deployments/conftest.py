"""A Prefect server with the deployments on it, as a reader of deployments/README.md puts them there."""

from __future__ import annotations

import pytest

from deployment_calls import BIN, delete_deployments, run_program
from prefect_server import PrefectServer


@pytest.fixture(scope="module")
def deployed(prefect_server: PrefectServer) -> PrefectServer:
    """A server onto which the README's two commands have been typed."""
    prefect = str(BIN / "prefect")
    prefect_server.run(delete_deployments)
    run_program(prefect_server, prefect, "work-pool", "create", "together-video", "--type", "process", "--overwrite")
    run_program(prefect_server, prefect, "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml", "--all")
    return prefect_server
