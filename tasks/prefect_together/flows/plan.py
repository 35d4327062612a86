"""A table is checked and priced, and nothing sent: the function behind the flow.

Importing it imports no Prefect: the command line is parsed by this signature. `entrypoints` makes it into a flow.
"""

# Annotations are real objects here, not text: Prefect hands a flow to its process without the names that text needs.

from typing import Annotated, Any

from cyclopts import Parameter

from prefect_together.flows.prompts import Prompts, plan_prompts
from prefect_together.request.form import (
    MODELS,
    MONEY,
    OUTPUT_DIRECTORY,
    TABLE,
    Budget,
    Closed,
    ForAllRows,
    ModelsOrTable,
    PlanLimits,
    PlanLocations,
    VideoParameters,
)


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
    from prefect_together.execution.settings import TeamDefaults
    from prefect_together.flows.plan_report import run_planning

    team = TeamDefaults()
    directory = team.output_dir(output_dir)
    in_flight, budget = team.max_in_flight(limits.max_in_flight), team.budget_usd(budget_usd)
    team.log()
    return await run_planning(
        lambda: plan_prompts(
            prompts,
            model=model,
            parameters=parameters,
            prompt_template=prompt_template,
            catalogue_checks=limits.catalogue_checks,
            image_directory=locations.image_directory,
            sheet=locations.sheet,
        ),
        output_dir=directory,
        ledger=locations.ledger,
        max_in_flight=in_flight,
        budget_usd=budget,
    )
