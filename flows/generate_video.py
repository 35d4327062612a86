"""Makes one video from a prompt, with the same ledger and the same care as a table.

    python flows/generate_video.py "a cat on a drum" --model minimax/video-01-director [--sandbox] ...

Schedule: none. Secrets: TOGETHER_API_KEY in the environment, or a TogetherCredentials block given by its name.
"""

# Annotations are real objects here, not text: `serve` hands the flow to its process without the names that text needs.

from prefect_together.cli.local_prefect import prepare_local_prefect

local = prepare_local_prefect() if __name__ == "__main__" else None  # before Prefect is imported: it reads its settings

import asyncio
from typing import Annotated, Any

from cyclopts import Parameter
from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from prefect_together.execution.settings import Places, RunSettings
from prefect_together.flows.table_run import run_plan
from prefect_together.request.form import BlockName, Budget, ForAllRows, Image, Images, Model, for_all_rows
from prefect_together.table.plan import Plan
from prefect_together.table.prompt_table import plan_video


@flow(name="generate-video", persist_result=False)
async def generate_video(
    prompt: str,
    *,
    model: Annotated[Model, Parameter(show_choices=False)] = "minimax/video-01-director",
    output_dir: str = "out-single",
    dry_run: bool = False,
    sandbox: bool = False,
    first_frame: Image = None,
    last_frame: Image = None,
    reference_images: Images = None,
    count: Annotated[int, Field(ge=1, le=100)] = 1,
    budget_usd: Budget = None,
    credentials_block: BlockName = None,
    max_wait_minutes: Annotated[float, Field(gt=0, le=10_080)] = 60.0,
    catalogue_checks: bool = True,
    parameters: ForAllRows = None,
    sandbox_speed: Annotated[float, Field(gt=0, le=1000)] = 1.0,
) -> State[Any]:
    """Make one video from a prompt. The same prompt and parameters again are the same video, and not bought again.

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
        catalogue_checks: Check against the known limits of the model before anything is sent.
        parameters: The API's other parameters. Empty: the model's own default holds.
        sandbox_speed: How many times faster than usual the sandbox generates, up to 1000.
    """

    async def plan() -> Plan:
        return await asyncio.to_thread(
            plan_video,
            {"prompt": prompt} | for_all_rows(model, parameters),
            first_frame=first_frame,
            last_frame=last_frame,
            reference_images=reference_images or [],
            count=count,
            catalogue_checks=catalogue_checks,
        )

    return await run_plan(
        plan,
        places=Places(output_dir, None, credentials_block, sandbox, sandbox_speed),
        settings=RunSettings(budget_usd=budget_usd, max_wait_minutes=max_wait_minutes),
        dry_run=dry_run,
    )


if __name__ == "__main__":
    from prefect_together.cli.flow_script import run_from_shell

    run_from_shell(generate_video, local=local)
