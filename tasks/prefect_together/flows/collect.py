"""What earlier runs submitted is collected, and nothing sent: the function behind the flow.

Importing it imports no Prefect: the command line is parsed by this signature. `entrypoints` makes it into a flow.
"""

# Annotations are real objects here, not text: Prefect hands a flow to its process without the names that text needs.

from typing import Annotated, Any

from cyclopts import Parameter

from prefect_together.request.form import OUTPUT_DIRECTORY, SANDBOX, TABLE, Closed, CollectLimits, CollectLocations


async def collect_videos(
    *,
    output_dir: Annotated[str, TABLE] = OUTPUT_DIRECTORY,
    sandbox: Annotated[bool, SANDBOX] = False,
    limits: Annotated[CollectLimits, Closed(), Parameter(name="*")] = CollectLimits(),
    locations: Annotated[CollectLocations, Closed(), Parameter(name="*")] = CollectLocations(),
) -> Any:
    """Collect the videos of an output directory that are submitted but not downloaded. Sends no create call.

    Args:
        output_dir: The output directory of the runs that submitted them.
        sandbox: Collect from the local imitation of the service that made them.
        limits: How long the jobs are waited for.
        locations: The key's block and the ledger.
    """
    from prefect_together.execution.settings import RunSettings, TeamDefaults
    from prefect_together.flows.run import last_plan, run_plan

    team = TeamDefaults()
    run_locations = team.locations(output_dir, locations, sandbox=sandbox, ledger=locations.ledger)
    team.log()
    return await run_plan(
        lambda: last_plan(run_locations),
        locations=run_locations,
        settings=RunSettings(
            max_wait_minutes=limits.max_wait_minutes,
            max_clip_bytes=limits.max_clip_megabytes * 1_000_000,
            collect_only=True,
        ),
    )
