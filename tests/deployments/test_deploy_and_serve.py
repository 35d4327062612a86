"""The deployments as Prefect's own command, `deploy` and `serve` put them on a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.responses import DeploymentResponse

from deployment_calls import delete_deployments
from prefect_server import PrefectServer
from prefect_together.deployments.serve import served_deployments

NAMES = {"generate-videos", "nightly", "collect-videos", "generate-video", "plan-videos", "shard"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_deployments_are_deployed_with_their_schedules_inactive(deployed: PrefectServer) -> None:
    async def read() -> dict[str, list[bool]]:
        async with get_client() as client:
            found = await client.read_deployments()
            return {one.name: [bool(schedule.active) for schedule in one.schedules] for one in found}

    schedules = deployed.run(read)

    assert schedules.keys() == NAMES
    assert schedules["nightly"] == schedules["collect-videos"] == [False]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_deploy_and_serve_put_what_prefect_yaml_says_on_the_server_from_an_empty_directory(
    deployed: PrefectServer, tmp_path: Path
) -> None:
    """Compared with what Prefect's own `deploy` made of the file, but for where the code is."""
    by_prefect = deployed.run(deployed_now)

    refused = run_cli(deployed, tmp_path, "serve")
    done = run_cli(deployed, tmp_path, "deploy")

    by_deploy = deployed.run(deployed_now)
    assert (refused.returncode, done.returncode) == (2, 0), refused.stderr + done.stderr
    assert "together-video: leave it to its workers" in refused.stderr
    assert "prefect worker start --pool together-video" in done.stdout
    assert {name: said_of(one) for name, one in by_deploy.items()} == {
        name: said_of(one) for name, one in by_prefect.items()
    }
    assert {str(one.job_variables["working_dir"]) for one in by_deploy.values()} == {str(tmp_path)}

    deployed.run(delete_deployments)
    served = {deployment.name: deployment for deployment in deployed.run(served_deployments)}
    assert {name: said_of(one) for name, one in served.items()} == {
        name: said_of(one) for name, one in by_deploy.items()
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_second_deploy_leaves_schedules_as_active_as_they_are(prefect_server: PrefectServer, tmp_path: Path) -> None:
    async def switch_on() -> None:
        async with get_client() as client:
            nightly = await client.read_deployment_by_name("generate-videos/nightly")
            await client.update_deployment_schedule(nightly.id, nightly.schedules[0].id, active=True)

    assert run_cli(prefect_server, tmp_path, "deploy", "--pool", "another").returncode == 0
    prefect_server.run(switch_on)

    again = run_cli(prefect_server, tmp_path, "deploy", "--pool", "another")

    found = prefect_server.run(deployed_now)
    active = {name: [bool(one.active) for one in found[name].schedules] for name in found}
    prefect_server.run(delete_deployments)
    assert again.returncode == 0
    assert (active["nightly"], active["collect-videos"]) == ([True], [False])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_deploy_wants_an_image_for_containers_and_none_for_processes(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    async def make_pool() -> None:
        async with get_client() as client:
            await client.create_work_pool(WorkPoolCreate(name="containers", type="docker"))

    prefect_server.run(make_pool)

    without = run_cli(prefect_server, tmp_path, "deploy", "--pool", "containers")
    needless = run_cli(prefect_server, tmp_path, "deploy", "--pool", "processes", "--image", "ours:1")
    right = run_cli(prefect_server, tmp_path, "deploy", "--pool", "containers", "--image", "ours:1")

    images = {str(one.job_variables.get("image")) for one in prefect_server.run(deployed_now).values()}
    prefect_server.run(delete_deployments)
    assert (without.returncode, needless.returncode, right.returncode) == (2, 2, 0), right.stderr
    assert "name an image" in without.stderr
    assert "takes no image" in needless.stderr
    assert images == {"ours:1"}


def test_deploy_and_serve_without_a_server_say_what_to_set(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    for command in ("deploy", "serve"):
        words = [sys.executable, "-m", "prefect_together", command]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, "set PREFECT_API_URL" in done.stderr) == (2, True)


def run_cli(server: PrefectServer, directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`prefect-together` in a directory without a checkout, against the server."""
    return subprocess.run(
        [sys.executable, "-m", "prefect_together", *words],
        cwd=directory,
        env={**os.environ, "PREFECT_API_URL": server.api_url},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


async def deployed_now() -> dict[str, DeploymentResponse]:
    async with get_client() as client:
        return {one.name: one for one in await client.read_deployments()}


def said_of(deployment: Any) -> dict[str, Any]:
    """What prefect.yaml says of a deployment: of the server's, and of one that is about to be served."""
    on_server = isinstance(deployment, DeploymentResponse)
    limit = deployment.global_concurrency_limit if on_server else deployment.concurrency_limit
    return {
        "description": deployment.description,
        "tags": sorted(deployment.tags),
        "parameters": deployment.parameters,
        "schedules": [
            (one.slug, one.schedule.model_dump(exclude={"anchor_date"}), bool(one.active))
            for one in deployment.schedules
        ],
        "limit": limit.limit if on_server and limit else limit,
        "strategy": deployment.concurrency_options and str(deployment.concurrency_options.collision_strategy),
    }
