"""What the flows take as `prompts`, and the plan made of it."""

from __future__ import annotations

from os import PathLike, fspath
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import WithJsonSchema

from prefect_together.problems import SettingsInvalid
from prefect_together.request.form import (
    Limits,
    Locations,
    PlanLimits,
    PlanLocations,
    VideoParameters,
    for_all_rows,
)
from prefect_together.table.plan import Plan, make_plan
from prefect_together.table.rows import PromptTable

if TYPE_CHECKING:
    from pandas import DataFrame

    Prompts = str | PathLike[str] | DataFrame | PromptTable | Plan
else:  # a text area in Prefect's form, and a word in a shell
    Prompts = Annotated[Any, WithJsonSchema({"type": "string"})]


class PlannedPrompts(str):
    """A table as the command line names it, with the plan already made of it.

    A string, so that Prefect stores what was typed and does not search the plan for results of tasks.
    """

    plan: Plan

    @classmethod
    def of(cls, prompts: str, plan: Plan) -> PlannedPrompts:
        planned = cls(prompts)
        planned.plan = plan
        return planned


def plan_prompts(
    prompts: Prompts,
    *,
    model: str | list[str] | None = None,
    prompt_template: str | None = None,
    parameters: VideoParameters = VideoParameters(),
    limits: Limits | PlanLimits = PlanLimits(),
    locations: Locations | PlanLocations = PlanLocations(),
) -> Plan:
    """Read and check a table and plan its videos; a table that is planned already is taken as it is.

    Args:
        prompts: Path, URL or text of a table, a DataFrame, a PromptTable (`read_table`), or a Plan.
        model: Model for the rows that name none. Several: a video of each.
        prompt_template: Makes each row's prompt from its columns, such as "A {animal} at {place}".
        parameters: Parameters for the rows that do not set them. Several values: a video for each combination.
        limits: Whether rows are checked against the known limits of their models.
        locations: The directory of images, the workbook's sheet.

    Raises:
        TableInvalid: with every mistake in the table.
        SettingsInvalid: `prompts` is no table, or its rows are checked already and options for rows are given.
    """
    if isinstance(prompts, PlannedPrompts):
        return prompts.plan
    if isinstance(prompts, Plan | PromptTable):
        given = {
            "model": model,
            "prompt_template": prompt_template,
            "parameters": parameters.model_dump(),
            "image_directory": locations.image_directory,
            "sheet": locations.sheet,
        }
        ignored = [name for name, value in given.items() if value]
        if ignored:
            message = f"the rows of a {type(prompts).__name__} are checked already: give {', '.join(ignored)} to"
            raise SettingsInvalid.of(f"{message} read_table, or the table itself to the flow")
        return prompts if isinstance(prompts, Plan) else make_plan(prompts)
    source: Any = fspath(prompts) if isinstance(prompts, PathLike) else prompts
    if not isinstance(source, str) and not hasattr(source, "columns"):
        raise SettingsInvalid.of(f"a table is a path, a URL, text or a DataFrame, not {type(source).__name__}")
    from prefect_together.table.prompt_table import read_table  # with pandas, which no --help waits for

    table = read_table(
        source,
        defaults=for_all_rows(model, parameters, prompt_template=prompt_template),
        catalogue_checks=limits.catalogue_checks,
        image_directory=locations.image_directory,
        sheet=locations.sheet,
    )
    return make_plan(table)
