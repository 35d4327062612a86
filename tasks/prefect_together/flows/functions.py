"""Videos from a table or one prompt, their collection, a plan, one shard: the functions behind the flows.

Importing it imports no Prefect: the command line is parsed by these signatures. `entrypoints` makes them into flows.
"""

# Annotations are objects, not text: Prefect resolves text without the names of this module, in a process of its own.

import asyncio
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import Field

from prefect_together.flows.prompts import Prompts, plan_prompts
from prefect_together.request.form import (
    MODELS,
    MONEY,
    OUTPUT_DIRECTORY,
    SANDBOX,
    TABLE,
    Budget,
    Closed,
    CollectLimits,
    CollectLocations,
    ForAllRows,
    Images,
    Limits,
    Locations,
    Model,
    ModelsOrTable,
    PlanLimits,
    PlanLocations,
    VideoLimits,
    VideoLocations,
    VideoParameters,
    for_all_rows,
)


async def generate_videos(
    prompts: Annotated[Prompts, TABLE],
    *,
    model: Annotated[ModelsOrTable, TABLE, MODELS] = None,
    output_dir: Annotated[str, TABLE] = OUTPUT_DIRECTORY,
    budget_usd: Annotated[Budget, MONEY] = None,
    sandbox: Annotated[bool, SANDBOX] = False,
    dry_run: Annotated[bool, TABLE] = False,
    prompt_template: Annotated[str, TABLE] = "",
    parameters: ForAllRows = VideoParameters(),
    limits: Annotated[Limits, Closed(), Parameter(name="*")] = Limits(),
    locations: Annotated[Locations, Closed(), Parameter(name="*")] = Locations(),
) -> Any:
    """Turn a table of prompts into a folder of videos; each is paid once, whatever happens.

    Run it again with the same output directory to continue: what is finished is left alone, what is paid is collected.

    Args:
        prompts: The table: its CSV text, pasted, with a header line that has a column prompt; or the path or URL of a
            table (CSV, TSV, JSONL, Parquet, Excel). Prefect takes a pasted table of up to 0.5 MB; larger ones by path.
            In Python also a DataFrame, or what `read_table` gives.
        model: Model for the rows that name none, for example minimax/video-01-director. Several: a video of each.
        output_dir: Directory or fsspec URL (s3://...) for videos/, results.csv, index.html and ledger.db. The same one
            again continues where the last run stopped.
        budget_usd: Cap in dollars over all runs into this ledger, 0 or more; what would pass it is not sent.
        sandbox: Use a local imitation of the service: no key, no cost, clips that show their prompt.
        dry_run: Check the table and say what it costs; send nothing.
        prompt_template: Makes each row's prompt from its columns, for example "A {animal} at {place}".
        parameters: Length, resolution and more, for the rows that do not set them. Of several values there is a video
            for each combination.
        limits: What may be sent, and sent again, how much at once, how long it is waited for.
        locations: The key's block, the ledger, the directory of images, the workbook's sheet.
    """
    from prefect_together.execution.settings import RunSettings
    from prefect_together.flows.run import run_plan
    from prefect_together.flows.team_settings import TeamDefaults

    team = TeamDefaults()
    run_locations = team.locations(output_dir, locations, sandbox=sandbox, ledger=locations.ledger)
    settings = RunSettings.of(
        limits,
        max_in_flight=team.max_in_flight(limits.max_in_flight),
        budget_usd=team.budget_usd(budget_usd),
        new_ledger=locations.new_ledger,
    )
    team.log()
    planning = asyncio.to_thread(
        plan_prompts,
        prompts,
        model=model,
        parameters=parameters,
        prompt_template=prompt_template,
        limits=limits,
        locations=locations,
    )
    return await run_plan(planning, locations=run_locations, settings=settings, dry_run=dry_run)


