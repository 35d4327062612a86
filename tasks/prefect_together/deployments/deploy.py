"""Puts the deployments on a Prefect server for the workers of a work pool. Starts no worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import WorkPool
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from prefect_together.deployments.definitions import existing_deployment, make_deployment, read_definitions
from prefect_together.problems import SettingsInvalid


async def deploy(work_pool: str, *, directory: Path, image: str | None) -> list[str]:
    """Deploy all of them, and return their full names. A work pool that is not there is made, of type process.

    Runs in processes start in `directory`, an absolute path; runs in containers are made of `image`. Raises
    SettingsInvalid for an image where runs are processes, and for none where they are containers.
    """
    pool = await _work_pool(work_pool)
    if (pool.type == "process") == (image is not None):
        wanted = "takes no image" if image else "runs containers: name an image that has prefect-together installed"
        raise SettingsInvalid.of(f"image: the work pool {work_pool} is of type {pool.type} and {wanted}")
    job_variables: dict[str, Any] = {"image": image} if image else {"working_dir": str(directory)}
    names: list[str] = []
    for definition in read_definitions():
        existing = await existing_deployment(definition)
        deployment = await make_deployment(definition, existing, work_pool=work_pool, job_variables=job_variables)
        await deployment.aapply()
        names.append(f"{deployment.flow_name}/{deployment.name}")
    return names


async def _work_pool(name: str) -> WorkPool:
    async with get_client() as client:
        try:
            return await client.read_work_pool(name)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            return await client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
