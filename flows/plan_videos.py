"""Checks a table of prompts and says what it would make, cost and take. Sends nothing.

    python flows/plan_videos.py PROMPTS [--model M] [--output-dir DIR] ...

Schedule: none. Secrets: none. In a shell `prefect-together plan` says the same without Prefect.
"""

# Annotations are real objects here, not text: `serve` hands the flow to its process without the names that text needs.

from prefect_together.local_prefect import prepare_local_prefect

local = prepare_local_prefect() if __name__ == "__main__" else None  # before Prefect is imported: it reads its settings

from typing import Annotated, Any

from cyclopts import Parameter
from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from prefect_together.parameters import VideoParameters
from prefect_together.plan_run import run_planning
from prefect_together.table_run import table_defaults


@flow(name="plan-videos", persist_result=False)
async def plan_videos(
    prompts: str,
    *,
    model: str | None = None,
    parameters: Annotated[VideoParameters | None, Parameter(name="*")] = None,
    output_dir: str | None = None,
    ledger: str | None = None,
    max_in_flight: Annotated[int, Field(ge=1, le=2000)] = 20,
    budget_usd: Annotated[float, Field(ge=0)] | None = None,
    catalogue_checks: bool = True,
    image_directory: str | None = None,
) -> State[Any]:
    """Check every row of a table: what it would make, what that costs, how long it takes. Sends nothing.

    Args:
        prompts: Path or URL of a table (CSV, TSV, JSONL, Parquet, Excel) with a column prompt, or the CSV text itself.
        model: Model for the rows that name none, for example minimax/video-01-director.
        parameters: Parameters for the rows that do not set them.
        output_dir: Output directory of the run: what is there is not counted again, and times are learned from it.
        ledger: Path or postgresql:// URL of the ledger. Default: ledger.db in the output directory.
        max_in_flight: Jobs at the provider at once, for the time.
        budget_usd: Say whether this cap is enough.
        catalogue_checks: Check rows against the known limits of their models.
        image_directory: Where relative image paths start. Default: the directory of the table.
    """
    return await run_planning(
        prompts,
        defaults=table_defaults(model, parameters),
        catalogue_checks=catalogue_checks,
        image_directory=image_directory,
        output_dir=output_dir,
        ledger=ledger,
        max_in_flight=max_in_flight,
        budget_usd=budget_usd,
    )


if __name__ == "__main__":
    from prefect_together.shell import run_from_shell

    run_from_shell(plan_videos, local=local)
