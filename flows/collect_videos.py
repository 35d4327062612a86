"""Fetches what earlier runs submitted and left: polls, downloads, writes the results anew. Buys nothing.

    python flows/collect_videos.py --output-dir DIR

Schedule: every ten minutes in deployments/prefect.yaml, inactive. Secrets: TOGETHER_API_KEY in the environment, or a
TogetherCredentials block given by its name.
"""

# Annotations are real objects here, not text: `serve` hands the flow to its process without the names that text needs.

from prefect_together.cli.local_prefect import prepare_local_prefect

local = prepare_local_prefect() if __name__ == "__main__" else None  # before Prefect is imported: it reads its settings

from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from prefect_together.execution.settings import Places, RunSettings
from prefect_together.flows.table_run import remembered_plan, run_plan
from prefect_together.request.form import BlockName, LedgerPlace


@flow(name="collect-videos", persist_result=False)
async def collect_videos(
    *,
    output_dir: str = "out",
    max_wait_minutes: Annotated[float, Field(ge=0, le=10_080)] = 5.0,
    credentials_block: BlockName = None,
    ledger: LedgerPlace = None,
    sandbox: bool = False,
    sandbox_speed: Annotated[float, Field(gt=0, le=1000)] = 1.0,
) -> State[Any]:
    """Collect the videos of an output directory that are submitted but not downloaded. Sends no create call.

    Args:
        output_dir: The output directory of the runs that submitted them.
        max_wait_minutes: How long a job is waited for, from now, up to a week (10080); 0 looks once.
        credentials_block: Name of a TogetherCredentials block. Default: TOGETHER_API_KEY of the environment.
        ledger: Path or postgresql:// URL of the ledger. Default: ledger.db in the output directory.
        sandbox: Collect from the local imitation of the service that made them.
        sandbox_speed: How many times faster than usual the sandbox generates, up to 1000.
    """
    places = Places(output_dir, ledger, credentials_block, sandbox, sandbox_speed)
    return await run_plan(
        lambda: remembered_plan(places),
        places=places,
        settings=RunSettings(max_wait_minutes=max_wait_minutes, collect_only=True),
    )


if __name__ == "__main__":
    from prefect_together.cli.flow_script import run_from_shell

    run_from_shell(collect_videos, local=local)
