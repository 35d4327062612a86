"""Videos from a table of prompts, or from one prompt: the functions behind two flows.

Importing it imports no Prefect: the command line is parsed by these signatures. `entrypoints` makes them into flows.
"""

# Annotations are real objects here, not text: Prefect hands a flow to its process without the names that text needs.

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
    ForAllRows,
    Images,
    Limits,
    Locations,
    Model,
    ModelsOrTable,
    VideoLimits,
    VideoLocations,
    VideoParameters,
    for_all_rows,
)
from prefect_together.table.plan import Plan


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
    from prefect_together.execution.settings import RunSettings, TeamDefaults
    from prefect_together.flows.run import run_plan

    def plan() -> Plan:
        return plan_prompts(
            prompts,
            model=model,
            parameters=parameters,
            prompt_template=prompt_template,
            catalogue_checks=limits.catalogue_checks,
            image_directory=locations.image_directory,
            sheet=locations.sheet,
        )

    team = TeamDefaults()
    run_locations = team.locations(output_dir, locations, sandbox=sandbox, ledger=locations.ledger)
    settings = RunSettings(
        max_in_flight=team.max_in_flight(limits.max_in_flight),
        budget_usd=team.budget_usd(budget_usd),
        whole_chains=limits.whole_chains,
        max_wait_minutes=limits.max_wait_minutes,
        max_clip_bytes=limits.max_clip_megabytes * 1_000_000,
        max_inline_characters=limits.max_inline_kilobytes * 1000,
        resubmit_in_doubt=limits.resubmit_in_doubt,
        retry_failed=limits.retry_failed,
        allowed_failures=limits.allowed_failures,
        canary=limits.canary,
        approve_above_usd=limits.approve_above_usd,
        shards=limits.shards,
        new_ledger=locations.new_ledger,
        rebuy=limits.rebuy,
        stop_after=limits.stop_after,
        concurrency_limit=limits.concurrency_limit,
    )
    team.log()
    return await run_plan(plan, locations=run_locations, settings=settings, dry_run=dry_run)


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

    from prefect_together.execution.settings import RunSettings, TeamDefaults
    from prefect_together.flows.run import run_plan

    def plan() -> Plan:
        from prefect_together.table.prompt_table import plan_video

        return plan_video(
            {"prompt": prompt} | for_all_rows(model, parameters),
            images.model_dump(),
            count=count,
            catalogue_checks=limits.catalogue_checks,
        )

    team = TeamDefaults()
    run_locations = team.locations(output_dir, locations, sandbox=sandbox)
    settings = RunSettings(
        budget_usd=team.budget_usd(budget_usd),
        max_in_flight=team.max_in_flight(None),
        max_wait_minutes=limits.max_wait_minutes,
        max_clip_bytes=limits.max_clip_megabytes * 1_000_000,
    )
    team.log()
    return await run_plan(plan, locations=run_locations, settings=settings, dry_run=dry_run)
