"""The examples for Docker and Kubernetes, as far as no cluster is needed: they deploy, and name only what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import DeploymentResponse
from prefect.flows import load_flow_from_entrypoint
from pydantic import SecretStr

from prefect_server import PrefectServer
from repository import ROOT

KINDS = ("docker", "kubernetes")
DEPLOYMENTS = ROOT / "deployments"
SECRET = "token-of-the-repository-7731"


def definition(kind: str) -> dict[str, Any]:
    (found,) = yaml.safe_load((DEPLOYMENTS / f"{kind}.yaml").read_text())["deployments"]
    return found


def pull_steps(kind: str) -> list[dict[str, Any]]:
    """As the file has them: with the template that names a block, not what is in it."""
    content = yaml.safe_load((DEPLOYMENTS / f"{kind}.yaml").read_text())
    return content.get("pull", content["deployments"][0].get("pull"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_flow_takes_the_parameters_and_the_key_is_named_by_its_block(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    parameters = definition(kind)["parameters"]

    flow: Any = load_flow_from_entrypoint(definition(kind)["entrypoint"])

    flow.validate_parameters({"prompts": "prompt\nx\n", **parameters})
    assert parameters["locations"]["credentials_block"] == "team-video"
    assert "{{" not in str(parameters)  # what is stored in clear text


def test_the_image_copies_what_there_is_and_installs_extras_that_there_are() -> None:
    text = (DEPLOYMENTS / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for word in line.split()]
    (extras,) = re.findall(r"/src\[(.+?)\]", text)

    assert len(copied) == 4
    assert [path for path in copied if not (ROOT / path).exists()] == []
    assert [extra for extra in extras.split(",") if f"\n{extra} = [" not in (ROOT / "pyproject.toml").read_text()] == []


def test_the_container_keeps_what_the_run_writes() -> None:
    (volume,) = definition("docker")["work_pool"]["job_variables"]["volumes"]

    inside = volume.partition(":")[2]
    assert definition("docker")["parameters"]["output_dir"].startswith(f"{inside}/")
    assert f"WORKDIR {inside}\n" in (DEPLOYMENTS / "Dockerfile").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_prefect_deploys_it_with_variables_that_its_work_pool_has(kind: str, prefect_server: PrefectServer) -> None:
    async def save_token() -> None:
        await Secret[str](value=SecretStr(SECRET)).asave("video-repository-token", overwrite=True)

    prefect_server.run(save_token)
    prefect = [str(Path(sys.executable).parent / "prefect"), "--no-prompt"]
    pool = definition(kind)["work_pool"]["name"]
    for words in (
        ["work-pool", "create", pool, "--type", kind],
        ["deploy", "--prefect-file", f"deployments/{kind}.yaml", "--all"],
    ):
        done = subprocess.run(
            [*prefect, *words],
            cwd=ROOT,
            env={**os.environ, "PREFECT_API_URL": prefect_server.api_url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    async def read() -> tuple[DeploymentResponse, dict[str, Any]]:
        async with get_client() as client:
            found = await client.read_deployment_by_name(f"generate-videos/{kind}")
            await client.delete_deployment(found.id)  # the server is that of other tests too
            return found, (await client.read_work_pool(pool)).base_job_template

    found, template = prefect_server.run(read)
    variables = definition(kind)["work_pool"]["job_variables"]
    assert variables.keys() <= template["variables"]["properties"].keys()
    assert found.job_variables == variables
    assert found.entrypoint == definition(kind)["entrypoint"]
    assert found.pull_steps == pull_steps(kind)
    assert SECRET not in found.model_dump_json()
