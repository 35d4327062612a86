"""Videos from a table of prompts, or from one prompt: the functions behind two flows.

Importing it imports no Prefect: the command line is parsed by these signatures. `entrypoints` makes them into flows.
"""

# Annotations are real objects here, not text: Prefect hands a flow to its process without the names that text needs.

from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import Field

from prefect_together.flows.prompts import Prompts, plan_prompts
from prefect_together.request.form import (
    LOCATIONS,
    MONEY,
    SANDBOX,
    TABLE,
    WAITING,
    ApprovalLimit,
    BlockName,
    Budget,
    ClipMegabytes,
    ForAllRows,
    Image,
    ImageDirectory,
    Images,
    LedgerPlace,
    Model,
    ModelOrTable,
    Sheet,
    for_all_rows,
)
from prefect_together.table.plan import Plan


async def generate_videos(
    prompts: Annotated[Prompts, TABLE],
    *,
    model: Annotated[ModelOrTable, Parameter(show_choices=False), TABLE] = None,
    output_dir: Annotated[str, TABLE] = "out",
    dry_run: Annotated[bool, TABLE] = False,
    sandbox: Annotated[bool, SANDBOX] = False,
    budget_usd: Annotated[Budget, MONEY] = None,
    approve_above_usd: Annotated[ApprovalLimit, MONEY] = None,
    canary: Annotated[bool, MONEY] = False,
    credentials_block: Annotated[BlockName, LOCATIONS] = None,
    retry_failed: Annotated[bool, MONEY] = False,
    resubmit_in_doubt: Annotated[bool, MONEY] = False,
    allowed_failures: Annotated[int, Field(ge=0), WAITING] = 0,
    max_in_flight: Annotated[int, Field(ge=1, le=2000), WAITING] = 20,
    max_wait_minutes: Annotated[float, Field(gt=0, le=10_080), WAITING] = 60.0,
    catalogue_checks: Annotated[bool, TABLE] = True,
    parameters: ForAllRows = None,
    image_directory: Annotated[ImageDirectory, TABLE] = None,
    sheet: Annotated[Sheet, TABLE] = None,
    max_clip_megabytes: Annotated[ClipMegabytes, WAITING] = 1000,
    ledger: Annotated[LedgerPlace, LOCATIONS] = None,
    new_ledger: Annotated[bool, LOCATIONS] = False,
    rebuy: Annotated[bool, MONEY] = False,
    shards: Annotated[int, Field(ge=1, le=100), LOCATIONS] = 1,
    sandbox_speed: Annotated[float, Field(gt=0, le=1000), SANDBOX] = 1.0,
) -> Any:
    """Turn a table of prompts into a folder of videos; each is paid once, whatever happens.

    Run it again with the same output directory to continue: what is finished is left alone, what is paid is collected.

    Args:
        prompts: The table: its CSV text, pasted, with a header line that has a column prompt; or the path or URL of a
            table (CSV, TSV, JSONL, Parquet, Excel). Prefect takes a pasted table of up to 0.5 MB; larger ones by path.
            In Python also a DataFrame, or what `read_table` gives.
        model: Model for the rows that name none, for example minimax/video-01-director.
        output_dir: Directory or fsspec URL (s3://...) for videos/, results.csv, index.html and ledger.db. The same one
            again continues where the last run stopped.
        dry_run: Check the table and say what it costs; send nothing.
        sandbox: Use a local imitation of the service: no key, no cost, clips that show their prompt.
        budget_usd: Cap in dollars over all runs into this ledger, 0 or more; what would pass it is not sent.
        approve_above_usd: If what is newly sent may cost more dollars, the run pauses until approved in the UI.
        canary: Send one video of each model first; if it is not downloaded, nothing more of that model is sent.
        credentials_block: Name of a TogetherCredentials block. Default: TOGETHER_API_KEY of the environment.
        retry_failed: Send failed rows again.
        resubmit_in_doubt: Send rows again whose create call got no answer. They may be paid twice.
        allowed_failures: How many rows may be failed, in doubt or refused before the run's state is Failed; 0 or more.
        max_in_flight: Jobs at the provider at once, 1 to 2000.
        max_wait_minutes: How long a job is waited for, up to a week (10080); what is not done by then is collected by a
            later run.
        catalogue_checks: Check rows against the known limits of their models before anything is sent.
        parameters: For the rows that do not set them. Empty: the model's own default holds.
        image_directory: Where relative image paths start. Default: the directory of the table.
        sheet: Sheet of a workbook. Default: the first visible one with a column prompt.
        max_clip_megabytes: A larger clip is not downloaded, in millions of bytes.
        ledger: Path or postgresql:// URL of the ledger. Default: ledger.db in the output directory.
        new_ledger: Begin a new ledger although the output directory shows paid work that the ledger does not know.
        rebuy: Pay again for rows whose prompt and parameters are paid for under another id.
        shards: Runs that share the table, this one included, on the workers of a Prefect server, 1 to 100;
            max_in_flight and budget_usd hold for all together.
        sandbox_speed: How many times faster than usual the sandbox generates, up to 1000.
    """
    from prefect_together.execution.settings import RunLocations, RunSettings
    from prefect_together.flows.run import run_plan

    def plan() -> Plan:
        return plan_prompts(
            prompts,
            model=model,
            parameters=parameters,
            catalogue_checks=catalogue_checks,
            image_directory=image_directory,
            sheet=sheet,
        )

    return await run_plan(
        plan,
        locations=RunLocations(output_dir, ledger, credentials_block, sandbox, sandbox_speed),
        settings=RunSettings(
            max_in_flight=max_in_flight,
            budget_usd=budget_usd,
            max_wait_minutes=max_wait_minutes,
            max_clip_bytes=max_clip_megabytes * 1_000_000,
            resubmit_in_doubt=resubmit_in_doubt,
            retry_failed=retry_failed,
            allowed_failures=allowed_failures,
            canary=canary,
            approve_above_usd=approve_above_usd,
            shards=shards,
            new_ledger=new_ledger,
            rebuy=rebuy,
        ),
        dry_run=dry_run,
    )


