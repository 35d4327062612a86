"""One shard of a table, started by `generate_videos` with shards above 1: the function behind the flow.

`entrypoints` makes it into a flow.
"""

# Annotations are real objects here, not text: Prefect hands a flow to its process without the names that text needs.

from typing import Annotated, Any

from pydantic import Field


async def generate_videos_shard(
    plan: str,
    *,
    shard: Annotated[int, Field(ge=2)],
    shards: Annotated[int, Field(ge=2)],
    output_dir: str,
    ledger: str | None = None,
    credentials_block: str | None = None,
    max_in_flight: Annotated[int, Field(ge=1, le=2000)] = 20,
    budget_usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None,
    max_wait_minutes: Annotated[float, Field(gt=0, le=10_080)] = 60.0,
    max_clip_megabytes: Annotated[int, Field(ge=1, le=1_000_000)] = 1000,
    resubmit_in_doubt: bool = False,
    retry_failed: bool = False,
) -> Any:
    """Work on a table together with the run of generate-videos that has read it. Started by that run.

    Args:
        plan: Number of the plan in the ledger.
        shard: Which of the shards this is; number 1 is the run that has the table.
        shards: How many there are, that run included.
        output_dir: The same directory or URL on every machine.
        ledger: The ledger of that run.
        credentials_block: Name of a TogetherCredentials block. Default: TOGETHER_API_KEY of the environment.
        max_in_flight: Jobs at the provider at once, over all shards.
        budget_usd: Cap in dollars over all shards and all runs into this ledger.
        max_wait_minutes: How long a job is waited for.
        max_clip_megabytes: A larger clip is not downloaded, in millions of bytes.
        resubmit_in_doubt: Send rows again whose create call got no answer.
        retry_failed: Send failed rows again.
    """
    from prefect_together.execution.settings import RunLocations, RunSettings, Share
    from prefect_together.shards.shard_run import run_shard

    return await run_shard(
        plan,
        share=Share(shard - 1, shards),
        locations=RunLocations(output_dir, ledger, credentials_block),
        settings=RunSettings(
            max_in_flight=max_in_flight,
            budget_usd=budget_usd,
            max_wait_minutes=max_wait_minutes,
            max_clip_bytes=max_clip_megabytes * 1_000_000,
            resubmit_in_doubt=resubmit_in_doubt,
            retry_failed=retry_failed,
            shards=shards,
        ),
    )
