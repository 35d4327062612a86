"""Checks a table of prompts and says what it would make, cost and take. Sends nothing.

    python flows/plan_videos.py PROMPTS [--model M] [--output-dir DIR] ...

Schedule: none. Secrets: none. In a shell `prefect-together plan` says the same without Prefect.
"""

# Annotations are real objects here, not text: `serve` hands the flow to its process without the names that text needs.

from prefect_together.cli.local_prefect import prepare_local_prefect
from prefect_together.cli.precheck import first_look

looked = first_look() if __name__ == "__main__" else None  # a mistake in the table needs neither Prefect nor a server
local = prepare_local_prefect() if __name__ == "__main__" else None  # before Prefect is imported: it reads its settings

from typing import Annotated, Any

from cyclopts import Parameter
from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from prefect_together.flows.plan_run import run_planning
from prefect_together.request.form import (
    Budget,
    ForAllRows,
    ImageDirectory,
    LedgerPlace,
    ModelOrTable,
    PlannedDirectory,
)
from prefect_together.table.prompt_table import TableToPlan


@flow(name="plan-videos", persist_result=False)
async def plan_videos(
    prompts: str,
    *,
    model: Annotated[ModelOrTable, Parameter(show_choices=False)] = None,
    output_dir: PlannedDirectory = None,
    budget_usd: Budget = None,
    max_in_flight: Annotated[int, Field(ge=1, le=2000)] = 20,
    catalogue_checks: bool = True,
    parameters: ForAllRows = None,
    image_directory: ImageDirectory = None,
    ledger: LedgerPlace = None,
) -> State[Any]:
    """Check every row of a table: what it would make, what that costs, how long it takes. Sends nothing.

    Args:
        prompts: The table: its CSV text, pasted, with a header line that has a column prompt; or the path or URL of a
            table (CSV, TSV, JSONL, Parquet, Excel). Prefect takes a pasted table of up to 0.5 MB; larger ones by path.
        model: Model for the rows that name none, for example minimax/video-01-director.
        output_dir: Output directory of the run: what is there is not counted again, and times are learned from it.
        budget_usd: Say whether this cap is enough, in dollars.
        max_in_flight: Jobs at the provider at once, 1 to 2000, for the time.
        catalogue_checks: Check rows against the known limits of their models.
        parameters: For the rows that do not set them. Empty: the model's own default holds.
        image_directory: Where relative image paths start. Default: the directory of the table.
        ledger: Path or postgresql:// URL of the ledger. Default: ledger.db in the output directory.
    """
    return await run_planning(
        TableToPlan(prompts, model, parameters, catalogue_checks, image_directory),
        output_dir=output_dir,
        ledger=ledger,
        max_in_flight=max_in_flight,
        budget_usd=budget_usd,
    )


if __name__ == "__main__":
    from prefect_together.cli.flow_script import run_from_shell

    run_from_shell(plan_videos, local=local, looked=looked)