async def generate_video(
    prompt: Annotated[str, TABLE],
    *,
    model: Annotated[Model, Parameter(show_choices=False), TABLE] = "minimax/video-01-director",
    output_dir: Annotated[str, TABLE] = "out-single",
    dry_run: Annotated[bool, TABLE] = False,
    sandbox: Annotated[bool, SANDBOX] = False,
    first_frame: Annotated[Image, TABLE] = None,
    last_frame: Annotated[Image, TABLE] = None,
    reference_images: Annotated[Images, TABLE] = None,
    count: Annotated[int, Field(ge=1, le=100), TABLE] = 1,
    budget_usd: Annotated[Budget, MONEY] = None,
    credentials_block: Annotated[BlockName, LOCATIONS] = None,
    max_wait_minutes: Annotated[float, Field(gt=0, le=10_080), WAITING] = 60.0,
    max_clip_megabytes: Annotated[ClipMegabytes, WAITING] = 1000,
    catalogue_checks: Annotated[bool, TABLE] = True,
    parameters: ForAllRows = None,
    sandbox_speed: Annotated[float, Field(gt=0, le=1000), SANDBOX] = 1.0,
) -> Any:
    """Make one video from a prompt. The same prompt and parameters again are the same video, and not paid again.

    Args:
        prompt: What to show.
        model: The model, for example minimax/video-01-director.
        output_dir: Directory or fsspec URL (s3://...) for videos/, results.csv, index.html and ledger.db.
        dry_run: Check the parameters and say what it costs; send nothing.
        sandbox: Use a local imitation of the service: no key, no cost, a clip that shows its prompt.
        first_frame: Image to begin with: a URL, or a file below the working directory.
        last_frame: Image to end with, on models that take one.
        reference_images: Images for the look of the whole clip, on models that take them.
        count: How many takes, 1 to 100.
        budget_usd: Cap in dollars over all runs into this output directory, 0 or more.
        credentials_block: Name of a TogetherCredentials block. Default: TOGETHER_API_KEY of the environment.
        max_wait_minutes: How long the job is waited for, up to a week (10080); after that a later run collects it.
        max_clip_megabytes: A larger clip is not downloaded, in millions of bytes.
        catalogue_checks: Check against the known limits of the model before anything is sent.
        parameters: The API's other parameters. Empty: the model's own default holds.
        sandbox_speed: How many times faster than usual the sandbox generates, up to 1000.
    """

    from prefect_together.execution.settings import RunLocations, RunSettings
    from prefect_together.flows.run import run_plan

    def plan() -> Plan:
        from prefect_together.table.prompt_table import plan_video

        return plan_video(
            {"prompt": prompt} | for_all_rows(model, parameters),
            first_frame=first_frame,
            last_frame=last_frame,
            reference_images=reference_images or [],
            count=count,
            catalogue_checks=catalogue_checks,
        )

    return await run_plan(
        plan,
        locations=RunLocations(output_dir, None, credentials_block, sandbox, sandbox_speed),
        settings=RunSettings(
            budget_usd=budget_usd,
            max_wait_minutes=max_wait_minutes,
            max_clip_bytes=max_clip_megabytes * 1_000_000,
        ),
        dry_run=dry_run,
    )
