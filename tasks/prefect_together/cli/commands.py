"""The command `prefect-together`: runs, the catalogue, plans, the sandbox, and what ledgers say.

Prefect is imported for runs and `credentials` alone: the others answer in a second. Exit codes: 0, it is said; 1, the
service or the ledger did not answer; 2, the command, the table or a setting is wrong, and everything wrong with it is
listed; those of a run are in `run_flow`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from prefect_together.cli.local_prefect import as_program
from prefect_together.cli.run_flow import FUNCTIONS, run_flow, with_standard_input
from prefect_together.clips.store import redacted
from prefect_together.errors import NotConfigured, Problem, SettingsInvalid, TableInvalid, TogetherVideoError
from prefect_together.flows.prompts import plan_prompts
from prefect_together.request.form import VideoParameters
from prefect_together.request.model_spec import Mode

if TYPE_CHECKING:
    from prefect_together.ledger.view import LedgerView

FAILED, INVALID = 1, 2

app = App(
    name="prefect-together",
    help="Together AI's video generation with Prefect: runs, models, plans, ledgers, the sandbox.",
    version_flags=["--version"],
)
for name, flow in (("generate", "generate_videos"), ("video", "generate_video"), ("collect", "collect_videos")):
    app.command(FUNCTIONS[flow], name=name)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line, `words` or that of the process, and return its exit code."""
    given = list(sys.argv[1:] if words is None else words)
    if given[:1] == ["sandbox"]:
        return _serve_sandbox(given[1:])
    try:
        command, bound, _ = app.parse_args(with_standard_input(given), exit_on_error=False, print_error=True)
    except CycloptsError:
        return INVALID
    if FUNCTIONS.get(command.__name__) is command:
        return as_program(lambda: run_flow(command.__name__, bound))
    try:
        return command(*bound.args, **bound.kwargs) or 0
    except (TableInvalid, SettingsInvalid, NotConfigured) as error:
        print(error, file=sys.stderr)
        return INVALID
    except TogetherVideoError as error:
        print(error, file=sys.stderr)
        return FAILED


@app.command
def models(
    *,
    listed: bool = False,
    retired: bool = False,
    mode: Mode | None = None,
    organization: str | None = None,
    max_price: float | None = None,
    live: bool = False,
    as_json: Annotated[bool, Parameter("--json", negative=())] = False,
) -> int:
    """List the known models with their limits and prices.

    Args:
        listed: Only what Together lists today.
        retired: Also models that their makers have shut down.
        mode: Only models that can: t2v (text), i2v (first frame), ref (reference images), v2v, audio ...
        organization: Only this maker's, for example ByteDance.
        max_price: Only models of which one default clip costs at most so many dollars, by the high reading.
        live: Compare with what the service serves now (GET /v1/models; needs TOGETHER_API_KEY), without filters.
        as_json: Everything that is known, as JSON.
    """
    from prefect_together.cli import printing as command_tables
    from prefect_together.cli import printing as model_listing

    if live:
        found = model_listing.live_differences(asyncio.run(_live_models()))
        _print_json(asdict(found)) if as_json else command_tables.print_differences(found)
        return 0
    chosen = model_listing.listed_models(
        listed=listed, retired=retired, mode=mode, organization=organization, max_price_usd=max_price
    )
    _print_json([model.as_dict() for model in chosen]) if as_json else command_tables.print_models(chosen)
    return 0


@app.command
def plan(
    table: str,
    *,
    model: str | None = None,
    parameters: Annotated[VideoParameters | None, Parameter(name="*")] = None,
    output_dir: str | None = None,
    ledger: str | None = None,
    max_in_flight: int = 20,
    budget_usd: float | None = None,
    catalogue_checks: bool = True,
    image_directory: str | None = None,
    sheet: str | None = None,
    as_json: Annotated[bool, Parameter("--json", negative=())] = False,
) -> int:
    """Check every row of a table and say what it would cost and take. Sends nothing.

    Args:
        table: Path or URL of the table, or CSV text.
        model: Model for the rows that name none.
        parameters: Parameters for the rows that do not set them.
        output_dir: The output directory of the run: what is there is not counted again, and times are learned from it.
        ledger: Path or postgresql:// URL of the ledger, if it is not in the output directory.
        max_in_flight: Jobs at the provider at once, for the time.
        budget_usd: Say so if the plan may pass this cap.
        catalogue_checks: Check rows against the known limits of their models.
        image_directory: Where relative image paths start. Default: the directory of the table.
        sheet: Sheet of a workbook. Default: the first visible one with a column prompt.
        as_json: The plan as JSON.
    """
    from prefect_together.cli import printing as command_tables
    from prefect_together.results.plan_report import report_on

    checked = plan_prompts(
        table,
        model=model,
        parameters=parameters,
        catalogue_checks=catalogue_checks,
        image_directory=image_directory,
        sheet=sheet,
    )
    report = asyncio.run(report_on(checked, output_dir, ledger, max_in_flight))
    _print_json(asdict(report)) if as_json else command_tables.print_plan(report, budget_usd=budget_usd)
    return 0