async def generate_video(
    prompt: Annotated[str, TABLE],
    *,
    model: Annotated[Model, TABLE] = "minimax/video-01-director",
    output_dir: Annotated[str, TABLE] = "out-single",
    budget_usd: Annotated[Budget, MONEY] = None,
    sandbox: Annotated[bool, SANDBOX] = False,
    dry_run: Annotated[bool, TABLE] = False,
    count: Annotated[int, Field(ge=1, le=100), TABLE] = 1,
    images: Annotated[Images, Closed("None"), Parameter(name="*")] = Images(),
    parameters: ForAllRows = VideoParameters(),
    limits: Annotated[VideoLimits, Closed(), Parameter(name="*")] = VideoLimits(),
    locations: Annotated[VideoLocations, Closed(), Parameter(name="*")] = VideoLocations(),
) -> Any:
    """Make one video from a prompt. The same prompt and parameters again are the same video, and not paid again.

    Args:
        prompt: What to show.
        model: The model, for example minimax/video-01-director.
        output_dir: Directory or fsspec URL (s3://...) for videos/, results.csv, index.html and ledger.db.
        budget_usd: Cap in dollars over all runs into this output directory, 0 or more.
        sandbox: Use a local imitation of the service: no key, no cost, a clip that shows its prompt.
        dry_run: Check the parameters and say what it costs; send nothing.
        count: How many takes, 1 to 100.
        images: What the video begins with, ends with or looks like.
        parameters: The API's other parameters: length, resolution and more.
        limits: How long the job is waited for, and what is checked.
        locations: The key's block.
    """
    from prefect_together.execution.settings import RunSettings
    from prefect_together.flows.run import run_plan
    from prefect_together.flows.team_settings import TeamDefaults
    from prefect_together.table.prompt_table import plan_video

    team = TeamDefaults()
    run_locations = team.locations(output_dir, locations, sandbox=sandbox)
    settings = RunSettings.of(limits, budget_usd=team.budget_usd(budget_usd), max_in_flight=team.max_in_flight(None))
    team.log()
    planning = asyncio.to_thread(
        plan_video,
        {"prompt": prompt} | for_all_rows(model, parameters),
        images.model_dump(),
        count=count,
        catalogue_checks=limits.catalogue_checks,
    )
    return await run_plan(planning, locations=run_locations, settings=settings, dry_run=dry_run)


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
    from prefect_together.execution.settings import RunSettings
    from prefect_together.flows.run import last_plan, run_plan
    from prefect_together.flows.team_settings import TeamDefaults

    team = TeamDefaults()
    run_locations = team.locations(output_dir, locations, sandbox=sandbox, ledger=locations.ledger)
    team.log()
    settings = RunSettings.of(limits, collect_only=True)
    return await run_plan(last_plan(run_locations), locations=run_locations, settings=settings)


async def plan_videos(
    prompts: Annotated[Prompts, TABLE],
    *,
    model: Annotated[ModelsOrTable, TABLE, MODELS] = None,
    output_dir: Annotated[str, TABLE] = OUTPUT_DIRECTORY,
    budget_usd: Annotated[Budget, MONEY] = None,
    prompt_template: Annotated[str, TABLE] = "",
    parameters: ForAllRows = VideoParameters(),
    limits: Annotated[PlanLimits, Closed(), Parameter(name="*")] = PlanLimits(),
    locations: Annotated[PlanLocations, Closed(), Parameter(name="*")] = PlanLocations(),
) -> Any:
    """Check every row of a table: what it would make, what that costs, how long it takes. Sends nothing.

    Args:
        prompts: The table: its CSV text, pasted, with a header line that has a column prompt; or the path or URL of a
            table (CSV, TSV, JSONL, Parquet, Excel). Prefect takes a pasted table of up to 0.5 MB; larger ones by path.
        model: Model for the rows that name none, for example minimax/video-01-director. Several: a video of each.
        output_dir: Output directory of the run: what is there is not counted again, and times are learned from it.
        budget_usd: Say whether this cap is enough, in dollars.
        prompt_template: Makes each row's prompt from its columns, for example "A {animal} at {place}".
        parameters: Length, resolution and more, for the rows that do not set them. Of several values there is a video
            for each combination.
        limits: Jobs at the provider at once, and what is checked.
        locations: The ledger, the directory of images, the workbook's sheet.
    """
    from prefect_together.flows.planning import run_planning
    from prefect_together.flows.team_settings import TeamDefaults

    team = TeamDefaults()
    directory = team.output_dir(output_dir)
    in_flight, budget = team.max_in_flight(limits.max_in_flight), team.budget_usd(budget_usd)
    team.log()
    return await run_planning(
        asyncio.to_thread(
            plan_prompts,
            prompts,
            model=model,
            parameters=parameters,
            prompt_template=prompt_template,
            limits=limits,
            locations=locations,
        ),
        output_dir=directory,
        ledger=locations.ledger,
        max_in_flight=in_flight,
        budget_usd=budget,
    )


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
    from prefect_together.execution.settings import Partition, RunLocations, RunSettings
    from prefect_together.shards.shard_run import run_shard

    return await run_shard(
        plan,
        partition=Partition(shard - 1, limits.shards),
        locations=RunLocations(output_dir, locations.ledger, locations.credentials_block),
        settings=RunSettings.of(limits, budget_usd=budget_usd),
    )
