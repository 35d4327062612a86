"""A table is checked and priced, and nothing sent: the function behind the flow.

Importing it imports no Prefect: the command line is parsed by this signature. `entrypoints` makes it into a flow.
"""

# Annotations are real objects here, not text: Prefect hands a flow to its process without the names that text needs.

from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import Field

from prefect_together.flows.prompts import Prompts, plan_prompts
from prefect_together.request.form import (
    LOCATIONS,
    MONEY,
    TABLE,
    WAITING,
    Budget,
    ForAllRows,
    ImageDirectory,
    LedgerPlace,
    ModelOrTable,
    PlannedDirectory,
    Sheet,
)


async def plan_videos(
    prompts: Annotated[Prompts, TABLE],
    *,
    model: Annotated[ModelOrTable, Parameter(show_choices=False), TABLE] = None,
    output_dir: Annotated[PlannedDirectory, TABLE] = None,
    budget_usd: Annotated[Budget, MONEY] = None,
    max_in_flight: Annotated[int, Field(ge=1, le=2000), WAITING] = 20,
    catalogue_checks: Annotated[bool, TABLE] = True,
    parameters: ForAllRows = None,
    image_directory: Annotated[ImageDirectory, TABLE] = None,
    sheet: Annotated[Sheet, TABLE] = None,
    ledger: Annotated[LedgerPlace, LOCATIONS] = None,
) -> Any:
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
        sheet: Sheet of a workbook. Default: the first visible one with a column prompt.
        ledger: Path or postgresql:// URL of the ledger. Default: ledger.db in the output directory.
    """
    from prefect_together.flows.plan_report import run_planning

    return await run_planning(
        lambda: plan_prompts(
            prompts,
            model=model,
            parameters=parameters,
            catalogue_checks=catalogue_checks,
            image_directory=image_directory,
            sheet=sheet,
        ),
        output_dir=output_dir,
        ledger=ledger,
        max_in_flight=max_in_flight,
        budget_usd=budget_usd,
    )