@app.command
def status(
    output_dir: str,
    *,
    ledger: str | None = None,
    as_json: Annotated[bool, Parameter("--json", negative=())] = False,
) -> int:
    """Say how far the videos of an output directory are, what they cost, and what is in doubt. Changes nothing.

    Args:
        output_dir: The output directory of the runs.
        ledger: Path or postgresql:// URL of the ledger, if it is not in the output directory.
        as_json: The whole of it as JSON.
    """
    from prefect_together.cli import printing as command_tables
    from prefect_together.results.outputs import counts_by_status

    view = asyncio.run(_view(output_dir, ledger))
    if as_json:
        about = {"ledger": view.url, "is_sandbox": view.is_sandbox}
        counts = {"by_status": counts_by_status(view.records.values())}
        _print_json({**about, **counts, **asdict(view.totals), **_lists(view)})
    else:
        command_tables.print_status(view)
    return 0


@app.command
def report(output_dir: str, *, ledger: str | None = None) -> int:
    """Write index.html and results.csv again from the ledger, for the table of the last run into the directory.

    Args:
        output_dir: The output directory of the runs.
        ledger: Path or postgresql:// URL of the ledger, if it is not in the output directory.
    """
    from prefect_together.cli import printing as command_tables
    from prefect_together.clips.remote_store import open_store
    from prefect_together.ledger.plans import budget_in, from_text
    from prefect_together.results.outputs import PAGE_FILE, RESULTS_FILE, PageSummary, row_results, write_outputs
    from prefect_together.results.results import totals

    view = asyncio.run(_view(output_dir, ledger))
    text = view.table_of(output_dir)
    last = from_text(text, view.records) if text else None
    if last is None or any(key not in last.videos for row in last.rows for key in row.keys):
        raise SettingsInvalid([Problem(f"{view.url} has no planned table of {output_dir}: run it again")])
    store = open_store(output_dir)
    rows = row_results(last, view.records, store)
    written_at = datetime.now().astimezone().isoformat(timespec="seconds")
    summary = PageSummary(
        table=last.source,
        written_at=written_at,
        budget_usd=budget_in(text) if text else None,
        is_running=bool(view.runs),
        is_sandbox=view.is_sandbox,
        warnings=tuple(str(warning) for warning in last.warnings),
    )
    asyncio.run(write_outputs(store, last, rows, summary))
    written = [store.uri(PAGE_FILE), store.uri(RESULTS_FILE)]
    command_tables.print_totals(totals(rows), written, is_sandbox=view.is_sandbox)
    return 0


@app.command
def recover(
    output_dir: str,
    *,
    model: str | None = None,
    parameters: Annotated[VideoParameters | None, Parameter(name="*")] = None,
    image_directory: str | None = None,
) -> int:
    """Rebuild the ledger of a local output directory from its results.csv and clips. Sends nothing.

    Give the options of the lost run: a row is known again by what it asks for. What the ledger knows is left alone.

    Args:
        output_dir: The output directory of the runs.
        model: Model for the rows that name none.
        parameters: Parameters for the rows that do not set them.
        image_directory: Where relative image paths start. Default: the output directory.
    """
    from prefect_together.clips.remote_store import open_store
    from prefect_together.ledger.ledger import HERE, LEDGER_FILE, open_ledger
    from prefect_together.results.outputs import RESULTS_FILE
    from prefect_together.results.recovery import recover as recover_ledger

    store = open_store(output_dir)
    table = store.scratch / RESULTS_FILE
    if not store.is_local or not table.is_file():
        raise SettingsInvalid([Problem(f"no {RESULTS_FILE} in {redacted(output_dir)} on this machine")])
    wanted = plan_prompts(
        table, model=model, parameters=parameters, catalogue_checks=False, image_directory=image_directory
    )

    async def run() -> str:
        async with open_ledger(str(store.scratch / LEDGER_FILE)) as ledger:
            return (await recover_ledger(wanted, ledger, store, output_dir=HERE)).summary

    print(asyncio.run(run()))
    return 0


