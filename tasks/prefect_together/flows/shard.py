"""One shard of a table, started by `generate_videos` with shards above 1: the function behind the flow.

`entrypoints` makes it into a flow.
"""

# Annotations are real objects here, not text: Prefect hands a flow to its process without the names that text needs.

from typing import Annotated, Any

from pydantic import Field

from prefect_together.request.form import CollectLocations, Limits


async def generate_videos_shard(
    plan: str,
    *,
    shard: Annotated[int, Field(ge=2)],
    output_dir: str,
    budget_usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None,
    limits: Limits,
    locations: CollectLocations = CollectLocations(),
) -> Any:
    """Work on a table together with the run of generate-videos that has read it. Started by that run.

    Args:
        plan: Number of the plan in the ledger.
        shard: Which of the shards this is; number 1 is the run that has the table.
        output_dir: The same directory or URL on every machine.
        budget_usd: Cap in dollars over all shards and all runs into this ledger.
        limits: Those of that run; its shards include that run.
        locations: The key's block and the ledger of that run.
    """
    from prefect_together.execution.settings import MAX_IN_FLIGHT, Partition, RunLocations, RunSettings
    from prefect_together.shards.shard_run import run_shard

    return await run_shard(
        plan,
        partition=Partition(shard - 1, limits.shards),
        locations=RunLocations(output_dir, locations.ledger, locations.credentials_block),
        settings=RunSettings(
            max_in_flight=limits.max_in_flight or MAX_IN_FLIGHT,
            budget_usd=budget_usd,
            max_wait_minutes=limits.max_wait_minutes,
            max_clip_bytes=limits.max_clip_megabytes * 1_000_000,
            max_inline_characters=limits.max_inline_kilobytes * 1000,
            resubmit_in_doubt=limits.resubmit_in_doubt,
            retry_failed=limits.retry_failed,
            shards=limits.shards,
            concurrency_limit=limits.concurrency_limit,
        ),
    )
