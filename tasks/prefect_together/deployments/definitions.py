"""The deployments of prefect.yaml as Prefect's objects, whose code is the installed package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.types.entrypoint import EntrypointType

from prefect_together.flows import entrypoints


@cache
def read_definitions() -> list[dict[str, Any]]:
    """The deployments as prefect.yaml has them."""
    return yaml.safe_load(files("prefect_together.deployments").joinpath("prefect.yaml").read_text(encoding="utf-8"))[
        "deployments"
    ]


async def make_deployment(
    definition: dict[str, Any],
    existing: DeploymentResponse | None,
    *,
    work_pool: str | None = None,
    job_variables: dict[str, Any] | None = None,
) -> RunnerDeployment:
    """A deployment of the installed package; its schedules are as active as those of the existing one."""
    active = {schedule.slug: bool(schedule.active) for schedule in existing.schedules} if existing else {}
    limit = definition.get("concurrency_limit")
    return await flow_of(definition).ato_deployment(
        name=definition["name"],
        description=definition["description"],
        tags=definition["tags"],
        parameters=definition.get("parameters"),
        schedules=[_schedule(one, active) for one in definition.get("schedules", [])],
        concurrency_limit=ConcurrencyLimitConfig.model_validate(limit) if limit else None,
        work_pool_name=work_pool,
        job_variables=job_variables,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


def flow_of(definition: dict[str, Any]) -> Any:
    """The package's flow; prefect.yaml names the file of the same name in the `flows/` of a checkout."""
    path, _, name = definition["entrypoint"].partition(":")
    assert PurePosixPath(path).stem == name
    return getattr(entrypoints, name)


async def existing_deployment(definition: dict[str, Any]) -> DeploymentResponse | None:
    """The deployment of that name as the server has it, if it does."""
    async with get_client() as client:
        try:
            return await client.read_deployment_by_name(f"{flow_of(definition).name}/{definition['name']}")
        except ObjectNotFound:
            return None


def _schedule(definition: dict[str, Any], active: dict[str | None, bool]) -> DeploymentScheduleCreate:
    timing = {name: value for name, value in definition.items() if name not in ("slug", "active")}
    slug, is_active = definition["slug"], definition["active"]
    return DeploymentScheduleCreate.model_validate(
        {"schedule": timing, "active": active.get(slug, is_active), "slug": slug}
    )
