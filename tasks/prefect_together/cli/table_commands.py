"""The commands that work on a table without a run: plan, join and recover. They send nothing."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from prefect_together.cli import printing
from prefect_together.cli.run_flow import said_if_slow, team_defaults
from prefect_together.clips.store import redacted
from prefect_together.flows.prompts import plan_prompts
from prefect_together.problems import SettingsInvalid
from prefect_together.request.form import (
    MODELS,
    MONEY,
    OUTPUT_DIRECTORY,
    TABLE,
    Budget,
    ForAllRows,
    ImageDirectory,
    PlanLimits,
    PlanLocations,
    VideoParameters,
)

if TYPE_CHECKING:
    from prefect_together.ledger.view import LedgerView
    from prefect_together.table.plan import Plan


def plan(
    table: Annotated[str, TABLE],
    *,
    model: Annotated[list[str] | None, TABLE, MODELS] = None,
    output_dir: Annotated[str, TABLE] = OUTPUT_DIRECTORY,
    budget_usd: Annotated[Budget, MONEY] = None,
    prompt_template: Annotated[str | None, TABLE] = None,
    parameters: ForAllRows = VideoParameters(),
    limits: Annotated[PlanLimits, Parameter(name="*")] = PlanLimits(),
    locations: Annotated[PlanLocations, Parameter(name="*")] = PlanLocations(),
    as_json: Annotated[bool, Parameter("--json", negative=()), TABLE] = False,
) -> int:
    """Check every row of a table and say what it would cost and take. Sends nothing.

    Args:
        table: Path or URL of the table, or CSV text.
        model: Model for the rows that name none. Several: a video of each.
        output_dir: The output directory of the run: what is there is not counted again, and times are learned from it.
        budget_usd: Say so if the plan may pass this cap.
        prompt_template: Makes each row's prompt from its columns, for example "A {animal} at {place}".
        parameters: Parameters for the rows that do not set them.
        limits: Jobs at the provider at once, for the time, and what is checked.
        locations: The ledger, the directory of images, the workbook's sheet.
        as_json: The plan as JSON.
    """
    from prefect_together.execution.settings import MAX_IN_FLIGHT
    from prefect_together.flows.preview import report_on

    with said_if_slow("reading the table"):
        checked = plan_prompts(
            table,
            model=model,
            prompt_template=prompt_template,
            parameters=parameters,
            limits=limits,
            locations=locations,
        )
    in_flight, budget = limits.max_in_flight or MAX_IN_FLIGHT, budget_usd
    if team := team_defaults():
        output_dir = team.output_dir(output_dir)
        in_flight, budget = team.max_in_flight(limits.max_in_flight), team.budget_usd(budget_usd)
        team.print_note()
    report = asyncio.run(report_on(checked, output_dir, locations.ledger, in_flight, budget_usd=budget))
    printing.print_json(asdict(report)) if as_json else printing.print_plan(report)
    return 0


def join(output_dir: Annotated[str, TABLE], *, ledger: Annotated[str | None, TABLE] = None) -> int:
    """Join the clips of an output directory into the films that the last table names in its column film.

    Free and repeatable: a film is made anew only if one of its clips has changed. Exit code 1 if a clip is missing.

    Args:
        output_dir: The output directory of the runs.
        ledger: Path or postgresql:// URL of the ledger, if it is not in the output directory.
    """
    from prefect_together.clips.remote_store import open_store
    from prefect_together.films.films import Film, make_films

    async def run() -> tuple[str, tuple[Film, ...]]:
        view, _, last = await last_table(output_dir, ledger)
        store = open_store(output_dir)
        films = await make_films(last, view.records, store)
        return store.uri("films").removesuffix("/films"), films

    directory, films = asyncio.run(run())
    if not films:
        raise SettingsInvalid.of(f"no row of the last table into {directory} names a film: column film")
    for line in printing.film_lines(films, output_dir):
        print(line)
    return 1 if any(film.why_old for film in films) else 0


async def last_table(output_dir: str, ledger: str | None) -> tuple[LedgerView, str, Plan]:
    """The ledger of an output directory, and the last table that was run into it: its text there, and its plan.

    Raises SettingsInvalid if there is none.
    """
    from prefect_together.ledger.plans import from_text
    from prefect_together.ledger.view import ledger_of, read_ledger

    view = await read_ledger(ledger_of(output_dir, ledger))
    text = view.table_of(output_dir)
    if text is None:
        raise SettingsInvalid.of(f"{view.url} has no planned table of {redacted(output_dir)}: run it again")
    return view, text, from_text(text, view.records)


def recover(
    output_dir: Annotated[str, TABLE],
    *,
    image_directory: ImageDirectory = None,
) -> int:
    """Rebuild the ledger of a local output directory from its videos.csv and clips. Sends nothing.

    What the ledger knows is left alone.

    Args:
        output_dir: The output directory of the runs.
        image_directory: Where relative image paths start. Default: the output directory.
    """
    from prefect_together.clips.remote_store import open_store
    from prefect_together.ledger.ledger import HERE, LEDGER_FILE, open_ledger
    from prefect_together.results.outputs import VIDEOS_FILE
    from prefect_together.results.recovery import recover as recover_ledger

    store = open_store(output_dir)
    table = store.local_dir / VIDEOS_FILE
    if not store.is_local or not table.is_file():
        raise SettingsInvalid.of(f"no {VIDEOS_FILE} in {redacted(output_dir)} on this machine")
    unchecked, images = PlanLimits(catalogue_checks=False), PlanLocations(image_directory=image_directory)
    wanted = plan_prompts(table, limits=unchecked, locations=images)

    async def run() -> str:
        async with open_ledger(str(store.local_dir / LEDGER_FILE)) as ledger:
            return (await recover_ledger(wanted, ledger, store, output_dir=HERE)).summary

    print(asyncio.run(run()))
    return 0