@app.command
def view(output_dir: str, *, port: int = 0) -> int:
    """Serve the page and the clips of an output directory, local or remote, on this machine until Ctrl-C.

    Args:
        output_dir: The output directory of the runs, or its fsspec URL (s3://...).
        port: Port on 127.0.0.1. Default: a free one.
    """
    from prefect_together.cli.page_server import serve_page
    from prefect_together.clips.remote_store import open_store
    from prefect_together.results.outputs import PAGE_FILE

    store = open_store(output_dir)
    if PAGE_FILE not in asyncio.run(store.sizes([PAGE_FILE])):
        raise SettingsInvalid([Problem(f"no {PAGE_FILE} in {redacted(output_dir)}: no run has been made into it")])
    try:
        serve_page(store, port=port, on_start=lambda url: print(f"{url}  (Ctrl-C ends it)", flush=True))
    except OSError as error:
        raise SettingsInvalid([Problem(f"port {port} cannot be used: {error.strerror or error}")]) from error
    return 0


@app.command
def sandbox() -> int:
    """Serve a local imitation of the video API until Ctrl-C: `prefect-together sandbox --help` has its options."""
    return _serve_sandbox([])


@app.command
def credentials(name: str, *, overwrite: bool = False) -> int:
    """Save TOGETHER_API_KEY (and TOGETHER_BASE_URL, if set) of the environment as a TogetherCredentials block.

    Args:
        name: The block's name, to be given as credentials_block: small letters, digits and dashes.
        overwrite: Replace the key of a block that is there already.
    """
    from prefect_together.cli.local_prefect import prepare_prefect

    api_key, base_url = os.environ.get("TOGETHER_API_KEY", "").strip(), os.environ.get("TOGETHER_BASE_URL") or None
    if not api_key:
        raise NotConfigured("no API key: set TOGETHER_API_KEY for this command; it is stored encrypted")
    asyncio.run(_try_client(api_key, base_url))
    if not re.fullmatch("[a-z0-9-]+", name):
        raise SettingsInvalid([Problem(f"{name!r} is not a block's name: small letters, digits and dashes")])
    local = prepare_prefect()  # before Prefect is imported: it reads its settings
    from pydantic import SecretStr

    from prefect_together.credentials import TogetherCredentials

    if local is not None:
        local.wait_until_ready()
    try:
        TogetherCredentials(api_key=SecretStr(api_key), base_url=base_url).save(name, overwrite=overwrite)
    except ValueError as error:
        raise SettingsInvalid([Problem(f"there is a block {name} already: --overwrite replaces it")]) from error
    print(f"saved as together-credentials/{name}: give credentials_block={name}")
    return 0


def _serve_sandbox(words: Sequence[str]) -> int:
    from prefect_together.sandbox.__main__ import main as serve

    sys.argv = ["prefect-together sandbox", *words]  # its parser reads the process's own
    return serve()


async def _try_client(api_key: str, base_url: str | None) -> None:
    """Raises NotConfigured for an address that would be refused later; nothing is sent."""
    from prefect_together.api.client import open_client

    async with open_client(api_key=api_key, base_url=base_url):
        pass


async def _live_models() -> object:
    import together

    from prefect_together.api.client import open_client

    async with open_client() as client:
        try:
            return await client.get("/v1/models", cast_to=object)
        except together.TogetherError as error:
            raise TogetherVideoError(f"GET /v1/models: {error}") from error


async def _view(output_dir: str, ledger: str | None) -> LedgerView:
    from prefect_together.ledger.view import ledger_of, read_ledger

    return await read_ledger(ledger_of(output_dir, ledger))


def _lists(view: LedgerView) -> dict[str, Any]:
    """The parts of a view that are lists, for JSON."""
    videos = [
        {
            "row_id": record.row_id,
            "take": record.take,
            "model": record.model,
            "status": record.status,
            "job_id": record.job_id,
            "file": record.file,
            "cost_usd": record.cost_usd,
            "estimate_usd": record.estimate_usd,
            "error": record.error,
        }
        for record in view.records.values()
    ]
    doubts, runs = [asdict(doubt) for doubt in view.doubts], [asdict(run) for run in view.runs]
    return {"in_doubt": doubts, "runs_at_work": runs, "videos": videos}


def _print_json(content: object) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
