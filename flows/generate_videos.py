"""Turns a table of prompts into a folder of videos.

    python flows/generate_videos.py PROMPTS --output-dir DIR [--model M] [--sandbox] ...

Schedule: none of its own; deployments/prefect.yaml has one. Secrets: TOGETHER_API_KEY in the environment, or a
TogetherCredentials block given by its name.
"""

# Annotations are real objects here, not text: `serve` hands the flow to its process without the names that text needs.

from typing import Annotated, Any

from prefect_together.cli.local_prefect import prepare_local_prefect
from prefect_together.cli.precheck import first_look

looked = first_look() if __name__ == "__main__" else None  # a mistake in the table needs neither Prefect nor a server
local = prepare_local_prefect() if __name__ == "__main__" else None  # before Prefect is imported: it reads its settings

from cyclopts import Parameter
from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from prefect_together.execution.settings import Places, RunSettings
from prefect_together.flows.table_run import run_table
from prefect_together.request.form import (
    ApprovalLimit,
    BlockName,
    Budget,
    ForAllRows,
    ImageDirectory,
    LedgerPlace,
    ModelOrTable,
)


@flow(name="generate-videos", validate_parameters=True, persist_result=False)
async def generate_videos(
    prompts: str,
    *,
    model: Annotated[ModelOrTable, Parameter(show_choices=False)] = None,
    output_dir: str = "out",
    dry_run: bool = False,
    sandbox: bool = False,
    budget_usd: Budget = None,
    approve_above_usd: ApprovalLimit = None,
    canary: bool = False,
    credentials_block: BlockName = None,
    retry_failed: bool = False,
    resubmit_in_doubt: bool = False,
    allowed_failures: Annotated[int, Field(ge=0)] = 0,
    max_in_flight: Annotated[int, Field(ge=1, le=2000)] = 20,
    max_wait_minutes: Annotated[float, Field(gt=0, le=10_080)] = 60.0,
    catalogue_checks: bool = True,
    parameters: ForAllRows = None,
    image_directory: ImageDirectory = None,
    ledger: LedgerPlace = None,
    shards: Annotated[int, Field(ge=1, le=100)] = 1,
    sandbox_speed: Annotated[float, Field(gt=0, le=1000)] = 1.0,
) -> State[Any]:
    """Turn a table of prompts into a folder of videos; each is paid once, whatever happens.

    Run it again with the same output directory to go on: what is finished is left alone, what is paid is collected.

    Args:
        prompts: The table: its CSV text, pasted, with a header line that has a column prompt; or the path or URL of a
            table (CSV, TSV, JSONL, Parquet, Excel). Prefect takes a pasted table of up to 0.5 MB; larger ones by path.
        model: Model for the rows that name none, for example minimax/video-01-director.
        output_dir: Directory or fsspec URL (s3://...) for videos/, results.csv, index.html and ledger.db. The same one
            again goes on where the last run stopped.
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
        ledger: Path or postgresql:// URL of the ledger. Default: ledger.db in the output directory.
        shards: Runs that share the table, this one included, on the workers of a Prefect server, 1 to 100;
            max_in_flight and budget_usd hold for all together.
        sandbox_speed: How many times faster than usual the sandbox generates, up to 1000.
    """
    return await run_table(
        prompts,
        model=model,
        parameters=parameters,
        catalogue_checks=catalogue_checks,
        image_directory=image_directory,
        dry_run=dry_run,
        places=Places(output_dir, ledger, credentials_block, sandbox, sandbox_speed),
        settings=RunSettings(
            max_in_flight=max_in_flight,
            budget_usd=budget_usd,
            max_wait_minutes=max_wait_minutes,
            resubmit_in_doubt=resubmit_in_doubt,
            retry_failed=retry_failed,
            allowed_failures=allowed_failures,
            canary=canary,
            approve_above_usd=approve_above_usd,
            shards=shards,
        ),
    )


if __name__ == "__main__":
    from prefect_together.cli.flow_script import run_from_shell

    run_from_shell(generate_videos, local=local, looked=looked)
