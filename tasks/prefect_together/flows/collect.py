"""What earlier runs submitted is collected, and nothing sent: the function behind the flow.

Importing it imports no Prefect: the command line is parsed by this signature. `entrypoints` makes it into a flow.
"""

# Annotations are real objects here, not text: Prefect hands a flow to its process without the names that text needs.

from typing import Annotated, Any

from pydantic import Field

from prefect_together.request.form import LOCATIONS, SANDBOX, TABLE, WAITING, BlockName, ClipMegabytes, LedgerPlace


async def collect_videos(
    *,
    output_dir: Annotated[str, TABLE] = "out",
    max_wait_minutes: Annotated[float, Field(ge=0, le=10_080), WAITING] = 5.0,
    credentials_block: Annotated[BlockName, LOCATIONS] = None,
    max_clip_megabytes: Annotated[ClipMegabytes, WAITING] = 1000,
    ledger: Annotated[LedgerPlace, LOCATIONS] = None,
    sandbox: Annotated[bool, SANDBOX] = False,
    sandbox_speed: Annotated[float, Field(gt=0, le=1000), SANDBOX] = 1.0,
) -> Any:
    """Collect the videos of an output directory that are submitted but not downloaded. Sends no create call.

    Args:
        output_dir: The output directory of the runs that submitted them.
        max_wait_minutes: How long a job is waited for, from now, up to a week (10080); 0 polls once.
        credentials_block: Name of a TogetherCredentials block. Default: TOGETHER_API_KEY of the environment.
        max_clip_megabytes: A larger clip is not downloaded, in millions of bytes.
        ledger: Path or postgresql:// URL of the ledger. Default: ledger.db in the output directory.
        sandbox: Collect from the local imitation of the service that made them.
        sandbox_speed: How many times faster than usual the sandbox generates, up to 1000.
    """
    from prefect_together.execution.settings import RunLocations, RunSettings
    from prefect_together.flows.run import last_plan, run_plan

    locations = RunLocations(output_dir, ledger, credentials_block, sandbox, sandbox_speed)
    return await run_plan(
        lambda: last_plan(locations),
        locations=locations,
        settings=RunSettings(
            max_wait_minutes=max_wait_minutes,
            max_clip_bytes=max_clip_megabytes * 1_000_000,
            collect_only=True,
        ),
    )
